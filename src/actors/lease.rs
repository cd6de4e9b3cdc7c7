//! The lease actor: answers messages about the leases of one store. What waits, waits in tasks of its own; the leases
//! themselves are served by their own thread.

use std::sync::Arc;

use actix::{Actor, Addr, Arbiter, Context, Handler, System};

use super::lock_table::{Later, NoSystem};
use crate::error::{LeaseError, MaybeStillHeld};
use crate::leases::{
    LeaseConfig, LeaseGuard, LeaseRecord, LeaseSource, LeaseStore, Leases, Released,
};
use crate::messages::lease::{
    AcquireLease, ExtendLease, ForceRelease, LeaseInfo, LeaseStatus, ListLeases, ReleaseLease,
};

/// The mailbox holds this many messages before senders wait for room; each sender has one slot more.
const MAILBOX: usize = 1024;

/// The front door of leases: answers messages, and holds nothing of them.
pub struct LeaseActor {
    source: Arc<LeaseSource>,
    alone: bool,
}

impl LeaseActor {
    /// An actor in front of leases that somebody else shuts down.
    #[must_use]
    pub fn new(leases: Leases) -> Self {
        Self::with_source(Arc::new(LeaseSource::of(leases)))
    }

    pub(crate) fn with_source(source: Arc<LeaseSource>) -> Self {
        Self {
            source,
            alone: false,
        }
    }

    /// Starts leases by themselves, without an environment and without a lock table, on a thread (arbiter) of their own in the
    /// current actix system. They are shut down, in the background, when the actor stops.
    ///
    /// # Errors
    /// [`LeaseActorError::NoSystem`] when no actix system runs on the calling thread, and what [`Leases::start`] answers.
    pub fn start_alone(
        store: impl LeaseStore,
        config: LeaseConfig,
    ) -> Result<(Addr<Self>, Leases), LeaseActorError> {
        if !System::is_registered() {
            return Err(NoSystem.into());
        }
        let leases = Leases::start(store, config)?;
        let mut actor = Self::new(leases.clone());
        actor.alone = true;
        let address = Self::start_in_arbiter(&Arbiter::new().handle(), |_| actor);
        Ok((address, leases))
    }
}

/// Why a lease actor was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseActorError {
    /// No actix system runs on the calling thread.
    #[error(transparent)]
    NoSystem(#[from] NoSystem),
    /// The leases could not be started.
    #[error(transparent)]
    Leases(#[from] LeaseError),
}

impl Actor for LeaseActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        if self.alone {
            if let Ok(leases) = self.source.leases() {
                // It begins with its first poll, and goes on by itself.
                let time = leases.config().release_timeout;
                drop(futures_util::FutureExt::now_or_never(leases.shutdown(time)));
            }
            Arbiter::current().stop();
        }
    }
}

impl std::fmt::Debug for LeaseActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseActor")
            .field("alone", &self.alone)
            .finish_non_exhaustive()
    }
}

impl Handler<AcquireLease> for LeaseActor {
    type Result = Later<Result<LeaseGuard, LeaseError>>;

    fn handle(&mut self, wish: AcquireLease, _: &mut Self::Context) -> Self::Result {
        let leases = self.source.leases();
        Later::new(async move { leases?.acquire_by_message(wish).await })
    }
}

impl Handler<ReleaseLease> for LeaseActor {
    type Result = Later<Result<Released, MaybeStillHeld>>;

    fn handle(&mut self, ReleaseLease(guard): ReleaseLease, _: &mut Self::Context) -> Self::Result {
        Later::new(guard.release())
    }
}

impl Handler<ExtendLease> for LeaseActor {
    type Result = Later<Result<(), LeaseError>>;

    fn handle(&mut self, extend: ExtendLease, _: &mut Self::Context) -> Self::Result {
        let leases = self.source.leases();
        Later::new(async move { leases?.extend_view(&extend.lease, extend.expiration).await })
    }
}

impl Handler<LeaseInfo> for LeaseActor {
    type Result = Later<Result<LeaseStatus, LeaseError>>;

    fn handle(&mut self, LeaseInfo(name): LeaseInfo, _: &mut Self::Context) -> Self::Result {
        let leases = self.source.leases();
        Later::new(async move { leases?.status(name).await })
    }
}

impl Handler<ListLeases> for LeaseActor {
    type Result = Later<Result<Vec<LeaseRecord>, LeaseError>>;

    fn handle(&mut self, _: ListLeases, _: &mut Self::Context) -> Self::Result {
        let leases = self.source.leases();
        Later::new(async move { leases?.list().await })
    }
}

impl Handler<ForceRelease> for LeaseActor {
    type Result = Later<Result<Option<LeaseRecord>, LeaseError>>;

    fn handle(&mut self, ForceRelease(name): ForceRelease, _: &mut Self::Context) -> Self::Result {
        let leases = self.source.leases();
        Later::new(async move { leases?.force_release(name).await })
    }
}
