//! The answer to a message that may have to wait several times: at once if it can be, otherwise by a task
//! of its own.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Message};
use futures_util::future::{self, Either};

/// What the lock table's handler answers to a message asks for work that may have to wait. If whoever asked goes away, the work is
/// dropped.
pub struct Later<T>(Pin<Box<dyn Future<Output = T>>>);

impl<T> Later<T> {
    pub(super) fn new(work: impl Future<Output = T> + 'static) -> Self {
        Self(Box::pin(work))
    }
}

impl<A, M, T: 'static> MessageResponse<A, M> for Later<T>
where
    A: Actor,
    M: Message<Result = T>,
{
    fn handle(mut self, _: &mut A::Context, sender: Option<OneshotSender<T>>) {
        let Some(mut sender) = sender else {
            // Nobody waits: what can be done at once is done, and dropped with its answer.
            drop(
                self.0
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop())),
            );
            return;
        };
        if sender.is_closed() {
            return;
        }
        if let Poll::Ready(answer) = self
            .0
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            // An answer that nobody takes comes back and is dropped, with its guards.
            drop(sender.send(answer));
            return;
        }
        actix::spawn(async move {
            let answer = {
                let gone = std::pin::pin!(sender.closed());
                // Whoever went away first does not want what was granted afterwards.
                match future::select(gone, self.0).await {
                    Either::Right((answer, _)) => answer,
                    Either::Left(_) => return,
                }
            };
            drop(sender.send(answer));
        });
    }
}
