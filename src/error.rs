//! The errors that a caller can meet: one enum for each boundary, and a classification that needs no parsing of text.

use std::convert::Infallible;
use std::io;
use std::panic::Location;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::ConfigError;
use crate::env::{BodyKind, Occupant, PanicEvent};
use crate::messages::lock_table::LockError;

/// Where a transaction was asked for.
pub type Site = &'static Location<'static>;

/// The name of a transaction, as logs and errors show it.
pub(crate) type Name = Option<Arc<str>>;

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
    /// Locks were declared, and there is no lock table (an environment that was started alone).
    #[error("locks were declared, but this environment was started without a lock table")]
    NoLockTable,
    /// The process was forked: the child must not use the environment. Remedy: open it after the fork.
    #[error("the process was forked after the environment was opened")]
    Forked,
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

/// What kind of error this is, for those who map errors to something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The application's own.
    Abort,
    /// Deadlock, lock timeout, transaction timeout, not granted at once.
    Conflict,
    /// Tried as often as it may be.
    RetriesExhausted,
    /// A limit was reached: transactions in flight, reader slots.
    Overloaded,
    /// Out of time; not committed.
    OutOfTime,
    /// Nobody knows whether it was committed.
    MaybeCommitted,
    /// A body keeps the writer.
    WriterStalled,
    /// No space: the map, its bound, or the disk.
    Full,
    /// The map could not change.
    MapBusy,
    /// A fatal error came before.
    RecoveryNeeded,
    /// The keeper goes down.
    ShuttingDown,
    /// Used in a way that cannot work.
    Usage,
    /// The body panicked.
    Panic,
    /// The file could not be read or written, or its content is not what was expected.
    Storage,
}

impl<E> TxnError<E> {
    /// What kind of error this is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Abort(_) => ErrorClass::Abort,
            Self::Conflict(error) => match error {
                LockError::ShuttingDown => ErrorClass::ShuttingDown,
                LockError::Limit { .. } => ErrorClass::Overloaded,
                _ => ErrorClass::Conflict,
            },
            Self::RetriesExhausted { .. } => ErrorClass::RetriesExhausted,
            Self::Overloaded { .. } | Self::ReadersFull { .. } => ErrorClass::Overloaded,
            Self::DeadlineExceeded { .. } => ErrorClass::OutOfTime,
            Self::MaybeCommitted { .. } => ErrorClass::MaybeCommitted,
            Self::WriterStalled { .. } => ErrorClass::WriterStalled,
            Self::EnvironmentFull { .. } => ErrorClass::Full,
            Self::MapBusy(_) | Self::MapChanging { .. } => ErrorClass::MapBusy,
            Self::RecoveryNeeded(_) => ErrorClass::RecoveryNeeded,
            Self::ShuttingDown => ErrorClass::ShuttingDown,
            Self::BodyPanicked { .. } => ErrorClass::Panic,
            Self::TooLarge
            | Self::NestedTransaction { .. }
            | Self::NoLockTable
            | Self::Forked
            | Self::Database(
                DbError::KeySize { .. }
                | DbError::Foreign
                | DbError::Deleted { .. }
                | DbError::HandleNewerThanSnapshot { .. },
            ) => ErrorClass::Usage,
            Self::Database(_) => ErrorClass::Storage,
            Self::Storage(error) if error.is_full() => ErrorClass::Full,
            Self::Storage(_) => ErrorClass::Storage,
        }
    }

    /// Whether the same transaction, sent again a little later, may well succeed, and sending it again is safe.
    ///
    /// [`TxnError::MaybeCommitted`] is not: look first.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Conflict(error) => error.is_retryable(),
            _ => matches!(
                self.class(),
                ErrorClass::RetriesExhausted
                    | ErrorClass::Overloaded
                    | ErrorClass::OutOfTime
                    | ErrorClass::WriterStalled
                    | ErrorClass::MapBusy
                    | ErrorClass::RecoveryNeeded
            ),
        }
    }

    /// Takes the application's error out.
    ///
    /// # Errors
    ///
    /// Every other error, unchanged.
    pub fn into_abort(self) -> Result<E, TxnError> {
        macro_rules! same {
            ($($name:ident $({ $($field:ident),* })? $(($inner:ident))?),* $(,)?) => {
                match self {
                    Self::Abort(error) => Ok(error),
                    $(Self::$name $({ $($field),* })? $(($inner))? => Err(TxnError::$name $({ $($field),* })? $(($inner))?),)*
                }
            };
        }
        same!(
            Conflict(error),
            RetriesExhausted {
                attempts,
                waited,
                last
            },
            Overloaded { limit },
            DeadlineExceeded { deadline, stage },
            MaybeCommitted { cause },
            WriterStalled { name, site, since },
            EnvironmentFull { size, max },
            TooLarge,
            MapBusy(error),
            MapChanging {
                attempts,
                ours,
                theirs
            },
            RecoveryNeeded(event),
            ShuttingDown,
            BodyPanicked { message, site },
            NestedTransaction { outer, outer_site },
            ReadersFull { max },
            NoLockTable,
            Forked,
            Database(error),
            Storage(error),
        )
    }
}

