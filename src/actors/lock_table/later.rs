//! The answer to a message that may have to wait several times: at once if it can be, otherwise by a task
//! of its own.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Message};
use futures_util::future::{self, Either};

/// What the lock table's handler answers to a message that asks for work that may have to wait. If whoever
/// asked goes away, the work is dropped.
pub struct Later<T, W = Pin<Box<dyn Future<Output = T>>>>(Work<T, W>);

enum Work<T, W> {
    Runs(W),
    /// There is nothing to do.
    Answered(Option<T>),
}

impl<T> Later<T> {
    pub(crate) fn new(work: impl Future<Output = T> + 'static) -> Self {
        Self::unboxed(Box::pin(work))
    }
}

impl<T, W> Later<T, W> {
    /// Work that is mostly done at once, and then needs no allocation.
    pub(super) fn unboxed(work: W) -> Self {
        Self(Work::Runs(work))
    }

    /// The answer is known.
    pub(crate) fn answered(answer: T) -> Self {
        Self(Work::Answered(Some(answer)))
    }
}

impl<T, W: Future<Output = T> + Unpin> Later<T, W> {
    fn poll_once(&mut self) -> Poll<T> {
        self.0.poll(&mut Context::from_waker(Waker::noop()))
    }
}

impl<T, W: Future<Output = T> + Unpin> Work<T, W> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<T> {
        match self {
            Self::Runs(work) => Pin::new(work).poll(context),
            Self::Answered(answer) => answer.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}

impl<A, M, T, W> MessageResponse<A, M> for Later<T, W>
where
    A: Actor,
    M: Message<Result = T>,
    T: 'static,
    W: Future<Output = T> + Unpin + 'static,
{
    fn handle(mut self, _: &mut A::Context, sender: Option<OneshotSender<T>>) {
        let Some(mut sender) = sender else {
            // Nobody waits: what can be done at once is done, and dropped with its answer.
            drop(self.poll_once());
            return;
        };
        if sender.is_closed() {
            return;
        }
        if let Poll::Ready(answer) = self.poll_once() {
            // An answer that nobody takes comes back and is dropped, with its guards.
            drop(sender.send(answer));
            return;
        }
        actix::spawn(async move {
            let answer = {
                let gone = std::pin::pin!(sender.closed());
                // Whoever went away first does not want what was granted afterwards.
                let work = std::future::poll_fn(|context| self.0.poll(context));
                match future::select(gone, work).await {
                    Either::Right((answer, _)) => answer,
                    Either::Left(_) => return,
                }
            };
            drop(sender.send(answer));
        });
    }
}
