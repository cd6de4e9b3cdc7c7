//! [`Txn`]: the handle of an interactive transaction, and what is done with single records.

use std::fmt;
use std::future::Future;
use std::ops::{Bound, RangeBounds};
use std::panic::Location;
use std::sync::Arc;
use std::time::Instant;

use heed::{BytesDecode, BytesEncode, Comparator};

use super::attempt::Node;
use super::error::OpError;
use super::fetched::Fetched;
use super::isolation::Isolation;
use super::scan::{Keys, Scan};
use crate::env::{RawTable, Records};
use crate::error::{DbError, TxnError};

/// A handle of an interactive transaction; cheap to clone.
///
/// It is what the closure of [`Keeper::transaction`](crate::Keeper::transaction) gets. Its methods read and write records of
/// [`Records`] under the locks that the transaction's [`Isolation`] asks for, and see what the transaction has written
/// itself. Writes are buffered; nobody else sees them before the commit. What a method needs from its arguments is encoded
/// before its future is made, so the future borrows nothing. (Berkeley DB's `DB_TXN` handle in `DB->get` and `DB->put`.)
///
/// # Errors
///
/// Every method answers [`OpError`]. After a conflict (a deadlock, a lock or transaction timeout, a read that has changed) the
/// transaction is dead: it holds nothing, and each further use answers that conflict. After its end a handle answers
/// [`TxnError::TransactionEnded`], and while a child is open [`TxnError::ChildOpen`].
#[derive(Clone)]
pub struct Txn {
    pub(super) node: Arc<Node>,
}

type Result<T, E = OpError> = std::result::Result<T, E>;

/// A key as bytes, or why it is none.
type Encoded = std::result::Result<Box<[u8]>, TxnError>;

