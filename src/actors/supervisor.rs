//! The supervisor actor: takes transactions as messages.

mod admission;
mod attempts;
mod in_place;
mod interactive;
mod keyed;
mod locking;
mod runtime;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Instant;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, ActorContext, Context, Handler, MessageResult, ResponseFuture};

use super::supervised::{Started, Watched};
use crate::error::{ActorPanicked, StorageError, TxnError};
use crate::messages::supervisor::{RunTxn, TxnStatsQuery};
use crate::supervision::Supervision;

pub(crate) use interactive::Running;
pub(crate) use runtime::Runtime;

/// Takes [`RunTxn`] messages; its handler hands each to the core that callers in this process also use directly, and is
/// free for the next one.
pub struct Supervisor {
    runtime: Arc<Runtime>,
    started: Option<Started>,
}

impl Supervisor {
    pub(crate) fn new(runtime: Arc<Runtime>, started: Option<Started>) -> Self {
        Self { runtime, started }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        let started = self.started.take();
        self.runtime.supervision.start(started, || ());
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.runtime.supervision.stop(|| ());
    }
}

impl<T: Send + 'static, E: Send + 'static> Handler<RunTxn<T, E>> for Supervisor {
    type Result = Watched<Handed<T, E>>;

    fn handle(&mut self, txn: RunTxn<T, E>, context: &mut Self::Context) -> Self::Result {
        Handed::watched(&self.runtime.supervision, &self.runtime, context, txn)
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
    /// At once, with an error.
    Refused(TxnError<E>),
}

impl<T: Send + 'static, E: Send + 'static> Handed<T, E> {
    /// Hands a transaction on; a panic in that is told by `supervision`.
    pub(crate) fn watched<C: ActorContext>(
        supervision: &Arc<Supervision>,
        runtime: &Arc<Runtime>,
        context: &mut C,
        txn: RunTxn<T, E>,
    ) -> Watched<Self> {
        let new = || Self::new(supervision, runtime, txn);
        // Nothing has been begun yet.
        let refused = |panicked| Some(Self::Refused(TxnError::ActorPanicked(panicked)));
        supervision.handle(context, "RunTxn", new, refused)
    }

    fn new(supervision: &Arc<Supervision>, runtime: &Arc<Runtime>, mut txn: RunTxn<T, E>) -> Self {
        // A message that did not come by the keeper has waited in the mailbox since, at the latest.
        txn.options.sent = txn.options.sent.or(txn.options.built);
        let runtime = Arc::clone(runtime);
        if runtime.is_direct(&txn) {
            return Self::Direct(runtime, txn);
        }
        let begun = Arc::new(AtomicBool::new(false));
        if !txn.is_view() {
            txn.options.begun = Some(Arc::clone(&begun));
        }
        let (started, counts) = (Instant::now(), Arc::clone(&runtime));
        let panicked = move |panicked: ActorPanicked| {
            let outcome = Err(match begun.load(Ordering::Acquire) {
                true => TxnError::MaybeCommitted {
                    cause: Some(StorageError::panicked(&panicked)),
                },
                false => TxnError::ActorPanicked(panicked),
            });
            counts.count(&outcome, started);
            outcome
        };
        let run = supervision.guarded("running a transaction", runtime.run(txn), panicked);
        Self::Supervised(Box::pin(run))
    }
}

impl<A: Actor, T: Send + 'static, E: Send + 'static> MessageResponse<A, RunTxn<T, E>>
    for Handed<T, E>
{
    fn handle(self, _: &mut A::Context, sender: Option<OneshotSender<Result<T, TxnError<E>>>>) {
        match (self, sender) {
            (Self::Refused(error), Some(sender)) => drop(sender.send(Err(error))),
            (Self::Refused(_), None) => {}
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
    type Result = Watched<MessageResult<TxnStatsQuery>>;

    fn handle(&mut self, _: TxnStatsQuery, context: &mut Self::Context) -> Self::Result {
        let stats = || MessageResult(self.runtime.stats());
        let supervision = &self.runtime.supervision;
        supervision.handle(context, "TxnStatsQuery", stats, |_| None)
    }
}
