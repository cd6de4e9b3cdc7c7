//! One run of one worker: started on a task or a thread, with its panics caught, and told of.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread;

use tracing::Instrument;

use super::body::{Body, Outcome};
use super::driver::{Pools, let_go};
use super::partition::{may_begin, while_held};
use super::shared::{Run, Shared};
use super::supervise::{Cause, Effect, End, Gating, RunId};
use super::worker::{Control, Worker};
use crate::error::brief;
use crate::inside::{self, AsWorker};
use crate::panics::{self, Catching, Panic};

/// Starts a run. What keeps it from starting is a failure of the worker.
pub(super) fn start(pool: &Arc<Shared>, worker: usize, run: RunId, restarts: u64) {
    let control = Arc::new(Control::new(pool.born));
    let Some(keeper) = pool.keeper.upgrade() else {
        // The keeper is gone, and the pool ends with it.
        pool.ended(run, &control, End::Normal);
        return;
    };
    let lease = pool.lease_of(worker);
    if lease.is_none() && pool.spec.gating != Gating::None {
        // Its lease went between the decision and here.
        pool.ended(run, &control, End::Normal);
        return;
    }
    let context = Worker::new(
        Arc::clone(pool),
        keeper,
        worker,
        run,
        restarts,
        lease.clone(),
        Arc::clone(&control),
    );
    let span = tracing::info_span!(
        target: "lockkeeper",
        parent: None,
        "worker",
        pool = &**pool.name(),
        worker,
        restarts,
    );
    let mut report = Report {
        pool: Some(Arc::clone(pool)),
        run,
        control: Arc::clone(&control),
        // A thread that is not started tells nothing.
        told: matches!(pool.body, Body::Blocking(_)),
    };
    let started = match pool.body.clone() {
        Body::Async(body) => match &pool.runtime {
            None => Err("no runtime".to_owned()),
            Some(runtime) => {
                let (env, name) = (pool.env, Arc::clone(pool.name()));
                let task = async move {
                    // Declared first, so that it is dropped last, also when the task is dropped half-way.
                    let report = report;
                    let stop = context.stop().clone();
                    let begin = move || body(context.clone());
                    let run = async move { while_held(lease, stop, begin, Ok(())).await };
                    let outcome = Catching::new(run);
                    let outcome = AsWorker::new(env, &name, outcome);
                    report.tell(outcome.instrument(span).await);
                };
                Ok((Some(runtime.spawn(task).abort_handle()), None))
            }
        },
        Body::Blocking(body) => {
            let (env, name) = (pool.env, Arc::clone(pool.name()));
            let gone = Gone {
                control: Arc::clone(&control),
                pools: Weak::clone(&pool.pools),
            };
            thread_of(pool, worker)
                .spawn(move || {
                    gone.at_the_end_of_this_thread();
                    report.told = false;
                    let inside = inside::worker(env, &name);
                    let run = move || match may_begin(&context) {
                        true => body(context),
                        false => Ok(()),
                    };
                    let outcome = span.in_scope(|| panics::catch(run));
                    drop((inside, span));
                    report.tell(outcome);
                })
                .map(|thread| (None, Some(thread)))
                .map_err(|error| error.to_string())
        }
    };
    match started {
        Ok((task, thread)) => {
            let run_of = Run {
                control,
                task,
                thread,
            };
            pool.runs.lock().insert(run, run_of);
        }
        Err(error) => {
            let end = End::Failed(Cause::NotStarted(error.into()));
            pool.ended(run, &control, end);
        }
    }
}

fn thread_of(pool: &Shared, worker: usize) -> thread::Builder {
    let builder = thread::Builder::new().name(format!("lockkeeper-{}-{worker}", pool.name()));
    match pool.pools.upgrade() {
        // No system has so much memory for a stack.
        Some(pools) if pools.bombs().takes("a thread of a worker") => {
            builder.stack_size(usize::MAX / 4)
        }
        _ => builder,
    }
}

/// Tells how a run has ended, also when it is dropped.
struct Report {
    /// Until it is told.
    pool: Option<Arc<Shared>>,
    run: RunId,
    control: Arc<Control>,
    told: bool,
}

