//! A job in the hands of its handler.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::id::JobId;
use super::queue::Begun;
use crate::keeper::Keeper;
use crate::pool::Worker;

/// A job in the hands of its handler: it derefs to what was submitted.
///
/// The job itself is shared with the pool, which may have to begin it again.
pub struct Job<J> {
    job: Arc<J>,
    begun: Begun,
    worker: Worker,
}

impl<J> Job<J> {
    pub(super) fn new(job: Arc<J>, begun: Begun, worker: Worker) -> Self {
        Self { job, begun, worker }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> JobId {
        self.begun.id
    }

    /// 1 for its first run, one more after each panic. In a job that is retried from the quarantine it begins at 1 again.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.begun.attempt
    }

    /// When its submitter is answered at the latest, if it was given a deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.begun.deadline
    }

    /// How much time it has left, if it was given a deadline; zero when that has passed.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.begun.deadline?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// The worker that runs it.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The keeper of the pool.
    #[must_use]
    pub fn keeper(&self) -> &Keeper {
        self.worker.keeper()
    }

    /// Is cancelled when the worker is told to stop. The job may still be finished within the pool's grace, or the deadline of the stop.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        self.worker.stop()
    }

    /// What was submitted, to be kept beyond the handler.
    #[must_use]
    pub fn share(&self) -> Arc<J> {
        Arc::clone(&self.job)
    }
}

impl<J> Deref for Job<J> {
    type Target = J;

    fn deref(&self) -> &J {
        &self.job
    }
}

impl<J> fmt::Debug for Job<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id())
            .field("attempt", &self.attempt())
            .field("worker", &self.worker.number())
            .finish_non_exhaustive()
    }
}
