//! The stores, each on a server that is started when it is first asked for and ends with this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lockkeeper::{LeaseStore, store_from_url};
use tempfile::TempDir;

use crate::servers::etcd::Etcd;
use crate::servers::mariadb::Mariadb;
use crate::servers::postgres::Postgres;
use crate::work::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Mariadb,
    Sqlite,
    Etcd,
    Lmdb,
}

pub const ALL: &[Kind] = &[
    Kind::Postgres,
    Kind::Mariadb,
    Kind::Sqlite,
    Kind::Etcd,
    Kind::Lmdb,
];

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mariadb => "mariadb",
            Self::Sqlite => "sqlite",
            Self::Etcd => "etcd",
            Self::Lmdb => "lmdb",
        }
    }

    /// Whether waiters are woken by a notification.
    pub const fn notifies(self) -> bool {
        matches!(self, Self::Postgres | Self::Etcd)
    }
}

/// How long leases have to be given back at the end of a measurement.
pub const GRACE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Ground {
    postgres: Option<Postgres>,
    mariadb: Option<Mariadb>,
    etcd: Option<Etcd>,
    folder: Option<TempDir>,
}

impl Ground {
    /// Where a store of this kind is.
    pub fn url(&mut self, kind: Kind) -> Result<String, Failure> {
        if self.folder.is_none() {
            self.folder = Some(tempfile::tempdir()?);
        }
        let folder = self.folder.as_ref().map(TempDir::path).ok_or("no folder")?;
        Ok(match kind {
            Kind::Postgres => self
                .postgres
                .get_or_insert_with(Postgres::start_flushing)
                .url(),
            Kind::Mariadb => self
                .mariadb
                .get_or_insert_with(Mariadb::start_flushing)
                .url(),
            Kind::Etcd => self.etcd.get_or_insert_with(|| Etcd::start(1)).url("bench"),
            Kind::Sqlite => format!("sqlite://{}/leases.db", folder.display()),
            Kind::Lmdb => {
                let folder = folder.join("lmdb");
                std::fs::create_dir_all(&folder)?;
                format!("lmdb:{}", folder.display())
            }
        })
    }

    pub fn store(&mut self, kind: Kind) -> Result<Arc<dyn LeaseStore>, Failure> {
        Ok(store_from_url(&self.url(kind)?)?)
    }
}

/// A name that no other measurement uses.
pub fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("lease {}", NEXT.fetch_add(1, Ordering::Relaxed))
}
