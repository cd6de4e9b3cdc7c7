//! What is sent to the writer and the readers: a body, what is known of it, and where the answer goes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::config::Durability;
use crate::env::gate::Entry;
use crate::env::outside::Kind;
use crate::env::transaction::{ReadTxn, WriteTxn};
use crate::error::{Name, Site, Stage, TxnError};

/// The body of an update.
pub(crate) type UpdateBody<T, E> =
    Box<dyn FnMut(&mut WriteTxn<'_>) -> Result<T, TxnError<E>> + Send>;
/// The body of a view.
pub(crate) type ViewBody<T, E> = Box<dyn FnMut(&ReadTxn<'_>) -> Result<T, TxnError<E>> + Send>;

/// Whatever a transaction holds beside its body, given back by being dropped: the environment does not know what it is.
pub(crate) trait Holding: Send {
    /// Why the transaction may not be applied any more, if there is a reason; asked before its body runs, and after.
    fn check(&self) -> Result<(), TxnError>;
}

pub(crate) type Held = Box<dyn Holding>;

/// How far a transaction has come; shared by the caller, who may give up, and the thread that runs it.
pub(crate) struct Ticket(AtomicU8);

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const RAN: u8 = 2;
const COMMITTING: u8 = 3;
const GIVEN_UP: u8 = 4;

impl Ticket {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(QUEUED))
    }

    /// The body is about to run, perhaps again; `false` if its caller has given up.
    pub(crate) fn start(&self) -> bool {
        self.step(QUEUED, RUNNING) || self.step(RAN, RUNNING)
    }

    /// The body has returned; `false` if its caller has given up meanwhile.
    pub(crate) fn returned(&self) -> bool {
        self.step(RUNNING, RAN)
    }

    /// From here on the caller cannot give up any more; `false` if it already has.
    pub(crate) fn begin_commit(&self) -> bool {
        self.step(RAN, COMMITTING)
    }

    /// The commit did not happen after all.
    pub(crate) fn revert_commit(&self) {
        self.step(COMMITTING, RAN);
    }

    pub(crate) fn given_up(&self) -> bool {
        self.0.load(Ordering::Acquire) == GIVEN_UP
    }

    /// The caller's time is over: what it was waiting for, or `None` when the commit is under way.
    pub(crate) fn give_up(&self) -> Option<Waiting> {
        loop {
            let (state, was) = match self.0.load(Ordering::Acquire) {
                GIVEN_UP => return Some(Waiting::Queued),
                state @ QUEUED => (state, Waiting::Queued),
                state @ RUNNING => (state, Waiting::Running),
                state @ RAN => (state, Waiting::Ran),
                _ => return None,
            };
            if self.step(state, GIVEN_UP) {
                return Some(was);
            }
        }
    }

    /// The caller went away: a body that has not begun never will, one that has may still commit.
    pub(crate) fn abandon(&self) {
        self.step(QUEUED, GIVEN_UP);
    }

    fn step(&self, from: u8, to: u8) -> bool {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// Where a caller's deadline found its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    Queued,
    Running,
    /// It had run, and waited for others of its batch.
    Ran,
}

/// What is known of a transaction beside its body.
pub(crate) struct Ask {
    pub name: Name,
    pub site: Site,
    pub deadline: Instant,
    /// The time from the send to the deadline.
    pub span: Duration,
    /// `None`: as the environment is set.
    pub durability: Option<Durability>,
    pub ticket: Arc<Ticket>,
    /// What it holds until its commit has returned, or it is aborted (I4).
    pub locks: Option<Held>,
    /// How often it ran before it came here.
    pub attempts_before: u32,
    pub kind: Kind,
    pub trace: tracing::Span,
    /// Its place among the transactions in flight, kept as long as it is queued or runs.
    pub permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl Ask {
    pub(crate) fn new(name: Name, site: Site, deadline: Instant, span: Duration) -> Self {
        Self {
            name,
            site,
            deadline,
            span,
            durability: None,
            ticket: Arc::new(Ticket::new()),
            locks: None,
            attempts_before: 0,
            kind: Kind::Plain,
            trace: tracing::Span::none(),
            permit: None,
        }
    }

    /// Records in its span how long it waited, from its send, and how long its body ran.
    pub(crate) fn ran(&self, began: Instant, ended: Instant) {
        if let Some(sent) = self.deadline.checked_sub(self.span) {
            let waited = began.saturating_duration_since(sent);
            self.trace.record("wait_us", micros(waited));
        }
        let ran = ended.saturating_duration_since(began);
        self.trace.record("run_us", micros(ran));
    }

    /// Gives back what it holds, before it is answered: who is answered finds its locks free, and its place too.
    pub(crate) fn let_go(&mut self) {
        drop(self.locks.take());
        drop(self.permit.take());
    }

    /// Whoever has a place among the transactions in flight may still finish while the keeper shuts down.
    pub(crate) fn entry(&self) -> Entry {
        if self.permit.is_some() {
            Entry::Admitted
        } else {
            Entry::New
        }
    }
}

/// A duration as spans show it.
pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// How a run of a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    Done,
    /// It answered an error, or panicked.
    Failed,
}

/// An update as the writer sees it.
pub(crate) trait UpdateJob: Send {
    fn run(&mut self, txn: &mut WriteTxn<'_>, site: Site) -> Ran;
    /// Puts an error in the place of what a run returned, or would return.
    fn refuse(&mut self, error: TxnError) -> Ran;
    /// Answers what the last run returned.
    fn answer(self: Box<Self>);
    /// Answers an error in place of it.
    fn fail(self: Box<Self>, error: TxnError);
}

/// A view as a reader thread sees it.
pub(crate) trait ViewJob: Send {
    fn run(&mut self, txn: &ReadTxn<'_>, site: Site);
    fn answer(self: Box<Self>);
    fn fail(self: Box<Self>, error: TxnError);
}

/// What the caller gets: the answer, and the body for another attempt.
pub(crate) struct Answer<T, E, B> {
    pub result: Result<T, TxnError<E>>,
    pub body: B,
}

pub(crate) struct Typed<T, E, B> {
    body: B,
    result: Option<Result<T, TxnError<E>>>,
    reply: Reply<T, E, B>,
}

/// Where the answer goes.
pub(crate) enum Reply<T, E, B> {
    /// To whoever may try again with the body.
    Supervised(oneshot::Sender<Answer<T, E, B>>),
    /// Straight to the sender of a message.
    Direct(oneshot::Sender<Result<T, TxnError<E>>>),
}

impl<T, E, B> Typed<T, E, B> {
    pub(crate) fn new(body: B, reply: Reply<T, E, B>) -> Box<Self> {
        Box::new(Self {
            body,
            result: None,
            reply,
        })
    }

    fn reply(self, result: Result<T, TxnError<E>>) {
        let Self { body, reply, .. } = self;
        // A caller that went away wants no answer.
        match reply {
            Reply::Supervised(reply) => drop(reply.send(Answer { result, body })),
            Reply::Direct(reply) => drop(reply.send(result)),
        }
    }
}

impl<T: Send, E: Send> UpdateJob for Typed<T, E, UpdateBody<T, E>> {
    fn run(&mut self, txn: &mut WriteTxn<'_>, site: Site) -> Ran {
        let (body, earlier) = (&mut self.body, self.result.take());
        let result = guarded(site, || {
            // It was undone, with everything else of its run.
            drop(earlier);
            body(txn)
        });
        let ran = if result.is_ok() {
            Ran::Done
        } else {
            Ran::Failed
        };
        self.result = Some(result);
        ran
    }

    fn refuse(&mut self, error: TxnError) -> Ran {
        self.result = Some(Err(error.widen()));
        Ran::Failed
    }

    fn answer(mut self: Box<Self>) {
        match self.result.take() {
            Some(result) => self.reply(result),
            None => self.reply(Err(TxnError::ShuttingDown)),
        }
    }

    fn fail(self: Box<Self>, error: TxnError) {
        self.reply(Err(error.widen()));
    }
}

impl<T: Send, E: Send> ViewJob for Typed<T, E, ViewBody<T, E>> {
    fn run(&mut self, txn: &ReadTxn<'_>, site: Site) {
        let body = &mut self.body;
        self.result = Some(guarded(site, || body(txn)));
    }

    fn answer(mut self: Box<Self>) {
        match self.result.take() {
            Some(result) => self.reply(result),
            None => self.reply(Err(TxnError::ShuttingDown)),
        }
    }

    fn fail(self: Box<Self>, error: TxnError) {
        self.reply(Err(error.widen()));
    }
}

/// Runs a body; a panic becomes an error.
#[inline]
pub(crate) fn guarded<T, E>(
    site: Site,
    body: impl FnOnce() -> Result<T, TxnError<E>>,
) -> Result<T, TxnError<E>> {
    // What a body that is left half-way has written is undone.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let message = panic_message(&*panic);
        quietly(|| drop(panic));
        Err(TxnError::BodyPanicked { message, site })
    })
}

/// Runs what may drop or wake something of the application's: a panic there is not the writer's end.
pub(crate) fn quietly(what: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(what)) {
        let message = panic_message(&*panic);
        // So may the application's subscriber.
        let told = catch_unwind(|| {
            tracing::error!(target: "lockkeeper", message, "a value of the application panicked while it was dropped or answered");
        });
        std::mem::forget(told);
        // Its own drop may panic once more; it is small.
        std::mem::forget(panic);
    }
}

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}

