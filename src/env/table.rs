//! A database without its types, for whoever works with bytes: the read and write sets of interactive transactions.
//!
//! heed's ranges find their ends by equal bytes, LMDB cannot look for an empty key, and an order of the application's may
//! hold different bytes for equal. Here the order alone decides what is in a range, in both directions.

use std::any::TypeId;
use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use heed::types::Bytes;
use heed::{Comparator, DefaultComparator};

use crate::env::database::{Db, noted};
use crate::env::transaction::{Readable, WriteTxn};
use crate::error::DbError;

type Result<T> = std::result::Result<T, DbError>;

/// An order of keys.
pub(crate) type Order = fn(&[u8], &[u8]) -> Ordering;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RawTable(Arc<dyn Table>);

/// What [`RawTable::walk`] calls for each entry.
pub(crate) type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

impl RawTable {
    pub(crate) fn new<C>(db: Db<Bytes, Bytes, C>, name: Arc<str>) -> Self
    where
        C: Comparator + Send + Sync + 'static,
    {
        Self(Arc::new(Typed { db, name }))
    }

    /// Which database of its environment; never used again for another one.
    pub(crate) fn id(&self) -> u64 {
        self.0.id()
    }

    /// The namespace of its records' locks: the name of the database, or [`MAIN`](crate::env::registry::MAIN).
    pub(crate) fn name(&self) -> &Arc<str> {
        self.0.name()
    }

    /// The order of its keys.
    pub(crate) fn order(&self) -> Order {
        self.0.order()
    }

    /// Whether its keys are in LMDB's own order, byte by byte: then ranges of keys can be locked.
    pub(crate) fn is_byte_order(&self) -> bool {
        self.0.is_byte_order()
    }

    pub(crate) fn get<'t>(&self, txn: &'t dyn Readable, key: &[u8]) -> Result<Option<&'t [u8]>> {
        self.0.get(txn, key)
    }

    /// Visits the entries within the bounds, in order or in reverse, until `visit` breaks. Bounds that no key can be within,
    /// such as those whose end is before their start, hold nothing.
    pub(crate) fn walk(
        &self,
        txn: &dyn Readable,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        self.0.walk(txn, from, to, reverse, visit)
    }

    pub(crate) fn put(&self, txn: &mut WriteTxn<'_>, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.put(txn, key, value)
    }

    /// Removes a key; says whether it was there.
    pub(crate) fn delete(&self, txn: &mut WriteTxn<'_>, key: &[u8]) -> Result<bool> {
        self.0.delete(txn, key)
    }

    /// Removes the entries within the bounds, as [`walk`](Self::walk) sees them; says how many there were.
    pub(crate) fn delete_range(
        &self,
        txn: &mut WriteTxn<'_>,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<u64> {
        let Some(first) = self.outermost(txn, from, to, false)? else {
            return Ok(0);
        };
        let Some(last) = self.outermost(txn, from, to, true)? else {
            return Ok(0);
        };
        self.0.delete_between(txn, &first, &last)
    }

    /// The first key within the bounds, or the last one.
    fn outermost(
        &self,
        txn: &dyn Readable,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        last: bool,
    ) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        self.walk(txn, from, to, last, &mut |key, _| {
            found = Some(key.to_vec());
            ControlFlow::Break(())
        })?;
        Ok(found)
    }
}

impl std::fmt::Debug for RawTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RawTable").field(self.name()).finish()
    }
}

