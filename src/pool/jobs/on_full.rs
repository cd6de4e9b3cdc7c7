//! What happens to a job that finds the queue full.

use std::time::Duration;

/// What happens to a job that is submitted while the queue of its pool is full (ractor's discard modes, Java's rejection
/// policies).
///
/// It is not [`WhenFull`](crate::WhenFull), which is a setting for transactions: those can be refused, but never dropped for others, and
/// they wait until their deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFull {
    /// It waits for a place, first come first served, at most so long; then it is handed back with
    /// [`JobError::Full`](crate::JobError::Full). The default is this, for 30 s.
    Wait(Duration),
    /// It is handed back at once with [`JobError::Full`](crate::JobError::Full).
    Refuse,
    /// It takes the place of the job that has been queued longest, which is handed back to whoever waits for it with
    /// [`JobError::Dropped`](crate::JobError::Dropped).
    DropOldest,
    /// It is dropped itself, since it is the newest: handed back to whoever waits for it with
    /// [`JobError::Dropped`](crate::JobError::Dropped), and counted as dropped, not as refused. To whoever forgets it
    /// ([`submit_and_forget`](crate::JobPool::submit_and_forget)) this is no error, but the answer `None`.
    DropNewest,
}

impl Default for OnFull {
    fn default() -> Self {
        Self::Wait(Duration::from_secs(30))
    }
}
