//! The leases of a keeper.

use std::future::Future;
use std::sync::Arc;

use actix::{Addr, Message};

use super::request::unanswered;
use super::{Keeper, Request};
use crate::actors::lease::LeaseActor;
use crate::actors::supervisor::Runtime;
use crate::error::{LeaseError, TxnError};
use crate::leases::{Lease, Leases};
use crate::messages::lease::{
    AcquireLease, ExtendLease, ForceRelease, LeaseInfo, ListLeases, ReleaseLease,
};

impl Keeper {
    /// A lease by name, to be acquired. The first lease of a keeper starts the thread that serves them; the store is asked
    /// nothing, and the default one not opened, before a lease is acquired. What goes wrong with either is answered then.
    pub fn lease(&self, name: impl Into<Arc<str>>) -> Lease {
        Lease::new(self.leases(), name)
    }

    /// The second door of leases: the same that the actor answers from, used in place. The first time it starts their thread;
    /// the store is asked nothing.
    ///
    /// # Errors
    /// [`LeaseError::ShuttingDown`] after [`shutdown`](Self::shutdown) and in the child of a fork; [`LeaseError::Thread`] if the
    /// system has no thread left; [`LeaseError::BadSettings`].
    pub fn leases(&self) -> Result<Leases, LeaseError> {
        let runtime = &self.inner.runtime;
        if runtime.env.shared.forked() {
            return Err(LeaseError::ShuttingDown);
        }
        // Every keeper has one.
        let source = runtime.leases.get().ok_or(LeaseError::ShuttingDown)?;
        source.leases()
    }

    /// Whether these are its own.
    pub(crate) fn has(&self, leases: &Leases) -> bool {
        let source = self.inner.runtime.leases.get();
        source.is_some_and(|source| source.has(leases))
    }

    /// The address of the lease actor.
    pub fn lease_actor(&self) -> &Addr<LeaseActor> {
        &self.inner.addresses.leases
    }
}

fn lease_unanswered(runtime: &Runtime, is_there: bool) -> LeaseError {
    let of = runtime.leases.get().map(|source| &source.supervision);
    match of.map(|of| unanswered(runtime, of, is_there)) {
        Some(TxnError::ActorPanicked(panicked)) => LeaseError::ActorPanicked(panicked),
        _ => LeaseError::ShuttingDown,
    }
}

/// Messages to the lease actor, which answer "shutting down" without it.
macro_rules! for_leases {
    ($($message:ty),* $(,)?) => {
        $(impl Request for $message {
            fn send_to(self, keeper: &Keeper) -> impl Future<Output = Self::Result> + Send + use<> {
                let actor = keeper.inner.addresses.leases.clone();
                let runtime = Arc::clone(&keeper.inner.runtime);
                async move {
                    if runtime.env.shared.forked() {
                        return Err(LeaseError::ShuttingDown);
                    }
                    let answer = actor.send(self).await;
                    answer.unwrap_or_else(|_| Err(lease_unanswered(&runtime, actor.connected())))
                }
            }
        })*
    };
}

for_leases!(
    AcquireLease,
    ExtendLease,
    LeaseInfo,
    ListLeases,
    ForceRelease
);

/// In the sender's task: the guard could not be had back from an actor that is gone.
impl Request for ReleaseLease {
    fn send_to(self, _: &Keeper) -> impl Future<Output = <Self as Message>::Result> + Send + use<> {
        self.0.release()
    }
}
