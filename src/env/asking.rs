//! Asking the writer or a reader, and waiting for the answer no longer than the caller's deadline.
//!
//! A caller that goes away must not leave its command to be carried out, and one whose time runs out is told who was in the
//! way. Both are decided by the ticket that the caller and the thread that serves it share.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::env::gate::{Entry, Shut};
use crate::env::job::{Ask, Ticket, Waiting};
use crate::env::shared::{Command, Question, Shared};
use crate::error::{StorageError, TxnError};

impl Shared {
    /// Sends a command and waits for its answer, at most for the usual deadline.
    pub(crate) async fn ask_writer<T, E: From<TxnError>>(
        &self,
        entry: Entry,
        command: impl FnOnce(Question<T, E>) -> Command,
    ) -> Result<T, E> {
        match self.nested().or_else(|| self.refusal(entry)) {
            None => self.ask_anyway(self.config.deadline(), command).await,
            Some(error) => Err(error.into()),
        }
    }

    /// [`Shared::ask_writer`] also of a poisoned environment.
    pub(super) async fn ask_anyway<T, E: From<TxnError>>(
        &self,
        span: Duration,
        command: impl FnOnce(Question<T, E>) -> Command,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::new());
        let deadline = crate::clock::far(Instant::now(), span);
        let wait = Wait::with(Arc::clone(&ticket), deadline, span, answer);
        {
            let _sending = Sending::begin(self);
            if self.gate.shut(Entry::Admitted) == Some(Shut::Closing) {
                return Err(TxnError::ShuttingDown.into());
            }
            let room = Arc::clone(&self.room).acquire_owned();
            let room = match self.clock.until(deadline, room).await {
                Some(Ok(room)) => room,
                Some(Err(_)) => return Err(TxnError::ShuttingDown.into()),
                None => return Err(self.out_of_time(Waiting::Queued, span).into()),
            };
            let command = command(Question {
                ticket,
                reply,
                room,
            });
            let sent = self.commands.send_async(command);
            match self.clock.until(deadline, sent).await {
                Some(Ok(())) => {}
                Some(Err(_)) => return Err(TxnError::ShuttingDown.into()),
                None => return Err(self.out_of_time(Waiting::Queued, span).into()),
            }
        }
        wait.answer(self).await?
    }
}

/// A caller that waits for the answer to its transaction; going away, it gives up.
pub(crate) struct Wait<A> {
    ticket: Arc<Ticket>,
    answer: A,
    deadline: Instant,
    span: Duration,
    blame: Blame,
}

/// Who is named when the time runs out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The body that keeps the writer.
    Writer,
    Nobody,
}

impl<R, X, A: Future<Output = Result<R, X>> + Unpin> Wait<A> {
    pub(super) fn on(ask: &Ask, answer: A, blame: Blame) -> Self {
        Self {
            ticket: Arc::clone(&ask.ticket),
            answer,
            deadline: ask.deadline,
            span: ask.span,
            blame,
        }
    }

    /// Waits for the writer.
    pub(crate) fn with(ticket: Arc<Ticket>, deadline: Instant, span: Duration, answer: A) -> Self {
        Self {
            ticket,
            answer,
            deadline,
            span,
            blame: Blame::Writer,
        }
    }

    pub(crate) async fn answer(mut self, shared: &Shared) -> Result<R, TxnError> {
        let answer = shared.clock.until(self.deadline, &mut self.answer).await;
        let in_time = answer.is_some();
        if let Some(Ok(answer)) = answer {
            return Ok(answer);
        }
        match self.ticket.give_up() {
            // The commit has begun, or a command that cannot be taken back.
            None => Err(TxnError::MaybeCommitted {
                cause: match shared.why_unanswered() {
                    TxnError::RecoveryNeeded(event) if in_time => Some(event.source.clone()),
                    TxnError::ActorPanicked(panicked) if in_time => {
                        Some(StorageError::panicked(&panicked))
                    }
                    _ => None,
                },
            }),
            Some(_) if in_time => Err(shared.why_unanswered()),
            Some(waiting) if self.blame == Blame::Writer => {
                Err(shared.out_of_time(waiting, self.span))
            }
            Some(waiting) => Err(TxnError::DeadlineExceeded {
                deadline: self.span,
                stage: waiting.stage(),
            }),
        }
    }
}

impl<A> Drop for Wait<A> {
    fn drop(&mut self) {
        self.ticket.abandon();
    }
}

/// Counts a caller from its look at the gate to the end of its send.
pub(super) struct Sending<'s>(&'s Shared);

impl<'s> Sending<'s> {
    pub(super) fn begin(shared: &'s Shared) -> Self {
        shared.sending.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.sending.fetch_sub(1, Ordering::SeqCst);
    }
}
