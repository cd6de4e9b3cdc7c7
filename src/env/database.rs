//! [`Db`]: a typed handle of a database, with heed's methods.

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeBounds;

use heed::{
    BytesDecode, BytesEncode, Comparator, Database, DatabaseStat, DefaultComparator,
    LexicographicComparator, MdbError, PutFlags, RoIter, RoPrefix, RoRange, RoRevIter, RoRevPrefix,
    RoRevRange,
};

use crate::env::EnvId;
use crate::env::registry::{DbId, Found, Raw};
use crate::env::transaction::{Readable, WriteTxn};
use crate::error::DbError;

/// A database of the environment, with its codecs `KC` and `DC` and the order `C` of its keys.
///
/// It is got with [`Keeper::database`](crate::Keeper::database), may be copied into every body, and outlives a recovery of
/// the environment. Its methods are those of [`heed::Database`], on the transactions of this crate.
///
/// # Errors
///
/// Every method answers [`DbError`], which `?` turns into a [`TxnError`](crate::TxnError) in a body: a key that is empty or
/// too long, a handle of another keeper, of a deleted database, or one that was opened after the view began; and whatever
/// heed or LMDB answer.
pub struct Db<KC, DC, C = DefaultComparator> {
    env: EnvId,
    id: DbId,
    epoch: u64,
    opened: u64,
    handle: Raw<C>,
    codecs: PhantomData<fn() -> (KC, DC)>,
}

impl<KC, DC, C> Clone for Db<KC, DC, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<KC, DC, C> Copy for Db<KC, DC, C> {}

impl<KC, DC, C> fmt::Debug for Db<KC, DC, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db")
            .field("env", &self.env)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

type Result<T> = std::result::Result<T, DbError>;

impl<KC, DC, C> Db<KC, DC, C> {
    pub(crate) fn env(&self) -> EnvId {
        self.env
    }

    pub(crate) fn id(&self) -> DbId {
        self.id
    }
}

