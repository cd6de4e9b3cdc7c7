//! The fencing tokens that this environment has seen: a transaction under a lease whose token is smaller is refused.
//!
//! A holder that was paused does not know that it has lost its lease, and no clock tells it in time. But the later holder has
//! a larger token, and what it wrote here came with it: so whoever comes with a smaller one is late. The token is remembered in the LMDB
//! transaction that it lets write, so there is never an effect without it.

use std::fmt;
use std::sync::Arc;

use heed::Error::Decoding;

use crate::env::Core;
use crate::env::job::{Ask, UpdateBody, ViewBody};
use crate::env::outside::Kind;
use crate::env::reserved::Reserved;
use crate::env::table::RawTable;
use crate::env::transaction::{Readable, WriteTxn};
use crate::error::{DatabaseError, DbError, Site, TxnError};
use crate::leases::{Fence, LeaseName, StoreId};
use crate::txn::answers::hash;

/// A lease that a transaction runs under.
#[derive(Clone)]
pub(crate) struct Under {
    pub store: StoreId,
    pub name: LeaseName,
    pub token: Fence,
    /// Whether it is held still, as its holder reckons; asked on the writer thread, so it must be quick.
    pub held: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Under {
    fn check(&self) -> Result<(), TxnError> {
        match (self.held)() {
            true => Ok(()),
            false => Err(TxnError::LeaseLost {
                store: self.store.clone(),
                name: self.name.clone(),
                token: self.token,
            }),
        }
    }
}

impl fmt::Debug for Under {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Under")
            .field("store", &self.store)
            .field("name", &self.name)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// The leases of one transaction, and what the environment remembers of them.
#[derive(Clone)]
pub(crate) struct Fenced {
    leases: Arc<[Under]>,
    table: RawTable,
}

impl Fenced {
    /// Whether all are held still.
    ///
    /// # Errors
    ///
    /// [`TxnError::LeaseLost`] for the first that is not.
    pub(crate) fn held(&self) -> Result<(), TxnError> {
        self.leases.iter().try_for_each(Under::check)
    }

    /// On the writer, before anything is written: all are held still, and nobody with a larger token has been here.
    pub(crate) fn admit(&self, txn: &dyn Readable) -> Result<(), TxnError> {
        self.held()?;
        for under in &*self.leases {
            let seen = seen(&self.table, txn, &key(&under.store, &under.name))?;
            if let Some(seen) = seen.filter(|&seen| seen > under.token) {
                return Err(TxnError::FenceTooSmall {
                    store: under.store.clone(),
                    name: under.name.clone(),
                    token: under.token,
                    seen,
                });
            }
        }
        Ok(())
    }

    /// On the writer, after everything was written: all are held still, and their tokens are remembered. That costs a write
    /// for the first transaction of a holder alone.
    pub(crate) fn seal(&self, txn: &mut WriteTxn<'_>) -> Result<(), TxnError> {
        self.held()?;
        for under in &*self.leases {
            let key = key(&under.store, &under.name);
            if seen(&self.table, txn, &key)?.is_none_or(|seen| seen < under.token) {
                let value = [
                    &under.token.0.to_be_bytes(),
                    under.store.as_str().as_bytes(),
                ];
                self.table.put(txn, &key, &value.concat())?;
            }
        }
        Ok(())
    }

    pub(crate) fn update<T: 'static, E: 'static>(
        &self,
        mut body: UpdateBody<T, E>,
    ) -> UpdateBody<T, E> {
        let fenced = self.clone();
        Box::new(move |txn| {
            fenced.admit(txn).map_err(TxnError::widen)?;
            let value = body(txn)?;
            fenced.seal(txn).map_err(TxnError::widen)?;
            Ok(value)
        })
    }

    /// A view writes nothing that a token could keep out: it is answered if the leases are held at its end.
    pub(crate) fn view<T: 'static, E: 'static>(&self, mut body: ViewBody<T, E>) -> ViewBody<T, E> {
        let fenced = self.clone();
        Box::new(move |txn| {
            fenced.held().map_err(TxnError::widen)?;
            let value = body(txn)?;
            fenced.held().map_err(TxnError::widen)?;
            Ok(value)
        })
    }
}

impl Core {
    /// The memory of tokens for a transaction under `leases`; it is made at the first use.
    pub(crate) async fn fenced(&self, leases: &[Under]) -> Result<Fenced, TxnError> {
        let table = self.reserved(Reserved::Fences).await;
        Ok(Fenced {
            leases: leases.into(),
            table: table.map_err(|error| not_opened(error, Reserved::Fences))?,
        })
    }

    /// Forgets the token that was seen for a lease; answers which it was.
    pub(crate) async fn forget_token(
        &self,
        store: StoreId,
        name: LeaseName,
        site: Site,
    ) -> Result<Option<Fence>, TxnError> {
        let table = self.reserved(Reserved::Fences).await;
        let table = table.map_err(|error| not_opened(error, Reserved::Fences))?;
        let span = self.shared.config.deadline();
        let deadline = crate::clock::far(std::time::Instant::now(), span);
        let mut ask = Ask::new(Some("forget a token".into()), site, deadline, span);
        ask.kind = Kind::Keeper;
        let key = key(&store, &name);
        let body: UpdateBody<_, std::convert::Infallible> = Box::new(move |txn| {
            let seen = seen(&table, txn, &key)?;
            table.delete(txn, &key)?;
            Ok(seen)
        });
        let seen = self.update(ask, body).await?.result?;
        tracing::warn!(target: "lockkeeper", %store, lease = %name, token = seen.map(|seen| seen.0),
            "the largest fencing token of a lease was forgotten: any holder may write again");
        Ok(seen)
    }
}

/// The form of the keys; a text as long as the id of a store need not fit into one.
const BY_LEASE: u8 = 1;

fn key(store: &StoreId, name: &LeaseName) -> Vec<u8> {
    let store = hash(&[store.as_str().as_bytes()]);
    [&[BY_LEASE], &store[..], name.as_str().as_bytes()].concat()
}

fn seen(table: &RawTable, txn: &dyn Readable, key: &[u8]) -> Result<Option<Fence>, TxnError> {
    let Some(value) = table.get(txn, key)? else {
        return Ok(None);
    };
    match value.split_first_chunk() {
        Some((&token, _)) => Ok(Some(Fence(u64::from_be_bytes(token)))),
        // Nobody knows who has been here: nothing may be written.
        None => Err(DbError::Heed(Decoding("a damaged fencing token".into())).into()),
    }
}

/// A transaction knows no errors of openings.
pub(super) fn not_opened(error: DatabaseError, which: Reserved) -> TxnError {
    use heed::MdbError;

    let why = match error {
        DatabaseError::Txn(error) => return error,
        DatabaseError::TooMany { .. } => MdbError::DbsFull,
        DatabaseError::NoSuchDatabase { .. } => MdbError::NotFound,
        _ => MdbError::Incompatible,
    };
    TxnError::Storage(crate::error::StorageError::new(
        which.opening(),
        heed::Error::Mdb(why),
    ))
}
