//! The quarantine as people see it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::id::JobId;
use super::shared::Shared;
use crate::error::{JobPanic, RetryError};

/// The jobs of a pool that panicked so often in a row that they were put aside (`quarantine_after`), until somebody decides about
/// them. It lives in memory, as the queue does, and holds as many jobs as `quarantine_limit` says (1,000 by default).
///
/// What finds it full is not put aside: its submitter is answered the panic without a number, it is counted, and logged as an error. So
/// what is in quarantine stays there until it is [retried](Self::retry) and done, or [dropped](Self::drop).
pub struct Quarantine<J, R, E> {
    pub(super) shared: Arc<Shared<J, R, E>>,
}

/// A job in quarantine.
#[derive(Debug)]
#[non_exhaustive]
pub struct QuarantinedJob<J> {
    /// Its number.
    pub id: JobId,
    /// The job.
    pub job: Arc<J>,
    /// How often it has panicked in all.
    pub panics: u32,
    /// When it panicked last, by the wall clock.
    pub at: SystemTime,
    /// How.
    pub panic: JobPanic,
}

impl<J> QuarantinedJob<J> {
    pub(super) fn new(id: JobId, job: Arc<J>, panic: JobPanic) -> Self {
        Self {
            id,
            job,
            panics: panic.panics,
            at: panic.at,
            panic,
        }
    }
}

impl<J, R, E> Quarantine<J, R, E> {
    /// All that is in quarantine, the longest there first. What is being retried is not among it.
    #[must_use]
    pub fn list(&self) -> Vec<QuarantinedJob<J>> {
        self.shared.quarantined()
    }

    /// Has a job begun again, behind what is queued. Nobody waits for it, it has no deadline, and its panics in a row count anew. Until it
    /// is done its place is kept: if it panics too often again, or the pool stops before, it is back.
    ///
    /// # Errors
    ///
    /// See [`RetryError`]; the job stays where it is.
    pub fn retry(&self, id: JobId) -> Result<(), RetryError> {
        self.shared.retry(id)
    }

    /// Takes a job out for good, and hands it over; `None` if it is not there.
    pub fn drop(&self, id: JobId) -> Option<QuarantinedJob<J>> {
        self.shared.discard(id)
    }
}

impl<J, R, E> Clone for Quarantine<J, R, E> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<J, R, E> fmt::Debug for Quarantine<J, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarantine")
            .field("pool", &self.shared.name)
            .finish_non_exhaustive()
    }
}
