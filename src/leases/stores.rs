//! The stores of leases that we have, one file or folder for each, and [`store_from_url`].

#[cfg(feature = "etcd")]
mod etcd;
pub(crate) mod lmdb;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::sync::Arc;

use super::{LeaseStore, StoreError, TableName};
use lmdb::LmdbLeases;

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

/// The store that a URL names: `lmdb:PATH`, `postgres://…`, `mysql://…`, `mariadb://…`, `sqlite:…`, `etcd://…`.
///
/// It goes wherever a store is wanted: to [`Leases::builder`](crate::Leases::builder), to a keeper
/// ([`lease_store`](crate::KeeperBuilder::lease_store)), to a lease actor.
///
/// `lmdb:PATH` is a folder, absolute or not; `?table=NAME` behind it is another table than `dbmutex`. It blocks while that file
/// is opened; the others connect when they are first asked something.
///
/// # Errors
/// [`StoreError::BadConfig`] for any other URL, and for one whose store was not compiled in, with the feature that it needs;
/// otherwise as the store says.
pub fn store_from_url(url: &str) -> Result<Arc<dyn LeaseStore>, StoreError> {
    // What is no scheme is not shown, and neither is the rest: it may have a password.
    let is_scheme = |scheme: &str| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let split = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme));
    let Some((scheme, rest)) = split else {
        let forms = "`lmdb:PATH`, `postgres://…`, `mysql://…`, `sqlite:…` or `etcd://…`";
        return Err(StoreError::BadConfig(format!(
            "this is no URL of a lease store: {forms}"
        )));
    };
    match scheme {
        "lmdb" => lmdb(rest),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(Arc::new(PostgresLeases::from_url(url)?)),
        #[cfg(not(feature = "postgres"))]
        "postgres" | "postgresql" => not_compiled_in("postgres"),
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => Ok(Arc::new(MysqlLeases::from_url(url)?)),
        #[cfg(not(feature = "mysql"))]
        "mysql" | "mariadb" => not_compiled_in("mysql"),
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Arc::new(SqliteLeases::from_url(url)?)),
        #[cfg(not(feature = "sqlite"))]
        "sqlite" => not_compiled_in("sqlite"),
        #[cfg(feature = "etcd")]
        "etcd" => Ok(Arc::new(EtcdLeases::from_url(url)?)),
        #[cfg(not(feature = "etcd"))]
        "etcd" => not_compiled_in("etcd"),
        _ => Err(StoreError::BadConfig(format!(
            "no lease store has the scheme {scheme:?}"
        ))),
    }
}

fn lmdb(rest: &str) -> Result<Arc<dyn LeaseStore>, StoreError> {
    let (path, table) = match rest.split_once("?table=") {
        None => (rest, TableName::default()),
        Some((path, table)) => {
            let table = TableName::new(table);
            (
                path,
                table.map_err(|bad| StoreError::BadConfig(bad.to_string()))?,
            )
        }
    };
    // `lmdb:///var/lib/app` as others write it.
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() {
        return Err(StoreError::BadConfig("`lmdb:` has no path".to_owned()));
    }
    Ok(Arc::new(LmdbLeases::open_table(path, &table)?))
}

/// For the schemes whose store was left out.
#[allow(dead_code, reason = "with every feature on, nothing is left out")]
fn not_compiled_in(feature: &str) -> Result<Arc<dyn LeaseStore>, StoreError> {
    Err(StoreError::BadConfig(format!(
        "this store is not compiled in: enable the feature `{feature}`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_store_or_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        for good in [
            format!("lmdb:{path}"),
            format!("lmdb://{path}"),
            format!("lmdb:{path}?table=mine"),
        ] {
            assert!(store_from_url(&good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "leases",
            "lmdb:",
            "lmdb:x?table=1",
            "oracle://a:secret@b/c",
            "secret@b:5432/c",
            "secret@b",
        ] {
            let Err(StoreError::BadConfig(why)) = store_from_url(bad) else {
                panic!("{bad} was taken");
            };
            assert!(!why.contains("secret"), "{why}");
        }
        assert!(!std::path::Path::new("x").exists());
    }
}
