//! What the core decides, and what it is told.

use std::sync::Arc;
use std::time::Duration;

use super::SendId;
use crate::leases::{
    Claimed, Fence, LeaseName, LeaseVerdict, LostReason, Refreshed, Released, StoreError,
};

/// Names one acquisition, from its first claim to its end. Never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey(pub u64);

/// Names somebody who waits for a lease. Never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// What is to be done.
#[derive(Debug)]
#[expect(missing_docs, reason = "a field is what its type says")]
pub enum Effect {
    /// Ask the store for a lease, on behalf of this waiter. A key that is new gets a holder id of its own. `left_with`: the token
    /// with which the lease was left to others; whoever is asked looks first whether it has grown.
    Claim {
        key: LeaseKey,
        waiter: Option<WaiterId>,
        name: LeaseName,
        send: SendId,
        left_with: Option<Fence>,
    },
    /// Have the store let go of one lease and grant the next in one step.
    HandOver {
        from: LeaseKey,
        to: LeaseKey,
        waiter: WaiterId,
        name: LeaseName,
        send: SendId,
    },
    /// Extend these, ordered by name, in one question.
    Refresh(Vec<RefreshItem>),
    /// Give a lease back.
    Release { key: LeaseKey },
    /// Whoever waits is given the lease.
    Granted { waiter: WaiterId, key: LeaseKey },
    /// A waiter has to wait for somebody, here or elsewhere. Told once or more often.
    Waits { waiter: WaiterId, name: LeaseName },
    /// Whoever waits is refused.
    Refused {
        waiter: WaiterId,
        name: LeaseName,
        refusal: super::Refusal,
    },
    /// What others may believe has changed: the deadline of a lease that is held.
    Deadline {
        key: LeaseKey,
        at: super::Moment,
        confirmed: Option<SendId>,
    },
    /// The store failed; the lease is believed in until its deadline.
    Doubtful { key: LeaseKey },
    /// The store has confirmed a doubtful lease.
    HeldAgain { key: LeaseKey },
    /// A lease is lost.
    Lost { key: LeaseKey, reason: LostReason },
    /// No refresh that is under way for it counts any more.
    DropRefresh { key: LeaseKey },
    /// A release has ended.
    Released { key: LeaseKey, outcome: Released },
    /// A release was given up after this error; the lease may be held still.
    ReleaseStopped {
        key: LeaseKey,
        error: Arc<StoreError>,
    },
    /// Nothing is known of this lease any more.
    Forget { key: LeaseKey },
    /// Somebody has to wait for a release elsewhere: wake-ups are worth having.
    Listen,
}

/// One lease of a refresh.
#[derive(Debug, Clone)]
pub struct RefreshItem {
    /// Which.
    pub key: LeaseKey,
    /// Its name, by which a question is ordered.
    pub name: LeaseName,
    /// The question.
    pub send: SendId,
    /// For how long from now.
    pub expiration: Duration,
}

/// What came of a claim.
#[derive(Debug)]
#[expect(missing_docs, reason = "a field is what its type says")]
pub enum ClaimAnswer {
    /// The store answered. `foreign`: another process is in the way, or had the lease while it was left to others.
    Claimed { claimed: Claimed, foreign: bool },
    /// It failed.
    Failed {
        error: Arc<StoreError>,
        verdict: LeaseVerdict,
    },
}

/// What came of a refresh.
#[derive(Debug)]
#[expect(missing_docs, reason = "a field is what its type says")]
pub enum RefreshAnswer {
    /// The store answered.
    Refreshed(Refreshed),
    /// It failed.
    Failed {
        error: Arc<StoreError>,
        verdict: LeaseVerdict,
    },
}
