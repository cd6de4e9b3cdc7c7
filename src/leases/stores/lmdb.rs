//! Leases in an LMDB file: for the processes of one machine, with no server.
//!
//! The file is an environment of its own, beside the application's, and every change of it is on the disk before it is
//! answered: no long update of the application's environment can keep a lease from being refreshed. Time is that of the
//! machine since its boot, suspend included; after another boot every lease has expired, as every holder has ended.

mod boot;
mod file;
mod later;
mod record;
mod wanted;
mod worker;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use file::Key;
use worker::Hold;

pub(crate) use later::Later;

use crate::env::{file_id, prepare_folder};
use crate::error::OpenError;
use crate::leases::{
    Claim, Claimed, Holder, LeaseName, LeaseRecord, LeaseStore, Refresh, Refreshed, Released,
    StoreError, StoreFuture, StoreId, TableName,
};

/// The name of the file, in its folder; LMDB's lock file is beside it.
const FILE: &str = "leases.mdb";

/// A store of leases in a folder, for all processes of one machine. It needs no server and is there without any feature.
///
/// The leases are in `leases.mdb`, an LMDB environment of its own whose commits are always flushed; it may lie beside the
/// application's environment. `leases.wanted` beside it says who waits, and may be removed at any time. All handles of a process
/// share one thread, which is there as long as one of them is; clones are cheap. Waiters of other processes poll.
///
/// - The folder must be on a disk of this machine: LMDB's locks do not work over network file systems.
/// - Containers that share the folder must share a pid namespace.
/// - After a boot of the machine every lease has expired.
/// - There is room for about half a million names, on 32-bit systems for some ten thousand. Then a new one is answered with [`StoreError::Full`]; those that are there go
///   on. The file may be removed while nobody uses it, and tokens begin again.
/// - A process that is killed leaves nothing locked but its leases, until they expire. One that is *stopped* (`SIGSTOP`, a
///   debugger) while it writes, or is about to, keeps LMDB's writer: nobody gets, refreshes or releases a lease until it goes on or
///   is killed; those who hold leases lose them in time.
/// - In the child of a fork every handle answers [`StoreError::BadConfig`].
///
/// ```
/// use lockkeeper::{LeaseStore, LmdbLeases};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let store = LmdbLeases::open(folder.path())?;
/// assert!(store.list().await?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LmdbLeases {
    worker: Hold,
    id: StoreId,
    path: PathBuf,
    /// What the keys of the table begin with.
    table: Arc<[u8]>,
}

impl LmdbLeases {
    /// Opens the leases in `folder`, which is made if it is missing, in the table `dbmutex`. Blocks while the file is opened.
    ///
    /// # Errors
    /// [`StoreError::BadConfig`] for a folder that cannot be used, or a store that was open when this process was forked;
    /// [`StoreError::WrongTable`] if `leases.mdb` is something else, or of a later version; [`StoreError::Denied`] if it may not be
    /// opened; [`StoreError::Unreachable`] for what LMDB cannot open for now.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_table(folder, &TableName::default())
    }

    /// The same with a table of its own: leases of one name in two tables are two leases.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_table(folder: impl AsRef<Path>, table: &TableName) -> Result<Self, StoreError> {
        let folder = prepare_folder(folder.as_ref()).map_err(not_usable)?;
        let path = folder.join(FILE);
        let worker = Hold::of(&path)?;
        // By its place on the machine, so that containers that see it under two paths agree. The folder's and not the file's: a
        // file that was removed and made anew has smaller tokens, which have to be refused.
        let id = match file_id(&folder) {
            Some((device, inode)) => format!("lmdb:{device:x}:{inode}/{table}"),
            None => format!("lmdb:{}/{table}", folder.display()),
        };
        Ok(Self {
            worker,
            id: StoreId::new(id),
            path,
            table: [table.as_str().as_bytes(), &[0]].concat().into(),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn key(&self, name: &LeaseName) -> Key {
        let bytes = [&self.table, name.as_str().as_bytes()].concat();
        let name = name.clone();
        Key { name, bytes }
    }
}

fn not_usable(error: OpenError) -> StoreError {
    StoreError::BadConfig(error.to_string())
}

impl LeaseStore for LmdbLeases {
    fn id(&self) -> StoreFuture<'_, StoreId> {
        Box::pin(std::future::ready(Ok(self.id.clone())))
    }

    fn prepare(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.worker.ask(file::File::prepare))
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        let (key, claim) = (self.key(&claim.name), claim.clone());
        Box::pin(self.worker.ask(move |file| file.claim(&key, &claim)))
    }

    fn refresh<'a>(&'a self, leases: &'a [Refresh]) -> StoreFuture<'a, Vec<Refreshed>> {
        let leases = leases
            .iter()
            .map(|lease| (self.key(&lease.name), lease.clone()));
        let leases: Vec<_> = leases.collect();
        Box::pin(self.worker.ask(move |file| file.refresh(&leases)))
    }

    fn release<'a>(&'a self, name: &'a LeaseName, holder: &'a Holder) -> StoreFuture<'a, Released> {
        Box::pin(async move { Ok(self.give_back(name, holder).await?.0) })
    }

    fn give_back<'a>(
        &'a self,
        name: &'a LeaseName,
        holder: &'a Holder,
    ) -> StoreFuture<'a, (Released, bool)> {
        let (key, holder) = (self.key(name), holder.clone());
        Box::pin(self.worker.ask(move |file| file.release(&key, &holder)))
    }

    fn hand_over<'a>(
        &'a self,
        from: &'a Holder,
        claim: &'a Claim,
    ) -> StoreFuture<'a, (Released, Claimed)> {
        let (key, from, claim) = (self.key(&claim.name), from.clone(), claim.clone());
        Box::pin(
            self.worker
                .ask(move |file| file.hand_over(&key, &from, &claim)),
        )
    }

    fn look<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        let key = self.key(name);
        Box::pin(self.worker.ask(move |file| file.look(&key)))
    }

    fn list(&self) -> StoreFuture<'_, Vec<LeaseRecord>> {
        let table = Arc::clone(&self.table);
        Box::pin(self.worker.ask(move |file| file.list(&table)))
    }

    fn force_release<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        let key = self.key(name);
        Box::pin(self.worker.ask(move |file| file.force_release(&key)))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.worker.let_go().await;
            Ok(())
        })
    }
}

impl fmt::Debug for LmdbLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LmdbLeases")
            .field("id", &self.id)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
