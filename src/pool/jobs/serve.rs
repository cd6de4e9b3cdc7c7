//! What a worker of a job pool does: one job after another.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::select;

use super::job::Job;
use super::shared::Shared;
use crate::clock::block_on;
use crate::pool::Worker;

pub(super) async fn asynchronous<J, R, E, F, Fut>(
    shared: &Shared<J, R, E>,
    worker: &Worker,
    beat: Option<Duration>,
    handler: &F,
) where
    F: Fn(Job<J>) -> Fut,
    Fut: Future<Output = Result<R, E>>,
{
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
    shared.leave();
}

pub(super) fn blocking<J, R, E>(
    shared: &Shared<J, R, E>,
    worker: &Worker,
    beat: Option<Duration>,
    handler: &impl Fn(Job<J>) -> Result<R, E>,
) {
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
    shared.leave();
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
