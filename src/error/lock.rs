//! What can go wrong with a lock.

use std::sync::Arc;

use super::ActorPanicked;
use crate::locks::{ConflictKind, Denied, LimitKind, LockConflict, LockerId, Mode, Reason};

/// Why a lock was not granted, or something else asked of the lock table was not done.
///
/// After [`Deadlock`](Self::Deadlock), [`LockTimeout`](Self::LockTimeout) and
/// [`TransactionTimeout`](Self::TransactionTimeout) the locker is dead: its locks are still held, and it
/// may ask for nothing until it has released them all. After everything else it can be used as before.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The wait closed a cycle of waits, and this locker was chosen to break it. Release all of its
    /// locks, wait until [`LockError::older`] have ended, and begin again with the same age.
    #[error("deadlock: {0}")]
    Deadlock(Arc<LockConflict>),
    /// The wait has lasted as long as it may. Release all locks and begin again; or raise the request's,
    /// the locker's or the table's `lock_timeout`.
    #[error("lock timeout: {0}")]
    LockTimeout(Arc<LockConflict>),
    /// The time of the transaction was over while it waited. Release all locks and begin again; or raise
    /// the locker's or the table's `txn_timeout`.
    #[error("transaction timeout: {0}")]
    TransactionTimeout(Arc<LockConflict>),
    /// The request did not want to wait. Locks that are held stay held, and the locker can go on.
    #[error("lock not available: {0}")]
    NotAvailable(Arc<LockConflict>),
    /// A lock is held longer than `max_hold`. Without `abort_on_max_hold` this is told once, to the next
    /// request, which may be made again; with it the locker was aborted, and has to release all.
    #[error("lock held too long: {0}")]
    HeldTooLong(Arc<LockConflict>),
    /// The locker, or one of its ancestors, was aborted before, for this reason. It has to release all
    /// of its locks before it may ask for anything.
    #[error("the locker was aborted, and has to release all of its locks first: {0}")]
    Dead(Arc<LockConflict>),
    /// The lock table is full. Raise the setting, or hold less at one time; what is held stays held.
    #[error("the lock table has reached its limit of {value} {which}; {} raises it", which.setting())]
    Limit {
        /// What there would be too much of.
        which: LimitKind,
        /// The limit.
        value: usize,
    },
    /// The locker does not hold the object in the mode that was to be changed.
    #[error("the locker does not hold the lock that is to be changed")]
    NotHeld,
    /// A lock can only be downgraded to a mode that excludes nobody whom the present one lets in. Use an
    /// upgrade, which may have to wait.
    #[error("{to} is not weaker than {from}: a downgrade cannot lead there")]
    NotWeaker {
        /// The present mode.
        from: Mode,
        /// The mode that was asked for.
        to: Mode,
    },
    /// The conflict table of the object's namespace does not know the mode.
    #[error("the conflict table of this namespace does not know the mode {0}")]
    UnknownMode(Mode),
    /// The locker has ended.
    #[error("the locker has ended")]
    Ended,
    /// The lock table is being shut down.
    #[error("the lock table is shutting down")]
    ShuttingDown,
    /// The lock table's actor panicked over the request, which was not carried out. The locker can be used as before.
    #[error(transparent)]
    ActorPanicked(ActorPanicked),
    /// A panic has left the lock table half changed. It grants nothing any more: whoever holds locks keeps them until they are
    /// released, and nobody gets others. When the last locker has ended, it begins anew by itself, empty. Remedy: release all,
    /// and begin again.
    #[error(
        "the lock table is left half changed by a panic, and begins anew when its last locker has ended: {0}"
    )]
    Broken(ActorPanicked),
}

impl LockError {
    /// Whether the same work may succeed if it is done again from its start: true for a deadlock, the
    /// timeouts, and a table that begins anew.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            LockError::Deadlock(_)
                | LockError::LockTimeout(_)
                | LockError::TransactionTimeout(_)
                | LockError::Broken(_)
        )
    }

    /// The report, if there was a conflict.
    #[must_use]
    pub fn conflict(&self) -> Option<&Arc<LockConflict>> {
        match self {
            LockError::Deadlock(conflict)
            | LockError::LockTimeout(conflict)
            | LockError::TransactionTimeout(conflict)
            | LockError::NotAvailable(conflict)
            | LockError::HeldTooLong(conflict)
            | LockError::Dead(conflict) => Some(conflict),
            _ => None,
        }
    }

    /// The older families of the cycle whose victim this was; empty for all other errors.
    #[must_use]
    pub fn older(&self) -> &[LockerId] {
        match self {
            LockError::Deadlock(conflict) => &conflict.older,
            _ => &[],
        }
    }
}

impl From<Denied> for LockError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Ended => LockError::Ended,
            Denied::Dead(conflict) => LockError::Dead(conflict),
            Denied::HeldTooLong(conflict) => LockError::HeldTooLong(conflict),
            Denied::NotAvailable(conflict) => LockError::NotAvailable(conflict),
            Denied::Limit { which, value } => LockError::Limit { which, value },
            Denied::NotHeld => LockError::NotHeld,
            Denied::NotWeaker { from, to } => LockError::NotWeaker { from, to },
            Denied::UnknownMode(mode) => LockError::UnknownMode(mode),
        }
    }
}

impl From<Reason> for LockError {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Conflict(conflict) => match conflict.kind {
                ConflictKind::Deadlock => LockError::Deadlock(conflict),
                ConflictKind::LockTimeout => LockError::LockTimeout(conflict),
                ConflictKind::TransactionTimeout => LockError::TransactionTimeout(conflict),
                ConflictKind::NotAvailable => LockError::NotAvailable(conflict),
                ConflictKind::HeldTooLong => LockError::HeldTooLong(conflict),
            },
            Reason::Ended => LockError::Ended,
            Reason::ShuttingDown => LockError::ShuttingDown,
        }
    }
}