impl Txn {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// The name that the transaction was given.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.node.attempt.start.name.as_deref()
    }

    /// Which attempt this is: 1 for the first. What a closure does outside of the transaction has to be idempotent.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.node.attempt.start.number
    }

    /// Its isolation.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.node.attempt.start.isolation
    }

    /// When the caller is answered at the latest.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.node.attempt.start.deadline
    }

    /// The value of a key, under a read lock if the isolation has any. (`DB->get`.)
    ///
    /// # Errors
    ///
    /// See [`OpError`].
    #[track_caller]
    pub fn get<'a, KC, DC, C>(
        &self,
        records: Records<KC, DC, C>,
        key: &'a KC::EItem,
    ) -> impl Future<Output = Result<Option<Fetched<DC>>>> + Send + use<KC, DC, C>
    where
        KC: BytesEncode<'a> + 'static,
        DC: 'static,
        C: Comparator + Send + Sync + 'static,
    {
        let prepared = self.prepare(records, key);
        let site = Location::caller();
        async move {
            let Prepared { node, table, key } = prepared?;
            let value = node.get(&table, &key, false, site).await?;
            Ok(value.map(Fetched::new))
        }
    }

    /// The value of a key, decoded; for codecs whose values borrow nothing, such as integers and [`serde`] types.
    ///
    /// # Errors
    ///
    /// See [`OpError`]; [`DbError::Heed`] if the bytes are not what the codec expects.
    #[track_caller]
    pub fn get_as<'a, KC, DC, C, V>(
        &self,
        records: Records<KC, DC, C>,
        key: &'a KC::EItem,
    ) -> impl Future<Output = Result<Option<V>>> + Send + use<KC, DC, C, V>
    where
        KC: BytesEncode<'a> + 'static,
        DC: for<'d> BytesDecode<'d, DItem = V> + 'static,
        C: Comparator + Send + Sync + 'static,
        V: Send,
    {
        let prepared = self.prepare(records, key);
        let site = Location::caller();
        async move {
            let Prepared { node, table, key } = prepared?;
            decoded::<DC, V>(node.get(&table, &key, false, site).await?)
        }
    }

    /// The value of a key that is about to be written: the write lock is taken now, so that two who read and then write never
    /// meet in a deadlock over it. (`DB->get` with `DB_RMW`.)
    ///
    /// On the isolation levels that compare nothing else ([`Isolation::ReadCommitted`], [`Isolation::Snapshot`]) this read is
    /// compared at the commit all the same.
    ///
    /// # Errors
    ///
    /// See [`OpError`].
    #[track_caller]
    pub fn get_for_update<'a, KC, DC, C>(
        &self,
        records: Records<KC, DC, C>,
        key: &'a KC::EItem,
    ) -> impl Future<Output = Result<Option<Fetched<DC>>>> + Send + use<KC, DC, C>
    where
        KC: BytesEncode<'a> + 'static,
        DC: 'static,
        C: Comparator + Send + Sync + 'static,
    {
        let prepared = self.prepare(records, key);
        let site = Location::caller();
        async move {
            let Prepared { node, table, key } = prepared?;
            let value = node.get(&table, &key, true, site).await?;
            Ok(value.map(Fetched::new))
        }
    }

    /// [`get_for_update`](Self::get_for_update), decoded as [`get_as`](Self::get_as) does.
    ///
    /// # Errors
    ///
    /// See [`OpError`]; [`DbError::Heed`] if the bytes are not what the codec expects.
    #[track_caller]
    pub fn get_for_update_as<'a, KC, DC, C, V>(
        &self,
        records: Records<KC, DC, C>,
        key: &'a KC::EItem,
    ) -> impl Future<Output = Result<Option<V>>> + Send + use<KC, DC, C, V>
    where
        KC: BytesEncode<'a> + 'static,
        DC: for<'d> BytesDecode<'d, DItem = V> + 'static,
        C: Comparator + Send + Sync + 'static,
        V: Send,
    {
        let prepared = self.prepare(records, key);
        let site = Location::caller();
        async move {
            let Prepared { node, table, key } = prepared?;
            decoded::<DC, V>(node.get(&table, &key, true, site).await?)
        }
    }

    /// Stores a value, under the write lock. (`DB->put`.)
    ///
    /// # Errors
    ///
    /// See [`OpError`]; [`TxnError::TooMuch`] when the transaction would write more than `max_write_set`.
    #[track_caller]
    pub fn put<'a, KC, DC, C>(
        &self,
        records: Records<KC, DC, C>,
        key: &'a KC::EItem,
        value: &'a DC::EItem,
    ) -> impl Future<Output = Result<()>> + Send + use<KC, DC, C>
    where
        KC: BytesEncode<'a> + 'static,
        DC: BytesEncode<'a> + 'static,
        C: Comparator + Send + Sync + 'static,
    {
        let prepared = self.prepare(records, key);
        let value = encode::<DC>(value);
        let site = Location::caller();
        async move {
            let (Prepared { node, table, key }, value) = (prepared?, value?);
            node.lock_to_write(&table, &key, site).await?;
            Ok(node.write(&table, &key, Some(value))?)
        }
    }

    /// Stores a value unless the key has one; says whether it did. (`DB->put` with `DB_NOOVERWRITE`.)
    ///
    /// # Errors
    ///
    /// See [`OpError`].
    #[track_caller]
    pub fn put_if_absent<'a, KC, DC, C>(
        &self,
        records: Records<KC, DC, C>,
        key: &'a KC::EItem,
        value: &'a DC::EItem,
    ) -> impl Future<Output = Result<bool>> + Send + use<KC, DC, C>
    where
        KC: BytesEncode<'a> + 'static,
        DC: BytesEncode<'a> + 'static,
        C: Comparator + Send + Sync + 'static,
    {
        let prepared = self.prepare(records, key);
        let value = encode::<DC>(value);
        let site = Location::caller();
        async move {
            let (Prepared { node, table, key }, value) = (prepared?, value?);
            if node.get(&table, &key, true, site).await?.is_some() {
                return Ok(false);
            }
            Ok(node.write_if(&table, &key, Some(value))?)
        }
    }

    /// Removes a key; says whether it was there. (`DB->del`.)
    ///
    /// # Errors
    ///
    /// See [`OpError`].
    #[track_caller]
    pub fn delete<'a, KC, DC, C>(
        &self,
        records: Records<KC, DC, C>,
        key: &'a KC::EItem,
    ) -> impl Future<Output = Result<bool>> + Send + use<KC, DC, C>
    where
        KC: BytesEncode<'a> + 'static,
        DC: 'static,
        C: Comparator + Send + Sync + 'static,
    {
        let prepared = self.prepare(records, key);
        let site = Location::caller();
        async move {
            let Prepared { node, table, key } = prepared?;
            let was_there = node.get(&table, &key, true, site).await?.is_some();
            Ok(was_there && node.write_if(&table, &key, None)?)
        }
    }

    /// The records with keys in `range`, in order; [`Scan::rev`] turns it round. Nothing is read before the first record is
    /// asked for, and then in portions: no LMDB snapshot is held between them.
    #[track_caller]
    pub fn scan<'a, KC, DC, C, R>(&self, records: Records<KC, DC, C>, range: &'a R) -> Scan<KC, DC>
    where
        KC: BytesEncode<'a> + 'static,
        DC: 'static,
        C: Comparator + Send + Sync + 'static,
        R: RangeBounds<KC::EItem>,
    {
        let keys = keys_of::<KC, R>(range);
        Scan::new(self.clone(), self.table(records), keys, Location::caller())
    }

    /// The records whose keys begin with `prefix`, in order. Needs the default order of keys.
    #[track_caller]
    pub fn scan_prefix<'a, KC, DC>(
        &self,
        records: Records<KC, DC>,
        prefix: &'a KC::EItem,
    ) -> Scan<KC, DC>
    where
        KC: BytesEncode<'a> + 'static,
        DC: 'static,
    {
        let keys = bytes_of::<KC>(prefix).map(|prefix| Keys::prefix(&prefix));
        Scan::new(self.clone(), self.table(records), keys, Location::caller())
    }

    /// The number of records with keys in `range`; the same locks as for a scan of all of them.
    ///
    /// # Errors
    ///
    /// See [`OpError`].
    #[track_caller]
    pub fn count<'a, KC, DC, C, R>(
        &self,
        records: Records<KC, DC, C>,
        range: &'a R,
    ) -> impl Future<Output = Result<u64>> + Send + use<KC, DC, C, R>
    where
        KC: BytesEncode<'a> + 'static,
        DC: 'static,
        C: Comparator + Send + Sync + 'static,
        R: RangeBounds<KC::EItem>,
    {
        let keys = keys_of::<KC, R>(range);
        let scan: Scan<KC, DC> =
            Scan::new(self.clone(), self.table(records), keys, Location::caller());
        let mut scan = scan.keys_only();
        async move {
            let mut count = 0;
            while let Some(more) = scan.skip_portion().await? {
                count += more;
            }
            Ok(count)
        }
    }

    /// Removes the records with keys in `range`, under a write lock on the whole range.
    ///
    /// # Errors
    ///
    /// See [`OpError`].
    #[track_caller]
    pub fn clear_range<'a, KC, DC, C, R>(
        &self,
        records: Records<KC, DC, C>,
        range: &'a R,
    ) -> impl Future<Output = Result<()>> + Send + use<KC, DC, C, R>
    where
        KC: BytesEncode<'a> + 'static,
        DC: 'static,
        C: Comparator + Send + Sync + 'static,
        R: RangeBounds<KC::EItem>,
    {
        let keys = keys_of::<KC, R>(range);
        let (txn, table) = (self.clone(), self.table(records));
        let site = Location::caller();
        async move { txn.clear_keys(table?, keys?, site).await }
    }

    /// What a record operation needs, taken from its arguments before the first await.
    fn prepare<'a, KC, DC, C>(
        &self,
        records: Records<KC, DC, C>,
        key: &'a KC::EItem,
    ) -> Result<Prepared, TxnError>
    where
        KC: BytesEncode<'a> + 'static,
        DC: 'static,
        C: Comparator + Send + Sync + 'static,
    {
        Ok(Prepared {
            table: self.table(records)?,
            key: bytes_of::<KC>(key).and_then(|key| self.checked_key(key))?,
            node: Arc::clone(&self.node),
        })
    }

    fn checked_key(&self, key: Box<[u8]>) -> Encoded {
        let max = self.node.attempt.start.env.shared.max_key();
        match key.len() {
            len if len == 0 || len > max => Err(TxnError::Database(DbError::KeySize { len, max })),
            _ => Ok(key),
        }
    }

    /// The table behind a handle; looked up once for each transaction.
    fn table<KC, DC, C>(&self, records: Records<KC, DC, C>) -> Result<RawTable, TxnError>
    where
        KC: 'static,
        DC: 'static,
        C: Comparator + Send + Sync + 'static,
    {
        let attempt = &self.node.attempt;
        let mut state = attempt.state();
        let shared = &attempt.start.env.shared;
        if records.env() != shared.id {
            return Err(TxnError::Database(DbError::Foreign));
        }
        if let Some(table) = state.table(records.id().number()) {
            return Ok(table.clone());
        }
        let table = records.raw(shared)?;
        state.add_table(table.clone());
        Ok(table)
    }
}

