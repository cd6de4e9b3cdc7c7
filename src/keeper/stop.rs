//! Stopping a keeper: one thread does everything in order, and goes on until all has ended.
//!
//! A deadline says when those who run are not waited for any longer, and when whoever asked is answered; it does not end the
//! stop. So whoever asks, how often, and whether they wait for the answer changes nothing about the order, and what runs on
//! beyond the deadline takes its threads and the environment with it when it ends.
//!
//! The order: nothing new is taken; the pools are told and joined, still served by the keeper; transactions in flight finish,
//! and at the deadline the rest is aborted; who waits for a lock is answered; each lease is given back on its own, or left to
//! expire if a worker runs on under it; the writer ends and the environment is closed; then the threads of the actors, and last
//! the timer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Keeper;
use super::host::Host;
use super::stoppables::{Registry, Stops};
use crate::actors::supervisor::Runtime;
use crate::env::quietly;
use crate::error::ShutdownError;
use crate::inside::{self, Owner, Place};
use crate::panics::Quiet;

/// How far a keeper has come with its end; each has one from the start.
pub(crate) struct Stopping {
    progress: Mutex<Progress>,
    /// Set when everything has ended.
    outcome: watch::Sender<Option<Result<(), ShutdownError>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The threads of the actors, if there are any.
    pub(super) host: Mutex<Option<Host>>,
    pub(crate) stoppables: Registry,
}

#[derive(Default)]
struct Progress {
    begun: bool,
    /// The earliest deadline that anybody gave.
    deadline: Option<Instant>,
    stage: Stage,
    /// What ran on beyond the deadline, by the name of its pool.
    run_on: Vec<(Arc<str>, ShutdownError)>,
}

/// What the stop is waiting for.
#[derive(Debug, Clone, Default)]
enum Stage {
    #[default]
    Transactions,
    Pool(Arc<str>),
    Locks,
    Leases,
    Environment,
    Actors,
}

impl Default for Stopping {
    fn default() -> Self {
        Self {
            progress: Mutex::default(),
            outcome: watch::Sender::new(None),
            thread: Mutex::default(),
            host: Mutex::default(),
            stoppables: Registry::default(),
        }
    }
}

impl Stopping {
    /// When those who run are not waited for any longer.
    fn deadline(&self) -> Instant {
        self.progress.lock().deadline.unwrap_or_else(Instant::now)
    }

    fn reach(&self, stage: Stage) {
        self.progress.lock().stage = stage;
    }

