//! The pool actor: answers messages about the pools of a keeper. Pools themselves are served by a thread of their own.

use std::sync::Arc;

use actix::{Actor, Context, Handler};

use super::lock_table::Later;
use crate::messages::worker_pool::{
    AskPools, DrainPool, ListPools, PausePool, PoolStatsQuery, ResumePool, ScalePool, StopPool,
};
use crate::pool::Pools;

/// The mailbox holds this many messages before senders wait for room; each sender has one slot more.
const MAILBOX: usize = 256;

/// The front door of pools: answers messages, and holds nothing of them.
pub struct WorkerPool {
    pools: Arc<Pools>,
}

impl WorkerPool {
    pub(crate) fn new(pools: Arc<Pools>) -> Self {
        Self { pools }
    }
}

impl Actor for WorkerPool {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX);
    }
}

impl std::fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerPool").finish_non_exhaustive()
    }
}

macro_rules! handles {
    ($($message:ty),* $(,)?) => {
        $(impl Handler<$message> for WorkerPool {
            type Result = Later<<$message as actix::Message>::Result>;

            fn handle(&mut self, message: $message, _: &mut Self::Context) -> Self::Result {
                Later::new(message.ask(Arc::clone(&self.pools)))
            }
        })*
    };
}

handles!(
    PoolStatsQuery,
    ListPools,
    ScalePool,
    PausePool,
    ResumePool,
    DrainPool,
    StopPool,
);
