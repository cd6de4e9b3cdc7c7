//! One pool: its core behind a short mutex, and its runs. Transitions may come from any thread; what they decide is carried out by
//! the driver thread alone, in order.

mod ending;
mod feeding;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::driver::Pools;
use super::failure::WorkerFailure;
use super::seams::{Feed, Gates};
use super::stats::PoolStats;
use super::supervise::{Cause, Effect, End, PoolState, RunId, Spec, Supervision, Who};
use super::worker::Control;
use crate::env::{EnvId, quietly};
use crate::keeper::WeakKeeper;
use crate::keeper::stoppables::Registration;
use crate::leases::LeaseView;
use crate::panics::Quiet;

/// A pool.
pub(crate) struct Shared {
    name: Arc<str>,
    pub(super) keeper: WeakKeeper,
    pub(super) env: EnvId,
    pub(super) pools: Weak<Pools>,
    pub(super) spec: Spec,
    core: Mutex<Supervision>,
    pub(super) runs: Mutex<BTreeMap<RunId, Run>>,
    pub(super) body: Body,
    pub(super) runtime: Option<Handle>,
    pub(super) feed: Option<Arc<dyn Feed>>,
    /// Whoever tells the feed has it: what is told last is how it stands. Nothing of the application's runs under it.
    feeding: Mutex<()>,
    /// The feed was told last that the pool is over.
    feed_knows: AtomicBool,
    /// How many are at what follows from what the feed was told.
    following: AtomicUsize,
    gates: Option<Arc<dyn Gates>>,
    /// Of the workers that start now; anew after a failure.
    pub(super) draining: Mutex<CancellationToken>,
    leases: Mutex<BTreeMap<Option<usize>, LeaseView>>,
    pub(super) born: Instant,
    /// The process that it belongs to.
    pid: u32,
    /// Something has happened since it was told.
    dirty: AtomicBool,
    changed: watch::Sender<u64>,
    over_since: Mutex<Option<Instant>>,
    /// It is over, and nothing that may end soon is waited for. Changed under the core's lock, as the next one.
    is_settled: AtomicBool,
    /// It is over, and no run is left, not even an abandoned one.
    is_quiet: AtomicBool,
    /// The earliest time that the keeper gave it, for threads that wait for its end.
    told: Mutex<Option<Instant>>,
    turned: Condvar,
    pub(super) registration: Mutex<Option<Registration>>,
}

/// What the driver has of a run.
pub(super) struct Run {
    pub control: Arc<Control>,
    pub task: Option<AbortHandle>,
    pub thread: Option<JoinHandle<()>>,
}

/// What a pool is made of.
pub(crate) struct Parts {
    pub name: Arc<str>,
    pub keeper: WeakKeeper,
    pub env: EnvId,
    pub spec: Spec,
    pub body: Body,
    pub feed: Option<Arc<dyn Feed>>,
    pub gates: Option<Arc<dyn Gates>>,
}

