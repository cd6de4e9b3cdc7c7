//! What a worker of a job pool does: one job after another.

use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::select;

use super::job::Job;
use super::shared::Shared;
use crate::clock::block_on;
use crate::pool::Worker;
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
        if let Some((begun, job)) = shared.begin(worker.run()) {
            let answer = handler(Job::new(job, begun, worker.clone())).await;
            shared.finished(worker.run(), begun.id, answer);
            // Handlers that never wait must not keep the thread from others.
            tokio::task::yield_now().await;
        } else if worker.draining().is_cancelled() {
            return;
        } else {
            idle(shared, worker, beat).await;
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
        worker.heartbeat();
        if let Some((begun, job)) = shared.begin(worker.run()) {
            let answer = handler(Job::new(job, begun, worker.clone()));
            shared.finished(worker.run(), begun.id, answer);
        } else if worker.draining().is_cancelled() {
            return;
        } else {
            block_on(idle(shared, worker, beat));
        }
    }
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
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::error::JobError;
    use crate::pool::jobs::on_full::OnFull;
    use crate::pool::jobs::queue::Rules;
    use crate::pool::jobs::submit::Submit;

    /// A run that is given up may take one more job before it is told, and is dropped with it.
    #[test]
    fn a_run_that_is_dropped_with_a_job_in_its_hands_leaves_nobody_waiting() {
        let rules = Rules {
            capacity: 1,
            on_full: OnFull::Refuse,
            quarantine_after: None,
            quarantine_limit: 0,
        };
        let clock = Clock::start().unwrap();
        let shared = Arc::new(Shared::<u8, (), ()>::new("jobs".into(), clock, rules));
        let run = RunId(1);
        let leaving = Leaving {
            shared: &shared,
            run,
        };
        shared.interrupted(run);
        let mut answer = Submit::new(Arc::clone(&shared), 7);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(pin!(&mut answer).poll(&mut cx).is_pending());
        assert!(shared.begin(run).is_some());
        drop(leaving);
        let answer = block_on(answer);
        assert!(matches!(answer, Err(JobError::Interrupted)), "{answer:?}");
    }
}
