//! What may be asked of the lock table.

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Message;

use crate::actors::lock_table::{LockGuard, Locker};
use crate::locks::{Conflict, DetectReport, LimitKind, LockStats, LockerId, Mode, Object};

/// How long a request may wait for its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Wait {
    /// As long as the table's `lock_timeout` says (5 s by default). This is the default.
    #[default]
    Default,
    /// Not at all.
    No,
    /// Until this instant.
    Until(Instant),
    /// So long, counted from when the request begins to wait.
    For(Duration),
    /// For ever. A deadlock still ends the wait.
    Forever,
}

/// Why a lock was not granted.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The wait closed a cycle of waits, and this locker was chosen to break it. Its locks are still
    /// held: release them all, wait until [`LockError::older`] have ended, and begin again with
    /// the same age.
    #[error("deadlock: {0}")]
    Deadlock(Arc<Conflict>),
    /// The wait has reached its deadline. Locks that are held stay held.
    #[error("lock timeout: {0}")]
    Timeout(Arc<Conflict>),
    /// The request did not want to wait. Locks that are held stay held.
    #[error("lock not available: {0}")]
    NotAvailable(Arc<Conflict>),
    /// The lock table is full. Raise the setting, or hold less at one time; what is held stays held.
    #[error("the lock table has reached its limit of {value} {which}; {} raises it", which.setting())]
    Limit {
        /// What there would be too much of.
        which: LimitKind,
        /// The limit.
        value: usize,
    },
    /// The locker has ended, or was a victim and has not released its locks yet.
    #[error(
        "the locker has ended, or was the victim of a deadlock and has to release all of its locks first"
    )]
    Ended,
    /// The lock table is being shut down.
    #[error("the lock table is shutting down")]
    ShuttingDown,
}

impl LockError {
    /// Whether the same work may succeed if it is done again from its start: true for a deadlock and
    /// a timeout.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, LockError::Deadlock(_) | LockError::Timeout(_))
    }

    /// The report, if there was a conflict.
    #[must_use]
    pub fn conflict(&self) -> Option<&Arc<Conflict>> {
        match self {
            LockError::Deadlock(conflict)
            | LockError::Timeout(conflict)
            | LockError::NotAvailable(conflict) => Some(conflict),
            _ => None,
        }
    }

    /// The older families of the cycle whose victim this was; empty for all other errors.
    #[must_use]
    pub fn older(&self) -> &[LockerId] {
        match self {
            LockError::Deadlock(conflict) => &conflict.older,
            _ => &[],
        }
    }
}

/// Takes a lock, waiting for it if need be.
///
/// Anyone sends it, the lock table answers with a guard that releases the lock when dropped, also
/// when nobody reads the answer. Requests for one object are served in the order in which they come.
/// If the sender goes away while the request waits, it is withdrawn.
#[derive(Debug, Message)]
#[rtype(result = "Result<LockGuard, LockError>")]
pub struct Acquire {
    /// What to lock.
    pub object: Object,
    /// How.
    pub mode: Mode,
    /// How long to wait.
    pub wait: Wait,
    /// For whom; `None` makes a locker for this lock alone, which ends with the guard.
    pub locker: Option<Arc<Locker>>,
    /// The line of code that asks.
    pub site: &'static Location<'static>,
}

impl Acquire {
    /// Asks for the object in this mode, for a locker of its own, waiting as long as the table's
    /// `lock_timeout` says.
    #[track_caller]
    #[must_use]
    pub fn new(object: Object, mode: Mode) -> Self {
        Self {
            object,
            mode,
            wait: Wait::Default,
            locker: None,
            site: Location::caller(),
        }
    }

    /// Sets how long to wait (default: the table's `lock_timeout`).
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Asks for a locker that exists already.
    #[must_use]
    pub fn locker(mut self, locker: Arc<Locker>) -> Self {
        self.locker = Some(locker);
        self
    }
}

/// Releases a lock; the answer is whether it was held.
///
/// Anyone sends it, the lock table answers after the lock is free. Dropping a guard does the same at
/// once, without a message.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub enum Release {
    /// The lock of this guard.
    Guard(LockGuard),
    /// A lock of a locker.
    Lock {
        /// Whose.
        locker: Arc<Locker>,
        /// On what.
        object: Object,
        /// In which mode.
        mode: Mode,
    },
}

impl Release {
    /// Does it on the calling thread.
    pub(crate) fn in_place(self) -> bool {
        match self {
            Self::Guard(guard) => guard.release(),
            Self::Lock {
                locker,
                object,
                mode,
            } => locker.unlock(&object, mode),
        }
    }
}

/// Looks for deadlocks now, and breaks them. Anyone sends it; the lock table answers with what it found.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "DetectReport")]
pub struct Detect;

/// Asks for the lock table's statistics. Anyone sends it.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "LockStats")]
pub struct LockStatsQuery;
