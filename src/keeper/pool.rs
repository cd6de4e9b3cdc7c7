//! The pools of a keeper.

use std::sync::Arc;

use super::Keeper;
use crate::env::EnvId;
use crate::error::PoolError;
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
