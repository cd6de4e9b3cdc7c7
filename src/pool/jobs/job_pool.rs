//! The handle of a pool that serves jobs.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::quarantine::Quarantine;
use super::shared::Shared;
use super::stats::JobStats;
use super::submit::{Detached, Submit};
use crate::pool::handle::Pool;

/// A handle of a pool that serves a queue of jobs: `J` is a job, `R` its answer, `E` the handler's error. Cheap to clone, `Send` and
/// `Sync`.
///
/// It derefs to [`Pool`]: it can be scaled, paused, drained and stopped as every pool can.
///
/// - While the pool is paused, jobs are queued and none begins.
/// - [Drained](Pool::drain), it takes nothing new, and does what is queued until the deadline.
/// - [Stopped](Pool::stop), it answers at once all that has not begun, and hands it back; what runs may finish until the deadline.
/// - When the keeper stops, the pool is drained, and stopped shortly before the keeper's deadline.
/// - If it [fails](crate::PoolState::Failed), or all its workers have ended for good, everything is answered, and new jobs are handed back
///   until it is resumed or scaled up.
/// - With no workers, [scaled](Pool::scale) to 0, or while its lease is elsewhere, it is as if paused: jobs are queued, and wait until there are
///   workers, or until their deadlines.
///
/// The queue lives in memory: what is in it is gone with the process.
pub struct JobPool<J, R, E> {
    pool: Pool,
    shared: Arc<Shared<J, R, E>>,
}

impl<J, R, E> JobPool<J, R, E> {
    pub(super) fn new(pool: Pool, shared: Arc<Shared<J, R, E>>) -> Self {
        Self { pool, shared }
    }

    /// Submits a job, to be awaited for its answer. See [`Submit`]: it takes a deadline, and can be detached.
    ///
    /// Awaited by a handler of the same pool, which could wait for itself, it answers [`JobError::InsideWorker`](crate::JobError::InsideWorker)
    /// at once. Use another pool for what jobs wait for.
    ///
    /// # Errors
    ///
    /// See [`JobError`](crate::JobError).
    pub fn submit(&self, job: J) -> Submit<J, R, E> {
        Submit::new(Arc::clone(&self.shared), job)
    }

    /// Submits a job whose answer nobody waits for: the future ends when it is queued, with its number. The same as
    /// [`submit`](Self::submit)`(job).`[`detach`](Submit::detach)`()`.
    ///
    /// # Errors
    ///
    /// See [`JobError`](crate::JobError): those of a job that was not taken, with the job.
    pub fn submit_and_forget(&self, job: J) -> Detached<J, R, E> {
        self.submit(job).detach()
    }

    /// The jobs that were put aside since they panicked too often.
    #[must_use]
    pub fn quarantine(&self) -> Quarantine<J, R, E> {
        Quarantine {
            shared: Arc::clone(&self.shared),
        }
    }

    /// What a person would want to look up about the jobs. [`Pool::stats`] has it too, with all about the workers.
    #[must_use]
    pub fn job_stats(&self) -> JobStats {
        self.shared.stats()
    }

    /// The pool, as one that serves any jobs or none.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

impl<J, R, E> Deref for JobPool<J, R, E> {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.pool
    }
}

impl<J, R, E> Clone for JobPool<J, R, E> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<J, R, E> fmt::Debug for JobPool<J, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobPool")
            .field("name", &self.pool.name())
            .field("state", &self.pool.state())
            .field("jobs", &self.shared.stats())
            .finish_non_exhaustive()
    }
}
