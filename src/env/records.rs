//! [`Records`]: a database whose records interactive transactions can read and lock one by one.

use std::any::TypeId;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use heed::{BytesEncode, Comparator, DatabaseFlags, DefaultComparator, IntegerComparator};

use crate::env::database::Db;
use crate::env::shared::Shared;
use crate::env::table::RawTable;
use crate::error::{DatabaseError, DbError, NoRecords};

/// A database whose records interactive transactions can read and lock one by one.
///
/// It is got with [`Keeper::records`](crate::Keeper::records), or made of a [`Db`] with
/// [`Keeper::records_of`](crate::Keeper::records_of), and is `Copy` as that is. It is a [`Db`], too: bodies of updates and
/// views use it with the same methods.
///
/// A record is a key with its one value, and its lock is the object of its encoded key in the namespace that bears the name
/// of the database: `"(main)"` for LMDB's main database, which has none. [`Keeper::object`](crate::Keeper::object) gives it.
/// Databases where that cannot be said are refused when the handle is made: those with duplicates, and those whose keys LMDB
/// does not order byte by byte (`INTEGER_KEY`, `REVERSE_KEY`), since ranges of keys are locked in that order.
///
/// A database with a comparator `C` of the application's is accepted. Its scans lock the whole of it, whatever their range. The
/// comparator has to tell keys of different bytes apart: what it holds for equal is one record to LMDB, but two objects to lock.
pub struct Records<KC, DC, C = DefaultComparator>(Db<KC, DC, C>);

impl<KC, DC, C> Clone for Records<KC, DC, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<KC, DC, C> Copy for Records<KC, DC, C> {}

impl<KC, DC, C> fmt::Debug for Records<KC, DC, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Records").field(&self.0).finish()
    }
}

impl<KC, DC, C> Deref for Records<KC, DC, C> {
    type Target = Db<KC, DC, C>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<KC, DC, C: Comparator + Send + Sync + 'static> Records<KC, DC, C> {
    /// Looks at what the database of `db` is.
    pub(crate) fn new(shared: &Shared, db: Db<KC, DC, C>) -> Result<Self, DatabaseError> {
        let refused = |name, why| DatabaseError::NotRecords { name, why };
        if db.env() != shared.id {
            return Err(refused("?".into(), NoRecords::OtherKeeper));
        }
        let (name, flags) = shared
            .registry
            .kind(db.id())
            .map_err(|name| refused(name, NoRecords::Deleted))?;
        let integers = TypeId::of::<C>() == TypeId::of::<IntegerComparator>();
        match why_not(flags).or(integers.then_some(NoRecords::IntegerKeys)) {
            None => Ok(Self(db)),
            Some(why) => Err(refused(name, why)),
        }
    }

    /// The database without its types. Asked once for each transaction and database: one look into a table.
    pub(crate) fn raw(&self, shared: &Shared) -> Result<RawTable, DbError> {
        if self.env() != shared.id {
            return Err(DbError::Foreign);
        }
        shared.registry.table::<C>(shared.id, self.id())
    }

    /// The namespace and the key of a record's lock.
    pub(crate) fn lock<'a>(
        &self,
        shared: &Shared,
        key: &'a KC::EItem,
    ) -> Result<(Arc<str>, std::borrow::Cow<'a, [u8]>), DbError>
    where
        KC: BytesEncode<'a>,
    {
        let table = self.raw(shared)?;
        let key = KC::bytes_encode(key).map_err(heed::Error::Encoding)?;
        let (len, max) = (key.len(), shared.max_key());
        if len == 0 || len > max {
            return Err(DbError::KeySize { len, max });
        }
        Ok((Arc::clone(table.name()), key))
    }
}

/// What in a database's flags keeps its records from being locked one by one.
#[expect(deprecated, reason = "files may have such databases all the same")]
fn why_not(flags: DatabaseFlags) -> Option<NoRecords> {
    let duplicates = DatabaseFlags::DUP_SORT
        | DatabaseFlags::DUP_FIXED
        | DatabaseFlags::INTEGER_DUP
        | DatabaseFlags::REVERSE_DUP;
    if flags.intersects(duplicates) {
        Some(NoRecords::Duplicates)
    } else if flags.contains(DatabaseFlags::INTEGER_KEY) {
        Some(NoRecords::IntegerKeys)
    } else if flags.contains(DatabaseFlags::REVERSE_KEY) {
        Some(NoRecords::ReversedKeys)
    } else {
        None
    }
}
