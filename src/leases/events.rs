//! What leases tell besides their answers.

use std::sync::Arc;

use super::{Fence, LeaseName, LeaseOperation, LostReason, Released, StoreError};

/// Something that an operator of leases wants to know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LeaseEvent {
    /// A lease was granted.
    Acquired {
        /// Which.
        name: LeaseName,
        /// With which token.
        token: Fence,
    },
    /// The store failed, and has not confirmed this lease since. It is believed in until its deadline.
    Doubtful {
        /// Which.
        name: LeaseName,
        /// With which token.
        token: Fence,
    },
    /// The store has confirmed a doubtful lease.
    HeldAgain {
        /// Which.
        name: LeaseName,
        /// With which token.
        token: Fence,
    },
    /// A lease was lost.
    Lost {
        /// Which.
        name: LeaseName,
        /// With which token.
        token: Fence,
        /// Why.
        reason: LostReason,
    },
    /// A lease was given back.
    Released {
        /// Which.
        name: LeaseName,
        /// With which token.
        token: Fence,
        /// Whether it was still ours.
        outcome: Released,
    },
    /// The store failed.
    StoreFailed {
        /// For which lease.
        name: LeaseName,
        /// What was being done.
        operation: LeaseOperation,
        /// How.
        error: Arc<StoreError>,
        /// How often in a row.
        count: u32,
    },
}

/// How many events a subscriber may be behind before the oldest are dropped for it.
pub(super) const BACKLOG: usize = 1024;