/// What an operation on a record is done with.
struct Prepared {
    node: Arc<Node>,
    table: RawTable,
    key: Box<[u8]>,
}

impl fmt::Debug for Txn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Txn")
            .field("name", &self.name())
            .field("isolation", &self.isolation())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

fn decoded<DC, V>(bytes: Option<Box<[u8]>>) -> Result<Option<V>>
where
    DC: for<'d> BytesDecode<'d, DItem = V>,
{
    let fetched = bytes.map(Fetched::<DC>::new);
    Ok(fetched.map(|fetched| fetched.decode()).transpose()?)
}

fn encode<'a, DC: BytesEncode<'a>>(value: &'a DC::EItem) -> Encoded {
    bytes_of::<DC>(value)
}

fn bytes_of<'a, C: BytesEncode<'a>>(item: &'a C::EItem) -> Encoded {
    match C::bytes_encode(item) {
        Ok(bytes) => Ok(Box::from(&*bytes)),
        Err(error) => Err(TxnError::from(heed::Error::Encoding(error))),
    }
}

fn keys_of<'a, KC, R>(range: &'a R) -> Result<Keys, TxnError>
where
    KC: BytesEncode<'a>,
    R: RangeBounds<KC::EItem>,
{
    let bound = |bound: Bound<&'a KC::EItem>| {
        Ok::<_, TxnError>(match bound {
            Bound::Included(key) => Bound::Included(bytes_of::<KC>(key)?),
            Bound::Excluded(key) => Bound::Excluded(bytes_of::<KC>(key)?),
            Bound::Unbounded => Bound::Unbounded,
        })
    };
    Ok(Keys {
        from: bound(range.start_bound())?,
        to: bound(range.end_bound())?,
    })
}
