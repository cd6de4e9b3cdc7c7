//! What a test stands on: a store that is empty, and the server behind it.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::{IgnoreStoreErrors, LeaseConfig, LeaseRecord, LeaseStore, Leases, store_from_url};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection};
use tempfile::TempDir;

use crate::etcd_server::Etcd;
use crate::servers::mariadb::Mariadb;
use crate::servers::postgres::Postgres;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Lmdb,
    Sqlite,
    Postgres,
    Mariadb,
    Etcd,
}

/// A server of a store.
pub enum Server {
    Postgres(Postgres),
    Mariadb(Mariadb),
    Etcd(Etcd),
}

impl Server {
    pub fn start(kind: Kind) -> Self {
        match kind {
            Kind::Postgres => Self::Postgres(Postgres::start()),
            Kind::Mariadb => Self::Mariadb(Mariadb::start()),
            Kind::Etcd => Self::Etcd(Etcd::start(1)),
            Kind::Lmdb | Kind::Sqlite => panic!("{kind:?} has no server"),
        }
    }

    /// The one that the tests of this process share.
    fn shared(kind: Kind) -> Arc<Self> {
        static POSTGRES: LazyLock<Arc<Server>> =
            LazyLock::new(|| Arc::new(Server::start(Kind::Postgres)));
        static MARIADB: LazyLock<Arc<Server>> =
            LazyLock::new(|| Arc::new(Server::start(Kind::Mariadb)));
        // What is in a static is never dropped, and its folder is removed only then.
        static ETCD: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        match kind {
            Kind::Postgres => Arc::clone(&POSTGRES),
            Kind::Mariadb => Arc::clone(&MARIADB),
            _ => {
                let mut etcd = ETCD.lock().unwrap();
                etcd.upgrade().unwrap_or_else(|| {
                    let started = Arc::new(Self::start(kind));
                    *etcd = Arc::downgrade(&started);
                    started
                })
            }
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        match self {
            Self::Postgres(server) => server.kill(),
            Self::Mariadb(server) => server.kill(),
            Self::Etcd(server) => server.kill(0),
        }
    }

    pub fn start_again(&mut self) {
        match self {
            Self::Postgres(server) => server.start_again(),
            Self::Mariadb(server) => server.start_again(),
            Self::Etcd(server) => server.restart(0),
        }
    }

    pub fn address(&self) -> String {
        match self {
            Self::Postgres(server) => format!("127.0.0.1:{}", server.port()),
            Self::Mariadb(server) => format!("127.0.0.1:{}", server.port()),
            Self::Etcd(server) => server.address(0),
        }
    }

    /// The URL of a new place that is empty: a database, or a prefix.
    pub fn place(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("suite_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let make = AssertSqlSafe(format!("create database {name}"));
        match self {
            Self::Postgres(server) => {
                block_on(async {
                    let mut first = PgConnection::connect(&server.url()).await.unwrap();
                    sqlx::raw_sql(make).execute(&mut first).await.unwrap();
                });
                server.url().replace("/postgres?", &format!("/{name}?"))
            }
            Self::Mariadb(server) => {
                block_on(async {
                    let mut first = MySqlConnection::connect(&server.url()).await.unwrap();
                    sqlx::raw_sql(make).execute(&mut first).await.unwrap();
                });
                // The user is called as the first database is.
                let url = server.url();
                format!("{}/{name}", url.strip_suffix("/app").unwrap())
            }
            Self::Etcd(server) => server.url(&name),
        }
    }
}

/// A store that is empty, for one test.
pub struct Ground {
    pub kind: Kind,
    pub url: String,
    _folder: Option<TempDir>,
    _server: Option<Arc<Server>>,
}

impl Ground {
    /// In the server that the tests of this process share, if it has one.
    pub fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let url = match kind {
            Kind::Lmdb => format!("lmdb:{path}"),
            Kind::Sqlite => format!("sqlite://{path}/leases.db"),
            Kind::Postgres | Kind::Mariadb | Kind::Etcd => {
                let server = Server::shared(kind);
                return Self {
                    kind,
                    url: server.place(),
                    _folder: None,
                    _server: Some(server),
                };
            }
        };
        Self {
            kind,
            url,
            _folder: Some(folder),
            _server: None,
        }
    }

    pub fn leases(&self, pace: Pace) -> Leases {
        pace.leases(&self.url)
    }
}

/// How fast everything goes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub refresh: Duration,
    pub expiration: Duration,
    pub poll: Duration,
    pub max_clock_skew: Duration,
}

impl Pace {
    /// Holders that die are followed soon.
    pub const SHORT: Self = Self {
        refresh: Duration::from_millis(300),
        expiration: Duration::from_secs(2),
        poll: Duration::from_millis(20),
        max_clock_skew: Duration::from_millis(100),
    };
    /// Nothing expires while a test is patient.
    pub const LONG: Self = Self {
        refresh: Duration::from_secs(1),
        expiration: Duration::from_secs(600),
        poll: Duration::from_millis(5),
        max_clock_skew: Duration::from_secs(1),
    };
    /// Nobody waits long where a store has to be polled.
    pub const QUICK: Self = Self {
        poll: MS,
        ..Self::LONG
    };

    pub fn leases(self, url: &str) -> Leases {
        self.leases_in(store_from_url(url).unwrap())
    }

    pub fn leases_in(self, store: Arc<dyn LeaseStore>) -> Leases {
        let mut config = LeaseConfig::default();
        config.refresh = self.refresh;
        config.expiration = self.expiration;
        config.poll = self.poll;
        config.max_clock_skew = self.max_clock_skew;
        config.handler = Arc::new(IgnoreStoreErrors);
        Leases::start_shared(store, config).unwrap()
    }
}

/// Who holds a lease according to the store; `None` if nobody does. A busy machine may not answer in time: then it is asked
/// again.
pub fn held(leases: &Leases, name: &str) -> Option<LeaseRecord> {
    let answer = until("the store's answer", || {
        block_on(leases.holder(name))
            .map_err(|error| assert!(error.is_retryable(), "{error:?}"))
            .ok()
    });
    let record = answer?;
    record.remaining.is_some().then_some(record)
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Runs a test that must not hang.
pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(async { tokio::time::timeout(3 * PATIENCE, test).await });
    done.expect("the test hangs")
}

/// Waits for something that must come.
#[track_caller]
pub fn soon<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let what = what.to_owned();
    async move {
        let done = tokio::time::timeout(PATIENCE, future).await;
        done.unwrap_or_else(|_| panic!("{what} did not come"))
    }
}

/// Waits until `look` answers something.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(2 * MS);
    }
}