    /// Ends when the keeper has.
    pub(super) async fn ended(&self) -> Result<(), ShutdownError> {
        let mut outcome = self.outcome.subscribe();
        let ended = Quiet::new(outcome.wait_for(Option::is_some));
        match ended.await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            // The sender is here.
            Err(_) => Ok(()),
        }
    }

    /// The thread has said its last word: only its own end is left.
    fn join(&self) {
        let mut thread = self.thread.lock();
        if let Some(thread) = thread.take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// Begins to stop, unless that has been done; from here on nothing new is taken. It waits for nobody.
///
/// A stop that is on its way is hurried by whoever asks for it, and by nobody else.
fn begin(runtime: &Arc<Runtime>, span: Duration, asked: bool) -> Result<(), ShutdownError> {
    if runtime.env.shared.forked() {
        return Err(ShutdownError::Forked);
    }
    let stopping = &runtime.stopping;
    let deadline = crate::clock::far(Instant::now(), span);
    let mut progress = stopping.progress.lock();
    if progress.begun && !asked {
        return Ok(());
    }
    let deadline = progress.deadline.map_or(deadline, |set| set.min(deadline));
    if progress.begun {
        progress.deadline = Some(deadline);
        drop(progress);
        // They keep their time themselves.
        tell_pools(runtime);
        return Ok(());
    }
    let for_thread = Arc::clone(runtime);
    let thread = thread_of(runtime)
        .spawn(move || {
            let ran = catch_unwind(AssertUnwindSafe(|| run(&for_thread)));
            if ran.is_err() {
                tracing::error!(target: "lockkeeper", "the thread that stops the keeper panicked");
                let what = "the stop, which panicked,";
                let failed = Some(Err(ShutdownError::TimedOut { what }));
                for_thread.stopping.outcome.send_replace(failed);
            }
        })
        .map_err(|error| ShutdownError::Thread(Arc::new(error)))?;
    // Only now: one that could not begin leaves no deadline to the next. The thread waits for this before it looks.
    progress.deadline = Some(deadline);
    progress.begun = true;
    *stopping.thread.lock() = Some(thread);
    drop(progress);
    refuse_new(runtime);
    Ok(())
}

fn thread_of(runtime: &Runtime) -> thread::Builder {
    let builder = thread::Builder::new().name("lockkeeper-stop".into());
    match runtime.supervision.bombs.takes("the thread of the stop") {
        // No system has so much memory for a stack.
        true => builder.stack_size(usize::MAX / 4),
        false => builder,
    }
}

/// Begins to stop and waits for the end, until shortly after the deadline at the latest.
///
/// `handle` is let go when the stop has begun: it is this stop that counts, and not what the end of the last handle begins.
pub(super) async fn stop(
    runtime: &Arc<Runtime>,
    span: Duration,
    handle: Option<Keeper>,
) -> Result<(), ShutdownError> {
    if let Some(error) = inside_of(runtime) {
        return Err(error);
    }
    begin(runtime, span, true)?;
    drop(handle);
    let answer_by = crate::clock::far(Instant::now(), span.saturating_add(ANSWER));
    let stopping = &runtime.stopping;
    let clock = &runtime.env.shared.clock;
    let outcome = match clock.until(answer_by, stopping.ended()).await {
        Some(outcome) => outcome,
        None if Instant::now() >= answer_by => return Err(what_runs_on(runtime)),
        // The timer has ended, which it does last of all.
        None => stopping.ended().await,
    };
    stopping.join();
    outcome
}

/// What this thread is inside of that the stop would wait for.
fn inside_of(runtime: &Runtime) -> Option<ShutdownError> {
    if runtime.env.shared.forked() {
        return None;
    }
    if runtime.env.shared.nested().is_some() || runtime.inside_transaction().is_some() {
        return Some(ShutdownError::InsideBody);
    }
    let env = runtime.env.shared.id;
    let leases = runtime.leases.get().and_then(|source| source.owner());
    let place = inside::place(|owner| owner == Owner::Env(env) || Some(owner) == leases)?;
    Some(match place {
        Place::Worker(pool) => ShutdownError::InsideWorker { pool },
        Place::Callback(what) => ShutdownError::InsideHandler { what },
    })
}

/// A task on a thread that is joined may wait for the stop, which drops it there; it may not keep the thread meanwhile.
pub(super) fn may_block(runtime: &Runtime) -> Result<(), ShutdownError> {
    if inside_of(runtime).is_none() && inside::is_lent_by(runtime.env.shared.id) {
        let what = "a task of a worker's";
        return Err(ShutdownError::InsideHandler { what });
    }
    Ok(())
}

/// Whoever comes from here on is answered "shutting down".
fn refuse_new(runtime: &Runtime) {
    runtime.stopping.stoppables.close();
    if let Some(locks) = &runtime.locks {
        guarded(|| locks.refuse_new());
    }
    if let Some(leases) = runtime.leases.get() {
        leases.refuse_new();
    }
    // Last, since these wake tasks of the application's.
    guarded(|| runtime.refuse_new());
    tell_pools(runtime);
}

/// All at once and by the same deadline, so that none of them waits for the others before it is told.
fn tell_pools(runtime: &Runtime) {
    let stopping = &runtime.stopping;
    let deadline = stopping.deadline();
    for pool in stopping.stoppables.members() {
        guarded(|| pool.tell(deadline));
        let_go(runtime, pool);
    }
}

/// Whoever is the last to have a pool drops the application's closures with it, and whatever these do then.
fn let_go(runtime: &Runtime, pool: Arc<dyn Stops>) {
    let owner = Owner::Env(runtime.env.shared.id);
    let _inside = inside::callback(owner, "a pool that is dropped");
    guarded(|| drop(pool));
}

fn run(runtime: &Arc<Runtime>) {
    let stopping = &runtime.stopping;
    let begun = Instant::now();
    refuse_new(runtime);
    let run_on = stop_pools(runtime);

    stopping.reach(Stage::Transactions);
    guarded(|| runtime.close());
    // Whoever is in flight still when every deadline has passed is driven by nobody.
    let longest = crate::clock::far(begun, runtime.longest_deadline());
    while runtime.in_flight() > 0 && Instant::now() < stopping.deadline().min(longest) {
        thread::sleep(Duration::from_micros(500));
    }
    guarded(|| runtime.abort());

    stopping.reach(Stage::Locks);
    if let Some(locks) = &runtime.locks {
        guarded(|| locks.shutdown());
    }

    stopping.reach(Stage::Leases);
    let leases = runtime.leases.get();
    let held = leases.and_then(|leases| guarded(|| leases.close(|| stopping.deadline())));

    stopping.reach(Stage::Environment);
    guarded(|| runtime.env.stop(late(runtime)));
    join_pools(runtime, run_on);

    stopping.reach(Stage::Actors);
    let host = stopping.host.lock().take();
    guarded(|| host.map(Host::stop));
    guarded(|| leases.map(|leases| leases.join()));
    guarded(|| runtime.env.shared.clock.stop());

    let outcome = match held.unwrap_or_default() {
        names if names.is_empty() => Ok(()),
        names => Err(ShutdownError::LeasesMaybeHeld { names }),
    };
    stopping.outcome.send_replace(Some(outcome));
}

/// Says once, well after the deadline, what the end waits for: whoever asked for it may not have stayed.
fn late(runtime: &Runtime) -> impl FnMut() {
    let mut is_told = false;
    move || {
        if !is_told && Instant::now() >= runtime.stopping.deadline() + ANSWER {
            is_told = true;
            let error = what_runs_on(runtime);
            tracing::error!(target: "lockkeeper", %error, "the keeper did not stop in order: its end waits for this");
        }
    }
}

/// Waits for all pools, which were told, until the deadline; answers those that run on.
fn stop_pools(runtime: &Runtime) -> Vec<Arc<dyn Stops>> {
    let stopping = &runtime.stopping;
    let mut run_on = Vec::new();
    for pool in stopping.stoppables.members() {
        stopping.reach(Stage::Pool(pool.name()));
        let stopped = guarded(|| pool.stop(stopping.deadline()));
        if let Some(Err(rest)) = stopped {
            if let Some(error) = rest.error {
                quietly(|| {
                    tracing::error!(target: "lockkeeper", pool = &*pool.name(), %error, "a pool did not stop in time");
                });
                stopping.progress.lock().run_on.push((pool.name(), error));
            }
            run_on.push(pool);
        } else {
            let_go(runtime, pool);
        }
    }
    run_on
}

/// Waits for those that ran on, however long that takes, and what they have left behind: their threads are the keeper's.
fn join_pools(runtime: &Runtime, run_on: Vec<Arc<dyn Stops>>) {
    let stopping = &runtime.stopping;
    for pool in run_on {
        let name = pool.name();
        stopping.reach(Stage::Pool(Arc::clone(&name)));
        loop {
            let again = Instant::now() + AGAIN;
            let stopped = guarded(|| pool.stop(again));
            let mut progress = stopping.progress.lock();
            progress.run_on.retain(|(other, _)| *other != name);
            let Some(Err(rest)) = stopped else { break };
            let error = rest.error.map(|error| (Arc::clone(&name), error));
            progress.run_on.extend(error);
            drop(progress);
            thread::sleep(again.saturating_duration_since(Instant::now()));
        }
        let_go(runtime, pool);
    }
}

/// A panic on the way, such as that of a waker of the application's, must not leave the rest running.
fn guarded<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(answer) => Some(answer),
        Err(panic) => {
            quietly(|| {
                tracing::error!(target: "lockkeeper", "a part of the stop panicked");
            });
            quietly(|| drop(panic));
            None
        }
    }
}

