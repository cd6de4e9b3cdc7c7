//! What may be asked of the jobs of a pool that were put aside. Anyone sends these, the pool actor answers; if the sender goes away
//! before its message was handled, nothing happens.

use std::sync::Arc;

use actix::Message;

use super::worker_pool::{AskPools, find};
use crate::error::{PoolError, RetryError};
use crate::pool::{JobId, Pools, QuarantineEntry};

/// Asks for the jobs in quarantine of a pool, by its name, the longest there first; a pool that serves no jobs has none. The depth of its queue is
/// among the answers to [`PoolStatsQuery`](crate::PoolStatsQuery).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<QuarantineEntry>, PoolError>")]
pub struct QuarantineQuery(pub Arc<str>);

/// Has a job in quarantine begun again. See [`Quarantine::retry`](crate::Quarantine::retry). Answered when it is queued.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), RetryError>")]
pub struct RetryQuarantined {
    /// The pool's name.
    pub pool: Arc<str>,
    /// The job.
    pub job: JobId,
}

/// Drops a job in quarantine for good; the answer is `false` if it is not there.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<bool, PoolError>")]
pub struct DropQuarantined {
    /// The pool's name.
    pub pool: Arc<str>,
    /// The job.
    pub job: JobId,
}

impl AskPools for QuarantineQuery {
    async fn ask(self, pools: Arc<Pools>) -> Result<Vec<QuarantineEntry>, PoolError> {
        find(&pools, self.0).map(|pool| pool.quarantined())
    }
}

impl AskPools for RetryQuarantined {
    async fn ask(self, pools: Arc<Pools>) -> Result<(), RetryError> {
        let pool = find(&pools, Arc::clone(&self.pool));
        let pool = pool.map_err(|_| RetryError::NoSuchPool { name: self.pool })?;
        pool.retry_quarantined(self.job)
    }
}

impl AskPools for DropQuarantined {
    async fn ask(self, pools: Arc<Pools>) -> Result<bool, PoolError> {
        find(&pools, self.pool).map(|pool| pool.drop_quarantined(self.job))
    }
}
