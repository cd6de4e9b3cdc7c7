//! The stores of leases that we have, one file or folder for each.

#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "etcd")]
pub use etcd::{EtcdLeases, EtcdOptions};
#[cfg(feature = "mysql")]
pub use mysql::{MysqlLeases, MysqlLeasesBuilder};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresLeases, PostgresLeasesBuilder};
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub use sql::CheckLease;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteLeases, SqliteLeasesBuilder};
