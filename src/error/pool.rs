//! What can go wrong with a pool of workers.

use std::sync::Arc;

use super::{ActorPanicked, ErrorClass, LeaseError};
use crate::pool::{PoolState, WorkerFailure};

/// Why a pool was not started, or something else asked of it was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A pool of this name is there and not over. Use that one ([`Keeper::find_pool`](crate::Keeper::find_pool)), or stop it first.
    #[error("there is a pool {name:?} already")]
    NameTaken {
        /// The name.
        name: Arc<str>,
    },
    /// There is no pool of this name.
    #[error("there is no pool {name:?}")]
    NoSuchPool {
        /// The name.
        name: Arc<str>,
    },
    /// What was given is no name of a pool: empty, too long, or with control characters.
    #[error("{name:?} is no name of a pool: 1 to {longest} bytes without control characters")]
    BadName {
        /// What was given.
        name: Arc<str>,
        /// The longest name, in bytes.
        longest: usize,
    },
    /// An option cannot be what it was set to.
    #[error("{option} has to be {expected}")]
    BadOption {
        /// Which.
        option: &'static str,
        /// What is possible.
        expected: &'static str,
    },
    /// So many workers are not possible. Start more pools, or have each worker do more at once.
    #[error("{workers} workers are more than a pool can have, which is {limit}")]
    TooManyWorkers {
        /// How many were asked for.
        workers: usize,
        /// The limit.
        limit: usize,
    },
    /// The pool is over, or about to be: it cannot be changed any more.
    #[error("the pool {name:?} is {state}")]
    Ended {
        /// The pool.
        name: Arc<str>,
        /// Where it is.
        state: PoolState,
    },
    /// The pool actor panicked over the request. Whether it was carried out the pool's statistics say; others are served.
    #[error(transparent)]
    ActorPanicked(ActorPanicked),
    /// The pool has given up: its workers failed more often than its intensity allows. `resume` begins anew.
    #[error("the pool {name:?} has failed{}", because(.last.as_deref()))]
    Failed {
        /// The pool.
        name: Arc<str>,
        /// The failure that was too much.
        last: Option<Box<WorkerFailure>>,
    },
    /// The pool is over, but workers that nobody can stop run on: they block. They are counted in its statistics until they end.
    #[error("{workers} workers of the pool {name:?} did not stop in time and run on")]
    RunsOn {
        /// The pool.
        name: Arc<str>,
        /// How many.
        workers: usize,
    },
    /// The pool is to run under a lease that cannot be: its name or its settings are wrong, or there is no store.
    #[error("the lease of a pool cannot be asked for")]
    Lease(#[from] LeaseError),
    /// Asked for by a worker of the pool itself, which would wait for itself. What was asked for happens all the same. Remedy: return,
    /// or have another task wait.
    #[error("a worker of the pool {name:?} would wait for itself")]
    InsideWorker {
        /// The pool.
        name: Arc<str>,
    },
    /// A thread could not be started.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
    /// The keeper is being stopped, or this is the child of a fork.
    #[error("the keeper is shutting down")]
    ShuttingDown,
}

impl PoolError {
    /// What kind of error this is.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NameTaken { .. }
            | Self::NoSuchPool { .. }
            | Self::BadName { .. }
            | Self::BadOption { .. }
            | Self::InsideWorker { .. }
            | Self::TooManyWorkers { .. } => ErrorClass::BadConfig,
            Self::Lease(error) => error.class(),
            Self::ActorPanicked(_) => ErrorClass::Panic,
            Self::Failed { .. } => ErrorClass::RetriesExhausted,
            Self::RunsOn { .. } => ErrorClass::OutOfTime,
            Self::Thread(_) => ErrorClass::Overloaded,
            Self::Ended { .. } | Self::ShuttingDown => ErrorClass::ShuttingDown,
        }
    }

    /// Whether the same call, made again a little later, may well succeed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Lease(error) => error.is_retryable(),
            _ => matches!(self, Self::Thread(_) | Self::RunsOn { .. }),
        }
    }
}

fn because(failure: Option<&WorkerFailure>) -> String {
    failure.map_or_else(String::new, |failure| format!(": {failure}"))
}
