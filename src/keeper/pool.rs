//! The pools of a keeper.

use std::sync::Arc;

use actix::{Addr, Message};

use super::request::unanswered;
use super::{Keeper, Request};
use crate::actors::worker_pool::WorkerPool;
use crate::clock::Clock;
use crate::env::EnvId;
use crate::error::{ActorPanicked, PoolError, RetryError, TxnError};
use crate::inside;
use crate::messages::quarantine::{DropQuarantined, QuarantineQuery, RetryQuarantined};
use crate::messages::worker_pool::{
    AskPools, DrainPool, ListPools, PausePool, PoolStatsQuery, ResumePool, ScalePool, StopPool,
};
use crate::pool::{Parts, Shared};
use crate::pool::{Pool, PoolBuilder, PoolStats};

impl Keeper {
    /// Begins to describe a pool of workers, by its name in logs, metrics and statistics. See [`PoolBuilder::start`].
    pub fn pool(&self, name: impl Into<Arc<str>>) -> PoolBuilder {
        PoolBuilder::new(self.clone(), name.into())
    }

    /// A handle of the pool of this name: one that runs, or has failed.
    ///
    /// # Errors
    ///
    /// [`PoolError::NoSuchPool`].
    pub fn find_pool(&self, name: &str) -> Result<Pool, PoolError> {
        let found = self.inner.runtime.pools.find(name).map(Pool::new);
        found.ok_or_else(|| PoolError::NoSuchPool { name: name.into() })
    }

    /// The statistics of all pools, in the order of their starts. A pool that was stopped or drained is not among them any more.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolStats> {
        self.inner.runtime.pools.stats()
    }

    pub(crate) fn clock(&self) -> Clock {
        self.inner.runtime.env.shared.clock.clone()
    }

    /// The address of the pool actor. Workers ask by [`send`](Self::send), which knows who they are: one that waited here for its own
    /// pool to end would wait for itself.
    pub fn worker_pool(&self) -> &Addr<WorkerPool> {
        &self.inner.addresses.pools
    }

    pub(crate) fn env_id(&self) -> EnvId {
        self.inner.runtime.env.shared.id
    }

    pub(crate) fn start_pool(&self, parts: Parts) -> Result<Arc<Shared>, PoolError> {
        let runtime = &self.inner.runtime;
        if runtime.env.shared.forked() {
            return Err(PoolError::ShuttingDown);
        }
        runtime.pools.start(parts, &runtime.stopping.stoppables)
    }
}

/// Messages to the pool actor, which are answered at the second door without it.
macro_rules! for_pools {
    ($($message:ty => $forked:expr, $lost:expr);* $(;)?) => {
        $(impl Request for $message {
            fn send_to(self, keeper: &Keeper) -> impl Future<Output = <Self as Message>::Result> + Send + use<> {
                let actor = keeper.inner.addresses.pools.clone();
                let runtime = Arc::clone(&keeper.inner.runtime);
                async move {
                    if runtime.env.shared.forked() {
                        return $forked;
                    }
                    // The actor would not know that a worker asks, which is not to wait for itself (I14).
                    if inside::is_worker_of(runtime.env.shared.id) {
                        return self.ask(Arc::clone(&runtime.pools)).await;
                    }
                    let again = self.clone();
                    match actor.send(self).await {
                        Ok(answer) => answer,
                        Err(_) => {
                            // A panic has taken the answer along, not the message: it may be done already.
                            let lost: fn(ActorPanicked) -> Option<<$message as Message>::Result> = $lost;
                            match unanswered(&runtime, &runtime.pool_supervision, actor.connected()) {
                                TxnError::ActorPanicked(panicked) => match lost(panicked) {
                                    Some(answer) => answer,
                                    // Asked twice, a question does no harm.
                                    None => again.ask(Arc::clone(&runtime.pools)).await,
                                },
                                _ => again.ask(Arc::clone(&runtime.pools)).await,
                            }
                        }
                    }
                }
            }
        })*
    };
}

// The pools of a forked process are its parent's.
for_pools!(
    PoolStatsQuery => Err(PoolError::ShuttingDown), |_| None;
    ListPools => Vec::new(), |_| None;
    ScalePool => Err(PoolError::ShuttingDown), |panicked| Some(Err(PoolError::ActorPanicked(panicked)));
    PausePool => Err(PoolError::ShuttingDown), |panicked| Some(Err(PoolError::ActorPanicked(panicked)));
    ResumePool => Err(PoolError::ShuttingDown), |panicked| Some(Err(PoolError::ActorPanicked(panicked)));
    DrainPool => Err(PoolError::ShuttingDown), |panicked| Some(Err(PoolError::ActorPanicked(panicked)));
    StopPool => Err(PoolError::ShuttingDown), |panicked| Some(Err(PoolError::ActorPanicked(panicked)));
    QuarantineQuery => Err(PoolError::ShuttingDown), |_| None;
    RetryQuarantined => Err(RetryError::Stopped), |panicked| Some(Err(RetryError::ActorPanicked(panicked)));
    DropQuarantined => Err(PoolError::ShuttingDown), |panicked| Some(Err(PoolError::ActorPanicked(panicked)));
);
