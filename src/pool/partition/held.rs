//! A worker's future is polled only as long as its lease is held.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use tokio_util::sync::CancellationToken;

use crate::leases::LeaseView;

/// Polls a future as long as the lease is held, which is looked at before each poll: a process that was paused beyond the end of its
/// lease does not go on where it was, not even until somebody tells it. The future is then dropped, and this one ends when the
/// pool has noticed, too.
pub(in crate::pool) async fn while_held<T>(
    lease: Option<LeaseView>,
    stop: CancellationToken,
    mut future: Pin<Box<dyn Future<Output = T> + Send>>,
    lost: T,
) -> T {
    let Some(lease) = lease else {
        return future.await;
    };
    let polled = std::future::poll_fn(|cx| match lease.is_held() {
        true => future.as_mut().poll(cx).map(Some),
        false => Poll::Ready(None),
    });
    if let Some(answer) = polled.await {
        return answer;
    }
    drop(future);
    stop.cancelled().await;
    lost
}
