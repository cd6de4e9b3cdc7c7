//! The quarantine of a pool whose jobs are of a type that nobody knows here: for operators, and for messages.

use serde::Serialize;

use super::id::JobId;
use crate::error::{JobPanic, RetryError};
use crate::pool::handle::Pool;

/// A job in quarantine, without what was submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QuarantineEntry {
    /// Its number.
    pub id: JobId,
    /// How it panicked last, when, and how often in all.
    pub panic: JobPanic,
}

impl QuarantineEntry {
    pub(super) fn new(id: JobId, panic: JobPanic) -> Self {
        Self { id, panic }
    }
}

/// For pools that serve jobs; others have none.
impl Pool {
    /// All jobs in quarantine, the longest there first. [`Quarantine::list`](crate::Quarantine::list) has the jobs themselves too.
    #[must_use]
    pub fn quarantined(&self) -> Vec<QuarantineEntry> {
        let feed = self.shared.feed.as_ref();
        feed.map_or_else(Vec::new, |feed| feed.quarantined())
    }

    /// Has a job in quarantine begun again, as [`Quarantine::retry`](crate::Quarantine::retry) does.
    ///
    /// # Errors
    ///
    /// See [`RetryError`]; the job stays where it is.
    pub fn retry_quarantined(&self, job: JobId) -> Result<(), RetryError> {
        let feed = self.shared.feed.as_ref();
        feed.map_or(Err(RetryError::Unknown(job)), |feed| feed.retry(job))
    }

    /// Takes a job out of quarantine for good, and drops it; `false` if it is not there.
    pub fn drop_quarantined(&self, job: JobId) -> bool {
        let feed = self.shared.feed.as_ref();
        feed.is_some_and(|feed| feed.discard(job))
    }
}