/// What has not ended at the deadline, by name.
fn what_runs_on(runtime: &Runtime) -> ShutdownError {
    let (stage, run_on) = {
        let progress = runtime.stopping.progress.lock();
        (progress.stage.clone(), progress.run_on.clone())
    };
    let shared = &runtime.env.shared;
    let mut found: Vec<_> = run_on.into_iter().map(|(_, error)| error).collect();
    if let Some(body) = shared.running_now() {
        found.push(ShutdownError::BodyRunsOn {
            name: body.name,
            site: body.site,
            since: body.since.elapsed(),
        });
    }
    let views = shared.gate.occupants();
    if !views.is_empty() {
        found.push(ShutdownError::ViewsRunOn { views });
    }
    if found.is_empty() {
        let timed_out = |what| ShutdownError::TimedOut { what };
        return match stage {
            Stage::Pool(pool) => ShutdownError::WorkersRunOn {
                pool,
                what: "its workers have not ended".into(),
            },
            Stage::Transactions => timed_out("a transaction"),
            Stage::Locks => timed_out("the lock table"),
            Stage::Leases => timed_out("the leases"),
            Stage::Environment => timed_out("a thread of the environment"),
            Stage::Actors => timed_out("a thread of the actors"),
        };
    }
    match found.len() {
        1 => found.remove(0),
        _ => ShutdownError::Several(found),
    }
}

/// Stops a runtime whose actors could not be started, and waits for the end.
pub(super) fn now(runtime: &Arc<Runtime>) {
    let span = runtime.env.shared.config.shutdown_deadline();
    if let Err(error) = crate::clock::block_on(stop(runtime, span, None)) {
        tracing::error!(target: "lockkeeper", %error, "the keeper did not stop in order");
    }
}

/// Stops a runtime that nobody waits for: the last handle is gone, or the system that its actors lived in. A stop that somebody
/// has asked for goes on as it is.
pub(crate) fn in_background(runtime: &Arc<Runtime>) {
    let span = runtime.env.shared.config.shutdown_deadline();
    match begin(runtime, span, false) {
        // What the child of a fork has belongs to the parent: not even its threads can be joined.
        Err(ShutdownError::Forked) => std::mem::forget(Arc::clone(runtime)),
        Err(error) => {
            tracing::error!(target: "lockkeeper", %error, "the keeper does not stop in order");
            runtime.pools.give_up();
        }
        Ok(()) => {}
    }
}

/// How long after its deadline a shutdown is answered at the latest: what is left is aborted in moments, unless something runs on.
const ANSWER: Duration = Duration::from_secs(1);
/// How often a pool that runs on is asked again.
const AGAIN: Duration = Duration::from_millis(50);
