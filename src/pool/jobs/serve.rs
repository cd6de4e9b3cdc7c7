//! What a worker of a job pool does: one job after another.

use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::select;

use super::id::JobId;
use super::job::Job;
use super::queue::Begun;
use super::shared::Shared;
use crate::clock::block_on;
use crate::pool::Worker;
use crate::pool::partition::{has_its_lease, may_begin};
use crate::pool::supervise::RunId;

pub(super) async fn asynchronous<J, R, E, F, Fut>(
    shared: &Shared<J, R, E>,
    worker: &Worker,
    beat: Option<Duration>,
    handler: &F,
) where
    F: Fn(Job<J>) -> Fut,
    Fut: Future<Output = Result<R, E>>,
{
    let _leaving = Leaving {
        shared,
        run: worker.run(),
    };
    while !worker.is_stopping() {
        worker.heartbeat();
        match next(shared, worker.run(), worker.lease().is_none(), || {
            worker.draining().is_cancelled()
        }) {
            Next::Job(begun, job) => {
                let Some(job) = may_run(shared, worker, begun.id, job) else {
                    // The next poll is there only if the lease is confirmed.
                    tokio::task::yield_now().await;
                    continue;
                };
                let answer = handler(Job::new(job, begun, worker.clone())).await;
                shared.finished(worker.run(), begun.id, answer);
                // Handlers that never wait must not keep the thread from others.
                tokio::task::yield_now().await;
            }
            Next::Over => return,
            Next::Nothing => idle(shared, worker, beat).await,
        }
    }
}

pub(super) fn blocking<J, R, E>(
    shared: &Shared<J, R, E>,
    worker: &Worker,
    beat: Option<Duration>,
    handler: &impl Fn(Job<J>) -> Result<R, E>,
) {
    let _leaving = Leaving {
        shared,
        run: worker.run(),
    };
    while !worker.is_stopping() {
        // A process may have been paused beyond the end of its lease: another one may have it.
        if !may_begin(worker) {
            return;
        }
        worker.heartbeat();
        match next(shared, worker.run(), worker.lease().is_none(), || {
            worker.draining().is_cancelled()
        }) {
            Next::Job(begun, job) => {
                let Some(job) = may_run(shared, worker, begun.id, job) else {
                    continue;
                };
                let answer = handler(Job::new(job, begun, worker.clone()));
                shared.finished(worker.run(), begun.id, answer);
            }
            Next::Over => return,
            Next::Nothing => block_on(idle(shared, worker, beat)),
        }
    }
}

/// What a worker is to do next.
enum Next<J> {
    Job(Begun, Arc<J>),
    /// The pool drains, and nothing is left.
    Over,
    Nothing,
}

/// A drain closes the queue before it tells: so whoever was told before it looked at the queue, and finds nothing, has seen all that
/// was accepted. Asked in the other order, a job that comes in between would be left behind.
fn next<J, R, E>(
    shared: &Shared<J, R, E>,
    run: RunId,
    is_sure: bool,
    is_draining: impl FnOnce() -> bool,
) -> Next<J> {
    let draining = is_draining();
    match shared.begin(run, is_sure) {
        Some((begun, job)) => Next::Job(begun, job),
        None if draining => Next::Over,
        None => Next::Nothing,
    }
}

/// The job, if its worker may run it; else it stands in line again.
fn may_run<J, R, E>(
    shared: &Shared<J, R, E>,
    worker: &Worker,
    id: JobId,
    job: Arc<J>,
) -> Option<Arc<J>> {
    if worker.lease().is_none() {
        return Some(job);
    }
    shared.runs(worker.run(), id);
    // As late as can be.
    if has_its_lease(worker) {
        return Some(job);
    }
    shared.not_begun(worker.run(), id, job);
    None
}

/// A run that ends, however: also one whose future is dropped.
struct Leaving<'a, J, R, E> {
    shared: &'a Shared<J, R, E>,
    run: RunId,
}

impl<J, R, E> Drop for Leaving<'_, J, R, E> {
    fn drop(&mut self) {
        self.shared.leave();
        // What becomes of a job that panics is said by who knows how.
        if !thread::panicking() {
            self.shared.interrupted(self.run);
        }
    }
}

/// Waits until there may be something to do, the worker is to end, or it is to say that it goes on.
async fn idle<J, R, E>(shared: &Shared<J, R, E>, worker: &Worker, beat: Option<Duration>) {
    let turn = pin!(shared.turn());
    let draining = pin!(worker.draining().cancelled());
    let stop = pin!(worker.stop().cancelled());
    let any = select(turn, select(draining, stop));
    if let Some((beat, clock)) = beat.zip(shared.clock()) {
        let _ = clock.until(Instant::now() + beat, any).await;
    } else {
        any.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::env::EnvId;
    use crate::error::JobError;
    use crate::pool::jobs::on_full::OnFull;
    use crate::pool::jobs::queue::Rules;
    use crate::pool::jobs::submit::Submit;

    fn shared(capacity: usize) -> Arc<Shared<u8, (), ()>> {
        let rules = Rules {
            capacity,
            on_full: OnFull::Refuse,
            quarantine_after: None,
            quarantine_limit: 0,
        };
        let clock = Clock::start().unwrap();
        Arc::new(Shared::new("jobs".into(), EnvId::next(), clock, rules))
    }

    #[test]
    fn a_job_that_is_accepted_just_before_a_drain_is_begun_and_not_left_behind() {
        let shared = shared(1);
        let mut answer = Submit::new(Arc::clone(&shared), 7);
        // While the worker looks, a job is accepted, and then the pool drains.
        let meanwhile = || {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(pin!(&mut answer).poll(&mut cx).is_pending());
            shared.finish(shared.drain());
            true
        };
        let Next::Job(_, job) = next(&shared, RunId(1), true, meanwhile) else {
            panic!("the job was left behind");
        };
        assert_eq!(*job, 7);
        assert!(matches!(next(&shared, RunId(2), true, || true), Next::Over));
    }

    /// A run that is given up may take one more job before it is told, and is dropped with it.
    #[test]
    fn a_run_that_is_dropped_with_a_job_in_its_hands_leaves_nobody_waiting() {
        let shared = shared(1);
        let run = RunId(1);
        let leaving = Leaving {
            shared: &shared,
            run,
        };
        shared.interrupted(run);
        let mut answer = Submit::new(Arc::clone(&shared), 7);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(pin!(&mut answer).poll(&mut cx).is_pending());
        assert!(shared.begin(run, true).is_some());
        drop(leaving);
        let answer = block_on(answer);
        assert!(matches!(answer, Err(JobError::Interrupted)), "{answer:?}");
    }
}
