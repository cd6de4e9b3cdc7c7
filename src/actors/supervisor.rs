//! The supervisor actor: takes transactions as messages.

mod attempts;
mod in_place;
mod interactive;
mod keyed;
mod locking;
mod runtime;

use std::sync::Arc;
use std::task::Poll;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Context, Handler, ResponseFuture};

use crate::error::TxnError;
use crate::messages::supervisor::{RunTxn, TxnStats, TxnStatsQuery};

pub(crate) use interactive::Running;
pub(crate) use runtime::Runtime;

/// Takes [`RunTxn`] messages; its handler hands each to the core that callers in this process also use directly, and is
/// free for the next one.
pub struct Supervisor {
    runtime: Arc<Runtime>,
}

impl Supervisor {
    pub(crate) fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

impl<T: Send + 'static, E: Send + 'static> Handler<RunTxn<T, E>> for Supervisor {
    type Result = Handed<T, E>;

    fn handle(&mut self, txn: RunTxn<T, E>, _: &mut Self::Context) -> Self::Result {
        Handed::new(&self.runtime, txn)
    }
}

/// How a transaction that came as a message is answered.
#[expect(
    clippy::large_enum_variant,
    reason = "made and taken apart once for each message; a box would cost more"
)]
pub enum Handed<T, E> {
    /// By the writer thread itself: there are no locks to take, no handlers to ask, and the sender keeps the deadline.
    #[doc(hidden)]
    Direct(#[doc(hidden)] Arc<Runtime>, #[doc(hidden)] RunTxn<T, E>),
    /// By the supervisor's core, when the transaction has ended.
    Supervised(ResponseFuture<Result<T, TxnError<E>>>),
}

impl<T: Send + 'static, E: Send + 'static> Handed<T, E> {
    pub(crate) fn new(runtime: &Arc<Runtime>, mut txn: RunTxn<T, E>) -> Self {
        // A message that did not come by the keeper has waited in the mailbox since, at the latest.
        txn.options.sent = txn.options.sent.or(txn.options.built);
        let runtime = Arc::clone(runtime);
        if runtime.is_direct(&txn) {
            Self::Direct(runtime, txn)
        } else {
            Self::Supervised(Box::pin(runtime.run(txn)))
        }
    }
}

impl<A: Actor, T: Send + 'static, E: Send + 'static> MessageResponse<A, RunTxn<T, E>>
    for Handed<T, E>
{
    fn handle(self, _: &mut A::Context, sender: Option<OneshotSender<Result<T, TxnError<E>>>>) {
        match (self, sender) {
            (Self::Direct(runtime, txn), Some(sender)) => runtime.run_direct(txn, sender),
            // Sent with `do_send`: nobody keeps its deadline.
            (Self::Direct(runtime, txn), None) => {
                actix::spawn(async move { drop(runtime.run(txn).await) });
            }
            (Self::Supervised(future), Some(sender)) => {
                actix::spawn(answer(future, sender));
            }
            (Self::Supervised(future), None) => {
                actix::spawn(async move { drop(future.await) });
            }
        }
    }
}

/// Answers, unless the sender goes away first: then the transaction is dropped where it stands, as with a method.
async fn answer<T>(mut future: ResponseFuture<T>, mut sender: OneshotSender<T>) {
    let ended = std::future::poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        sender.poll_closed(cx).map(|()| None)
    })
    .await;
    if let Some(value) = ended {
        // Gone in the meantime.
        drop(sender.send(value));
    }
}

impl Handler<TxnStatsQuery> for Supervisor {
    type Result = actix::MessageResult<TxnStatsQuery>;

    fn handle(&mut self, _: TxnStatsQuery, _: &mut Self::Context) -> Self::Result {
        let stats: TxnStats = self.runtime.stats();
        actix::MessageResult(stats)
    }
}
