//! Where the actors of a keeper live: in an actix `System` of their own, or in the application's.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use actix::{Actor, Arbiter, System};

use super::Addresses;
use crate::actors::environment::Environment;
use crate::actors::lease::LeaseActor;
use crate::actors::lock_table::{LockTable, Locks};
use crate::actors::supervisor::{Runtime, Supervisor};
use crate::actors::worker_pool::WorkerPool;
use crate::error::OpenError;
use crate::leases::LeaseSource;

/// The threads that the actors run on.
pub(super) struct Host {
    system: Option<(System, JoinHandle<()>)>,
    arbiters: Vec<Arbiter>,
}

impl Host {
    /// Starts the actors in a `System` of their own, on threads of their own.
    pub(super) fn own(
        runtime: &Arc<Runtime>,
        locks: &Locks,
        leases: &Arc<LeaseSource>,
    ) -> Result<(Self, Addresses), OpenError> {
        let (started, has_started) = mpsc::channel();
        let (runtime, locks) = (Arc::clone(runtime), locks.clone());
        let leases = Arc::clone(leases);
        let thread = thread::Builder::new()
            .name("lockkeeper-system".into())
            .spawn(move || {
                let runner = System::new();
                let started_actors = runner.block_on(async { start(&runtime, &locks, &leases) });
                let system = System::current();
                // The opener waits for this answer.
                let _ = started.send((system, started_actors));
                drop((runtime, locks, leases));
                if let Err(error) = runner.run() {
                    tracing::error!(target: "lockkeeper", %error, "the actors' system ended badly");
                }
            })
            .map_err(OpenError::Thread)?;
        let (system, (arbiters, addresses)) = has_started
            .recv()
            .map_err(|_| OpenError::Thread(std::io::Error::other("the system did not start")))?;
        let host = Self {
            system: Some((system, thread)),
            arbiters,
        };
        Ok((host, addresses))
    }

    /// Starts the actors in the application's `System`.
    pub(super) fn current(
        runtime: &Arc<Runtime>,
        locks: &Locks,
        leases: &Arc<LeaseSource>,
    ) -> Result<(Self, Addresses), OpenError> {
        if System::try_current().is_none() {
            return Err(OpenError::NoSystem);
        }
        let (arbiters, addresses) = start(runtime, locks, leases);
        let host = Self {
            system: None,
            arbiters,
        };
        Ok((host, addresses))
    }

    /// Ends the actors and joins their threads. It blocks for as long as a handler of the application's keeps one of them.
    pub(super) fn stop(self) {
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
        if let Some((system, _)) = &self.system {
            system.stop();
        }
        let threads = self
            .arbiters
            .into_iter()
            .map(Arbiter::join as fn(Arbiter) -> thread::Result<()>)
            .collect::<Vec<_>>();
        drop(threads);
        if let Some((_, thread)) = self.system
            && thread.thread().id() != thread::current().id()
        {
            // It has said whatever it had to say.
            let _ = thread.join();
        }
    }
}

/// One busy actor starves the others on its thread: the lock table has one of its own, and so have the leases.
fn start(
    runtime: &Arc<Runtime>,
    locks: &Locks,
    leases: &Arc<LeaseSource>,
) -> (Vec<Arbiter>, Addresses) {
    let (transactions, table, for_leases) = (Arbiter::new(), Arbiter::new(), Arbiter::new());
    let (source, pools) = (Arc::clone(leases), Arc::clone(&runtime.pools));
    let (for_environment, for_supervisor) = (Arc::clone(runtime), Arc::clone(runtime));
    let locks = locks.clone();
    let addresses = Addresses {
        environment: Environment::start_in_arbiter(&transactions.handle(), |_| {
            Environment::new(for_environment)
        }),
        supervisor: Supervisor::start_in_arbiter(&transactions.handle(), |_| {
            Supervisor::new(for_supervisor)
        }),
        lock_table: LockTable::start_in_arbiter(&table.handle(), |_| LockTable::new(locks)),
        leases: LeaseActor::start_in_arbiter(&for_leases.handle(), |_| {
            LeaseActor::with_source(source)
        }),
        // Beside the leases, whose actor waits in tasks of its own.
        pools: WorkerPool::start_in_arbiter(&for_leases.handle(), |_| WorkerPool::new(pools)),
    };
    (vec![transactions, table, for_leases], addresses)
}
