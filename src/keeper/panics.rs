//! What a keeper tells of panics in itself.

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::actors::lock_table::Locks;
use crate::actors::supervisor::Runtime;
use crate::error::ActorPanicked;

/// How often a part of the keeper itself has panicked since it was opened. The panics of bodies and of handlers do not count. Each
/// was logged as an error, and answered to whoever had asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PanicStats {
    /// The environment actor, the writer, the readers, and the threads that hold snapshots.
    pub environment: u64,
    /// The supervisor actor.
    pub supervisor: u64,
    /// The lock table: its actor, its clock, and the table itself.
    pub lock_table: u64,
    /// The lease actor, and the thread that serves the leases.
    pub leases: u64,
    /// The worker-pool actor, and the thread that serves the pools. The panics of workers are in the statistics of their pool.
    pub worker_pool: u64,
    /// The last of each, in this order.
    pub last: Vec<ActorPanicked>,
}

impl PanicStats {
    pub(super) fn of(runtime: &Runtime) -> Self {
        let environment = &runtime.env.shared.supervision;
        let supervisor = &runtime.supervision;
        let lock_table = runtime.locks.as_ref().map(Locks::supervision);
        let leases = runtime.leases.get().map(|leases| &leases.supervision);
        let pools = &runtime.pool_supervision;
        let all = [
            Some(environment),
            Some(supervisor),
            lock_table,
            leases,
            Some(pools),
        ];
        Self {
            environment: environment.panics(),
            supervisor: supervisor.panics(),
            lock_table: lock_table.map_or(0, |part| part.panics()),
            leases: leases.map_or(0, |part| part.panics()),
            worker_pool: pools.panics(),
            last: all
                .into_iter()
                .flatten()
                .filter_map(|part| part.last())
                .collect(),
        }
    }
}
