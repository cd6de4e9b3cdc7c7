//! How a database is opened, emptied and looked at, whatever its types are.

use std::any::{Any, TypeId};
use std::sync::Arc;

use heed::types::Bytes;
use heed::{CommitOrAbort, Comparator, DatabaseFlags, DefaultComparator, Env, Unspecified};

use super::{MAIN, Raw};
use crate::env::recovery;

/// What is asked for when a database is opened.
#[derive(Clone)]
pub(crate) struct OpenSpec {
    /// `None` is LMDB's main database.
    pub name: Option<Arc<str>>,
    pub flags: DatabaseFlags,
    pub create: bool,
    /// Nobody has said what is in it: the first who does decides.
    pub(super) untyped: bool,
    pub(super) kind: Kind,
}

/// The types behind a handle.
#[derive(Clone)]
pub(super) struct Kind {
    pub(super) key: (TypeId, &'static str),
    pub(super) data: (TypeId, &'static str),
    pub(super) comparator: (TypeId, &'static str),
    pub(super) open: Opener,
    pub(super) empty: Emptier,
    pub(super) stat: Statter,
}

pub(super) type Statter =
    fn(&heed::RoTxn<'_>, &(dyn Any + Send + Sync)) -> heed::Result<heed::DatabaseStat>;

pub(super) type Emptier = fn(&Env, &(dyn Any + Send + Sync), bool) -> heed::Result<u64>;
pub(super) type Opener = fn(&Env, &OpenSpec) -> heed::Result<Option<Opened>>;

/// What came of an opening.
pub(super) struct Opened {
    pub(super) handle: Box<dyn Any + Send + Sync>,
    /// The flags that the database has in the file, which are not those that somebody opens it with.
    pub(super) flags: DatabaseFlags,
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

    pub(super) fn describe(&self) -> String {
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

    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        self.flags == other.flags
            && self.kind.key.0 == other.kind.key.0
            && self.kind.data.0 == other.kind.data.0
            && self.is_ordered_as(other)
    }

    pub(super) fn is_ordered_as(&self, other: &Self) -> bool {
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
pub(in crate::env) fn flags_in(tree: &[u8]) -> Option<u32> {
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
