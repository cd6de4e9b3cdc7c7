//! What kind of error each is.

use super::TxnError;
use crate::error::{DbError, LockError};

/// What kind of error this is, for those who map errors to something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The application's own.
    Abort,
    /// Deadlock, lock timeout, transaction timeout, not granted at once; a snapshot that had to end.
    Conflict,
    /// A lock was held longer than `max_hold`.
    HeldTooLong,
    /// The lock table has reached one of its limits.
    LimitReached,
    /// Tried as often as it may be.
    RetriesExhausted,
    /// A limit was reached: transactions in flight, reader slots, snapshots held over awaits.
    Overloaded,
    /// Out of time; not committed.
    OutOfTime,
    /// Nobody knows whether it was committed.
    MaybeCommitted,
    /// A body keeps the writer.
    WriterStalled,
    /// No space: the map, its bound, or the disk; the file of leases.
    Full,
    /// The map could not change.
    MapBusy,
    /// A fatal error came before.
    RecoveryNeeded,
    /// The keeper goes down.
    ShuttingDown,
    /// Used in a way that cannot work.
    Usage,
    /// A lease is not held any more, or a later holder was here.
    LeaseLost,
    /// The body, or a part of the runtime, panicked.
    Panic,
    /// The file could not be read or written, or its content is not what was expected.
    Storage,
    /// The store of leases cannot be reached, or not be used.
    StoreUnreachable,
    /// The settings cannot work.
    BadConfig,
}

impl<E> TxnError<E> {
    /// What kind of error this is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Abort(_) => ErrorClass::Abort,
            Self::Conflict(error) => match error {
                LockError::ShuttingDown => ErrorClass::ShuttingDown,
                LockError::Limit { .. } => ErrorClass::LimitReached,
                LockError::HeldTooLong(_) => ErrorClass::HeldTooLong,
                LockError::NotHeld
                | LockError::NotWeaker { .. }
                | LockError::UnknownMode(_)
                | LockError::Ended => ErrorClass::Usage,
                LockError::ActorPanicked(_) => ErrorClass::Panic,
                _ => ErrorClass::Conflict,
            },
            Self::RetriesExhausted { .. } => ErrorClass::RetriesExhausted,
            Self::SnapshotTooOld => ErrorClass::Conflict,
            Self::Overloaded { .. } | Self::ReadersFull { .. } | Self::NoSnapshot { .. } => {
                ErrorClass::Overloaded
            }
            Self::DeadlineExceeded { .. } => ErrorClass::OutOfTime,
            Self::MaybeCommitted { .. } => ErrorClass::MaybeCommitted,
            Self::WriterStalled { .. } => ErrorClass::WriterStalled,
            Self::EnvironmentFull { .. } => ErrorClass::Full,
            Self::MapBusy(_) | Self::MapChanging { .. } => ErrorClass::MapBusy,
            Self::RecoveryNeeded(_) => ErrorClass::RecoveryNeeded,
            Self::ShuttingDown => ErrorClass::ShuttingDown,
            Self::BodyPanicked { .. } | Self::ActorPanicked(_) => ErrorClass::Panic,
            Self::LeaseLost { .. } | Self::FenceTooSmall { .. } => ErrorClass::LeaseLost,
            Self::ReadChanged { .. } | Self::WriteConflict { .. } | Self::GaveWay { .. } => {
                ErrorClass::Conflict
            }
            Self::TooLarge
            | Self::TransactionEnded
            | Self::ChildOpen
            | Self::InsideTransaction { .. }
            | Self::TooMuch { .. }
            | Self::NestedTransaction { .. }
            | Self::NoLockTable
            | Self::SnapshotUnderNoLock
            | Self::Forked
            | Self::KeyReused { .. }
            | Self::AnswerNotStorable { .. }
            | Self::KeyOnView
            | Self::Database(
                DbError::KeySize { .. }
                | DbError::Foreign
                | DbError::Deleted { .. }
                | DbError::HandleNewerThanSnapshot { .. },
            ) => ErrorClass::Usage,
            Self::Database(_) | Self::AnswerUnreadable { .. } => ErrorClass::Storage,
            Self::Storage(error) if error.is_full() => ErrorClass::Full,
            Self::Storage(_) => ErrorClass::Storage,
        }
    }

    /// Whether the same transaction, sent again a little later, may well succeed, and sending it again is safe.
    ///
    /// [`TxnError::MaybeCommitted`] is not: look first, or send it with [a key](crate::RunTxn::idempotent) from the beginning;
    /// then it may be sent again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Conflict(error) => error.is_retryable(),
            _ => matches!(
                self.class(),
                ErrorClass::Conflict
                    | ErrorClass::RetriesExhausted
                    | ErrorClass::Overloaded
                    | ErrorClass::OutOfTime
                    | ErrorClass::WriterStalled
                    | ErrorClass::MapBusy
                    | ErrorClass::RecoveryNeeded
            ),
        }
    }
}
