//! What the environment and its databases can answer, apart from how a transaction ends.
//!
//! Each operation has an enum of its own, so that nobody has to think of what cannot happen; what they share with
//! transactions they carry as a [`TxnError`].

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{ActorPanicked, TxnError, brief, duplicate};
use crate::env::Occupant;

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
    /// Whether the same call, made again a little later, may well succeed: never, since each of these is about how it was
    /// called, or about the file.
    pub fn is_retryable(&self) -> bool {
        false
    }

    pub(super) fn duplicate(&self) -> Self {
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
    /// The database cannot be used by interactive transactions. Remedy: plain updates and views, or a database without the
    /// flags that stand in the way.
    #[error("the database \"{name}\" cannot be used record by record: {why}")]
    NotRecords {
        /// The name; `"?"` if it is not known here.
        name: Arc<str>,
        /// What stands in the way.
        why: NoRecords,
    },
    /// The name begins with `__lockkeeper`: such databases are the keeper's own. Remedy: another name.
    #[error(
        "the name \"{name}\" is reserved: the databases that begin with `__lockkeeper` are the keeper's own"
    )]
    Reserved {
        /// The name.
        name: Arc<str>,
    },
    /// The same errors that a transaction can meet.
    #[error(transparent)]
    Txn(#[from] TxnError),
}

/// Why the records of a database cannot be read and locked one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoRecords {
    /// It has several values for a key (`DUP_SORT` and the flags that go with it).
    Duplicates,
    /// Its keys are numbers to LMDB (`INTEGER_KEY`), which are not ordered byte by byte. Remedy: big-endian keys.
    IntegerKeys,
    /// Its keys are compared from their ends (`REVERSE_KEY`).
    ReversedKeys,
    /// The handle belongs to another keeper.
    OtherKeeper,
    /// The database was deleted after the handle was made.
    Deleted,
}

impl std::fmt::Display for NoRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Duplicates => "it has duplicates (`DUP_SORT`)",
            Self::IntegerKeys => "its keys are ordered as numbers (`INTEGER_KEY`)",
            Self::ReversedKeys => "its keys are ordered from their ends (`REVERSE_KEY`)",
            Self::OtherKeeper => "the handle belongs to another keeper",
            Self::Deleted => "it was deleted",
        })
    }
}

/// An operation on the environment failed: a change of the map, a flush, a copy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// A map of this size may not be made.
    #[error("a map of {asked} bytes is not possible: {limit}")]
    BadSize {
        /// The size that was asked for, in bytes.
        asked: u64,
        /// What it must not pass.
        limit: SizeLimit,
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

    /// A panic, where a failure of the file is told.
    pub(crate) fn panicked(panicked: &ActorPanicked) -> Self {
        let error = std::io::Error::other(panicked.clone());
        Self::new("going on", heed::Error::Io(error))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let full = StorageError::new("commit", heed::Error::Io(io::ErrorKind::StorageFull.into()));
        assert!(full.is_full());
        let broken = StorageError::new("commit", heed::Error::Io(io::Error::from_raw_os_error(5)));
        assert!(!broken.is_full());
        assert_eq!(broken.errno(), Some(5));
    }
}

impl DatabaseError {
    /// Whether the same request, made again a little later, may well succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Txn(error) if error.is_retryable())
    }
}

impl EnvError {
    /// Whether the same request, made again a little later, may well succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Txn(error) if error.is_retryable())
    }
}

/// What the size of a map must not pass, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SizeLimit {
    /// It may not be larger than the setting `max_map_size`.
    Maximum(u64),
    /// It may not be smaller than what the file uses.
    InUse(u64),
}

impl std::fmt::Display for SizeLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Maximum(max) => write!(f, "`max_map_size` is {max}"),
            Self::InUse(used) => write!(f, "{used} bytes are in use"),
        }
    }
}
