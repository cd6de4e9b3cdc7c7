//! The pool actor: answers messages about the pools of a keeper. Pools themselves are served by a thread of their own.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message};

use super::lock_table::Later;
use super::supervised::{Started, Watched};
use super::supervisor::Runtime;
use crate::error::{ActorPanicked, PoolError, RetryError};
use crate::messages::quarantine::{DropQuarantined, QuarantineQuery, RetryQuarantined};
use crate::messages::worker_pool::{
    AskPools, DrainPool, ListPools, PausePool, PoolStatsQuery, ResumePool, ScalePool, StopPool,
};
use crate::pool::Pools;
use crate::supervision::Supervision;

/// The mailbox holds this many messages before senders wait for room; each sender has one slot more.
const MAILBOX: usize = 256;

/// The front door of pools: answers messages, and holds nothing of them.
pub struct WorkerPool {
    pools: Arc<Pools>,
    supervision: Arc<Supervision>,
    started: Option<Started>,
}

impl WorkerPool {
    pub(crate) fn new(runtime: &Runtime, started: Started) -> Self {
        Self {
            pools: Arc::clone(&runtime.pools),
            supervision: Arc::clone(&runtime.pool_supervision),
            started: Some(started),
        }
    }
}

impl Actor for WorkerPool {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let started = self.started.take();
        let set = || context.set_mailbox_capacity(MAILBOX);
        self.supervision.start(started, set);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.supervision.stop(|| ());
    }
}

impl std::fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerPool").finish_non_exhaustive()
    }
}

/// Each message with the answer to it after a panic, if it has any.
macro_rules! handles {
    ($($message:ident => $answer:expr),* $(,)?) => {
        $(impl Handler<$message> for WorkerPool {
            type Result = Watched<Later<<$message as Message>::Result>>;

            fn handle(&mut self, message: $message, context: &mut Self::Context) -> Self::Result {
                let ask = || Later::new(message.ask(Arc::clone(&self.pools)));
                let answer: fn(ActorPanicked) -> Option<<$message as Message>::Result> = $answer;
                let answer = |panicked| answer(panicked).map(Later::answered);
                self.supervision.handle(context, stringify!($message), ask, answer)
            }
        })*
    };
}

handles!(
    PoolStatsQuery => |panicked| Some(Err(PoolError::ActorPanicked(panicked))),
    ListPools => |_| None,
    ScalePool => |panicked| Some(Err(PoolError::ActorPanicked(panicked))),
    PausePool => |panicked| Some(Err(PoolError::ActorPanicked(panicked))),
    ResumePool => |panicked| Some(Err(PoolError::ActorPanicked(panicked))),
    DrainPool => |panicked| Some(Err(PoolError::ActorPanicked(panicked))),
    StopPool => |panicked| Some(Err(PoolError::ActorPanicked(panicked))),
    QuarantineQuery => |panicked| Some(Err(PoolError::ActorPanicked(panicked))),
    RetryQuarantined => |panicked| Some(Err(RetryError::ActorPanicked(panicked))),
    DropQuarantined => |panicked| Some(Err(PoolError::ActorPanicked(panicked))),
);