impl Report {
    fn tell(mut self, outcome: Result<Outcome, Panic>) {
        let end = match outcome {
            Ok(Ok(())) => End::Normal,
            Ok(Err(error)) => End::Failed(Cause::Error(text(&*error))),
            Err(Panic { message, location }) => End::Failed(Cause::Panic { message, location }),
        };
        self.end(end);
    }

    fn end(&mut self, end: End) {
        if let Some(pool) = self.pool.take() {
            pool.ended(self.run, &self.control, end);
            // Nobody else may have it now.
            let_go(pool);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let end = if thread::panicking() {
            End::Failed(Cause::Panic {
                message: "it panicked while it was dropped".into(),
                location: None,
            })
        } else {
            End::Normal
        };
        self.end(end);
    }
}

thread_local! {
    static GONE: RefCell<Option<Gone>> = const { RefCell::new(None) };
}

/// Says that a worker's thread is about to end: nobody knows what else the application's thread-locals do when they are dropped,
/// and whoever joins it must not wait for them.
struct Gone {
    control: Arc<Control>,
    pools: Weak<Pools>,
}

impl Gone {
    /// To be called before anything else: what comes first into the thread-locals is dropped last.
    fn at_the_end_of_this_thread(self) {
        GONE.set(Some(self));
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.control.gone.store(true, Ordering::Release);
        if let Some(pools) = self.pools.upgrade() {
            pools.wake();
        }
    }
}

/// An error with its sources, as it is kept.
fn text(error: &(dyn std::error::Error + 'static)) -> Arc<str> {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    panics::cut(text).into()
}

/// Logs and counts what is decided.
pub(super) fn observe(pool: &Shared, effect: &Effect) {
    let name = pool.name();
    let label = || name.to_string();
    match effect {
        Effect::Start {
            worker, restarts, ..
        } => {
            tracing::debug!(target: "lockkeeper", pool = &**name, worker, restarts, "a worker starts");
            if *restarts > 0 {
                metrics::counter!("lockkeeper_pool_restarts_total", "pool" => label()).increment(1);
            }
        }
        Effect::Failed(note) => {
            let failure = super::failure::WorkerFailure::new(note);
            let kind = failure.kind.as_str();
            tracing::warn!(target: "lockkeeper", pool = &**name, worker = note.worker, kind, restarts = note.restarts,
                location = failure.location.as_deref(), error = &*failure.message, "a worker failed");
            metrics::counter!("lockkeeper_pool_failures_total", "pool" => label(), "kind" => kind)
                .increment(1);
        }
        Effect::Restarts { worker, delay } => {
            tracing::info!(target: "lockkeeper", pool = &**name, worker, delay = %brief(*delay), "a worker is started again");
        }
        Effect::GaveUp { restarts, last } => {
            let last = super::failure::WorkerFailure::new(last);
            tracing::error!(target: "lockkeeper", pool = &**name, restarts, within = %brief(pool.spec.within), last = %last, "a pool gives up");
            metrics::counter!("lockkeeper_pools_failed_total", "pool" => label()).increment(1);
        }
        Effect::Silent {
            worker, silence, ..
        } => {
            tracing::warn!(target: "lockkeeper", pool = &**name, worker, silence = %brief(*silence), "a worker is silent");
            metrics::counter!("lockkeeper_pool_silences_total", "pool" => label()).increment(1);
        }
        Effect::HeardAgain { worker, .. } => {
            tracing::info!(target: "lockkeeper", pool = &**name, worker, "a silent worker was heard again");
        }
        Effect::Abandon { worker, silent, .. } => {
            tracing::warn!(target: "lockkeeper", pool = &**name, worker, silent, "a worker was abandoned");
            metrics::counter!("lockkeeper_pool_abandoned_total", "pool" => label()).increment(1);
        }
        Effect::EndedLate { worker, .. } => {
            tracing::info!(target: "lockkeeper", pool = &**name, worker, "an abandoned worker has ended");
        }
        Effect::Over => {
            tracing::info!(target: "lockkeeper", pool = &**name, state = pool.state().as_str(), "a pool is over");
        }
        Effect::Stop { .. } | Effect::Drain => {}
    }
}
