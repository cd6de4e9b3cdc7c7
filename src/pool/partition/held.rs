//! A worker begins, and its future is polled, only while its lease is held.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::Either;
use tokio_util::sync::CancellationToken;

use super::tending::either;
use crate::leases::LeaseView;
use crate::pool::Worker;

/// A lease that seemed over may have been confirmed at that very moment, and then nobody tells its workers to stop: so often it is
/// looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Makes a future and polls it as long as the lease is held, which is looked at before `begin` and before each poll: a process that
/// was paused beyond the end of its lease does not go on where it was, and begins nothing, not even until somebody tells it. The
/// future is then dropped, and this one ends when the pool has noticed, too, and told the worker to stop.
pub(in crate::pool) async fn while_held<T>(
    lease: Option<LeaseView>,
    stop: CancellationToken,
    begin: impl Fn() -> Pin<Box<dyn Future<Output = T> + Send>>,
    told: T,
) -> T {
    let Some(lease) = lease else {
        return begin().await;
    };
    loop {
        if lease.is_held() {
            let mut future = begin();
            let polled = std::future::poll_fn(|cx| match lease.is_held() {
                true => future.as_mut().poll(cx).map(Some),
                false => Poll::Ready(None),
            });
            if let Some(answer) = polled.await {
                return answer;
            }
        }
        let again = tokio::time::sleep(LOOK_AGAIN);
        if let Either::Left(()) = either(stop.cancelled(), again).await {
            return told;
        }
    }
}

/// Whether a worker on a thread, or its next job, may begin. If its lease is over, it waits until the pool has noticed, too, and
/// has told the worker to stop, or until the lease is confirmed after all.
pub(in crate::pool) fn may_begin(worker: &Worker) -> bool {
    while !has_its_lease(worker) {
        if worker.pause_for(LOOK_AGAIN) {
            return false;
        }
    }
    true
}

/// Whether what a worker does would be done under its lease. Looked at once more when a job was taken: that wakes who waited for
/// its place, and they may have had the processor meanwhile.
pub(in crate::pool) fn has_its_lease(worker: &Worker) -> bool {
    worker.lease().is_none_or(LeaseView::is_held)
}
