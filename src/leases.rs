//! Leases: named mutexes in a store that other processes see, held until an expiry that is refreshed.
//!
//! `state` decides, `store` is what a store has to do, `stores` are those that we have; `shared` carries out what is decided, on a
//! thread of its own (`driver`), and `handle`, `request` and `guard` are what callers hold.

mod begun;
pub(crate) mod boottime;
mod builder;
mod calls;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod check;
mod config;
mod driver;
mod events;
mod guard;
mod handle;
mod handler;
mod identity;
mod inspection;
mod limit;
mod lost;
mod name;
mod record;
mod releasing;
mod request;
mod seen;
mod shared;
mod source;
pub(crate) mod state;
mod store;
mod store_shared;
mod stores;
mod view;
mod waiting;

pub use builder::LeasesBuilder;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub use check::CheckError;
pub use config::LeaseConfig;
pub use events::LeaseEvent;
pub use guard::LeaseGuard;
pub use handle::{LeaseShutdown, Leases};
pub use handler::{
    IgnoreStoreErrors, LeaseFault, LeaseHandler, LeaseOperation, LeaseVerdict, LogStoreErrors,
};
pub use lost::LostReason;
pub use name::{BadLeaseName, BadTableName, LeaseName, TableName};
pub use record::{Fence, Holder, LeaseRecord, StoreId};
pub use request::{Lease, LeaseOptions};
pub(crate) use request::{Patience, option_setters};
pub(crate) use source::LeaseSource;
pub use state::LeaseSettingsError;
pub use store::{
    Claim, Claimed, LeaseStore, Refresh, Refreshed, Released, StoreError, StoreFuture, Wakeups,
};
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub use stores::CheckLease;
pub use stores::lmdb::LmdbLeases;
pub use stores::store_from_url;
#[cfg(feature = "etcd")]
pub use stores::{EtcdLeases, EtcdOptions};
#[cfg(feature = "mysql")]
pub use stores::{MysqlLeases, MysqlLeasesBuilder};
#[cfg(feature = "postgres")]
pub use stores::{PostgresLeases, PostgresLeasesBuilder};
#[cfg(feature = "sqlite")]
pub use stores::{SqliteLeases, SqliteLeasesBuilder};
pub(crate) use view::InUse;
pub use view::{AsLease, LeaseStanding, LeaseView};