impl TxnError {
    /// The same error once more, for several callers, or for a handler and the caller. What cannot be cloned keeps its text.
    pub(crate) fn duplicate(&self) -> Self {
        match self {
            Self::Abort(never) => match *never {},
            Self::Conflict(error) => Self::Conflict(error.clone()),
            Self::RetriesExhausted {
                attempts,
                waited,
                last,
            } => Self::RetriesExhausted {
                attempts: *attempts,
                waited: *waited,
                last: Box::new(last.duplicate()),
            },
            &Self::Overloaded { limit } => Self::Overloaded { limit },
            &Self::DeadlineExceeded { deadline, stage } => {
                Self::DeadlineExceeded { deadline, stage }
            }
            Self::MaybeCommitted { cause } => Self::MaybeCommitted {
                cause: cause.clone(),
            },
            Self::WriterStalled { name, site, since } => Self::WriterStalled {
                name: name.clone(),
                site,
                since: *since,
            },
            &Self::EnvironmentFull { size, max } => Self::EnvironmentFull { size, max },
            Self::TooLarge => Self::TooLarge,
            Self::MapBusy(busy) => Self::MapBusy(busy.clone()),
            &Self::MapChanging {
                attempts,
                ours,
                theirs,
            } => Self::MapChanging {
                attempts,
                ours,
                theirs,
            },
            Self::RecoveryNeeded(event) => Self::RecoveryNeeded(Arc::clone(event)),
            Self::ShuttingDown => Self::ShuttingDown,
            Self::BodyPanicked { message, site } => Self::BodyPanicked {
                message: message.clone(),
                site,
            },
            &Self::NestedTransaction { outer, outer_site } => {
                Self::NestedTransaction { outer, outer_site }
            }
            &Self::ReadersFull { max } => Self::ReadersFull { max },
            Self::NoLockTable => Self::NoLockTable,
            Self::Forked => Self::Forked,
            Self::Database(error) => Self::Database(error.duplicate()),
            Self::Storage(error) => Self::Storage(error.clone()),
        }
    }

