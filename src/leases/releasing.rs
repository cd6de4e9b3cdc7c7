//! Waiting for the end of a release.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::select;
use tokio::time::Sleep;

use super::Leases;
use super::shared::Left;
use super::view::{Cell, Ending};
use crate::panics::Quiet;

/// Ends with what the release has come to, or with `None` after so long, or when the leases have ended. Dropped, it leaves
/// the release to the thread of the leases.
pub(super) struct Releasing {
    leases: Leases,
    left: Left,
    ended: Pin<Box<dyn Future<Output = Option<Ending>> + Send>>,
    time: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Releasing {
    /// Begins it.
    pub(super) fn begin(leases: &Leases, cell: &Arc<Cell>) -> Self {
        let mut ending = cell.ending.subscribe();
        let mut gone = leases.shared().ended.subscribe();
        let left = leases.release(cell);
        let ended = async move {
            let ended = ending.wait_for(|ending| !matches!(ending, Ending::Open));
            let _ = select(pin!(ended), pin!(gone.wait_for(Option::is_some))).await;
            let ending = ending.borrow().clone();
            (!matches!(ending, Ending::Open)).then_some(ending)
        };
        Self {
            leases: leases.clone(),
            left,
            // Others wait for the end of the leases beside it, each with a waker of the application's.
            ended: Box::pin(Quiet::new(ended)),
            time: leases.release_timeout(),
            timer: None,
        }
    }
}

impl Future for Releasing {
    type Output = Option<Ending>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(begun) = &this.left
            && begun.poll(context).is_ready()
        {
            this.left = None;
        }
        if let Poll::Ready(ended) = this.ended.as_mut().poll(context) {
            return Poll::Ready(ended);
        }
        let (timer, time) = (&mut this.timer, this.time);
        let is_over = this.leases.shared().on_runtime(|| {
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
            timer.as_mut().poll(context).is_ready()
        });
        match is_over {
            Some(false) => Poll::Pending,
            Some(true) | None => Poll::Ready(None),
        }
    }
}

impl Drop for Releasing {
    fn drop(&mut self) {
        if let Some(begun) = self.left.take() {
            begun.to_driver();
        }
    }
}
