//! What a test stands on: a database, and a table that no other test uses.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;

use lockkeeper::{
    CheckLease, Claim, Claimed, Fence, Holder, LeaseName, LeaseRecord, LeaseStore, MysqlLeases,
    PostgresLeases, Refresh, SqliteLeases, StoreError, TableName,
};
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::servers::mariadb::Mariadb;
use crate::servers::postgres::Postgres;

pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Mariadb,
    Sqlite,
}

/// A database and a table.
pub struct Ground {
    pub kind: Kind,
    pub url: String,
    /// Where others connect to: not through what may be between the store and its server.
    pub direct: String,
    pub table: String,
    _file: Option<tempfile::TempDir>,
}

static POSTGRES: LazyLock<Mutex<Postgres>> = LazyLock::new(|| Mutex::new(Postgres::start()));
static MARIADB: LazyLock<Mutex<Mariadb>> = LazyLock::new(|| Mutex::new(Mariadb::start()));

impl Ground {
    /// In the server that the tests of this process share.
    pub fn shared(kind: Kind) -> Self {
        static URLS: [OnceLock<String>; 2] = [const { OnceLock::new() }; 2];
        match kind {
            Kind::Postgres => {
                let url = URLS[0].get_or_init(|| POSTGRES.lock().unwrap().url());
                Self::at(kind, url.clone())
            }
            Kind::Mariadb => {
                let url = URLS[1].get_or_init(|| MARIADB.lock().unwrap().url());
                Self::at(kind, url.clone())
            }
            Kind::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}/leases.db", folder.path().display());
                let mut ground = Self::at(kind, url);
                ground._file = Some(folder);
                ground
            }
        }
    }

    pub fn at(kind: Kind, url: String) -> Self {
        Self::through(kind, url.clone(), url)
    }

    /// With something between the store and its server.
    pub fn through(kind: Kind, url: String, direct: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            kind,
            url,
            direct,
            table: format!("leases_{}_{next}", std::process::id()),
            _file: None,
        }
    }

    /// A store that is ready.
    pub async fn store(&self) -> Arc<dyn LeaseStore> {
        let store = self.bare(true);
        store.prepare().await.unwrap();
        store
    }

    pub fn bare(&self, create: bool) -> Arc<dyn LeaseStore> {
        self.bare_at(&self.url, create)
    }

    pub fn bare_at(&self, url: &str, create: bool) -> Arc<dyn LeaseStore> {
        let table = TableName::new(&*self.table).unwrap();
        macro_rules! store {
            ($store:ident) => {{
                let builder = $store::builder().url(url).table(table);
                Arc::new(builder.create_table(create).build().unwrap())
            }};
        }
        match self.kind {
            Kind::Postgres => store!(PostgresLeases),
            Kind::Mariadb => store!(MysqlLeases),
            Kind::Sqlite => store!(SqliteLeases),
        }
    }

    /// The statement that makes the table.
    pub fn ddl(&self) -> String {
        let table = TableName::new(&*self.table).unwrap();
        macro_rules! ddl {
            ($store:ident) => {{
                let builder = $store::builder().url(&self.url).table(table);
                builder.build().unwrap().ddl().to_owned()
            }};
        }
        match self.kind {
            Kind::Postgres => ddl!(PostgresLeases),
            Kind::Mariadb => ddl!(MysqlLeases),
            Kind::Sqlite => ddl!(SqliteLeases),
        }
    }

    pub async fn connect(&self) -> Raw {
        match self.kind {
            Kind::Postgres => Raw::Postgres(PgConnection::connect(&self.direct).await.unwrap()),
            Kind::Mariadb => Raw::Mariadb(MySqlConnection::connect(&self.direct).await.unwrap()),
            Kind::Sqlite => {
                let url = format!("{}?mode=rwc", self.direct);
                Raw::Sqlite(SqliteConnection::connect(&url).await.unwrap())
            }
        }
    }
}

/// A connection of somebody else.
pub enum Raw {
    Postgres(PgConnection),
    Mariadb(MySqlConnection),
    Sqlite(SqliteConnection),
}

