//! The lease actor: answers messages about the leases of one store. What waits, waits in tasks of its own; the leases
//! themselves are served by their own thread.

use std::sync::Arc;

use actix::{Actor, Addr, Arbiter, Context, Handler, System};

use super::lock_table::{Later, NoSystem};
use super::supervised::{Started, Watched};
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
    started: Option<Started>,
}

impl LeaseActor {
    /// An actor in front of leases that somebody else shuts down.
    #[must_use]
    pub fn new(leases: Leases) -> Self {
        Self::with_source(Arc::new(LeaseSource::of(leases)), None)
    }

    pub(crate) fn with_source(source: Arc<LeaseSource>, started: Option<Started>) -> Self {
        Self {
            source,
            alone: false,
            started,
        }
    }

    /// Answers with what the leases do; a panic in it is answered too.
    fn answer<T: 'static, F>(
        &self,
        context: &mut Context<Self>,
        message: &'static str,
        ask: impl FnOnce(Leases) -> F + 'static,
    ) -> Watched<Later<Result<T, LeaseError>>>
    where
        F: Future<Output = Result<T, LeaseError>>,
    {
        let supervision = &self.source.supervision;
        let panicked = |panicked| Err(LeaseError::ActorPanicked(panicked));
        let answer = || {
            // The first opens the store, at once.
            let leases = self.source.leases();
            let answer = async move { ask(leases?).await };
            Later::new(supervision.guarded("serving leases", answer, panicked))
        };
        supervision.handle(context, message, answer, |cause| {
            Some(Later::answered(panicked(cause)))
        })
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
        let started = self.started.take();
        let set = || context.set_mailbox_capacity(MAILBOX);
        self.source.supervision.start(started, set);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.source.supervision.stop(|| {
            if self.alone
                && let Ok(leases) = self.source.leases()
            {
                // It begins with its first poll, and goes on by itself.
                let time = leases.config().release_timeout;
                drop(futures_util::FutureExt::now_or_never(leases.shutdown(time)));
            }
        });
        if self.alone {
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
    type Result = Watched<Later<Result<LeaseGuard, LeaseError>>>;

    fn handle(&mut self, wish: AcquireLease, context: &mut Self::Context) -> Self::Result {
        let ask = |leases: Leases| leases.acquire_by_message(wish);
        self.answer(context, "AcquireLease", ask)
    }
}

/// It gives a guard away: after a panic the lease is given back in the background, and the sender is told that the mailbox is
/// closed. A keeper does it in the sender's task.
impl Handler<ReleaseLease> for LeaseActor {
    type Result = Watched<Later<Result<Released, MaybeStillHeld>>>;

    fn handle(
        &mut self,
        ReleaseLease(guard): ReleaseLease,
        context: &mut Self::Context,
    ) -> Self::Result {
        let release = || Later::new(guard.release());
        (self.source.supervision).handle(context, "ReleaseLease", release, |_| None)
    }
}

impl Handler<ExtendLease> for LeaseActor {
    type Result = Watched<Later<Result<(), LeaseError>>>;

    fn handle(&mut self, extend: ExtendLease, context: &mut Self::Context) -> Self::Result {
        let ask = move |leases: Leases| async move {
            leases.extend_view(&extend.lease, extend.expiration).await
        };
        self.answer(context, "ExtendLease", ask)
    }
}

impl Handler<LeaseInfo> for LeaseActor {
    type Result = Watched<Later<Result<LeaseStatus, LeaseError>>>;

    fn handle(&mut self, LeaseInfo(name): LeaseInfo, context: &mut Self::Context) -> Self::Result {
        let ask = |leases: Leases| async move { leases.status(name).await };
        self.answer(context, "LeaseInfo", ask)
    }
}

impl Handler<ListLeases> for LeaseActor {
    type Result = Watched<Later<Result<Vec<LeaseRecord>, LeaseError>>>;

    fn handle(&mut self, _: ListLeases, context: &mut Self::Context) -> Self::Result {
        let ask = |leases: Leases| async move { leases.list().await };
        self.answer(context, "ListLeases", ask)
    }
}

impl Handler<ForceRelease> for LeaseActor {
    type Result = Watched<Later<Result<Option<LeaseRecord>, LeaseError>>>;

    fn handle(
        &mut self,
        ForceRelease(name): ForceRelease,
        context: &mut Self::Context,
    ) -> Self::Result {
        let ask = |leases: Leases| async move { leases.force_release(name).await };
        self.answer(context, "ForceRelease", ask)
    }
}
