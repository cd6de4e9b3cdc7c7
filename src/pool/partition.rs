//! Pools under leases.

use std::sync::Arc;

use super::seams::Gates;
use super::supervise::Gating;
use crate::error::PoolError;
use crate::keeper::Keeper;

/// What a pool is told about its leases.
#[derive(Default)]
pub(super) struct LeaseGates {}

impl LeaseGates {
    /// What opens and closes the pool's gates, if anything does.
    #[allow(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        clippy::type_complexity,
        reason = "there are none yet"
    )]
    pub(super) fn gates(
        self,
        _keeper: &Keeper,
        _pool: &Arc<str>,
    ) -> Result<Option<(Gating, Arc<dyn Gates>)>, PoolError> {
        Ok(None)
    }
}
