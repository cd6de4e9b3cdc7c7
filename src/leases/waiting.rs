//! Waiting for a lease.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::seen::Acquiring;
use super::shared::Left;
use super::state::WaiterId;
use super::{LeaseGuard, Leases};
use crate::error::LeaseError;

/// What a waiter is answered.
pub(super) type Answer = Result<LeaseGuard, LeaseError>;

/// Ends with the answer. Dropped, it takes the wish back; what was granted unseen is given back with the answer.
pub(super) struct Waiting {
    leases: Leases,
    id: WaiterId,
    answer: oneshot::Receiver<Answer>,
    /// What was asked for it, and is not left to the driver.
    left: Left,
    seen: Arc<Acquiring>,
    is_answered: bool,
}

impl Waiting {
    pub(super) fn new(
        leases: Leases,
        id: WaiterId,
        answer: oneshot::Receiver<Answer>,
        left: Left,
        seen: Arc<Acquiring>,
    ) -> Self {
        Self {
            leases,
            id,
            answer,
            left,
            seen,
            is_answered: false,
        }
    }
}

impl Future for Waiting {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        if let Some(begun) = &self.left
            && begun.poll(cx).is_ready()
        {
            self.left = None;
        }
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(cx));
        self.is_answered = true;
        let answer = answer.unwrap_or_else(|_| Err(self.leases.shared().gone()));
        self.seen.answered(answer.as_ref().err());
        Poll::Ready(answer)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(begun) = self.left.take() {
            begun.to_driver();
        }
        if !self.is_answered {
            self.seen.abandoned();
            self.leases.abandon(self.id);
        }
    }
}
