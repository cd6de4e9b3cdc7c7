//! What can be looked up about a pool.

use std::sync::Arc;

use serde::Serialize;

use super::failure::WorkerFailure;
use super::jobs::JobStats;
use super::partition::PoolLeaseStats;
use super::supervise::{Counts, PoolState, Restart, Strategy, WorkerState};

/// The statistics of a pool. Counters count from its start.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct PoolStats {
    /// The pool's name.
    pub name: Arc<str>,
    /// Where it is in its life.
    pub state: PoolState,
    /// Which workers are started again.
    pub restart: Restart,
    /// Which others with them.
    pub strategy: Strategy,
    /// Whether its workers are threads, rather than tasks.
    pub blocking: bool,
    /// How many workers there should be.
    pub target: usize,
    /// How many are where.
    pub workers: WorkerCounts,
    /// Where each worker is, by number.
    pub states: Vec<WorkerState>,
    /// Jobs that wait in its queue; 0 for a pool without one.
    pub queued: usize,
    /// All about its jobs, if it serves any.
    pub jobs: Option<JobStats>,
    /// Workers started again after a failure, their own or that of their group.
    pub restarts: u64,
    /// Failures, those included that no restart followed.
    pub failures: u64,
    /// Workers found silent.
    pub silences: u64,
    /// Runs that were given up, because they were silent or did not stop in time.
    pub abandoned: u64,
    /// Of these, how many have ended after all.
    pub ended_late: u64,
    /// The leases of a pool that runs under one, or is partitioned.
    pub lease: Option<PoolLeaseStats>,
    /// The last 16 failures, the oldest first.
    pub last_failures: Vec<WorkerFailure>,
}

/// How many workers of a pool are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct WorkerCounts {
    /// Run, the silent ones included.
    pub running: usize,
    /// Run, and gave no heartbeat for too long.
    pub silent: usize,
    /// Were told to stop, and run still.
    pub stopping: usize,
    /// Wait for their restart.
    pub waiting: usize,
    /// Do not run: the pool is paused or over, or a lease is not held.
    pub idle: usize,
    /// Have ended, and are not started again.
    pub done: usize,
    /// Were given up, and run still.
    pub abandoned: usize,
}

impl From<Counts> for WorkerCounts {
    fn from(counts: Counts) -> Self {
        Self {
            running: counts.running,
            silent: counts.silent,
            stopping: counts.stopping,
            waiting: counts.waiting,
            idle: counts.idle,
            done: counts.done,
            abandoned: counts.abandoned,
        }
    }
}
