//! How a transaction ends that did not commit: the one error that every caller meets, and its classification.
//!
//! It is generic over the application's own error. What is not the application's moves between one such type and another
//! unchanged, variant by variant, so that no error is lost or told as another on its way.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::{ActorPanicked, DbError, MapBusy, Name, Site, StorageError, body_name, brief};
use crate::env::{BodyKind, PanicEvent};
use crate::error::LockError;
use crate::leases::{Fence, LeaseName, StoreId};
use crate::txn::answers::AnswerError;
use crate::txn::sets::WhichSet;

mod class;
mod parts;

pub use class::ErrorClass;

/// How a transaction ended that did not commit.
///
/// `E` is the application's own error; transactions that have none use [`Infallible`]. In a body, `?` turns every error of
/// a database handle and of heed into this type, and [`TxnError::Abort`] carries the domain error out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TxnError<E = Infallible> {
    /// The body said no. Nothing it wrote is kept; it is never retried.
    #[error("the body aborted the transaction")]
    Abort(E),
    /// A lock was not granted: deadlock, timeout, or not free at once. Nothing was written.
    #[error(transparent)]
    Conflict(LockError),
    /// The transaction was tried as often as it may be. Remedy: a larger budget, or less contention.
    #[error("given up after {attempts} attempts and {}", brief(*.waited))]
    RetriesExhausted {
        /// How often it was tried.
        attempts: u32,
        /// The time since it was sent.
        waited: Duration,
        /// Why the last attempt failed.
        #[source]
        last: Box<TxnError>,
    },
    /// Too many transactions are in flight. Nothing was begun; send it again later.
    #[error("{limit} transactions are in flight, which is the limit (`queue`)")]
    Overloaded {
        /// The setting `queue`.
        limit: usize,
    },
    /// The deadline passed; nothing was written, or what was written is undone.
    #[error("the deadline of {} passed while the transaction {stage}", brief(*.deadline))]
    DeadlineExceeded {
        /// The time it was given, from its send.
        deadline: Duration,
        /// What it was doing then.
        stage: Stage,
    },
    /// The deadline passed, or the environment failed, while the commit was under way. Look before you send it again.
    #[error("the transaction may or may not have been committed")]
    MaybeCommitted {
        /// What went wrong, if it was not the deadline.
        #[source]
        cause: Option<StorageError>,
    },
    /// A body keeps the writer beyond all measure, and this update could not run before its deadline. Nothing was written.
    #[error("the writer has been kept by {} for {}", body_name(name.as_deref(), site), brief(*.since))]
    WriterStalled {
        /// The name of the transaction whose body runs on.
        name: Name,
        /// Where that transaction was asked for.
        site: Site,
        /// How long its body has been running.
        since: Duration,
    },
    /// The map is full and may not grow any more. Remedy: delete something, raise `max_map_size`, or change the growth policy.
    #[error("the environment is full: its map has {size} bytes and may have at most {max}")]
    EnvironmentFull {
        /// The size of the map, in bytes.
        size: u64,
        /// The setting `max_map_size`, in bytes.
        max: u64,
    },
    /// The transaction alone dirties more pages than one LMDB transaction can hold. Remedy: split it.
    #[error("the transaction is too large for LMDB; split it")]
    TooLarge,
    /// The map had to change and views stayed in the way. Remedy: read first, and update after the view has ended.
    #[error(transparent)]
    MapBusy(MapBusy),
    /// Another process keeps on growing the map. Remedy: a larger `adopt_retries`.
    #[error(
        "the map was changed by another process {attempts} times in a row (ours {ours} bytes, theirs {theirs})"
    )]
    MapChanging {
        /// How often the size was adopted.
        attempts: u32,
        /// The size of our map, in bytes.
        ours: u64,
        /// The size in the file, in bytes.
        theirs: u64,
    },
    /// The environment had a fatal error and has not recovered. Nothing was written.
    #[error("the environment needs recovery: {0}")]
    RecoveryNeeded(Arc<PanicEvent>),
    /// The keeper is shutting down, or has. Nothing was written.
    #[error("the keeper is shutting down")]
    ShuttingDown,
    /// The body panicked. Nothing it wrote is kept.
    #[error("the body of the transaction panicked: {message}")]
    BodyPanicked {
        /// The message of the panic.
        message: String,
        /// Where the transaction was asked for.
        site: Site,
    },
    /// A part of the runtime panicked over the transaction, which was not committed. Where that is not certain the answer is
    /// [`MaybeCommitted`](Self::MaybeCommitted). See [`ActorPanicked`].
    #[error(transparent)]
    ActorPanicked(ActorPanicked),
    /// A transaction was begun inside the body of another one and would wait for it for ever. Remedy: end that body first.
    #[error("begun inside the body of the {outer} from {outer_site}: end it first")]
    NestedTransaction {
        /// What kind of body it was begun in.
        outer: BodyKind,
        /// Where that one was asked for.
        outer_site: Site,
    },
    /// No reader slot became free in time. Remedy: a larger `max_readers`, or fewer threads that read.
    #[error("no reader slot of {max} became free")]
    ReadersFull {
        /// How many there are.
        max: u32,
    },
    /// What the transaction had read was changed by an outside write, one that no lock announced, before it could commit.
    /// Nothing was written. It is run again by itself; a caller sees this only from a transaction it drives by hand.
    #[error(
        "a record in \"{database}\" that the transaction had read was changed by an outside write"
    )]
    ReadChanged {
        /// The name of the database.
        database: Arc<str>,
    },
    /// A record that the transaction has written was changed by another one since its snapshot: the first to commit wins.
    /// Nothing was written. It is run again by itself; a caller sees this only from a transaction it drives by hand.
    #[error(
        "a record in \"{database}\" was changed by another transaction since the snapshot was taken"
    )]
    WriteConflict {
        /// The name of the database.
        database: Arc<str>,
    },
    /// It would have waited for a lock among others while it held one that comes later in the order in which declared locks
    /// are taken: where several do that, deadlocks and queues of idle locks are what comes of it. Its locks are free and nothing
    /// was written. It is run again by itself, at once, and takes those locks in order first. A closure sees this in its first
    /// attempt, a caller never does.
    #[error(
        "the transaction gave way: it would have waited among others for a record in \"{database}\", out of order"
    )]
    GaveWay {
        /// The database, or the namespace, of what it would have waited for.
        database: Arc<str>,
    },
    /// The handle was used after its transaction had been committed or aborted. Remedy: keep no handle beyond its transaction.
    #[error("the transaction has ended")]
    TransactionEnded,
    /// A transaction was used while a child of it is open. Remedy: use the child, or wait for it to end.
    #[error("a child of the transaction is open: use that one until it has ended")]
    ChildOpen,
    /// Begun inside the closure of an interactive transaction, whose locks it might wait for without end. Remedy: use that
    /// transaction, or a child of it.
    #[error("begun inside the transaction from {outer_site}: use that one, or a child of it")]
    InsideTransaction {
        /// Where the transaction was asked for whose closure runs.
        outer_site: Site,
    },
    /// The transaction has read or written more than it may. Remedy: split it, or raise the setting.
    #[error("the transaction's {which} would outgrow its limit of {limit} {}; `{}` raises it", which.unit(), which.setting())]
    TooMuch {
        /// What there is too much of.
        which: WhichSet,
        /// The limit: entries of a read set, bytes of a write set.
        limit: usize,
    },
    /// As many snapshots were held over awaits as there may be, and none ended in time. Nothing was begun; send it again later,
    /// or raise `snapshots`.
    #[error("{max} snapshots are held, which is the limit (`snapshots`), and none ended in time")]
    NoSnapshot {
        /// The setting `snapshots`.
        max: usize,
    },
    /// The snapshot was held over an await and had to end, since the map or a database had to change. Remedy: begin again with
    /// a new snapshot.
    #[error("the snapshot had to end, since the map or a database had to change")]
    SnapshotTooOld,
    /// Snapshots cannot be held over awaits under `no_lock`: updates would write over what they show. Remedy: views, or
    /// an environment with locks.
    #[error("no snapshot can be held over awaits under `no_lock`")]
    SnapshotUnderNoLock,
    /// Locks were declared, and there is no lock table (an environment that was started alone).
    #[error("locks were declared, but this environment was started without a lock table")]
    NoLockTable,
    /// The process was forked: the child must not use the environment. Remedy: open it after the fork.
    #[error("the process was forked after the environment was opened")]
    Forked,
    /// The transaction was sent with a key that stands for another request: one of another name, or with another
    /// [`request`](crate::RunTxn::request). Nothing was written. Remedy: a new key for each request, and the same request with the
    /// same key.
    #[error("the key \"{}\" was used for another request", .key.escape_ascii())]
    KeyReused {
        /// The key.
        key: Arc<[u8]>,
    },
    /// An answer is stored for the key, and cannot be read. The effect may be there; the body was not run again. Remedy: look
    /// before you send it with another key.
    #[error("the answer stored for the key \"{}\" cannot be read", .key.escape_ascii())]
    AnswerUnreadable {
        /// The key.
        key: Arc<[u8]>,
        /// What is wrong with it.
        source: AnswerError,
    },
    /// The body's answer cannot be stored for the key. Nothing was written. Remedy: see [`AnswerError`].
    #[error("the answer for the key \"{}\" cannot be stored", .key.escape_ascii())]
    AnswerNotStorable {
        /// The key.
        key: Arc<[u8]>,
        /// Why.
        source: AnswerError,
    },
    /// A view was sent with a key. It has no effect that could happen twice, and an old answer in the place of what is there now
    /// would be wrong. Remedy: no key.
    #[error("a view takes no key: it changes nothing that could happen twice")]
    KeyOnView,
    /// The transaction was sent [under a lease](crate::RunTxn::under) that is not held any more. Nothing was written. Remedy:
    /// acquire the lease again, and begin anew with what is there then.
    #[error("the lease \"{name}\" is not held any more (its token was {token}, in {store})")]
    LeaseLost {
        /// The store of the lease.
        store: StoreId,
        /// The lease.
        name: LeaseName,
        /// The token that it was held with.
        token: Fence,
    },
    /// The transaction was sent [under a lease](crate::RunTxn::under) whose token is smaller than one that this environment has
    /// seen: a later holder has written here. Nothing was written. Remedy: stop, somebody else holds the lease. If the store was
    /// restored from a backup or its table made anew, so that its tokens began again: send [`ForgetToken`](crate::ForgetToken).
    #[error(
        "the lease \"{name}\" has the token {token}, and a later holder has written with {seen} (in {store}); if the store was \
         restored or made anew, `ForgetToken` lets its tokens begin again"
    )]
    FenceTooSmall {
        /// The store of the lease.
        store: StoreId,
        /// The lease.
        name: LeaseName,
        /// The token that the transaction came with.
        token: Fence,
        /// The largest that has been seen.
        seen: Fence,
    },
    /// A database handle refused.
    #[error(transparent)]
    Database(DbError),
    /// Reading or writing the file failed; nothing was written.
    #[error(transparent)]
    Storage(StorageError),
}

