//! [`PoolBuilder`]: describes a pool and starts it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::body::{Body, Outcome};
use super::handle::Pool;
use super::jobs::JobOptions;
use super::partition::LeaseGates;
use super::seams::Feed;
use super::shared::{Parts, Shared};
use super::supervise::{Gating, OnSilence, Restart, Spec, Strategy};
use super::worker::Worker;
use crate::backoff::Backoff;
use crate::env::random_seed;
use crate::error::PoolError;
use crate::keeper::Keeper;

/// Any error: what a worker fails with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Most workers of a pool.
pub(super) const MOST_WORKERS: usize = 4096;
/// Idle workers of job pools wake up several times in this span: any shorter one, and they would do nothing else.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(1);
/// The longest name of a pool, in bytes.
const LONGEST_NAME: usize = 200;

/// Describes a pool of workers; [`Keeper::pool`] makes it.
///
/// ```
/// # use std::time::Duration;
/// # use lockkeeper::Keeper;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let keeper = Keeper::open(folder.path())?;
/// let pool = keeper.pool("import").workers(2).start(async |worker| {
///     while !worker.is_stopping() {
///         // … take something and do it, with worker.keeper() …
///         # worker.stopped().await;
///     }
///     Ok(())
/// })?;
/// pool.stop(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a pool is started with `start` or `start_blocking`"]
pub struct PoolBuilder {
    pub(super) keeper: Keeper,
    pub(super) name: Arc<str>,
    pub(super) spec: Spec,
    pub(super) jobs: JobOptions,
    pub(super) leases: LeaseGates,
}

impl PoolBuilder {
    pub(crate) fn new(keeper: Keeper, name: Arc<str>) -> Self {
        Self {
            keeper,
            name,
            spec: Spec {
                workers: 1,
                restart: Restart::Permanent,
                strategy: Strategy::OneForOne,
                restarts: 5,
                within: Duration::from_secs(10),
                backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(30), 2.0),
                heartbeat: None,
                grace: Duration::from_secs(5),
                fed: false,
                gating: Gating::None,
                seed: random_seed(),
            },
            jobs: JobOptions::default(),
            leases: LeaseGates::default(),
        }
    }

    /// How many workers, up to 4,096. They have the numbers from 0. Default: 1.
    pub fn workers(mut self, workers: usize) -> Self {
        self.spec.workers = workers;
        self
    }

    /// Which workers are started again when they end (OTP's restart type). Default: [`Restart::Permanent`].
    pub fn restart(mut self, restart: Restart) -> Self {
        self.spec.restart = restart;
        self
    }

    /// Which others are stopped and started again with a worker that failed (OTP's strategy). Default: [`Strategy::OneForOne`].
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.spec.strategy = strategy;
        self
    }

    /// At most `restarts` restarts in any span of `within` (OTP's `MaxR` and `MaxT`, for the whole pool); one more, and the pool stops
    /// its workers and has failed. 0 means that the first failure is the end. A run that lasted longer than `within`, and than the
    /// longest delay, ends its worker's row of failures. Default: 5 in 10 s.
    pub fn intensity(mut self, restarts: u32, within: Duration) -> Self {
        (self.spec.restarts, self.spec.within) = (restarts, within);
        self
    }

    /// How long a restart waits: drawn at random from a span that grows with the failures of the worker in a row. Default: up to
    /// 100 ms at first, twice as much each time, up to 30 s.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.spec.backoff = backoff;
        self
    }

    /// What happens when a worker does not call [`Worker::heartbeat`] for so long, from its start or its last call; at least 1 ms.
    /// Default: nothing.
    pub fn heartbeat(mut self, within: Duration, on_silence: OnSilence) -> Self {
        self.spec.heartbeat = Some((within, on_silence));
        self
    }

    /// How long a worker has that was told to stop (OTP's `shutdown` time), when nothing else says so; then it is abandoned.
    /// Default: 5 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.spec.grace = grace;
        self
    }

    /// The seed of the random delays. Default: another one for each pool.
    pub fn seed(mut self, seed: u64) -> Self {
        self.spec.seed = seed;
        self
    }

    /// Starts the pool: its workers are tasks, on the threads of the keeper's pools, which are tokio's, whatever runtime the
    /// application has. They must not block. `body` makes the future of a run; it is called on those threads.
    ///
    /// An async closure, `async |worker| { … }`, will do as long as it captures nothing (references that are `'static` excepted): the
    /// future of one that does borrows from it, and so far Rust has no way to ask of such futures that they are `Send`. What is captured is
    /// cloned for each run instead:
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::sync::atomic::{AtomicU64, Ordering};
    /// # use lockkeeper::Keeper;
    /// # let folder = tempfile::tempdir()?;
    /// # let keeper = Keeper::open(folder.path())?;
    /// let runs = Arc::new(AtomicU64::new(0));
    /// let pool = keeper.pool("import").start(move |worker| {
    ///     let runs = Arc::clone(&runs);
    ///     async move {
    ///         runs.fetch_add(1, Ordering::Relaxed);
    ///         worker.stopped().await;
    ///         Ok(())
    ///     }
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// It may be called from any thread and runtime; it starts a few threads with the first pool of a keeper.
    ///
    /// # Errors
    ///
    /// [`PoolError`]: a name that is taken or cannot be used, numbers that cannot be, no thread left, a keeper that shuts down.
    pub fn start<F, Fut>(self, body: F) -> Result<Pool, PoolError>
    where
        F: Fn(Worker) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let shared = self.launch(Body::asynchronous(body), None)?;
        Ok(Pool::new(shared))
    }

    /// Starts the pool: each worker is a function on a thread of its own (`lockkeeper-NAME-NUMBER`), which may block.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start). A thread that cannot be started is a failure of its worker.
    pub fn start_blocking<F>(self, body: F) -> Result<Pool, PoolError>
    where
        F: Fn(Worker) -> Outcome + Send + Sync + 'static,
    {
        let shared = self.launch(Body::blocking(body), None)?;
        Ok(Pool::new(shared))
    }

    /// Starts a pool, perhaps with something that feeds its workers, and with the gates that its leases need.
    pub(super) fn launch(
        mut self,
        body: Body,
        feed: Option<Arc<dyn Feed>>,
    ) -> Result<Arc<Shared>, PoolError> {
        self.check()?;
        self.spec.fed = feed.is_some();
        let gates = std::mem::take(&mut self.leases).gates(&self.keeper, &self.name)?;
        let gates = gates.map(|gated| {
            self.spec.gating = gated.gating;
            gated.gates
        });
        let parts = Parts {
            name: self.name,
            keeper: self.keeper.weak(),
            env: self.keeper.env_id(),
            spec: self.spec,
            body,
            feed,
            gates,
        };
        self.keeper.start_pool(parts)
    }

    fn check(&self) -> Result<(), PoolError> {
        let name = &*self.name;
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains(char::is_control) {
            return Err(PoolError::BadName {
                name: Arc::clone(&self.name),
                longest: LONGEST_NAME,
            });
        }
        if self.spec.workers > MOST_WORKERS {
            return Err(PoolError::TooManyWorkers {
                workers: self.spec.workers,
                limit: MOST_WORKERS,
            });
        }
        if self
            .spec
            .heartbeat
            .is_some_and(|(within, _)| within < SHORTEST_HEARTBEAT)
        {
            return Err(PoolError::BadOption {
                option: "heartbeat",
                expected: "at least 1 ms",
            });
        }
        Ok(())
    }
}

impl fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("name", &self.name)
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}
