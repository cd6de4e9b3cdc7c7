//! The names of the databases that are open, and the handle that each has now.
//!
//! The writer thread alone opens, so that two openings never share a slot of LMDB's; everybody else looks up. A handle
//! survives a recovery, which opens every name anew, and knows when its database was deleted.

use std::any::{Any, TypeId};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use heed::{
    CommitOrAbort, Comparator, Database, DatabaseFlags, DefaultComparator, Env, Unspecified,
    types::Bytes,
};
use parking_lot::Mutex;

use crate::env::EnvId;
use crate::env::database::Db;
use crate::env::recovery;
use crate::env::table::RawTable;
use crate::error::{DatabaseError, DbError};

/// A handle without its codecs.
pub(crate) type Raw<C> = Database<'static, Unspecified, Unspecified, C>;

/// Which database of an environment; never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DbId(u64);

impl DbId {
    #[allow(dead_code, reason = "for the runtime of interactive transactions")]
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// What LMDB's main database, which has no name, is called where one is needed.
pub(crate) const MAIN: &str = "(main)";

/// What is asked for when a database is opened.
#[derive(Clone)]
pub(crate) struct OpenSpec {
    /// `None` is LMDB's main database.
    pub name: Option<Arc<str>>,
    pub flags: DatabaseFlags,
    pub create: bool,
    /// Nobody has said what is in it: the first who does decides.
    untyped: bool,
    kind: Kind,
}

/// The types behind a handle.
#[derive(Clone)]
struct Kind {
    key: (TypeId, &'static str),
    data: (TypeId, &'static str),
    comparator: (TypeId, &'static str),
    open: Opener,
    empty: Emptier,
    stat: Statter,
}

type Statter = fn(&heed::RoTxn<'_>, &(dyn Any + Send + Sync)) -> heed::Result<heed::DatabaseStat>;

type Emptier = fn(&Env, &(dyn Any + Send + Sync), bool) -> heed::Result<u64>;
type Opener = fn(&Env, &OpenSpec) -> heed::Result<Option<Opened>>;

/// What came of an opening.
struct Opened {
    handle: Box<dyn Any + Send + Sync>,
    /// The flags that the database has in the file, which are not those that somebody opens it with.
    flags: DatabaseFlags,
}

impl OpenSpec {
    pub(crate) fn new<KC, DC, C>(name: Option<&str>, flags: DatabaseFlags, create: bool) -> Self
    where
        KC: 'static,
        DC: 'static,
        C: Comparator + Send + Sync + 'static,
    {
        fn named<T: 'static>() -> (TypeId, &'static str) {
            (TypeId::of::<T>(), std::any::type_name::<T>())
        }
        Self {
            name: name.map(Arc::from),
            flags,
            create,
            untyped: false,
            kind: Kind {
                key: named::<KC>(),
                data: named::<DC>(),
                comparator: named::<C>(),
                open: open_typed::<C>,
                empty: empty_typed::<C>,
                stat: stat_typed::<C>,
            },
        }
    }

    /// The name as errors show it.
    pub(crate) fn label(&self) -> Arc<str> {
        self.name.clone().unwrap_or_else(|| MAIN.into())
    }

    /// The same name, whatever it is open as.
    pub(crate) fn any(name: &str) -> Self {
        Self {
            untyped: true,
            ..Self::new::<heed::types::Bytes, heed::types::Bytes, DefaultComparator>(
                Some(name),
                DatabaseFlags::empty(),
                false,
            )
        }
    }

    fn describe(&self) -> String {
        let short = |name: &'static str| name.rsplit("::").next().unwrap_or(name);
        let mut text = format!("{} → {}", self.kind.key.1, self.kind.data.1);
        if self.kind.comparator.0 != TypeId::of::<DefaultComparator>() {
            text += &format!(" ordered by {}", short(self.kind.comparator.1));
        }
        if !self.flags.is_empty() {
            text += &format!(" with {:?}", self.flags);
        }
        text
    }

    fn agrees_with(&self, other: &Self) -> bool {
        self.flags == other.flags
            && self.kind.key.0 == other.kind.key.0
            && self.kind.data.0 == other.kind.data.0
            && self.is_ordered_as(other)
    }

    fn is_ordered_as(&self, other: &Self) -> bool {
        self.kind.comparator.0 == other.kind.comparator.0
    }
}

/// Opens (or creates) in a transaction of its own. `None`: there is none, and it was not to be created.
fn open_typed<C: Comparator + Send + Sync + 'static>(
    env: &Env,
    spec: &OpenSpec,
) -> heed::Result<Option<Opened>> {
    let txn = env.write_txn()?;
    let mut flags = None;
    let outcome = env.create_databases_and_commit(txn, |opener, txn| {
        let mut options = opener
            .database_options()
            .types::<Unspecified, Unspecified>()
            .key_comparator::<C>();
        options.flags(spec.flags);
        if let Some(name) = &spec.name {
            options.name(name);
        }
        let found = if spec.create {
            Some(options.create(txn)?)
        } else {
            options.open(txn)?
        };
        if found.is_some()
            && let Some(name) = &spec.name
            && let Some(main) = opener
                .database_options()
                .types::<Bytes, Bytes>()
                .open(txn)?
        {
            flags = main.get(txn, name.as_bytes())?.and_then(flags_in);
        }
        Ok::<_, heed::Error>(match found {
            Some(found) => CommitOrAbort::Commit(found),
            None => CommitOrAbort::Abort(()),
        })
    })?;
    if spec.name.is_none() {
        flags = recovery::main_flags(&env.path().join("data.mdb"));
    }
    Ok(outcome.commit().map(|handle: Raw<C>| Opened {
        handle: Box::new(handle),
        flags: flags.map_or(spec.flags, DatabaseFlags::from_bits_truncate),
    }))
}

/// The flags in LMDB's record of a tree: four bytes of padding come before them.
pub(super) fn flags_in(tree: &[u8]) -> Option<u32> {
    let flags = tree.get(4..6)?.try_into().ok()?;
    Some(u16::from_ne_bytes(flags).into())
}

fn stat_typed<C: Comparator + 'static>(
    txn: &heed::RoTxn<'_>,
    handle: &(dyn Any + Send + Sync),
) -> heed::Result<heed::DatabaseStat> {
    match handle.downcast_ref::<Raw<C>>() {
        Some(handle) => handle.stat(txn),
        None => Err(heed::Error::Mdb(heed::MdbError::BadDbi)),
    }
}

/// Removes every entry, and with `delete` the database itself; answers how many entries there were.
fn empty_typed<C: Comparator + 'static>(
    env: &Env,
    handle: &(dyn Any + Send + Sync),
    delete: bool,
) -> heed::Result<u64> {
    let Some(handle) = handle.downcast_ref::<Raw<C>>() else {
        return Ok(0);
    };
    let mut txn = env.write_txn()?;
    let entries = handle.len(&txn)?;
    if delete {
        crate::env::raw::remove(*handle, &mut txn)?;
    } else {
        handle.clear(&mut txn)?;
    }
    txn.commit()?;
    Ok(entries)
}

/// See the module.
pub struct Registry {
    /// Grows when handles become invalid: a deletion, a recovery. Changes only while the gate is shut and empty.
    epoch: AtomicU64,
    /// How many databases were ever opened.
    opened: AtomicU64,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    ids: HashMap<Option<Arc<str>>, DbId>,
    open: HashMap<DbId, Entry>,
    /// The names of the last deletions, for error messages.
    deleted: VecDeque<(DbId, Arc<str>)>,
    next: u64,
}

impl Tables {
    /// The name of a database that is not there any more, for an error.
    fn deleted_name(&self, id: DbId) -> Arc<str> {
        self.deleted
            .iter()
            .find(|(deleted, _)| *deleted == id)
            .map_or_else(|| "?".into(), |(_, name)| Arc::clone(name))
    }
}

struct Entry {
    spec: OpenSpec,
    handle: Box<dyn Any + Send + Sync>,
    flags: DatabaseFlags,
    opened: u64,
    /// Itself without its types, as of an epoch.
    table: Option<(u64, RawTable)>,
}

/// More deletions than anyone looks back at.
const TOMBSTONES: usize = 1024;

/// What a new [`Db`](crate::Db) is made of.
pub(crate) struct Found<C> {
    pub id: DbId,
    pub epoch: u64,
    pub opened: u64,
    pub handle: Raw<C>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            epoch: AtomicU64::new(1),
            opened: AtomicU64::new(0),
            tables: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Acquire)
    }

    /// A handle for a name that is open already.
    pub(crate) fn find<C: Comparator + 'static>(
        &self,
        spec: &OpenSpec,
    ) -> Option<Result<Found<C>, DatabaseError>> {
        let mut tables = self.tables.lock();
        let &id = tables.ids.get(&spec.name)?;
        let entry = tables.open.get_mut(&id)?;
        if entry.spec.untyped {
            if !entry.spec.is_ordered_as(spec) {
                // The writer has to tell LMDB the order first.
                return None;
            }
            entry.spec = spec.clone();
        }
        if !entry.spec.agrees_with(spec) {
            return Some(Err(DatabaseError::OpenedOtherwise {
                name: spec.label(),
                open: entry.spec.describe(),
                asked: spec.describe(),
            }));
        }
        let &handle = entry.handle.downcast_ref::<Raw<C>>()?;
        Some(Ok(Found {
            id,
            epoch: self.epoch(),
            opened: entry.opened,
            handle,
        }))
    }

    /// The handle that a database has now, for a [`Db`](crate::Db) of another epoch.
    #[cold]
    pub(crate) fn current<C: Comparator + 'static>(
        &self,
        id: DbId,
        snapshot_opened: u64,
    ) -> Result<Raw<C>, DbError> {
        let tables = self.tables.lock();
        let Some(entry) = tables.open.get(&id) else {
            let name = tables.deleted_name(id);
            return Err(DbError::Deleted { name });
        };
        match entry.handle.downcast_ref::<Raw<C>>() {
            Some(&handle) if entry.opened <= snapshot_opened => Ok(handle),
            _ => Err(DbError::HandleNewerThanSnapshot {
                name: entry.spec.label(),
            }),
        }
    }

    /// The name of a database and the flags that it has in the file; if it was deleted, only its name.
    pub(crate) fn kind(&self, id: DbId) -> Result<(Arc<str>, DatabaseFlags), Arc<str>> {
        let tables = self.tables.lock();
        match tables.open.get(&id) {
            Some(entry) => Ok((entry.spec.label(), entry.flags)),
            None => Err(tables.deleted_name(id)),
        }
    }

    /// A database without its types. It outlives a recovery, as a [`Db`] does.
    pub(crate) fn table<C: Comparator + Send + Sync + 'static>(
        &self,
        env: EnvId,
        id: DbId,
    ) -> Result<RawTable, DbError> {
        let mut tables = self.tables.lock();
        let Some(entry) = tables.open.get_mut(&id) else {
            let name = tables.deleted_name(id);
            return Err(DbError::Deleted { name });
        };
        let epoch = self.epoch();
        if let Some((made, table)) = &entry.table
            && *made == epoch
        {
            return Ok(table.clone());
        }
        let name = entry.spec.label();
        let Some(&handle) = entry.handle.downcast_ref::<Raw<C>>() else {
            return Err(DbError::HandleNewerThanSnapshot { name });
        };
        let found = Found {
            id,
            epoch,
            opened: entry.opened,
            handle,
        };
        let table = RawTable::new(Db::new(env, found), name);
        entry.table = Some((epoch, table.clone()));
        Ok(table)
    }

    pub(crate) fn name_of(&self, id: DbId) -> Arc<str> {
        let tables = self.tables.lock();
        tables
            .open
            .get(&id)
            .map_or_else(|| "?".into(), |entry| entry.spec.label())
    }

    /// Opens a name that is not open yet, or only as nobody's. Only the writer thread calls this, between batches.
    pub(crate) fn open(&self, env: &Env, spec: &OpenSpec) -> heed::Result<bool> {
        {
            let mut tables = self.tables.lock();
            if let Some(&id) = tables.ids.get(&spec.name) {
                if let Some(entry) = tables.open.get_mut(&id)
                    && entry.spec.untyped
                    && !spec.untyped
                    && !entry.spec.is_ordered_as(spec)
                    && let Some(opened) = (spec.kind.open)(env, spec)?
                {
                    // It was opened to be cleared, and nobody has a handle of it: LMDB's gets the order that is meant.
                    entry.handle = opened.handle;
                    entry.table = None;
                    entry.spec = spec.clone();
                }
                return Ok(true);
            }
        }
        let Some(Opened { handle, flags }) = (spec.kind.open)(env, spec)? else {
            return Ok(false);
        };
        let mut tables = self.tables.lock();
        let id = DbId(tables.next);
        tables.next += 1;
        let opened = self.opened.load(Ordering::Relaxed) + 1;
        tables.ids.insert(spec.name.clone(), id);
        tables.open.insert(
            id,
            Entry {
                spec: spec.clone(),
                handle,
                flags,
                opened,
                table: None,
            },
        );
        // After the commit of the opening: whoever sees this number begins a transaction that knows the handle.
        self.opened.store(opened, Ordering::Release);
        Ok(true)
    }

    /// Empties an open database, or deletes it (then the gate is shut and empty). Only the writer thread calls this.
    pub(crate) fn empty(&self, env: &Env, name: &Arc<str>, delete: bool) -> heed::Result<u64> {
        let outcome = {
            let mut tables = self.tables.lock();
            let key = Some(Arc::clone(name));
            let Some(&id) = tables.ids.get(&key) else {
                return Ok(0);
            };
            let Some(entry) = tables.open.get_mut(&id) else {
                return Ok(0);
            };
            let outcome = (entry.spec.kind.empty)(env, &*entry.handle, delete);
            if delete && outcome.is_err() {
                // LMDB closed the handle before the commit that failed: its slot would be the next database's.
                let mut spec = entry.spec.clone();
                spec.create = false;
                match (spec.kind.open)(env, &spec) {
                    Ok(Some(opened)) => entry.handle = opened.handle,
                    _ => {
                        tables.open.remove(&id);
                        tables.ids.remove(&key);
                    }
                }
                self.epoch.fetch_add(1, Ordering::AcqRel);
            }
            outcome
        };
        let entries = outcome?;
        if delete {
            self.forget(name);
        }
        Ok(entries)
    }

    /// Depth, pages and entries of each open database, in this snapshot.
    pub(crate) fn stats(
        &self,
        txn: &heed::RoTxn<'_>,
    ) -> Vec<(Option<Arc<str>>, heed::DatabaseStat)> {
        let tables = self.tables.lock();
        let mut found: Vec<_> = tables
            .open
            .values()
            .filter_map(|entry| {
                let stat = (entry.spec.kind.stat)(txn, &*entry.handle).ok()?;
                Some((entry.spec.name.clone(), stat))
            })
            .collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found
    }

    fn forget(&self, name: &str) {
        let mut tables = self.tables.lock();
        let name: Arc<str> = name.into();
        if let Some(id) = tables.ids.remove(&Some(Arc::clone(&name))) {
            tables.open.remove(&id);
            tables.deleted.push_back((id, name));
            if tables.deleted.len() > TOMBSTONES {
                tables.deleted.pop_front();
            }
        }
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Opens every name anew, in an environment that was opened anew. The gate is shut and empty.
    ///
    /// A name that does not exist any more counts as deleted.
    pub(crate) fn reopen_all(&self, env: &Env) -> heed::Result<()> {
        let mut tables = self.tables.lock();
        let mut ids: Vec<DbId> = tables.open.keys().copied().collect();
        ids.sort_by_key(|id| id.0);
        for id in ids {
            let Some(entry) = tables.open.get_mut(&id) else {
                continue;
            };
            let mut spec = entry.spec.clone();
            spec.create = false;
            match (spec.kind.open)(env, &spec)? {
                Some(opened) => {
                    entry.handle = opened.handle;
                    entry.flags = opened.flags;
                }
                None => {
                    let name = spec.label();
                    tables.open.remove(&id);
                    tables.ids.remove(&spec.name);
                    tables.deleted.push_back((id, name));
                }
            }
        }
        self.epoch.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// How many named databases are open.
    pub(crate) fn open_count(&self) -> u32 {
        let tables = self.tables.lock();
        u32::try_from(tables.ids.keys().filter(|name| name.is_some()).count()).unwrap_or(u32::MAX)
    }
}
