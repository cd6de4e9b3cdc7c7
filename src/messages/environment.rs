//! What the environment actor is asked. Each of these may be sent by anyone, and is answered when it is done; if the sender
//! goes away, what has begun is finished.

use std::path::PathBuf;
use std::sync::Arc;

use actix::Message;

use crate::env::EnvStats;
use crate::error::{DatabaseError, EnvError, TxnError};
use crate::leases::{Fence, LeaseName, StoreId};

/// Gives the map a size, in bytes, rounded up to whole pages; answers the size it has then. It waits for running
/// transactions and keeps new ones out meanwhile, at most for `resize_timeout`. What is asked at the same time is one
/// change: the largest size that may be made wins. It answers lmdbsync's `Env.SetMapSize`.
///
/// # Errors
///
/// [`EnvError::BadSize`] for a size below what is in use, or above `max_map_size`; [`TxnError::MapBusy`] when views stayed
/// in the way, with their names and ages.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<u64, EnvError>")]
pub struct SetMapSize(pub u64);

/// Flushes what was committed without a flush; answered when the disk has it. It answers lmdbsync's `Env.Sync`.
///
/// # Errors
///
/// [`TxnError::RecoveryNeeded`] when the flush fails, which is a fatal error; otherwise what stands in the way of any
/// transaction, as [`EnvError::Txn`].
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), EnvError>")]
pub struct Sync;

/// Copies the environment, as of one moment, into a folder while writes go on; answers the size of the copy in bytes.
///
/// The folder is made if it is missing; it must not contain an environment. The copy is complete once it has its name,
/// `data.mdb`; a `data.mdb.partial` is what a copy that was cut short has left. A compacting copy leaves out free pages,
/// which is how a file shrinks; both kinds keep the map from growing while they run.
///
/// A thread of its own makes the copy. If the sender goes away, it is finished.
///
/// # Errors
///
/// [`EnvError::Exists`] if the folder has a `data.mdb`; [`TxnError::Storage`] if it cannot be written, and then nothing of
/// the copy is left; otherwise what stands in the way of any transaction, as [`EnvError::Txn`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<u64, EnvError>")]
pub struct CopyTo {
    /// The folder of the copy.
    pub folder: PathBuf,
    /// Whether to leave out free pages.
    pub compact: bool,
}

impl CopyTo {
    /// A copy page by page, as large as the file. [`CopyTo::compact`] leaves out free pages.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            compact: false,
        }
    }

    /// Leaves out free pages.
    #[must_use]
    pub fn compact(mut self) -> Self {
        self.compact = true;
        self
    }
}

/// Asks for the state and the statistics of the environment. It waits while the map changes.
///
/// # Errors
///
/// What stands in the way of any view: recovery, shutdown, a fork, no reader slot. [`Keeper::stats`](crate::Keeper::stats)
/// answers then too, without what only LMDB knows.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<EnvStats, TxnError>")]
pub struct EnvStatsQuery;

/// Clears the reader slots of processes that died; answers how many there were. It happens by itself at the start and every
/// `stale_reader_interval`.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "usize")]
pub struct ClearStaleReaders;

/// Recovers after a fatal error: closes the environment, opens it anew and checks it. Answers at once if nothing is wrong.
/// It waits for views that are still inside; nobody else gets in.
///
/// # Errors
///
/// [`EnvError::RecoveryRefused`] after a failed flush under no-sync; [`TxnError::Storage`] when the environment cannot be
/// opened or fails its check, and then everybody is answered `RecoveryNeeded` as before.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), EnvError>")]
pub struct Recover;

/// Removes every entry of a named database; answers how many there were. Its handles stay valid. Inside an update,
/// [`Db::clear`](crate::Db::clear) does so.
///
/// # Errors
///
/// [`DatabaseError::NoSuchDatabase`]; otherwise what stands in the way of any update, as [`DatabaseError::Txn`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<u64, DatabaseError>")]
pub struct ClearDatabase(pub Arc<str>);

/// Deletes a named database. Its handles answer [`DbError::Deleted`](crate::DbError::Deleted) from then on. It waits until
/// no view is open, at most for `resize_timeout`.
///
/// # Errors
///
/// [`DatabaseError::NoSuchDatabase`]; [`TxnError::MapBusy`] when views stayed in the way; otherwise what stands in the way of
/// any update, as [`DatabaseError::Txn`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), DatabaseError>")]
pub struct DeleteDatabase(pub Arc<str>);

/// Has the environment forget the largest fencing token that it has seen of a lease; answers which it was, `None` if it had seen
/// none. It is what to send when [`TxnError::FenceTooSmall`] is answered because the store was restored from a backup, or its table
/// made anew, so that its tokens began again. It is logged as a warning.
///
/// Nothing else is checked: a holder that was paused, and has a token from before, can write again after this. Be sure that
/// there is none.
///
/// # Errors
///
/// What stands in the way of any update, as [`EnvError::Txn`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Option<Fence>, EnvError>")]
pub struct ForgetToken {
    /// The store of the lease, as the error names it.
    pub store: StoreId,
    /// The lease.
    pub name: LeaseName,
}

impl ForgetToken {
    /// For a lease of a store.
    pub const fn new(store: StoreId, name: LeaseName) -> Self {
        Self { store, name }
    }
}