trait Table: Send + Sync {
    fn id(&self) -> u64;
    fn name(&self) -> &Arc<str>;
    fn order(&self) -> Order;
    fn is_byte_order(&self) -> bool;
    fn get<'t>(&self, txn: &'t dyn Readable, key: &[u8]) -> Result<Option<&'t [u8]>>;
    fn walk(
        &self,
        txn: &dyn Readable,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        visit: &mut Visit<'_>,
    ) -> Result<()>;
    fn put(&self, txn: &mut WriteTxn<'_>, key: &[u8], value: &[u8]) -> Result<()>;
    fn delete(&self, txn: &mut WriteTxn<'_>, key: &[u8]) -> Result<bool>;
    /// Removes everything from one key that is there to another.
    fn delete_between(&self, txn: &mut WriteTxn<'_>, first: &[u8], last: &[u8]) -> Result<u64>;
}

struct Typed<C> {
    db: Db<Bytes, Bytes, C>,
    name: Arc<str>,
}

impl<C: Comparator + Send + Sync + 'static> Table for Typed<C> {
    fn id(&self) -> u64 {
        self.db.id().number()
    }

    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn order(&self) -> Order {
        C::compare
    }

    fn is_byte_order(&self) -> bool {
        TypeId::of::<C>() == TypeId::of::<DefaultComparator>()
    }

    fn get<'t>(&self, txn: &'t dyn Readable, key: &[u8]) -> Result<Option<&'t [u8]>> {
        self.db.get(txn, key)
    }

    fn walk(
        &self,
        txn: &dyn Readable,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        // No key is empty: in LMDB's order there is nothing below the empty key, which need not be looked for.
        if self.is_byte_order() && sought(to).is_none() && !matches!(to, Bound::Unbounded) {
            return Ok(());
        }
        let ended = if reverse {
            self.backwards(txn, from, to, visit)
        } else {
            self.forwards(txn, from, to, visit)
        };
        match ended {
            Ok(()) | Err(Stop::Enough) => Ok(()),
            Err(Stop::Refused(error)) => Err(error),
            Err(Stop::Failed(error)) => Err(noted(error, txn)),
        }
    }

    fn put(&self, txn: &mut WriteTxn<'_>, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.put(txn, key, value)
    }

    fn delete(&self, txn: &mut WriteTxn<'_>, key: &[u8]) -> Result<bool> {
        self.db.delete(txn, key)
    }

    fn delete_between(&self, txn: &mut WriteTxn<'_>, first: &[u8], last: &[u8]) -> Result<u64> {
        let range = (Bound::Included(first), Bound::Included(last));
        Ok(self.db.delete_range(txn, &range)? as u64)
    }
}

/// Why a walk goes no further.
enum Stop {
    /// Whoever visits has seen enough.
    Enough,
    Refused(DbError),
    Failed(heed::Error),
}

impl From<DbError> for Stop {
    fn from(error: DbError) -> Self {
        Self::Refused(error)
    }
}

impl From<heed::Error> for Stop {
    fn from(error: heed::Error) -> Self {
        Self::Failed(error)
    }
}

impl<C: Comparator + Send + Sync + 'static> Typed<C> {
    fn forwards(
        &self,
        txn: &dyn Readable,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> std::result::Result<(), Stop> {
        let start = sought(from).map_or(Bound::Unbounded, Bound::Included);
        let db = self.db.resolve(txn)?;
        for entry in db.range(txn.ro(), &(start, Bound::Unbounded))? {
            let (key, value) = entry?;
            if is_before::<C>(key, from) {
                // The excluded key itself; all that are below an empty one in an order of the application's.
                continue;
            }
            if is_behind::<C>(key, to) {
                break;
            }
            if visit(key, value).is_break() {
                return Err(Stop::Enough);
            }
        }
        Ok(())
    }

    fn backwards(
        &self,
        txn: &dyn Readable,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> std::result::Result<(), Stop> {
        let db = self.db.resolve(txn)?;
        let end = sought(to);
        if let (Some(end), Bound::Included(_)) = (end, to)
            && let Some((key, value)) = db.get_greater_than_or_equal_to(txn.ro(), end)?
            && C::compare(key, end).is_eq()
        {
            if is_before::<C>(key, from) {
                return Ok(());
            }
            if visit(key, value).is_break() {
                return Err(Stop::Enough);
            }
        }
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        for entry in db.rev_range(txn.ro(), &(Bound::Unbounded, end))? {
            let (key, value) = entry?;
            if is_behind::<C>(key, to) {
                continue;
            }
            if is_before::<C>(key, from) {
                break;
            }
            if visit(key, value).is_break() {
                return Err(Stop::Enough);
            }
        }
        Ok(())
    }
}

/// The key at a bound, if LMDB can look for it.
fn sought(bound: Bound<&[u8]>) -> Option<&[u8]> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) if !key.is_empty() => Some(key),
        _ => None,
    }
}

fn is_before<C: Comparator>(key: &[u8], from: Bound<&[u8]>) -> bool {
    match from {
        Bound::Included(from) => C::compare(key, from).is_lt(),
        Bound::Excluded(from) => C::compare(key, from).is_le(),
        Bound::Unbounded => false,
    }
}

fn is_behind<C: Comparator>(key: &[u8], to: Bound<&[u8]>) -> bool {
    match to {
        Bound::Included(to) => C::compare(key, to).is_gt(),
        Bound::Excluded(to) => C::compare(key, to).is_ge(),
        Bound::Unbounded => false,
    }
}

#[cfg(test)]
mod tests;