impl Shared {
    pub(super) fn new(parts: Parts, pools: Weak<Pools>, runtime: Option<Handle>) -> Self {
        let now = Instant::now();
        Self {
            name: parts.name,
            keeper: parts.keeper,
            env: parts.env,
            pools,
            core: Mutex::new(Supervision::start(parts.spec.clone(), now)),
            spec: parts.spec,
            runs: Mutex::default(),
            body: parts.body,
            runtime,
            feed: parts.feed,
            feeding: Mutex::default(),
            feed_knows: AtomicBool::new(false),
            following: AtomicUsize::new(0),
            gates: parts.gates,
            draining: Mutex::default(),
            leases: Mutex::default(),
            born: now,
            pid: std::process::id(),
            dirty: AtomicBool::new(true),
            changed: watch::Sender::new(0),
            over_since: Mutex::default(),
            is_settled: AtomicBool::new(false),
            is_quiet: AtomicBool::new(false),
            told: Mutex::default(),
            turned: Condvar::new(),
            registration: Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn state(&self) -> PoolState {
        self.core.lock().state()
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let jobs = self.feed.as_ref().map(|feed| feed.stats());
        let lease = self.gates.as_ref().map(|gates| gates.stats());
        let core = self.core.lock();
        let counts = core.counts();
        PoolStats {
            name: Arc::clone(&self.name),
            state: core.state(),
            restart: self.spec.restart,
            strategy: self.spec.strategy,
            blocking: self.body.is_blocking(),
            target: core.target(),
            workers: counts.into(),
            states: core.workers().collect(),
            queued: jobs.as_ref().map_or(0, |jobs| jobs.queued),
            jobs,
            restarts: counts.restarts,
            failures: counts.failures,
            silences: counts.silences,
            abandoned: counts.abandoned_total,
            ended_late: counts.ended_late,
            lease,
            last_failures: core
                .failures()
                .map(|note| WorkerFailure::new(note))
                .collect(),
        }
    }

    /// Whether this is the child of a fork, in which nobody serves it.
    pub(super) fn forked(&self) -> bool {
        self.pid != std::process::id()
    }

    /// Has the core decide something; the driver carries it out.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Supervision, Instant) -> T) -> T {
        let answer = change(&mut self.core.lock(), Instant::now());
        self.dirty.store(true, Ordering::Release);
        if let Some(pools) = self.pools.upgrade() {
            pools.wake();
        }
        answer
    }

    /// Has so many workers from now on. The gates of numbers that come anew are open if they were.
    pub(super) fn scale(&self, workers: usize) -> Result<(), PoolState> {
        self.change(|core, now| {
            core.scale(workers, now)?;
            for worker in self.leases.lock().keys().flatten() {
                core.open_gate(Who::One(*worker), now);
            }
            Ok(())
        })?;
        self.tell_feed();
        Ok(())
    }

    /// Opens a gate; runs that start from now on are given this lease. Starts nothing itself: it returns at once.
    pub(crate) fn open_gate(&self, who: Who, lease: Option<LeaseView>) {
        if let Some(lease) = lease {
            self.leases.lock().insert(key(who), lease);
        }
        self.change(|core, now| core.open_gate(who, now));
    }

    /// Closes a gate: the workers behind it are told to stop at once, and abandoned at `by`, or when the pool's grace has passed
    /// if that is earlier. The future ends when none of them runs, and answers how many that were abandoned run still. The gate is
    /// closed by the call; the future needs no polling, and may be dropped.
    pub(crate) fn close_gate(
        self: &Arc<Self>,
        who: Who,
        by: Instant,
    ) -> impl Future<Output = usize> + Send + 'static {
        self.change(|core, now| {
            // In one step, so that a run that finds no lease is one that was told to stop.
            self.leases.lock().remove(&key(who));
            core.close_gate(who, by, now);
        });
        let pool = Arc::clone(self);
        async move {
            let closed = |core: &Supervision| match core.live(who) {
                (0, abandoned) => Some(abandoned),
                _ => None,
            };
            pool.until(closed).await
        }
    }

    /// The runs of these that have not ended, those included that were abandoned.
    pub(super) fn runs_of(&self, who: Who) -> Vec<RunId> {
        self.core.lock().runs(who)
    }

    /// How many workers there should be.
    pub(crate) fn target(&self) -> usize {
        self.core.lock().target()
    }

    /// How often it has begun anew.
    pub(super) fn life(&self) -> u64 {
        self.core.lock().life()
    }

    pub(super) fn lease_of(&self, worker: usize) -> Option<LeaseView> {
        let leases = self.leases.lock();
        leases
            .get(&Some(worker))
            .or_else(|| leases.get(&None))
            .cloned()
    }

    /// Waits until `what` has an answer. Cancel-safe.
    pub(super) async fn until<T>(
        &self,
        mut what: impl FnMut(&Supervision) -> Option<T> + Send,
    ) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(answer) = what(&self.core.lock()) {
                return answer;
            }
            // Others wait beside it, each with a waker of the application's.
            if Quiet::new(changed.changed()).await.is_err() {
                // The sender is in here.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether the pool is over, and not even an abandoned run is left: its name is free.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_settled() && self.is_quiet.load(Ordering::Acquire)
    }