/// What a transaction was doing when its deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// It waited for a place among the transactions in flight.
    WaitedForAdmission,
    /// It waited for its locks.
    WaitedForLocks,
    /// It waited for the gate, while the map changed.
    WaitedForGate,
    /// It waited for the writer or a reader thread.
    WasQueued,
    /// Its body was running.
    Ran,
    /// It waited between two attempts.
    BackedOff,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::WaitedForAdmission => "waited for admission",
            Self::WaitedForLocks => "waited for locks",
            Self::WaitedForGate => "waited for the map to change",
            Self::WasQueued => "was queued",
            Self::Ran => "ran",
            Self::BackedOff => "waited for its next attempt",
        })
    }
}

impl<E> From<DbError> for TxnError<E> {
    fn from(error: DbError) -> Self {
        Self::Database(error)
    }
}

impl<E> From<heed::Error> for TxnError<E> {
    fn from(error: heed::Error) -> Self {
        Self::Database(DbError::Heed(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_happened_and_whether_to_try_again() {
        let error: TxnError = TxnError::DeadlineExceeded {
            deadline: Duration::from_millis(1500),
            stage: Stage::WasQueued,
        };
        assert_eq!(
            error.to_string(),
            "the deadline of 1s 500ms passed while the transaction was queued"
        );
        assert!(error.is_retryable());
        let error: TxnError = TxnError::MaybeCommitted { cause: None };
        assert!(!error.is_retryable());
        let error: TxnError = TxnError::SnapshotTooOld;
        assert!(error.is_retryable() && error.class() == ErrorClass::Conflict);
        let error: TxnError = TxnError::SnapshotUnderNoLock;
        assert!(!error.is_retryable() && error.class() == ErrorClass::Usage);
        let error: TxnError<u8> = TxnError::Abort(3);
        assert_eq!(error.class(), ErrorClass::Abort);
        assert_eq!(error.into_abort().unwrap(), 3);
    }
}
