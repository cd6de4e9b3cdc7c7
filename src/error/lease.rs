//! What can go wrong with a lease.

use std::sync::Arc;
use std::time::Duration;

use super::{ActorPanicked, ErrorClass, brief};
use crate::leases::{
    BadLeaseName, Holder, LeaseGuard, LeaseName, LeaseSettingsError, LostReason, StoreError,
};

/// Why a lease was not granted, or something else asked of leases was not done.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Somebody holds it, and the request did not want to wait.
    #[error("the lease {name:?} is held{}", who(.holder.as_ref(), *.remaining))]
    Busy {
        /// The lease.
        name: LeaseName,
        /// Who holds it, if the store says so.
        holder: Option<Holder>,
        /// For how long still, if it is not refreshed.
        remaining: Option<Duration>,
    },
    /// The time of the request was over, and somebody held the lease. Wait longer, or ask again.
    #[error("the lease {name:?} was not free within {}{}", brief(*.waited), who(.holder.as_ref(), *.remaining))]
    TimedOut {
        /// The lease.
        name: LeaseName,
        /// How long the request has waited.
        waited: Duration,
        /// Who held it when the store was asked last.
        holder: Option<Holder>,
        /// For how long still, if it is not refreshed.
        remaining: Option<Duration>,
        /// How often the store failed meanwhile.
        errors: u32,
        /// How it failed last.
        #[source]
        last: Option<Arc<StoreError>>,
    },
    /// The store failed when it was asked last, or did not answer, and the request's time was over, or it did not want to go on (`fail_fast`, a
    /// handler that says stop, a request that does not wait).
    #[error("the store of leases failed {errors} times within {}", brief(*.waited))]
    Unreachable {
        /// How often.
        errors: u32,
        /// How long the request has waited.
        waited: Duration,
        /// How it failed last.
        #[source]
        last: Arc<StoreError>,
    },
    /// The store failed in a way that does not pass by itself: its table is missing, its settings are wrong, it is full, or it does
    /// not let us in.
    #[error("the store of leases cannot be used")]
    Store(#[source] Arc<StoreError>),
    /// What was given is no name of a lease.
    #[error(transparent)]
    BadName(#[from] BadLeaseName),
    /// The settings cannot work.
    #[error(transparent)]
    BadSettings(#[from] LeaseSettingsError),
    /// So many callers of this process wait for this lease already, or ten times as many, and at least 100,000, for all leases
    /// of the store: with those who went away, and what is being given back, as long as the store has not answered. Raise
    /// `lease_max_local_waiters`, or ask later.
    #[error(
        "{limit} callers of this process wait already, for the lease {name:?} or for all leases together, with what is being given \
         back, which is the limit (`lease_max_local_waiters`)"
    )]
    TooManyWaiters {
        /// The lease.
        name: LeaseName,
        /// The limit.
        limit: usize,
    },
    /// It is not held any more.
    #[error("the lease {name:?} is lost: {reason}")]
    Lost {
        /// The lease.
        name: LeaseName,
        /// Why.
        reason: LostReason,
    },
    /// The view is of a lease that others have granted: [`Leases`](crate::Leases) of another store, or others of this one. Ask
    /// those.
    #[error("the lease {name:?} was granted by other leases than those that were asked")]
    OfOtherLeases {
        /// The lease.
        name: LeaseName,
    },
    /// The system has no thread left for the leases.
    #[error("no thread for the leases")]
    Thread(#[source] Arc<std::io::Error>),
    /// The leases of this process are being shut down.
    #[error("the leases are shutting down")]
    ShuttingDown,
    /// What serves the leases of this process panicked. A request that came as a message was not carried out, and others are
    /// served. If it was the thread that refreshes, all leases of the process are lost ([`LostReason::Shutdown`]); a keeper starts
    /// them anew when it is asked for the next, and others get what was held when it expires.
    #[error(transparent)]
    ActorPanicked(ActorPanicked),
}

impl LeaseError {
    /// What kind of error this is.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Busy { .. } => ErrorClass::Conflict,
            Self::TimedOut { .. } => ErrorClass::OutOfTime,
            Self::Unreachable { .. } => ErrorClass::StoreUnreachable,
            Self::Store(error) if matches!(**error, StoreError::Full { .. }) => ErrorClass::Full,
            Self::Store(_) | Self::BadName(_) | Self::BadSettings(_) => ErrorClass::BadConfig,
            Self::OfOtherLeases { .. } => ErrorClass::Usage,
            Self::TooManyWaiters { .. } | Self::Thread(_) => ErrorClass::Overloaded,
            Self::Lost { .. } => ErrorClass::LeaseLost,
            Self::ShuttingDown => ErrorClass::ShuttingDown,
            Self::ActorPanicked(_) => ErrorClass::Panic,
        }
    }

    /// Whether the same request may go better later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. }
                | Self::TimedOut { .. }
                | Self::Unreachable { .. }
                | Self::TooManyWaiters { .. }
        )
    }
}

/// A release that did not end: the store did not answer in time, or failed and nobody wanted to go on. The lease is not
/// believed in any more and not refreshed; others get it when it expires, if not before.
#[derive(Debug, thiserror::Error)]
#[error("the lease {:?} may be held still", guard.name())]
#[non_exhaustive]
pub struct MaybeStillHeld {
    /// The lease, whose release can be tried again. Dropped, it is tried in the background until the lease has expired.
    pub guard: LeaseGuard,
    /// How the store failed last, if it answered at all.
    #[source]
    pub last: Option<Arc<StoreError>>,
}

fn who(holder: Option<&Holder>, remaining: Option<Duration>) -> String {
    let by = holder.map(|holder| {
        format!(
            " by {} (process {} on {})",
            holder.id, holder.pid, holder.host
        )
    });
    let still =
        remaining.map(|remaining| format!(", for {} if it is not refreshed", brief(remaining)));
    by.unwrap_or_default() + &still.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_full_is_no_bad_configuration() {
        let class = |error| LeaseError::Store(Arc::new(error)).class();
        let full = StoreError::Full {
            table: "leases".into(),
            bytes: 1 << 30,
        };
        assert_eq!(class(full), ErrorClass::Full);
        let bad = StoreError::BadConfig("no such folder".into());
        assert_eq!(class(bad), ErrorClass::BadConfig);
    }
}
