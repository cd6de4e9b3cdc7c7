//! Panics in actors: caught around whatever an actor does.
//!
//! actix ends an actor whose handler panics, tells its callers "closed", which also means four other things, and aborts the
//! process when the broken actor panics once more on its way down. So no panic gets as far as actix. The actors of this crate hold
//! nothing but handles of cores: what was asked is answered with an error that says so, the actor goes on, its address stays good,
//! and what is queued behind is served.

use std::sync::Arc;
use std::sync::mpsc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, ActorContext, Message};

use crate::error::{ActorPanicked, Part};
use crate::supervision::Supervision;

impl Supervision {
    /// Runs a handler. A panic is answered as `answer` says; where a message has no error for it, the sender is told that its
    /// mailbox is closed.
    pub(crate) fn handle<C: ActorContext, R>(
        self: &Arc<Self>,
        context: &mut C,
        message: &'static str,
        handler: impl FnOnce() -> R,
        answer: impl FnOnce(ActorPanicked) -> Option<R>,
    ) -> Watched<R> {
        let response = match self.guard(message, handler) {
            Ok(response) => Some(response),
            Err(panicked) => answer(panicked),
        };
        if self.is_to_stop() {
            context.stop();
        }
        Watched {
            response,
            supervision: Arc::clone(self),
        }
    }

    /// Runs what an actor does when it starts, and tells whoever waits for that.
    pub(crate) fn start(&self, started: Option<Started>, starting: impl FnOnce()) {
        let outcome = self.guard("starting", starting);
        if let Some(started) = started {
            started.tell(outcome);
        }
    }

    /// Runs what an actor does when it stops: a second panic there would end the process.
    pub(crate) fn stop(&self, stopping: impl FnOnce()) {
        // It is told.
        let _ = self.guard("stopping", stopping);
    }
}

/// Tells whoever starts an actor how that went. Dropped, it says that the actor never got so far.
#[derive(Debug)]
pub(crate) struct Started {
    part: Part,
    tell: Option<mpsc::Sender<Result<(), ActorPanicked>>>,
}

impl Started {
    pub(crate) fn new(part: Part, tell: mpsc::Sender<Result<(), ActorPanicked>>) -> Self {
        Self {
            part,
            tell: Some(tell),
        }
    }

    fn tell(mut self, outcome: Result<(), ActorPanicked>) {
        if let Some(tell) = self.tell.take() {
            // Nobody may be waiting any more.
            let _ = tell.send(outcome);
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            let never = ActorPanicked::new(self.part, "it was not started");
            let _ = tell.send(Err(never));
        }
    }
}

/// What a handler answers, in a way that a panic on the way to the sender does not end the actor.
pub struct Watched<R> {
    response: Option<R>,
    supervision: Arc<Supervision>,
}

impl<A, M, R> MessageResponse<A, M> for Watched<R>
where
    A: Actor,
    M: Message,
    R: MessageResponse<A, M>,
{
    fn handle(self, context: &mut A::Context, sender: Option<OneshotSender<M::Result>>) {
        let Some(response) = self.response else {
            return;
        };
        // It is told, and only then the sender goes: whoever waits for the answer looks for the panic.
        let mut answer = Some((response, sender));
        let _ = self.supervision.guard("answering", || {
            if let Some((response, sender)) = answer.take() {
                response.handle(context, sender);
            }
        });
    }
}