    /// The same error where an application error could be.
    pub fn widen<E>(self) -> TxnError<E> {
        macro_rules! same {
            ($($name:ident $({ $($field:ident),* })? $(($inner:ident))?),* $(,)?) => {
                match self {
                    Self::Abort(never) => match never {},
                    $(Self::$name $({ $($field),* })? $(($inner))? => TxnError::$name $({ $($field),* })? $(($inner))?,)*
                }
            };
        }
        same!(
            Conflict(error),
            RetriesExhausted {
                attempts,
                waited,
                last
            },
            Overloaded { limit },
            DeadlineExceeded { deadline, stage },
            MaybeCommitted { cause },
            WriterStalled { name, site, since },
            EnvironmentFull { size, max },
            TooLarge,
            MapBusy(error),
            MapChanging {
                attempts,
                ours,
                theirs
            },
            RecoveryNeeded(event),
            ShuttingDown,
            BodyPanicked { message, site },
            NestedTransaction { outer, outer_site },
            ReadersFull { max },
            NoLockTable,
            Forked,
            Database(error),
            Storage(error),
        )
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

/// A database handle refused, or LMDB did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// The key is empty or too long.
    #[error("a key of {len} bytes; keys have 1 to {max}")]
    KeySize {
        /// The length of the key, in bytes.
        len: usize,
        /// The longest key, in bytes.
        max: usize,
    },
    /// The handle belongs to another keeper than the transaction.
    #[error("the database belongs to another environment than the transaction")]
    Foreign,
    /// The database was deleted after the handle was made.
    #[error("the database \"{name}\" was deleted")]
    Deleted {
        /// The name of the database.
        name: Arc<str>,
    },
    /// The database was opened after the view began. Remedy: begin the view after the opening.
    #[error("the database \"{name}\" was opened after the snapshot was taken")]
    HandleNewerThanSnapshot {
        /// The name of the database.
        name: Arc<str>,
    },
    /// What heed or LMDB answered.
    #[error(transparent)]
    Heed(#[from] heed::Error),
}

impl DbError {
    fn duplicate(&self) -> Self {
        match self {
            &Self::KeySize { len, max } => Self::KeySize { len, max },
            Self::Foreign => Self::Foreign,
            Self::Deleted { name } => Self::Deleted {
                name: Arc::clone(name),
            },
            Self::HandleNewerThanSnapshot { name } => Self::HandleNewerThanSnapshot {
                name: Arc::clone(name),
            },
            Self::Heed(error) => Self::Heed(duplicate(error)),
        }
    }
}

/// heed's errors are not `Clone`: what cannot be cloned keeps its text.
pub(crate) fn duplicate(error: &heed::Error) -> heed::Error {
    match error {
        heed::Error::Mdb(error) => heed::Error::Mdb(*error),
        heed::Error::Io(error) => heed::Error::Io(match error.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::new(error.kind(), error.to_string()),
        }),
        heed::Error::Encoding(error) => heed::Error::Encoding(error.to_string().into()),
        heed::Error::Decoding(error) => heed::Error::Decoding(error.to_string().into()),
        heed::Error::EnvAlreadyOpened => heed::Error::EnvAlreadyOpened,
    }
}

/// Opening or deleting a database failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// No database has that name, and it was not to be created.
    #[error("there is no database \"{name}\"")]
    NoSuchDatabase {
        /// The name.
        name: Arc<str>,
    },
    /// The environment has as many databases open as it may. Remedy: a larger `max_databases`.
    #[error(
        "{max} databases are open, which is the limit (`max_databases`), so \"{name}\" cannot be"
    )]
    TooMany {
        /// The name that was to be opened.
        name: Arc<str>,
        /// The setting `max_databases`.
        max: u32,
    },
    /// The database is open with other flags, codecs or comparator. Remedy: the same everywhere, or [`Db::remap_types`](crate::Db::remap_types).
    #[error("the database \"{name}\" is open as {open}, not as {asked}")]
    OpenedOtherwise {
        /// The name.
        name: Arc<str>,
        /// How it is open.
        open: String,
        /// How it was asked for.
        asked: String,
    },
    /// LMDB has the database with other flags, or something else has that name.
    #[error("the database \"{name}\" exists with other flags, or the name is not a database's")]
    Incompatible {
        /// The name.
        name: Arc<str>,
    },
    /// The name is empty, too long, or contains a zero byte.
    #[error("the name of a database has 1 to 511 bytes, none of them zero; this one has {len}")]
    BadName {
        /// The length of the name, in bytes.
        len: usize,
    },
    /// The same errors that a transaction can meet.
    #[error(transparent)]
    Txn(#[from] TxnError),
}

/// An operation on the environment failed: a change of the map, a flush, a copy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// A map of this size may not be made.
    #[error("a map of {asked} bytes is not possible: {why}")]
    BadSize {
        /// The size that was asked for, in bytes.
        asked: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The file to copy to exists already; nothing was overwritten.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// Recovery was refused, because what was acknowledged might be lost.
    #[error("recovery is refused: {0}")]
    RecoveryRefused(String),
    /// The same errors that a transaction can meet.
    #[error(transparent)]
    Txn(#[from] TxnError),
}

macro_rules! from_fault {
    ($($error:ty),*) => {
        $(impl From<StorageError> for $error {
            fn from(error: StorageError) -> Self {
                Self::Txn(TxnError::Storage(error))
            }
        })*
    };
}
from_fault!(DatabaseError, EnvError);

/// Reading or writing the environment's file failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{doing} failed: {source}")]
pub struct StorageError {
    doing: &'static str,
    source: Arc<heed::Error>,
}

impl StorageError {
    pub(crate) fn new(doing: &'static str, source: heed::Error) -> Self {
        Self {
            doing,
            source: Arc::new(source),
        }
    }

    /// What was being done.
    pub fn doing(&self) -> &'static str {
        self.doing
    }

    /// What heed answered.
    pub fn heed(&self) -> &heed::Error {
        &self.source
    }

    /// The operating system's error number, if it was the operating system's error.
    pub fn errno(&self) -> Option<i32> {
        match &*self.source {
            heed::Error::Io(error) => error.raw_os_error(),
            _ => None,
        }
    }

    /// Whether the disk, or the user's share of it, is full.
    pub fn is_full(&self) -> bool {
        matches!(
            &*self.source,
            heed::Error::Io(error) if matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
            )
        )
    }
}

