//! The names of the databases that are open, and the handle that each has now.
//!
//! The writer thread alone opens, so that two openings never share a slot of LMDB's; everybody else looks up. A handle
//! survives a recovery, which opens every name anew, and knows when its database was deleted.

mod spec;

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use heed::{Comparator, Database, DatabaseFlags, Env, Unspecified};
use parking_lot::Mutex;

use crate::env::EnvId;
use crate::env::database::Db;
use crate::env::reserved::is_reserved;
use crate::env::table::RawTable;
use crate::error::{DatabaseError, DbError};

pub(crate) use spec::OpenSpec;
use spec::Opened;
pub(super) use spec::flags_in;

/// A handle without its codecs.
pub(crate) type Raw<C> = Database<'static, Unspecified, Unspecified, C>;

/// Which database of an environment; never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DbId(u64);

impl DbId {
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// What LMDB's main database, which has no name, is called where one is needed.
pub(crate) const MAIN: &str = "(main)";

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

    /// Whether a database is open under that name.
    pub(crate) fn is_open(&self, name: &Option<Arc<str>>) -> bool {
        self.tables.lock().ids.contains_key(name)
    }

    /// How many named databases of the application's are open.
    pub(crate) fn open_count(&self) -> u32 {
        let tables = self.tables.lock();
        let names = tables.ids.keys().flatten();
        u32::try_from(names.filter(|name| !is_reserved(name)).count()).unwrap_or(u32::MAX)
    }
}
