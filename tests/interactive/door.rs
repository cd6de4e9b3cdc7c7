//! One interface for all ways in, so that each scenario is told once.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Str, U64};
use lockkeeper::{
    Isolation, Keeper, KeeperBuilder, LockSnapshot, OpError, Records, RunTxn, Scan, Txn, TxnError,
    TxnStats, WhenFull,
};
use tempfile::TempDir;
use tokio::sync::Semaphore;

pub type Numbers = Records<U64<BigEndian>, U64<BigEndian>>;
pub type Words = Records<Str, Str>;

/// Far longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// All levels.
pub const LEVELS: [Isolation; 5] = [
    Isolation::Serializable,
    Isolation::RepeatableRead,
    Isolation::ReadCommitted,
    Isolation::Snapshot,
    Isolation::Optimistic,
];

/// What a transaction is run with; what is not set is left to the settings.
#[derive(Clone, Copy, Default)]
pub struct How {
    pub name: &'static str,
    pub isolation: Isolation,
    pub deadline: Option<Duration>,
    pub retries: Option<u32>,
    pub retry_timeouts: Option<bool>,
    pub priority: Option<u32>,
    pub lock_timeout: Option<Duration>,
    pub txn_timeout: Option<Duration>,
    pub when_full: Option<WhenFull>,
}

impl How {
    pub fn named(name: &'static str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    pub fn level(isolation: Isolation) -> Self {
        Self {
            isolation,
            ..Self::default()
        }
    }
}

