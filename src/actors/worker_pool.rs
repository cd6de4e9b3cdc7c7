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

impl WorkerPool {
    /// Does what a message asks for. A panic is answered too, also one over work that waits, which is no handler's any more: whoever
    /// asks must not take it for a message that was not handled, and ask again.
    fn watch<M: AskPools>(
        &self,
        message: M,
        name: &'static str,
        context: &mut Context<Self>,
        panicked: fn(ActorPanicked, &Pools) -> M::Result,
    ) -> Watched<Later<M::Result>>
    where
        M::Result: 'static,
    {
        let ask = || {
            let asked = message.ask(Arc::clone(&self.pools));
            let supervision = Arc::clone(&self.supervision);
            let work = async move {
                let answer = asked.await;
                supervision.bombs.pass("having asked a pool");
                answer
            };
            let pools = Arc::clone(&self.pools);
            let answer = move |of| panicked(of, &pools);
            Later::new(self.supervision.guarded("asking a pool", work, answer))
        };
        let answer = |of| Some(Later::answered(panicked(of, &self.pools)));
        self.supervision.handle(context, name, ask, answer)
    }
}

/// Each message with the answer to it after a panic.
macro_rules! handles {
    ($($message:ident => $panicked:expr),* $(,)?) => {
        $(impl Handler<$message> for WorkerPool {
            type Result = Watched<Later<<$message as Message>::Result>>;

            fn handle(&mut self, message: $message, context: &mut Self::Context) -> Self::Result {
                self.watch(message, stringify!($message), context, $panicked)
            }
        })*
    };
}

handles!(
    PoolStatsQuery => |panicked, _| Err(PoolError::ActorPanicked(panicked)),
    // It has no error.
    ListPools => |_, pools| pools.stats(),
    ScalePool => |panicked, _| Err(PoolError::ActorPanicked(panicked)),
    PausePool => |panicked, _| Err(PoolError::ActorPanicked(panicked)),
    ResumePool => |panicked, _| Err(PoolError::ActorPanicked(panicked)),
    DrainPool => |panicked, _| Err(PoolError::ActorPanicked(panicked)),
    StopPool => |panicked, _| Err(PoolError::ActorPanicked(panicked)),
    QuarantineQuery => |panicked, _| Err(PoolError::ActorPanicked(panicked)),
    RetryQuarantined => |panicked, _| Err(RetryError::ActorPanicked(panicked)),
    DropQuarantined => |panicked, _| Err(PoolError::ActorPanicked(panicked)),
);