/// The map had to change, and views stayed in the way longer than `resize_timeout`.
#[derive(Debug, Clone)]
pub struct MapBusy {
    /// The update that needed a larger map, as it names itself; `None` for an explicit change.
    pub update: Option<String>,
    /// The views in the way, the oldest first.
    pub views: Vec<Occupant>,
    /// How long was waited.
    pub waited: Duration,
}

impl std::error::Error for MapBusy {}

impl std::fmt::Display for MapBusy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.update {
            Some(update) => write!(f, "{update} needs a larger map")?,
            None => f.write_str("the map was to change")?,
        }
        write!(f, ", but after {} these are open: ", brief(self.waited))?;
        for (nth, view) in self.views.iter().enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            write!(f, "{comma}{view}")?;
        }
        f.write_str("; end the view before the update that it waits for")
    }
}

/// The keeper could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is not possible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The environment is open in this process already. Remedy: clone the keeper that has it.
    #[error("{} is open in this process already", .path.display())]
    AlreadyOpen {
        /// The folder.
        path: PathBuf,
    },
    /// The folder cannot be made, read or written.
    #[error("{}: {source}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system answered.
        source: io::Error,
    },
    /// The path exists and is not a folder.
    #[error("{} is not a folder", .path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The data file is not LMDB's, or of another version.
    #[error("{} is not an LMDB environment of this version: {source}", .path.display())]
    NotLmdb {
        /// The data file.
        path: PathBuf,
        /// What LMDB answered.
        source: heed::Error,
    },
    /// Another process with the same process id, in another pid namespace, has the environment. Remedy: one pid namespace for
    /// all containers that share the volume (`--pid=container:…`, `shareProcessNamespace`), or one container for each folder.
    #[error(
        "a process with the same pid in another pid namespace has {} open; let the containers share a pid namespace",
        .path.display()
    )]
    SamePidInOtherNamespace {
        /// The folder.
        path: PathBuf,
    },
    /// `no_lock` allows one process, and another one has the folder.
    #[error("{} is used by another process, which `no_lock` excludes", .path.display())]
    OtherProcess {
        /// The folder.
        path: PathBuf,
    },
    /// `in_current_system` was asked for on a thread without an actix system.
    #[error(
        "there is no actix `System` on this thread; leave out `in_current_system()` to get one"
    )]
    NoSystem,
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[source] io::Error),
    /// LMDB refused.
    #[error("{} could not be opened: {source}", .path.display())]
    Lmdb {
        /// The folder.
        path: PathBuf,
        /// What heed answered.
        source: heed::Error,
    },
}

/// The keeper did not stop in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// A body runs on; its thread and the environment stay until it returns.
    #[error("the body of {} has been running for {} and cannot be stopped", body_name(name.as_deref(), site), brief(*.since))]
    BodyRunsOn {
        /// The name of its transaction.
        name: Name,
        /// Where that was asked for.
        site: Site,
        /// How long it has been running.
        since: Duration,
    },
    /// The process was forked: what the keeper has belongs to the parent, and nothing was touched.
    #[error("the process was forked after the environment was opened")]
    Forked,
    /// Asked for inside a body, which would wait for itself. Remedy: after the body.
    #[error("asked for inside a body, which would wait for itself")]
    InsideBody,
    /// Something else did not end in time.
    #[error("{what} did not end in time")]
    TimedOut {
        /// What it was.
        what: &'static str,
    },
}

pub(crate) fn body_name(name: Option<&str>, site: Site) -> String {
    match name {
        Some(name) => format!("\"{name}\" from {site}"),
        None => format!("the update from {site}"),
    }
}

/// A duration as people write it, without digits that nobody reads.
pub(crate) fn brief(span: Duration) -> String {
    let rounded = if span >= Duration::from_secs(1) {
        Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    } else {
        Duration::from_micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    };
    humantime::format_duration(rounded).to_string()
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
        let error: TxnError<u8> = TxnError::Abort(3);
        assert_eq!(error.class(), ErrorClass::Abort);
        assert_eq!(error.into_abort().unwrap(), 3);
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let full = StorageError::new("commit", heed::Error::Io(io::ErrorKind::StorageFull.into()));
        assert!(full.is_full());
        let broken = StorageError::new("commit", heed::Error::Io(io::Error::from_raw_os_error(5)));
        assert!(!broken.is_full());
        assert_eq!(broken.errno(), Some(5));
    }
}
