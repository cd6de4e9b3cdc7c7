//! The pools of a keeper, and the thread that serves them: it starts and stops workers, and keeps their times.
//!
//! It is a thread of its own, so that a worker that blocks where it should not holds up no other pool's supervision. Thread and
//! runtime are made with the first pool.

use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::runtime::{Builder, Handle, Runtime};

use super::shared::{Parts, Shared};
use super::stats::PoolStats;
use crate::bombs::Bombs;
use crate::env::{EnvId, quietly};
use crate::error::{PoolError, ShutdownError};
use crate::inside::{self, Inside, Owner};
use crate::keeper::Keeper;
use crate::keeper::stoppables::{Registration, Registry, RunsOn, ShuttingDown, Stops};
use crate::supervision::Supervision;

/// The pools of a keeper.
pub(crate) struct Pools {
    state: Mutex<State>,
    woken: Condvar,
    /// Of the actor too: it knows nothing but them.
    supervision: Arc<Supervision>,
}

#[derive(Default)]
struct State {
    /// Nothing is started any more.
    closed: bool,
    /// The earliest time that the keeper gave.
    told: Option<Instant>,
    /// The thread ends.
    ended: bool,
    /// Something has changed.
    woken: bool,
    pools: Vec<Arc<Shared>>,
    driver: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
    registration: Option<Registration>,
    /// What serves the workers: theirs is not enough, since a drain may start them again when the application has let go. It
    /// keeps nothing from stopping, and is there until the threads end.
    keeper: Option<Keeper>,
}

/// The runtime has as many threads as there are cores, within these bounds: more than one, so that a worker that blocks does not
/// stop all others.
const FEWEST_THREADS: usize = 2;
const MOST_THREADS: usize = 8;
/// For threads that have nothing to do but end, whatever the deadline.
const GRACE: Duration = Duration::from_millis(500);
/// Whoever waits for them looks so often at least.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
/// A turn that panicked is made again after this.
const AFTER_PANIC: Duration = Duration::from_millis(10);

impl Pools {
    pub(crate) fn new(supervision: &Arc<Supervision>) -> Self {
        Self {
            state: Mutex::default(),
            woken: Condvar::new(),
            supervision: Arc::clone(supervision),
        }
    }

    pub(super) fn supervision(&self) -> &Arc<Supervision> {
        &self.supervision
    }

    pub(super) fn bombs(&self) -> &Bombs {
        &self.supervision.bombs
    }

    /// Starts a pool, and has the keeper stop it with itself.
    pub(crate) fn start(
        self: &Arc<Self>,
        parts: Parts,
        stoppables: &Registry,
    ) -> Result<Arc<Shared>, PoolError> {
        crate::panics::note_places();
        let mut state = self.state.lock();
        let same_name = |pool: &Arc<Shared>| *pool.name() == parts.name;
        let at = state.pools.iter().position(same_name);
        let before = at.and_then(|at| state.pools.get(at));
        if before.is_some_and(|pool| !pool.is_quiet()) {
            return Err(PoolError::NameTaken { name: parts.name });
        }
        let runtime = self.threads(&mut state, &parts, stoppables)?;
        let before = at.and_then(|at| state.pools.get(at));
        if before.is_some_and(|pool| !pool.retire_if_quiet()) {
            // It was resumed meanwhile.
            return Err(PoolError::NameTaken { name: parts.name });
        }
        let pool = Arc::new(Shared::new(parts, Arc::downgrade(self), runtime));
        match stoppables.add(Arc::clone(&pool) as _) {
            Ok(registration) => *pool.registration.lock() = Some(registration),
            Err(ShuttingDown) => {
                // Before the pool is dropped, and the application's closure with it.
                drop(state);
                return Err(PoolError::ShuttingDown);
            }
        }
        let before = at.map(|at| state.pools.remove(at));
        state.pools.push(Arc::clone(&pool));
        drop(state);
        leave(before);
        pool.announce();
        self.wake();
        quietly(|| {
            tracing::info!(target: "lockkeeper", pool = &**pool.name(), workers = pool.spec.workers, "a pool starts");
        });
        Ok(pool)
    }

    /// The threads that the pools share, which are started with the first of them.
    fn threads(
        self: &Arc<Self>,
        state: &mut State,
        parts: &Parts,
        stoppables: &Registry,
    ) -> Result<Option<Handle>, PoolError> {
        if state.closed {
            return Err(PoolError::ShuttingDown);
        }
        if state.driver.is_none() {
            // The newest are stopped first: this is stopped after its pools.
            let registered = stoppables.add(Arc::new(Threads(Arc::downgrade(self))));
            let registration = registered.map_err(|ShuttingDown| PoolError::ShuttingDown)?;
            let pools = Arc::clone(self);
            let driver = thread::Builder::new()
                .name("lockkeeper-pools".into())
                .spawn(move || pools.drive())
                .map_err(PoolError::Thread)?;
            (state.driver, state.registration) = (Some(driver), Some(registration));
            state.keeper = parts.keeper.upgrade();
        }
        match parts.body.is_blocking() {
            false => state.runtime(parts.env).map(Some),
            true => Ok(None),
        }
    }

