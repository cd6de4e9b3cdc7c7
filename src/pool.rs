//! Supervised pools of workers that run for months: consumers, schedulers, importers.
//!
//! `supervise` decides which workers start, start again and stop, and when a pool gives up. `driver` carries that out, on a thread
//! of its own for all pools of a keeper; `run` is one run of one worker, with its panics caught. `builder`, `handle` and `worker`
//! are what the application holds. `seams` is what other parts plug in: a queue of jobs that feeds the workers, and gates that say
//! when they may run (leases).

mod body;
mod builder;
mod driver;
mod failure;
mod handle;
mod jobs;
mod partition;
mod run;
mod seams;
mod shared;
mod stats;
pub(crate) mod supervise;
mod worker;

pub use builder::{BoxError, PoolBuilder};
pub use failure::{FailureKind, WorkerFailure};
pub use handle::Pool;
pub use jobs::{
    Detached, Job, JobId, JobPool, JobStats, OnFull, Quarantine, QuarantineEntry, QuarantinedJob,
    Submit,
};
pub use partition::{PoolLease, PoolLeaseState, PoolLeaseStats};
pub use stats::{PoolStats, WorkerCounts};
pub use supervise::{OnSilence, PoolState, Restart, Strategy, WorkerState};
pub use worker::Worker;

pub(crate) use driver::Pools;
pub(crate) use shared::{Parts, Shared};
