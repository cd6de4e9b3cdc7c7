//! The pools of a keeper, and the thread that serves them: it starts and stops workers, and keeps their times.
//!
//! It is a thread of its own, so that a worker that blocks where it should not holds up no other pool's supervision. Thread and
//! runtime are made with the first pool.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Builder, Handle, Runtime};

use super::shared::{Parts, Shared};
use super::stats::PoolStats;
use crate::error::PoolError;

/// The pools of a keeper.
#[derive(Default)]
pub(crate) struct Pools {
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Default)]
struct State {
    /// Nothing is started any more.
    closed: bool,
    /// The thread ends.
    ended: bool,
    /// Something has changed.
    woken: bool,
    pools: Vec<Arc<Shared>>,
    driver: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

/// The runtime has as many threads as there are cores, within these bounds: more than one, so that a worker that blocks does not
/// stop all others.
const FEWEST_THREADS: usize = 2;
const MOST_THREADS: usize = 8;
/// For threads that have nothing to do but end.
const GRACE: Duration = Duration::from_millis(500);

impl Pools {
    /// Starts a pool.
    pub(crate) fn start(self: &Arc<Self>, parts: Parts) -> Result<Arc<Shared>, PoolError> {
        crate::panics::note_places();
        let mut state = self.state.lock();
        if state.closed {
            return Err(PoolError::ShuttingDown);
        }
        let same_name = |pool: &Arc<Shared>| *pool.name() == parts.name;
        if let Some(at) = state.pools.iter().position(same_name) {
            let before = state.pools.get(at);
            if before.is_some_and(|pool| !pool.state().is_over()) {
                return Err(PoolError::NameTaken { name: parts.name });
            }
            // What is left of it ends by itself.
            state.pools.remove(at);
        }
        let runtime = match parts.body.is_blocking() {
            true => None,
            false => Some(state.runtime()?),
        };
        if state.driver.is_none() {
            let pools = Arc::clone(self);
            let driver = thread::Builder::new()
                .name("lockkeeper-pools".into())
                .spawn(move || pools.drive())
                .map_err(PoolError::Thread)?;
            state.driver = Some(driver);
        }
        let pool = Arc::new(Shared::new(parts, Arc::downgrade(self), runtime));
        state.pools.push(Arc::clone(&pool));
        drop(state);
        pool.announce();
        tracing::info!(target: "lockkeeper", pool = &**pool.name(), workers = pool.spec.workers, "a pool starts");
        self.wake();
        Ok(pool)
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

    fn drive(&self) {
        loop {
            let pools = {
                let mut state = self.state.lock();
                if state.ended {
                    return;
                }
                state.woken = false;
                state.pools.clone()
            };
            let next = pools.iter().filter_map(Shared::turn).min();
            drop(pools);
            let mut state = self.state.lock();
            state.pools.retain(|pool| !pool.is_gone());
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

    /// Stops all pools and joins their threads; blocks until then, shortly beyond the deadline at the latest.
    pub(crate) fn stop(&self, deadline: Instant) {
        let pools = {
            let mut state = self.state.lock();
            state.closed = true;
            state.pools.clone()
        };
        for pool in &pools {
            pool.change(|core, now| core.stop(deadline, now));
        }
        while !pools.iter().all(|pool| pool.is_settled()) {
            if Instant::now() > deadline + GRACE {
                break;
            }
            thread::sleep(Duration::from_micros(500));
        }
        let (driver, runtime) = {
            let mut state = self.state.lock();
            state.ended = true;
            state.pools.clear();
            (state.driver.take(), state.runtime.take())
        };
        self.woken.notify_all();
        if let Some(driver) = driver
            && driver.thread().id() != thread::current().id()
        {
            // It has nothing to say.
            drop(driver.join());
        }
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(GRACE);
        }
    }
}

impl State {
    fn runtime(&mut self) -> Result<Handle, PoolError> {
        if let Some(runtime) = &self.runtime {
            return Ok(runtime.handle().clone());
        }
        let cores = thread::available_parallelism().map_or(FEWEST_THREADS, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores.clamp(FEWEST_THREADS, MOST_THREADS))
            .thread_name("lockkeeper-pool")
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
