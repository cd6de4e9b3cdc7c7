//! What may be asked of leases.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;

use crate::error::{LeaseError, MaybeStillHeld};
use crate::leases::{
    Fence, LeaseGuard, LeaseOptions, LeaseRecord, LeaseView, Patience, Released, option_setters,
};

/// Takes a lease, waiting for it if need be (dbmutex's `Lock`).
///
/// Anyone sends it, the lease actor answers with a guard that gives the lease back when it is dropped, also when nobody reads the
/// answer. Those of one process who want the same lease are served in the order in which they come. If the sender goes away
/// while it waits, the wish is withdrawn, and nothing stays held.
#[derive(Debug, Message)]
#[rtype(result = "Result<LeaseGuard, LeaseError>")]
pub struct AcquireLease {
    pub(crate) name: Arc<str>,
    pub(crate) options: LeaseOptions,
    pub(crate) patience: Patience,
}

impl AcquireLease {
    /// Asks for the lease of this name, and waits until it is granted.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            options: LeaseOptions::default(),
            patience: Patience::Forever,
        }
    }

    /// Waits at most so long, from when the actor takes the message. Default: for ever.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.patience = Patience::For(timeout);
        self
    }

    /// Asks once, and does not wait.
    #[must_use]
    pub fn no_wait(mut self) -> Self {
        self.patience = Patience::No;
        self
    }

    fn options_mut(&mut self) -> &mut LeaseOptions {
        &mut self.options
    }

    option_setters!();
}

/// Gives a lease back, and says whether it was still ours until then (dbmutex's `Unlock`).
///
/// Anyone sends it; the lease actor answers when the store has, or gives the guard back when it did not in time. If the sender
/// goes away, the lease is given back all the same. Dropping the guard does it without an answer.
#[derive(Debug, Message)]
#[rtype(result = "Result<Released, MaybeStillHeld>")]
pub struct ReleaseLease(pub LeaseGuard);

/// Gives a lease another expiration from now on.
///
/// Anyone sends it, with the view that the guard gives; the lease actor answers when the store has confirmed it, or the lease
/// is lost; [`LeaseError::OfOtherLeases`] if it was granted by others than the actor serves. If the sender goes away, the lease
/// is extended all the same.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), LeaseError>")]
pub struct ExtendLease {
    /// Which lease: [`LeaseGuard::claim_view`].
    pub lease: LeaseView,
    /// How long the store keeps it without a refresh.
    pub expiration: Duration,
}

/// Asks what is known of one lease. Anyone sends it; the lease actor asks the store. If the sender goes away, the answer is
/// dropped.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<LeaseStatus, LeaseError>")]
pub struct LeaseInfo(pub Arc<str>);

/// What is known of one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseStatus {
    /// What the store has of it; `None` if nothing.
    pub record: Option<LeaseRecord>,
    /// How many callers of this process wait for it.
    pub waiting: usize,
    /// Its token, if this process holds it.
    pub held_here: Option<Fence>,
}

/// Asks for all leases that the store knows, ordered by name. Anyone sends it; the lease actor asks the store. If the sender
/// goes away, the answer is dropped.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Vec<LeaseRecord>, LeaseError>")]
pub struct ListLeases;

/// Takes a lease away from whoever holds it; its token moves on, so that the holder's is refused where tokens are checked.
///
/// An operator sends it; the lease actor answers what the lease was, `None` if nobody held it. A holder in this process is told
/// at once, one elsewhere at its next refresh. If the sender goes away, it may happen or not.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Option<LeaseRecord>, LeaseError>")]
pub struct ForceRelease(pub Arc<str>);