    /// Whether the pool is over, and nothing that may end soon is waited for.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Acquire)
    }

    /// Nobody serves it any more, and the keeper does not have to stop it.
    pub(super) fn leave(&self) {
        self.core.lock().retire();
        self.tell_feed();
        {
            let core = self.core.lock();
            if core.state().is_over() {
                // Nobody takes a turn for it any more: whoever waits for it is told now.
                self.is_settled.store(true, Ordering::Release);
            }
        }
        quietly(|| {
            self.changed
                .send_modify(|version| *version = version.wrapping_add(1));
        });
        let registration = self.registration.lock().take();
        drop(registration);
    }

    /// Tells how a run has ended. The worker's own thread calls it.
    pub(super) fn ended(&self, run: RunId, control: &Control, end: End) {
        if let (End::Failed(cause), Some(feed)) = (&end, &self.feed) {
            quietly(|| feed.failed(run, cause));
        }
        // Before anybody hears of its end, who may give the lease back then.
        drop(control.under.lock().take());
        control.ended.store(true, Ordering::Release);
        self.change(|core, now| core.ended(run, end, now));
    }

    /// Carries out what is to be done, and answers when to come again. The driver's thread calls it.
    pub(super) fn turn(self: &Arc<Self>) -> Option<Instant> {
        let dirty = self.dirty.swap(false, Ordering::AcqRel);
        let mut acted = false;
        let next = loop {
            let (effects, next) = {
                let mut core = self.core.lock();
                let now = Instant::now();
                if self.spec.heartbeat.is_some() {
                    let runs = self.runs.lock();
                    // One that is not started yet is not silent: its start is among the effects.
                    let heard = |run| runs.get(&run).map_or(now, |held| held.control.heard());
                    core.listen_to(|run| Some(heard(run)));
                }
                core.tick(now);
                (core.take_effects(), core.next_deadline())
            };
            if effects.is_empty() {
                break next;
            }
            acted = true;
            for effect in effects {
                // The application's subscriber, recorder and wakers are called by it.
                quietly(|| super::run::observe(self, &effect));
                let start = match &effect {
                    Effect::Start { run, .. } => Some(*run),
                    _ => None,
                };
                let mut is_done = false;
                quietly(|| {
                    self.carry_out(effect);
                    is_done = true;
                });
                if let Some(run) = start.filter(|_| !is_done) {
                    let end = End::Failed(Cause::NotStarted("its start panicked".into()));
                    // One that has told of its end already is not counted twice.
                    self.change(|core, now| core.ended(run, end, now));
                }
            }
        };
        self.reap();
        let late = self.gates.as_ref().and_then(|gates| gates.look(self));
        let linger = self.settle();
        if dirty || acted || linger.is_some() {
            self.tell_feed();
            let live = self.core.lock().live(Who::All).0;
            quietly(|| self.gauge(live));
            // It wakes whoever waits.
            quietly(|| {
                self.changed
                    .send_modify(|version| *version = version.wrapping_add(1));
            });
            // Whoever is between looking and waiting has the lock.
            drop(self.told.lock());
            self.turned.notify_all();
        }
        [next, late, linger].into_iter().flatten().min()
    }

    fn gauge(&self, live: usize) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "there are at most some thousands"
        )]
        metrics::gauge!("lockkeeper_pool_workers", "pool" => self.name.to_string())
            .set(live as f64);
    }

    /// Something may be left to do.
    pub(super) fn come_again(&self) {
        self.dirty.store(true, Ordering::Release);
    }

    fn carry_out(self: &Arc<Self>, effect: Effect) {
        match effect {
            Effect::Start {
                worker,
                run,
                restarts,
            } => super::run::start(self, worker, run, restarts),
            Effect::Stop { run } => {
                let control = self
                    .runs
                    .lock()
                    .get(&run)
                    .map(|run| Arc::clone(&run.control));
                if let Some(control) = control {
                    // It wakes whoever waits for it.
                    quietly(|| control.tell());
                }
            }
            Effect::Abandon { run, .. } => self.abandon(run),
            Effect::Drain => {
                if let Some(draining) = self.drain_feed() {
                    quietly(|| draining.cancel());
                }
            }
            Effect::Over
            | Effect::EndedLate { .. }
            | Effect::Silent { .. }
            | Effect::HeardAgain { .. }
            | Effect::Failed(_)
            | Effect::Restarts { .. }
            | Effect::GaveUp { .. } => {}
        }
    }

    fn abandon(&self, run: RunId) {
        let (control, task) = {
            let runs = self.runs.lock();
            let Some(run) = runs.get(&run) else { return };
            (Arc::clone(&run.control), run.task.clone())
        };
        if let Some(feed) = &self.feed {
            quietly(|| feed.abandoned(run));
        }
        quietly(|| control.tell());
        if let Some(task) = task {
            task.abort();
        }
    }

    /// The gates are told that the pool has started, was resumed, or wants other leases.
    pub(super) fn announce(self: &Arc<Self>) {
        if let Some(gates) = &self.gates {
            quietly(|| gates.started(self));
        }
    }
}

fn key(who: Who) -> Option<usize> {
    match who {
        Who::All => None,
        Who::One(worker) => Some(worker),
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
