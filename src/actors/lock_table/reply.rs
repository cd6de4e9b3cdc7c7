//! The answer to an [`Acquire`]: at once, or by whoever releases the lock.
//!
//! A request that waits keeps nothing in the actor: the sender of its answer goes to the waiter, and
//! the thread that grants the lock sends it.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Wake, Waker};

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Message};

use super::locker::{LockGuard, Locker};
use super::shared::{self, Outcome, Shared, Waiter};
use super::waiting::WaitSpan;
use crate::error::LockError;
use crate::locks::{Mode, Object, Request, WaitId};
use crate::messages::lock_table::Acquire;

type Answer = Result<LockGuard, LockError>;

/// What the lock table's handler answers to an [`Acquire`].
#[derive(Debug)]
pub struct LockReply(Reply);

#[derive(Debug)]
enum Reply {
    Now(Answer),
    Later(Asked),
}

/// A request that waits.
#[derive(Debug)]
struct Asked {
    id: WaitId,
    locker: Arc<Locker>,
    object: Object,
    mode: Mode,
    span: WaitSpan,
}

impl LockReply {
    pub(super) fn refused(error: LockError) -> Self {
        Self(Reply::Now(Err(error)))
    }

    pub(super) fn ask(locker: Arc<Locker>, acquire: Acquire) -> Self {
        let Acquire {
            object,
            mode,
            wait,
            site,
            ..
        } = acquire;
        let request = Request {
            locker: locker.id(),
            object: &object,
            mode,
            from: None,
            site,
        };
        Self(match locker.shared().ask(request, wait) {
            Ok(None) => Reply::Now(Ok(LockGuard::new(locker, object, mode))),
            Ok(Some(id)) => {
                let span = WaitSpan::begin(locker.id(), &object, mode);
                Reply::Later(Asked {
                    id,
                    locker,
                    object,
                    mode,
                    span,
                })
            }
            Err(error) => Reply::Now(Err(error)),
        })
    }
}

impl<A, M> MessageResponse<A, M> for LockReply
where
    A: Actor,
    M: Message<Result = Answer>,
{
    fn handle(self, _: &mut A::Context, sender: Option<OneshotSender<Answer>>) {
        match (self.0, sender) {
            // An answer that nobody takes comes back and is dropped: its guard releases the lock.
            (Reply::Now(answer), Some(sender)) => drop(sender.send(answer)),
            (Reply::Now(answer), None) => drop(answer),
            (Reply::Later(asked), Some(sender)) => asked.answer_to(sender),
            (Reply::Later(asked), None) => asked.withdraw(),
        }
    }
}

impl Asked {
    fn withdraw(&self) {
        let asked = shared::Asked {
            locker: self.locker.id(),
            object: &self.object,
            mode: self.mode,
            from: None,
        };
        self.locker.shared().withdraw(self.id, &asked);
    }

    fn answer_to(self, mut sender: OneshotSender<Answer>) {
        let locks = self.locker.locks().clone();
        let abandon = Waker::from(Arc::new(Abandon {
            shared: Arc::downgrade(locks.shared_arc()),
            id: self.id,
        }));
        let gone = {
            // Tells the waker when the receiver goes away. Unconstrained, since a task that has used up its
            // budget would be told "later" and woken at once.
            let closed = tokio::task::unconstrained(std::future::poll_fn(|context| {
                sender.poll_closed(context)
            }));
            pin!(closed)
                .poll(&mut Context::from_waker(&abandon))
                .is_ready()
        };
        if gone {
            self.withdraw();
            return;
        }
        let id = self.id;
        let mut reply = Some(Box::new(PendingReply {
            asked: self,
            sender,
        }));
        let mut gone = None;
        let outcome = locks.shared().aside(|state| {
            let waiter = state.waiters.get_mut(&id)?;
            if let Waiter::Task {
                outcome: outcome @ Some(_),
                ..
            } = waiter
            {
                let outcome = outcome.take();
                state.waiters.remove(&id);
                return outcome;
            }
            if let Some(reply) = reply.take_if(|reply| reply.sender.is_closed()) {
                gone = Some(reply);
            } else if let Some(reply) = reply.take() {
                *waiter = Waiter::Reply(reply);
            }
            None
        });
        if let Some(reply) = gone {
            reply.asked.withdraw();
        } else if let (Some(reply), Some(outcome)) = (reply, outcome) {
            reply.answer(outcome);
        }
    }
}

/// The sender of an answer, kept with the request that waits.
pub(super) struct PendingReply {
    asked: Asked,
    sender: OneshotSender<Answer>,
}

impl PendingReply {
    /// Answers. Not under the table's mutex: an answer that nobody takes releases its lock.
    pub(super) fn answer(self, outcome: Outcome) {
        let Asked {
            locker,
            object,
            mode,
            span,
            ..
        } = self.asked;
        let answer = match outcome {
            Ok(()) => Ok(LockGuard::new(locker, object, mode)),
            Err(end) => {
                // Before the answer: whoever gets it may expect that a locker of its own is gone.
                drop(locker);
                Err(LockError::from(end))
            }
        };
        span.end(answer.as_ref().err());
        drop(self.sender.send(answer));
    }
}

/// Woken when whoever waits for an answer has gone away: takes the request out of the queue.
struct Abandon {
    shared: Weak<Shared>,
    id: WaitId,
}

impl Wake for Abandon {
    fn wake(self: Arc<Self>) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let waiter = shared.transition(|state, effects| match state.waiters.get(&self.id) {
            Some(Waiter::Reply(reply)) if reply.sender.is_closed() => {
                state.table.withdraw(self.id, effects);
                state.waiters.remove(&self.id)
            }
            _ => None,
        });
        // A broken table has answered all who wait.
        drop(waiter);
    }
}
