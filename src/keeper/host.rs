//! Where the actors of a keeper live: in an actix `System` of their own, or in the application's.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use actix::{Actor, Arbiter, ArbiterHandle, System};

use super::Addresses;
use crate::actors::environment::Environment;
use crate::actors::lease::LeaseActor;
use crate::actors::lock_table::{LockTable, Locks};
use crate::actors::supervised::Started;
use crate::actors::supervisor::{Runtime, Supervisor};
use crate::actors::worker_pool::WorkerPool;
use crate::error::{OpenError, Part};
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
        let stage = Stage {
            runtime: Arc::clone(runtime),
            locks: locks.clone(),
            leases: Arc::clone(leases),
        };
        let thread = thread::Builder::new()
            .name("lockkeeper-system".into())
            .spawn(move || {
                let runner = System::new();
                let started_actors = runner.block_on(async { stage.set() });
                let system = System::current();
                let is_up = started_actors.is_ok();
                // The opener waits for this answer.
                let _ = started.send((system, started_actors));
                if !is_up {
                    return;
                }
                if let Err(error) = runner.run() {
                    tracing::error!(target: "lockkeeper", %error, "the actors' system ended badly");
                }
            })
            .map_err(OpenError::Thread)?;
        let started = has_started
            .recv()
            .map_err(|_| OpenError::Thread(std::io::Error::other("the system did not start")));
        let (system, actors) = match started {
            Ok((system, Ok(actors))) => (system, actors),
            Ok((_, Err(error))) | Err(error) => {
                // It ends, or has ended.
                let _ = thread.join();
                return Err(error);
            }
        };
        let (arbiters, addresses) = actors;
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
        let stage = Stage {
            runtime: Arc::clone(runtime),
            locks: locks.clone(),
            leases: Arc::clone(leases),
        };
        let (arbiters, addresses) = stage.set()?;
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

/// What has to be made for the actors.
struct Stage {
    runtime: Arc<Runtime>,
    locks: Locks,
    leases: Arc<LeaseSource>,
}

impl Stage {
    /// Starts the actors, and waits until each has started. If one does not, their threads end again.
    ///
    /// One busy actor starves the others on its thread: the lock table has one of its own, and so have the leases.
    fn set(self) -> Result<(Vec<Arbiter>, Addresses), OpenError> {
        let mut arbiters = Vec::new();
        let started = self.start(&mut arbiters);
        match started {
            Ok(addresses) => Ok((arbiters, addresses)),
            Err(error) => {
                end(arbiters);
                Err(error)
            }
        }
    }

    fn start(self, arbiters: &mut Vec<Arbiter>) -> Result<Addresses, OpenError> {
        let mut arbiter = || -> Result<ArbiterHandle, OpenError> {
            let arbiter = Arbiter::try_new().map_err(OpenError::Thread)?;
            let handle = arbiter.handle();
            arbiters.push(arbiter);
            Ok(handle)
        };
        let (transactions, table, for_leases) = (arbiter()?, arbiter()?, arbiter()?);
        let (tell, told) = mpsc::channel();
        let started = |part| Started::new(part, tell.clone());
        let (environment, supervisor) = (started(Part::Environment), started(Part::Supervisor));
        let (lock_table, leases) = (started(Part::LockTable), started(Part::Leases));
        drop(tell);
        let for_environment = Arc::clone(&self.runtime);
        let pools = Arc::clone(&self.runtime.pools);
        let addresses = Addresses {
            environment: Environment::start_in_arbiter(&transactions, |_| {
                Environment::new(for_environment, Some(environment))
            }),
            supervisor: Supervisor::start_in_arbiter(&transactions, |_| {
                Supervisor::new(self.runtime, Some(supervisor))
            }),
            lock_table: LockTable::start_in_arbiter(&table, |_| {
                LockTable::of_keeper(self.locks, lock_table)
            }),
            leases: LeaseActor::start_in_arbiter(&for_leases, |_| {
                LeaseActor::with_source(self.leases, Some(leases))
            }),
            // Beside the leases, whose actor waits in tasks of its own.
            pools: WorkerPool::start_in_arbiter(&for_leases, |_| WorkerPool::new(pools)),
        };
        // Each says something, or goes away: then what it would have said it with does.
        let mut failed = None;
        for outcome in told {
            if let Err(panicked) = outcome {
                failed.get_or_insert(panicked);
            }
        }
        match failed {
            None => Ok(addresses),
            Some(panicked) => Err(OpenError::ActorPanicked(panicked)),
        }
    }
}

/// Ends the actors' threads, and waits for that.
fn end(arbiters: Vec<Arbiter>) {
    for arbiter in &arbiters {
        arbiter.stop();
    }
    for arbiter in arbiters {
        // It has said whatever it had to say.
        let _ = arbiter.join();
    }
}
