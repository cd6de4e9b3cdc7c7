//! What a worker is given: who it is, and how it is told to stop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use super::supervise::RunId;
use crate::env::quietly;
use crate::keeper::Keeper;
use crate::leases::{InUse, LeaseView};
use crate::panics::Quiet;

/// What a worker of a pool is given for one run. Cheap to clone, `Send` and `Sync`.
///
/// A worker runs until it returns. It should return soon after it is told to stop: [`stopped`](Self::stopped) in async workers,
/// [`is_stopping`](Self::is_stopping) or [`pause_for`](Self::pause_for) in blocking ones. If it does not in the pool's grace, an async worker is dropped
/// at its next await; nobody can stop a blocking one, which is abandoned.
///
/// Tasks and threads that it starts by itself are not stopped with it. When the keeper ends, tasks of `tokio::spawn` are dropped at their
/// next await; what blocks there, or is a thread of `tokio::task::spawn_blocking`, the keeper waits for: see
/// [`Keeper::shutdown`](crate::Keeper::shutdown). A worker that awaits them before it returns leaves none behind.
#[derive(Clone)]
pub struct Worker {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Arc<Shared>,
    keeper: Keeper,
    number: usize,
    run: RunId,
    restarts: u64,
    lease: Option<LeaseView>,
    control: Arc<Control>,
    draining: CancellationToken,
}

/// The pool's hold on a run.
pub(super) struct Control {
    pub stop: CancellationToken,
    /// When the worker was heard last, in nanoseconds since the pool's start.
    heard: AtomicU64,
    born: Instant,
    /// The run has said how it ended.
    pub ended: AtomicBool,
    /// Its thread, if it has one of its own, has dropped all that it had in thread-locals, and can be joined in moments.
    pub gone: AtomicBool,
    /// The lease that it runs under, until it has ended.
    pub under: Mutex<Option<InUse>>,
    parked: Mutex<()>,
    stopping: Condvar,
}

impl Worker {
    pub(super) fn new(
        pool: Arc<Shared>,
        keeper: Keeper,
        number: usize,
        run: RunId,
        restarts: u64,
        lease: Option<LeaseView>,
        control: Arc<Control>,
    ) -> Self {
        let draining = pool.draining.lock().clone();
        *control.under.lock() = lease.as_ref().map(InUse::of);
        Self {
            inner: Arc::new(Inner {
                draining,
                pool,
                keeper,
                number,
                run,
                restarts,
                lease,
                control,
            }),
        }
    }

    /// The keeper. It serves everything, but does not keep itself going: when the application has dropped its last handle, the
    /// keeper stops in order, its pools first, also while clones of this one are there.
    #[must_use]
    pub fn keeper(&self) -> &Keeper {
        &self.inner.keeper
    }

    /// The name of the pool.
    #[must_use]
    pub fn pool(&self) -> &str {
        self.inner.pool.name()
    }

    /// The worker's number, from 0. It stays the same over restarts.
    #[must_use]
    pub fn number(&self) -> usize {
        self.inner.number
    }

    /// How often the worker of this number was started again after a failure, its own or that of its group; 0 at first.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.inner.restarts
    }

    /// Is cancelled when this run is to end.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.inner.control.stop
    }

    /// Ends when this run is to end. Cancel-safe.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        // Others wait beside it, each with a waker of the application's.
        Quiet::new(self.inner.control.stop.clone().cancelled_owned())
    }

    /// Whether this run is to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.inner.control.stop.is_cancelled()
    }

    /// Sleeps for so long, on this thread, or until this run is to end; `true` in the latter case. For blocking workers.
    #[must_use]
    pub fn pause_for(&self, span: Duration) -> bool {
        let control = &self.inner.control;
        let until = crate::clock::far(Instant::now(), span);
        let mut parked = control.parked.lock();
        while !control.stop.is_cancelled() {
            if control.stopping.wait_until(&mut parked, until).timed_out() {
                return control.stop.is_cancelled();
            }
        }
        true
    }

    /// Says that the worker goes on. A pool with a [`heartbeat`](crate::PoolBuilder::heartbeat) wants to hear this so often; in others it has no effect.
    pub fn heartbeat(&self) {
        self.inner.control.hear();
    }

    /// The lease under which this run was started, if the pool is under one. [`LeaseView::token`](crate::LeaseView::token) fences what it does outside.
    #[must_use]
    pub fn lease(&self) -> Option<&LeaseView> {
        self.inner.lease.as_ref()
    }

    /// Is cancelled when the pool drains: nothing new comes, and the worker ends when there is nothing left to do.
    pub(super) fn draining(&self) -> &CancellationToken {
        &self.inner.draining
    }

    /// This run.
    pub(super) fn run(&self) -> RunId {
        self.inner.run
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("pool", &self.pool())
            .field("number", &self.number())
            .field("restarts", &self.restarts())
            .field("stopping", &self.is_stopping())
            .finish_non_exhaustive()
    }
}

impl Control {
    pub(super) fn new(born: Instant) -> Self {
        Self {
            stop: CancellationToken::new(),
            // From here on, and not since it was decided that it starts: that may be longer ago than it may be silent.
            heard: AtomicU64::new(since(born)),
            born,
            ended: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            under: Mutex::default(),
            parked: Mutex::new(()),
            stopping: Condvar::new(),
        }
    }

    pub(super) fn tell(&self) {
        // A waker of the application's that panics keeps nobody asleep.
        quietly(|| self.stop.cancel());
        // Whoever is between looking and sleeping has the lock.
        drop(self.parked.lock());
        self.stopping.notify_all();
    }

    fn hear(&self) {
        self.heard.fetch_max(since(self.born), Ordering::Relaxed);
    }

    pub(super) fn heard(&self) -> Instant {
        self.born + Duration::from_nanos(self.heard.load(Ordering::Relaxed))
    }
}

/// In nanoseconds.
fn since(born: Instant) -> u64 {
    u64::try_from(born.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