    /// The pool of this name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Shared>> {
        let state = self.state.lock();
        state
            .pools
            .iter()
            .find(|pool| &**pool.name() == name)
            .cloned()
    }

    /// The statistics of all pools, in the order of their starts. A pool that was stopped or drained is not among them any more.
    pub(crate) fn stats(&self) -> Vec<PoolStats> {
        let pools = self.state.lock().pools.clone();
        pools.iter().map(|pool| pool.stats()).collect()
    }

    pub(super) fn wake(&self) {
        self.state.lock().woken = true;
        self.woken.notify_one();
    }

    /// Whatever goes wrong, it goes on: the keeper's stop waits for the pools, and they for their turns.
    fn drive(&self) {
        let serve = || self.supervision.guard("serving the pools", || self.serve());
        while serve().is_err() {
            thread::sleep(AFTER_PANIC);
        }
        // Nothing runs on it but what workers have started and left behind. It joins its threads, however long that takes.
        let runtime = self.state.lock().runtime.take();
        quietly(|| drop(runtime));
    }

    fn serve(&self) {
        loop {
            let pools = {
                let mut state = self.state.lock();
                if state.ended {
                    return;
                }
                state.woken = false;
                state.pools.clone()
            };
            let next = pools.iter().filter_map(|pool| self.turn(pool)).min();
            for pool in pools {
                let_go(pool);
            }
            self.bombs().pass("between turns of the pools");
            let mut state = self.state.lock();
            let gone: Vec<_> = state.pools.extract_if(.., |pool| pool.is_gone()).collect();
            // Behind the lock: the application's closures go with them.
            MutexGuard::unlocked(&mut state, || leave(gone));
            while !state.woken && !state.ended {
                match next {
                    None => self.woken.wait(&mut state),
                    Some(at) => {
                        if self.woken.wait_until(&mut state, at).timed_out() {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// A turn of one pool. If it panics, all others go on, and so does this one.
    fn turn(&self, pool: &Arc<Shared>) -> Option<Instant> {
        match self
            .supervision
            .guard("a turn of the pools", || pool.turn())
        {
            Ok(next) => next,
            // It is counted, and told.
            Err(_) => {
                pool.come_again();
                Some(Instant::now() + AFTER_PANIC)
            }
        }
    }

    /// A pool has ended, and the keeper stops.
    pub(super) fn forget(&self, pool: &Shared) {
        let forgotten = {
            let mut state = self.state.lock();
            let same = |other: &Arc<Shared>| std::ptr::eq(&raw const **other, pool);
            let at = state.pools.iter().position(same);
            at.map(|at| state.pools.remove(at))
        };
        leave(forgotten);
    }

    /// The keeper cannot be stopped, since there is no thread for it: what serves the workers goes with the last of them.
    pub(crate) fn give_up(&self) {
        let keeper = self.state.lock().keeper.take();
        drop(keeper);
    }

    /// Ends the threads when no pool is left, and waits a moment for that. What workers have left behind may take longer, and holds
    /// up nothing else: it is waited for at the very end.
    fn end(&self) -> Result<(), RunsOn> {
        let until = Instant::now() + GRACE;
        let keeper = {
            let mut state = self.state.lock();
            if !state.pools.is_empty() {
                return Err(RunsOn { error: None });
            }
            state.ended = true;
            state.keeper.take()
        };
        drop(keeper);
        self.woken.notify_all();
        let mut pause = Duration::from_micros(100);
        loop {
            let (driver, told) = {
                let mut state = self.state.lock();
                let has_ended = state.driver.as_ref().is_none_or(JoinHandle::is_finished);
                (has_ended.then(|| state.driver.take()), state.told)
            };
            if let Some(driver) = driver {
                // It has nothing to say.
                drop(driver.map(JoinHandle::join));
                return Ok(());
            }
            let now = Instant::now();
            if now >= until {
                let what = "a task that a worker has left behind";
                let is_late = told.is_none_or(|told| now >= told);
                let error = is_late.then_some(ShutdownError::TimedOut { what });
                return Err(RunsOn { error });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The threads that the pools share, as the keeper stops them: after the pools.
struct Threads(Weak<Pools>);

impl Stops for Threads {
    fn name(&self) -> Arc<str> {
        "the threads of the pools".into()
    }

    fn tell(&self, deadline: Instant) {
        if let Some(pools) = self.0.upgrade() {
            let mut state = pools.state.lock();
            state.closed = true;
            state.told = Some(state.told.map_or(deadline, |told| told.min(deadline)));
        }
    }

    fn stop(&self, _: Instant) -> Result<(), RunsOn> {
        self.0.upgrade().map_or(Ok(()), |pools| pools.end())
    }
}

/// They are forgotten, and the application's closures perhaps dropped with them.
fn leave(pools: impl IntoIterator<Item = Arc<Shared>>) {
    for pool in pools {
        let _inside = dropping(&pool);
        quietly(|| pool.leave());
        quietly(|| drop(pool));
    }
}

/// It may be the last to have it, and the application's closure is dropped with it, which may panic, and ask anything of the keeper.
pub(super) fn let_go(pool: Arc<Shared>) {
    let _inside = dropping(&pool);
    quietly(|| drop(pool));
}

fn dropping(pool: &Shared) -> Inside {
    inside::callback(Owner::Env(pool.env), "a pool that is dropped")
}

impl State {
    fn runtime(&mut self, env: EnvId) -> Result<Handle, PoolError> {
        if let Some(runtime) = &self.runtime {
            return Ok(runtime.handle().clone());
        }
        let cores = thread::available_parallelism().map_or(FEWEST_THREADS, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores.clamp(FEWEST_THREADS, MOST_THREADS))
            .thread_name("lockkeeper-pool")
            .on_thread_start(move || inside::lend_thread(env))
            .enable_all()
            .build()
            .map_err(PoolError::Thread)?;
        let handle = runtime.handle().clone();
        self.runtime = Some(runtime);
        Ok(handle)
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        // Nobody may wait where this is dropped.
        if let Some(runtime) = self.state.get_mut().runtime.take() {
            runtime.shutdown_background();
        }
    }
}