macro_rules! tuned {
    ($txn:expr, $how:expr) => {{
        let how: How = $how;
        let mut txn = $txn.isolation(how.isolation);
        if let Some(deadline) = how.deadline {
            txn = txn.deadline(deadline);
        }
        if let Some(retries) = how.retries {
            txn = txn.retries(retries);
        }
        if let Some(retry) = how.retry_timeouts {
            txn = txn.retry_timeouts(retry);
        }
        if let Some(priority) = how.priority {
            txn = txn.priority(priority);
        }
        if let Some(timeout) = how.lock_timeout {
            txn = txn.lock_timeout(timeout);
        }
        if let Some(timeout) = how.txn_timeout {
            txn = txn.txn_timeout(timeout);
        }
        if let Some(when_full) = how.when_full {
            txn = txn.when_full(when_full);
        }
        txn
    }};
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Door {
    Method,
    Message,
    Address,
}

impl Door {
    pub const ALL: [Self; 3] = [Self::Method, Self::Message, Self::Address];

    pub async fn run<T, F, Fut>(self, keeper: &Keeper, how: How, body: F) -> Result<T, TxnError>
    where
        T: Send + 'static,
        F: FnMut(Txn) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, TxnError>> + Send + 'static,
    {
        self.try_run(keeper, how, body).await
    }

    pub async fn try_run<T, E, F, Fut>(
        self,
        keeper: &Keeper,
        how: How,
        body: F,
    ) -> Result<T, TxnError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnMut(Txn) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, TxnError<E>>> + Send + 'static,
    {
        if self == Self::Method {
            return tuned!(keeper.transaction(how.name, body), how).await;
        }
        let message = tuned!(RunTxn::<T>::try_interactive(body).name(how.name), how);
        match self {
            Self::Message => keeper.send(message).await,
            _ => {
                let sent = keeper.supervisor().send(message).await;
                // The actor is gone: the keeper has shut down.
                sent.unwrap_or(Err(TxnError::ShuttingDown))
            }
        }
    }

    /// Runs it aside.
    pub fn spawn<T, F, Fut>(
        self,
        keeper: &Keeper,
        how: How,
        body: F,
    ) -> tokio::task::JoinHandle<Result<T, TxnError>>
    where
        T: Send + 'static,
        F: FnMut(Txn) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, TxnError>> + Send + 'static,
    {
        let keeper = keeper.clone();
        tokio::spawn(async move { self.run(&keeper, how, body).await })
    }
}

/// A keeper with two databases.
#[derive(Clone)]
pub struct World {
    pub keeper: Keeper,
    pub numbers: Numbers,
    pub words: Words,
    pub folder: Arc<TempDir>,
}

impl World {
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub fn with(tune: impl FnOnce(KeeperBuilder) -> KeeperBuilder) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let builder = Keeper::builder().path(folder.path()).map_size(64 << 20);
        let keeper = tune(builder).open().unwrap();
        Self {
            numbers: keeper.blocking_records("numbers").unwrap(),
            words: keeper.blocking_records("words").unwrap(),
            keeper,
            folder: Arc::new(folder),
        }
    }

    pub async fn fill(&self, entries: impl IntoIterator<Item = (u64, u64)>) {
        let (numbers, entries) = (self.numbers, entries.into_iter().collect::<Vec<_>>());
        let fill = self.keeper.update(move |txn| {
            for (key, value) in &entries {
                numbers.put(txn, key, value)?;
            }
            Ok(())
        });
        fill.await.unwrap();
    }

    /// What is committed.
    pub async fn committed(&self) -> Vec<(u64, u64)> {
        let numbers = self.numbers;
        let read = self.keeper.view(move |txn| {
            let entries = numbers.iter(txn)?;
            Ok(entries.collect::<Result<Vec<_>, _>>()?)
        });
        read.await.unwrap()
    }

    pub async fn number(&self, key: u64) -> Option<u64> {
        let numbers = self.numbers;
        let read = self.keeper.view(move |txn| Ok(numbers.get(txn, &key)?));
        read.await.unwrap()
    }

    pub async fn stats(&self) -> TxnStats {
        self.keeper.stats().await.transactions
    }

    pub fn locks(&self) -> LockSnapshot {
        self.keeper.locks().snapshot()
    }

    /// How many wait for a lock.
    pub fn waiting(&self) -> usize {
        self.keeper.locks().stats().waiting
    }

    /// Nothing is in flight, locked or read any more.
    pub async fn is_idle(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let stats = self.keeper.stats().await;
            let left = (
                (stats.transactions.in_flight, stats.transactions.waiting),
                (stats.environment.queued, stats.environment.views.len()),
                (stats.locks.locks.now, stats.locks.lockers.now),
                stats.locks.waiting,
            );
            if left == ((0, 0), (0, 0), (0, 0), 0) {
                return;
            }
            assert!(
                Instant::now() < end,
                "(in flight, waiting), (queued, views), (locks, lockers), waiting: {left:?}"
            );
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

/// Lets others run until this is so, or the test fails.
#[track_caller]
pub fn until(condition: impl Fn() -> bool) -> impl Future<Output = ()> {
    let site = std::panic::Location::caller();
    async move {
        let end = Instant::now() + PATIENCE;
        while !condition() {
            assert!(
                Instant::now() < end,
                "{site}: what was waited for has not come"
            );
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let all = tokio::time::timeout(4 * PATIENCE, future).await;
        all.expect("the test hangs")
    })
}

/// Runs a test through each door, on a keeper of its own, of which nothing may be left.
pub fn through_each<Fut: Future<Output = ()>>(test: impl Fn(Door, World) -> Fut) {
    for door in Door::ALL {
        let world = World::new();
        block_on(async {
            test(door, world.clone()).await;
            world.is_idle().await;
        });
    }
}

/// The same on each level of isolation.
pub fn on_each_level<Fut: Future<Output = ()>>(test: impl Fn(Door, How, World) -> Fut) {
    for isolation in LEVELS {
        through_each(|door, world| test(door, How::level(isolation), world));
    }
}

/// What a scan has left.
pub async fn rest(
    scan: &mut Scan<U64<BigEndian>, U64<BigEndian>>,
) -> Result<Vec<(u64, u64)>, OpError> {
    let mut all = Vec::new();
    while let Some((key, value)) = scan.next().await? {
        all.push((key.decode()?, value.decode()?));
    }
    Ok(all)
}

pub async fn all(
    mut scan: Scan<U64<BigEndian>, U64<BigEndian>>,
) -> Result<Vec<(u64, u64)>, OpError> {
    rest(&mut scan).await
}

pub async fn words(mut scan: Scan<Str, Str>) -> Result<Vec<(String, String)>, OpError> {
    let mut all = Vec::new();
    while let Some((key, value)) = scan.next().await? {
        all.push((key.decode()?.to_owned(), value.decode()?.to_owned()));
    }
    Ok(all)
}

/// A door that is shut until it is opened, for everybody and for ever. Tells how many have come to it.
#[derive(Clone)]
pub struct Gate {
    come: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    pub fn new() -> Self {
        Self {
            come: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        }
    }

    /// Comes to it, and waits until it is opened.
    pub async fn pass(&self) {
        self.come.add_permits(1);
        let _ = self.open.acquire().await;
    }

    /// Waits until one more has come.
    pub async fn reached(&self) {
        let come = tokio::time::timeout(PATIENCE, self.come.acquire()).await;
        come.expect("nobody comes").unwrap().forget();
    }

    pub fn open(&self) {
        self.open.close();
    }
}