impl Raw {
    pub async fn run(&mut self, sql: impl Into<String>) -> u64 {
        self.try_run(sql).await.unwrap()
    }

    pub async fn try_run(&mut self, sql: impl Into<String>) -> sqlx::Result<u64> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.into()));
        Ok(match self {
            Self::Postgres(c) => sql.execute(c).await?.rows_affected(),
            Self::Mariadb(c) => sql.execute(c).await?.rows_affected(),
            Self::Sqlite(c) => sql.execute(c).await?.rows_affected(),
        })
    }

    /// How many rows there are.
    pub async fn count(&mut self, sql: impl Into<String>) -> usize {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.into()));
        match self {
            Self::Postgres(c) => sql.fetch_all(c).await.unwrap().len(),
            Self::Mariadb(c) => sql.fetch_all(c).await.unwrap().len(),
            Self::Sqlite(c) => sql.fetch_all(c).await.unwrap().len(),
        }
    }

    /// Returns when a statement about a table waits for what somebody has locked.
    pub async fn sees_who_waits_for(&mut self, table: &str) {
        let waiting = match self {
            Self::Postgres(_) => format!(
                "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%{table}%'"
            ),
            _ => format!(
                "select 1 from information_schema.innodb_trx where trx_state = 'LOCK WAIT' and trx_query like '%{table}%'"
            ),
        };
        while self.count(&*waiting).await == 0 {
            // InnoDB looks anew only when nobody has asked for a tenth of a second: two tests that ask in step would see nothing.
            let jitter = RandomState::new().build_hasher().finish() % 300;
            tokio::time::sleep(Duration::from_millis(110 + jitter)).await;
        }
    }

    pub fn check(&mut self) -> &mut dyn CheckLease {
        match self {
            Self::Postgres(c) => c,
            Self::Mariadb(c) => c,
            Self::Sqlite(c) => c,
        }
    }
}

pub fn name(name: &str) -> LeaseName {
    LeaseName::new(name).unwrap()
}

pub fn holder(id: &str) -> Holder {
    Holder {
        id: id.into(),
        host: "here".into(),
        pid: 7,
    }
}

pub fn claim(lease: &str, id: &str, expiration: Duration) -> Claim {
    Claim {
        name: name(lease),
        holder: holder(id),
        expiration,
        unclean_delay: Duration::ZERO,
    }
}

pub fn refresh(lease: &str, id: &str, token: Fence, expiration: Duration) -> Refresh {
    Refresh {
        name: name(lease),
        holder: holder(id),
        token,
        expiration,
    }
}

pub const MINUTE: Duration = Duration::from_secs(60);

/// Takes a lease that is free.
#[track_caller]
pub fn ours(claimed: Result<Claimed, StoreError>) -> Fence {
    match claimed {
        Ok(Claimed::Ours { token }) => token,
        other => panic!("not ours: {other:?}"),
    }
}

#[track_caller]
pub fn busy(claimed: Result<Claimed, StoreError>) -> LeaseRecord {
    match claimed {
        Ok(Claimed::Busy(record)) => record,
        other => panic!("not busy: {other:?}"),
    }
}

/// Asks until the answer is yes.
pub async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asked = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let asked = tokio::time::timeout(PATIENCE, asked).await;
    asked.unwrap_or_else(|_| panic!("in vain: {what}"));
}

pub fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(async { tokio::time::timeout(6 * PATIENCE, test).await });
    done.expect("the test hangs");
}

/// On this thread alone.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Runs tests that take a [`Ground`] on several databases.
macro_rules! on_stores {
    ($($kind:ident: $module:ident),+ => $tests:tt) => {
        $(on_stores! { @one $kind, $module, $tests })+
    };
    (@one $kind:ident, $module:ident, { $($test:ident),+ $(,)? }) => {
        mod $module {
            $(#[test]
            fn $test() {
                let ground = crate::ground::Ground::shared(crate::ground::Kind::$kind);
                crate::ground::run(super::$test(ground));
            })+
        }
    };
}
pub(crate) use on_stores;
