//! What may be asked of the pools of a keeper.
//!
//! Anyone sends these; the pool actor does what the handle of the pool does ([`Pool`](crate::Pool)), and answers as it answers. If the sender goes
//! away before its message was handled, nothing happens; after that, what was asked for happens all the same.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;

use crate::error::PoolError;
use crate::pool::{Pool, PoolStats, Pools};

/// A message to the pool actor: what it does, whichever door it came through.
pub(crate) trait AskPools: Message {
    /// Does it. It begins when it is polled.
    fn ask(self, pools: Arc<Pools>) -> impl Future<Output = Self::Result> + Send + 'static;
}

/// Asks for the statistics of one pool, by its name. The answer is an error if there is no such pool.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<PoolStats, PoolError>")]
pub struct PoolStatsQuery(pub Arc<str>);

/// Asks for the statistics of all pools, in the order of their starts. Pools that were stopped or drained are not among them any more.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<PoolStats>")]
pub struct ListPools;

/// Has a pool have so many workers from now on. See [`Pool::scale`](crate::Pool::scale).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), PoolError>")]
pub struct ScalePool {
    /// The pool's name.
    pub pool: Arc<str>,
    /// How many.
    pub workers: usize,
}

/// Has a pool's workers end, and starts none until [`ResumePool`]; answered when none runs. See [`Pool::pause`](crate::Pool::pause).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), PoolError>")]
pub struct PausePool(pub Arc<str>);

/// Ends a pause, or has a pool that failed begin anew. See [`Pool::resume`](crate::Pool::resume).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), PoolError>")]
pub struct ResumePool(pub Arc<str>);

/// Has a pool end when what is there is done; answered when it is over. See [`Pool::drain`](crate::Pool::drain).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), PoolError>")]
pub struct DrainPool {
    /// The pool's name.
    pub pool: Arc<str>,
    /// How long it may take.
    pub deadline: Duration,
}

/// Has a pool end; answered when it is over. See [`Pool::stop`](crate::Pool::stop).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), PoolError>")]
pub struct StopPool {
    /// The pool's name.
    pub pool: Arc<str>,
    /// How long it may take.
    pub deadline: Duration,
}

impl AskPools for PoolStatsQuery {
    async fn ask(self, pools: Arc<Pools>) -> Result<PoolStats, PoolError> {
        find(&pools, self.0).map(|pool| pool.stats())
    }
}

impl AskPools for ListPools {
    async fn ask(self, pools: Arc<Pools>) -> Vec<PoolStats> {
        pools.stats()
    }
}

impl AskPools for ScalePool {
    async fn ask(self, pools: Arc<Pools>) -> Result<(), PoolError> {
        find(&pools, self.pool)?.scale(self.workers)
    }
}

impl AskPools for PausePool {
    async fn ask(self, pools: Arc<Pools>) -> Result<(), PoolError> {
        find(&pools, self.0)?.pause().await
    }
}

impl AskPools for ResumePool {
    async fn ask(self, pools: Arc<Pools>) -> Result<(), PoolError> {
        find(&pools, self.0)?.resume()
    }
}

impl AskPools for DrainPool {
    async fn ask(self, pools: Arc<Pools>) -> Result<(), PoolError> {
        find(&pools, self.pool)?.drain(self.deadline).await
    }
}

impl AskPools for StopPool {
    async fn ask(self, pools: Arc<Pools>) -> Result<(), PoolError> {
        find(&pools, self.pool)?.stop(self.deadline).await
    }
}

fn find(pools: &Pools, name: Arc<str>) -> Result<Pool, PoolError> {
    let found = pools.find(&name).map(Pool::new);
    found.ok_or(PoolError::NoSuchPool { name })
}
