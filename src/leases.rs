//! Leases: named mutexes in a store that other processes see, held until an expiry that is refreshed.
//!
//! `state` decides, `store` is what a store has to do, `stores` are those that we have.

mod name;
mod record;
mod store;
mod stores;

pub use name::{BadLeaseName, BadTableName, LeaseName, TableName};
pub use record::{Fence, Holder, LeaseRecord, StoreId};
pub use store::{
    Claim, Claimed, LeaseStore, Refresh, Refreshed, Released, StoreError, StoreFuture, Wakeups,
};
#[cfg(feature = "etcd")]
pub use stores::{EtcdLeases, EtcdOptions};
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub use stores::CheckLease;
#[cfg(feature = "mysql")]
pub use stores::{MysqlLeases, MysqlLeasesBuilder};
#[cfg(feature = "postgres")]
pub use stores::{PostgresLeases, PostgresLeasesBuilder};
#[cfg(feature = "sqlite")]
pub use stores::{SqliteLeases, SqliteLeasesBuilder};
