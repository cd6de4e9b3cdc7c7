//! What a pool is told about its jobs.

use std::sync::Arc;

use super::job::Job;
use super::job_pool::JobPool;
use super::on_full::OnFull;
use super::queue::Rules;
use super::serve;
use super::shared::Shared;
use crate::error::PoolError;
use crate::pool::body::Body;
use crate::pool::handle::Pool;
use crate::pool::seams::Feed;
use crate::pool::{PoolBuilder, Worker};

/// What a pool is told about its jobs.
pub(in crate::pool) struct JobOptions {
    rules: Rules,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            rules: Rules {
                capacity: 1024,
                on_full: OnFull::default(),
                quarantine_after: None,
                quarantine_limit: 1000,
            },
        }
    }
}

/// For pools that serve jobs.
impl PoolBuilder {
    /// How many jobs may be queued, at least one; what runs does not count. Only for pools that [serve](Self::serve) jobs. Default: 1,024.
    pub fn queue(mut self, jobs: usize) -> Self {
        self.jobs.rules.capacity = jobs;
        self
    }

    /// What happens to a job that finds the queue full. Default: it waits for a place, at most for 30 s.
    pub fn when_full(mut self, on_full: OnFull) -> Self {
        self.jobs.rules.on_full = on_full;
        self
    }

    /// Has a job that panicked begun again, behind what is queued, until it has panicked so often in a row; then its submitter is answered
    /// with the last panic, and it is put aside ([`JobPool::quarantine`]). With 1 the first panic does so. Default: a job that panicked is
    /// answered, and neither begun again nor put aside.
    ///
    /// A job is not begun again either when nobody waits for it any more, when its deadline has passed, or when the pool stops; then
    /// its submitter is answered with the panic. Each panic is a failure of its worker too, and counts against the
    /// [`intensity`](Self::intensity) of the pool.
    pub fn quarantine_after(mut self, panics: u32) -> Self {
        self.jobs.rules.quarantine_after = Some(panics);
        self
    }

    /// How many jobs may be in quarantine. One that finds it full is not put aside: see [`Quarantine`](crate::Quarantine). Default: 1,000.
    pub fn quarantine_limit(mut self, jobs: usize) -> Self {
        self.jobs.rules.quarantine_limit = jobs;
        self
    }

    /// Starts a pool that serves a queue of jobs: each worker takes one after the other and answers it with what `handler` makes of
    /// it. Handlers are tasks on the threads of the keeper's pools, and must not block.
    ///
    /// An `Err` of the handler is the answer of the job, and the worker goes on. A panic is a failure of the worker, which is started again as the
    /// pool's options say, and the answer of the job too: [`JobError::Panicked`](crate::JobError::Panicked).
    ///
    /// A worker that waits for jobs gives heartbeats by itself. One that runs a job has to ([`Worker::heartbeat`] by [`Job::worker`]) if that takes longer
    /// than the pool allows.
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// # use lockkeeper::{Job, Keeper};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let keeper = Keeper::open(folder.path())?;
    /// let lengths = keeper
    ///     .pool("lengths")
    ///     .workers(2)
    ///     .queue(100)
    ///     .serve(|job: Job<String>| async move { Ok::<_, Infallible>(job.len()) })?;
    /// assert_eq!(lengths.submit("pears".to_owned()).await?, 5);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), and [`PoolError::BadOption`] for a queue of no length or a quarantine after no panic.
    pub fn serve<J, R, E, F, Fut>(self, handler: F) -> Result<JobPool<J, R, E>, PoolError>
    where
        J: Send + Sync + 'static,
        R: Send + 'static,
        E: Send + 'static,
        F: Fn(Job<J>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
    {
        let shared = self.shared()?;
        let (for_workers, handler) = (Arc::clone(&shared), Arc::new(handler));
        let beat = self.beat();
        let body = Body::asynchronous(move |worker: Worker| {
            let (shared, handler) = (Arc::clone(&for_workers), Arc::clone(&handler));
            async move {
                serve::asynchronous(&shared, &worker, beat, &*handler).await;
                Ok(())
            }
        });
        self.serve_with(body, shared)
    }

    /// Starts a pool that serves a queue of jobs as [`serve`](Self::serve) does, on threads: each worker has one of its own, and may block.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub fn serve_blocking<J, R, E, F>(self, handler: F) -> Result<JobPool<J, R, E>, PoolError>
    where
        J: Send + Sync + 'static,
        R: Send + 'static,
        E: Send + 'static,
        F: Fn(Job<J>) -> Result<R, E> + Send + Sync + 'static,
    {
        let shared = self.shared()?;
        let for_workers = Arc::clone(&shared);
        let beat = self.beat();
        let body = Body::blocking(move |worker: Worker| {
            serve::blocking(&for_workers, &worker, beat, &handler);
            Ok(())
        });
        self.serve_with(body, shared)
    }

    fn shared<J, R, E>(&self) -> Result<Arc<Shared<J, R, E>>, PoolError> {
        let rules = self.jobs.rules;
        let bad = |option, expected| Err(PoolError::BadOption { option, expected });
        if rules.capacity == 0 {
            return bad("queue", "at least 1");
        }
        if rules.quarantine_after == Some(0) {
            return bad("quarantine_after", "at least 1");
        }
        let (env, clock) = (self.keeper.env_id(), self.keeper.clock());
        let name = Arc::clone(&self.name);
        Ok(Arc::new(Shared::new(name, env, clock, rules)))
    }

    /// How often a worker that waits for a job says that it goes on.
    fn beat(&self) -> Option<std::time::Duration> {
        self.spec.heartbeat.map(|(within, _)| within / 3)
    }

    fn serve_with<J, R, E>(
        self,
        body: Body,
        shared: Arc<Shared<J, R, E>>,
    ) -> Result<JobPool<J, R, E>, PoolError>
    where
        J: Send + Sync + 'static,
        R: Send + 'static,
        E: Send + 'static,
    {
        let feed: Arc<dyn Feed> = Arc::clone(&shared) as _;
        let pool = self.launch(body, Some(feed))?;
        Ok(JobPool::new(Pool::new(pool), shared))
    }
}