impl<KC, DC, C: Comparator + Send + Sync + 'static> Db<KC, DC, C> {
    pub(crate) fn new(env: EnvId, found: Found<C>) -> Self {
        Self {
            env,
            id: found.id,
            epoch: found.epoch,
            opened: found.opened,
            handle: found.handle,
            codecs: PhantomData,
        }
    }

    /// The same database with other codecs, as [`heed::Database::remap_types`].
    #[must_use]
    pub fn remap_types<KC2, DC2>(self) -> Db<KC2, DC2, C> {
        Db {
            env: self.env,
            id: self.id,
            epoch: self.epoch,
            opened: self.opened,
            handle: self.handle,
            codecs: PhantomData,
        }
    }

    /// heed's handle for this transaction.
    #[inline]
    pub(crate) fn resolve(
        &self,
        txn: &(impl Readable + ?Sized),
    ) -> Result<Database<'static, KC, DC, C>> {
        let scope = txn.scope();
        if scope.env != self.env {
            return Err(DbError::Foreign);
        }
        if scope.epoch != self.epoch {
            let handle = txn.registry().current::<C>(self.id, scope.opened)?;
            return Ok(handle.remap_types());
        }
        if self.opened > scope.opened {
            return Err(DbError::HandleNewerThanSnapshot {
                name: txn.registry().name_of(self.id),
            });
        }
        Ok(self.handle.remap_types())
    }

    /// The value of a key.
    #[inline]
    pub fn get<'a, 't>(
        &self,
        txn: &'t (impl Readable + ?Sized),
        key: &'a KC::EItem,
    ) -> Result<Option<DC::DItem>>
    where
        KC: BytesEncode<'a>,
        DC: BytesDecode<'t>,
    {
        self.resolve(txn)?
            .get(txn.ro(), key)
            .map_err(|error| explain::<KC>(error, key, txn))
    }

    /// The entry with the largest key below `key`.
    pub fn get_lower_than<'a, 't>(
        &self,
        txn: &'t (impl Readable + ?Sized),
        key: &'a KC::EItem,
    ) -> Result<Option<(KC::DItem, DC::DItem)>>
    where
        KC: BytesEncode<'a> + BytesDecode<'t>,
        DC: BytesDecode<'t>,
    {
        self.resolve(txn)?
            .get_lower_than(txn.ro(), key)
            .map_err(|error| explain::<KC>(error, key, txn))
    }

    /// The entry with the largest key that is not above `key`.
    pub fn get_lower_than_or_equal_to<'a, 't>(
        &self,
        txn: &'t (impl Readable + ?Sized),
        key: &'a KC::EItem,
    ) -> Result<Option<(KC::DItem, DC::DItem)>>
    where
        KC: BytesEncode<'a> + BytesDecode<'t>,
        DC: BytesDecode<'t>,
    {
        self.resolve(txn)?
            .get_lower_than_or_equal_to(txn.ro(), key)
            .map_err(|error| explain::<KC>(error, key, txn))
    }

    /// The entry with the smallest key above `key`.
    pub fn get_greater_than<'a, 't>(
        &self,
        txn: &'t (impl Readable + ?Sized),
        key: &'a KC::EItem,
    ) -> Result<Option<(KC::DItem, DC::DItem)>>
    where
        KC: BytesEncode<'a> + BytesDecode<'t>,
        DC: BytesDecode<'t>,
    {
        self.resolve(txn)?
            .get_greater_than(txn.ro(), key)
            .map_err(|error| explain::<KC>(error, key, txn))
    }

    /// The entry with the smallest key that is not below `key`.
    pub fn get_greater_than_or_equal_to<'a, 't>(
        &self,
        txn: &'t (impl Readable + ?Sized),
        key: &'a KC::EItem,
    ) -> Result<Option<(KC::DItem, DC::DItem)>>
    where
        KC: BytesEncode<'a> + BytesDecode<'t>,
        DC: BytesDecode<'t>,
    {
        self.resolve(txn)?
            .get_greater_than_or_equal_to(txn.ro(), key)
            .map_err(|error| explain::<KC>(error, key, txn))
    }

    /// All values of a key, in a database with duplicates.
    pub fn get_duplicates<'a, 't>(
        &self,
        txn: &'t (impl Readable + ?Sized),
        key: &'a KC::EItem,
    ) -> Result<Option<RoIter<'t, KC, DC, heed::iteration_method::MoveOnCurrentKeyDuplicates>>>
    where
        KC: BytesEncode<'a>,
    {
        self.resolve(txn)?
            .get_duplicates(txn.ro(), key)
            .map_err(|error| explain::<KC>(error, key, txn))
    }

    /// The entry with the smallest key.
    pub fn first<'t>(
        &self,
        txn: &'t (impl Readable + ?Sized),
    ) -> Result<Option<(KC::DItem, DC::DItem)>>
    where
        KC: BytesDecode<'t>,
        DC: BytesDecode<'t>,
    {
        self.resolve(txn)?
            .first(txn.ro())
            .map_err(|error| noted(error, txn))
    }

    /// The entry with the largest key.
    pub fn last<'t>(
        &self,
        txn: &'t (impl Readable + ?Sized),
    ) -> Result<Option<(KC::DItem, DC::DItem)>>
    where
        KC: BytesDecode<'t>,
        DC: BytesDecode<'t>,
    {
        self.resolve(txn)?
            .last(txn.ro())
            .map_err(|error| noted(error, txn))
    }

    /// The number of entries.
    pub fn len(&self, txn: &(impl Readable + ?Sized)) -> Result<u64> {
        self.resolve(txn)?
            .len(txn.ro())
            .map_err(|error| noted(error, txn))
    }

    /// Whether there is no entry.
    pub fn is_empty(&self, txn: &(impl Readable + ?Sized)) -> Result<bool> {
        self.resolve(txn)?
            .is_empty(txn.ro())
            .map_err(|error| noted(error, txn))
    }

    /// Depth, pages and entries of the tree.
    pub fn stat(&self, txn: &(impl Readable + ?Sized)) -> Result<DatabaseStat> {
        self.resolve(txn)?
            .stat(txn.ro())
            .map_err(|error| noted(error, txn))
    }

    /// All entries in the order of their keys.
    pub fn iter<'t>(&self, txn: &'t (impl Readable + ?Sized)) -> Result<RoIter<'t, KC, DC>> {
        self.resolve(txn)?
            .iter(txn.ro())
            .map_err(|error| noted(error, txn))
    }

    /// All entries in reverse order.
    pub fn rev_iter<'t>(&self, txn: &'t (impl Readable + ?Sized)) -> Result<RoRevIter<'t, KC, DC>> {
        self.resolve(txn)?
            .rev_iter(txn.ro())
            .map_err(|error| noted(error, txn))
    }

    /// The entries with keys in `range`, in order.
    pub fn range<'a, 't, R>(
        &self,
        txn: &'t (impl Readable + ?Sized),
        range: &'a R,
    ) -> Result<RoRange<'t, KC, DC, C>>
    where
        KC: BytesEncode<'a>,
        R: RangeBounds<KC::EItem>,
    {
        self.resolve(txn)?
            .range(txn.ro(), range)
            .map_err(|error| noted(error, txn))
    }

    /// The entries with keys in `range`, in reverse order.
    pub fn rev_range<'a, 't, R>(
        &self,
        txn: &'t (impl Readable + ?Sized),
        range: &'a R,
    ) -> Result<RoRevRange<'t, KC, DC, C>>
    where
        KC: BytesEncode<'a>,
        R: RangeBounds<KC::EItem>,
    {
        self.resolve(txn)?
            .rev_range(txn.ro(), range)
            .map_err(|error| noted(error, txn))
    }

    /// The entries whose keys start with `prefix`, in order.
    pub fn prefix_iter<'a, 't>(
        &self,
        txn: &'t (impl Readable + ?Sized),
        prefix: &'a KC::EItem,
    ) -> Result<RoPrefix<'t, KC, DC, C>>
    where
        KC: BytesEncode<'a>,
        C: LexicographicComparator,
    {
        self.resolve(txn)?
            .prefix_iter(txn.ro(), prefix)
            .map_err(|error| noted(error, txn))
    }

    /// The entries whose keys start with `prefix`, in reverse order.
    pub fn rev_prefix_iter<'a, 't>(
        &self,
        txn: &'t (impl Readable + ?Sized),
        prefix: &'a KC::EItem,
    ) -> Result<RoRevPrefix<'t, KC, DC, C>>
    where
        KC: BytesEncode<'a>,
        C: LexicographicComparator,
    {
        self.resolve(txn)?
            .rev_prefix_iter(txn.ro(), prefix)
            .map_err(|error| noted(error, txn))
    }

    /// Stores a value; in a database with duplicates, adds it.
    #[inline]
    pub fn put<'a>(
        &self,
        txn: &mut WriteTxn<'_>,
        key: &'a KC::EItem,
        data: &'a DC::EItem,
    ) -> Result<()>
    where
        KC: BytesEncode<'a>,
        DC: BytesEncode<'a>,
    {
        let db = self.resolve(txn)?;
        db.put(txn.rw(), key, data)
            .map_err(|error| explain::<KC>(error, key, txn))
    }

    /// Stores a value as [`heed::Database::put_with_flags`] does.
    pub fn put_with_flags<'a>(
        &self,
        txn: &mut WriteTxn<'_>,
        flags: PutFlags,
        key: &'a KC::EItem,
        data: &'a DC::EItem,
    ) -> Result<()>
    where
        KC: BytesEncode<'a>,
        DC: BytesEncode<'a>,
    {
        let db = self.resolve(txn)?;
        db.put_with_flags(txn.rw(), flags, key, data)
            .map_err(|error| explain::<KC>(error, key, txn))
    }

    /// Stores a value unless the key has one; says whether it did.
    pub fn put_if_absent<'a>(
        &self,
        txn: &mut WriteTxn<'_>,
        key: &'a KC::EItem,
        data: &'a DC::EItem,
    ) -> Result<bool>
    where
        KC: BytesEncode<'a>,
        DC: BytesEncode<'a>,
    {
        match self.put_with_flags(txn, PutFlags::NO_OVERWRITE, key, data) {
            Ok(()) => Ok(true),
            Err(DbError::Heed(heed::Error::Mdb(MdbError::KeyExist))) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a key with all of its values; says whether it was there.
    #[inline]
    pub fn delete<'a>(&self, txn: &mut WriteTxn<'_>, key: &'a KC::EItem) -> Result<bool>
    where
        KC: BytesEncode<'a>,
    {
        let db = self.resolve(txn)?;
        db.delete(txn.rw(), key)
            .map_err(|error| explain::<KC>(error, key, txn))
    }

    /// Removes one value of a key, in a database with duplicates; says whether it was there.
    pub fn delete_one_duplicate<'a>(
        &self,
        txn: &mut WriteTxn<'_>,
        key: &'a KC::EItem,
        data: &'a DC::EItem,
    ) -> Result<bool>
    where
        KC: BytesEncode<'a>,
        DC: BytesEncode<'a>,
    {
        let db = self.resolve(txn)?;
        db.delete_one_duplicate(txn.rw(), key, data)
            .map_err(|error| explain::<KC>(error, key, txn))
    }

    /// Removes the keys in `range`; says how many entries there were.
    pub fn delete_range<'a, 't, R>(&self, txn: &'t mut WriteTxn<'_>, range: &'a R) -> Result<usize>
    where
        KC: BytesEncode<'a> + for<'d> BytesDecode<'d>,
        R: RangeBounds<KC::EItem>,
    {
        let db = self.resolve(txn)?;
        let outcome = db.delete_range(txn.rw(), range);
        outcome.map_err(|error| noted(error, txn))
    }

    /// Removes every entry; the database itself stays.
    pub fn clear(&self, txn: &mut WriteTxn<'_>) -> Result<()> {
        let db = self.resolve(txn)?;
        let outcome = db.clear(txn.rw());
        outcome.map_err(|error| noted(error, txn))
    }
}

#[cold]
pub(crate) fn noted(error: heed::Error, txn: &(impl Readable + ?Sized)) -> DbError {
    txn.note(&error);
    DbError::Heed(error)
}

/// LMDB says "bad value size" of a key that is empty or too long, without saying which.
#[cold]
fn explain<'a, KC: BytesEncode<'a>>(
    error: heed::Error,
    key: &'a KC::EItem,
    txn: &(impl Readable + ?Sized),
) -> DbError {
    if matches!(error, heed::Error::Mdb(MdbError::BadValSize))
        && let Ok(bytes) = KC::bytes_encode(key)
    {
        let max = txn.scope().max_key;
        if bytes.is_empty() || bytes.len() > max {
            return DbError::KeySize {
                len: bytes.len(),
                max,
            };
        }
    }
    noted(error, txn)
}