impl Waiting {
    pub(crate) fn stage(self) -> Stage {
        match self {
            Self::Queued => Stage::WasQueued,
            Self::Running | Self::Ran => Stage::Ran,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i03_a_caller_can_give_up_until_the_commit_begins() {
        let ticket = Ticket::new();
        assert!(ticket.start());
        assert!(ticket.returned());
        assert!(ticket.begin_commit());
        assert_eq!(ticket.give_up(), None);

        let ticket = Ticket::new();
        assert!(ticket.start());
        assert_eq!(ticket.give_up(), Some(Waiting::Running));
        assert!(!ticket.returned());
        assert!(!ticket.begin_commit());
    }

    #[test]
    fn an_abandoned_body_runs_only_if_it_had_begun() {
        let ticket = Ticket::new();
        ticket.abandon();
        assert!(!ticket.start());

        let ticket = Ticket::new();
        assert!(ticket.start());
        ticket.abandon();
        assert!(ticket.returned() && ticket.begin_commit());
    }

    #[test]
    fn a_body_may_run_again_after_its_batch_was_undone() {
        let ticket = Ticket::new();
        assert!(ticket.start() && ticket.returned() && ticket.begin_commit());
        ticket.revert_commit();
        assert!(ticket.start() && ticket.returned());
        assert_eq!(ticket.give_up(), Some(Waiting::Ran));
        assert!(!ticket.start());
    }
}
