//! What the tests of failures share: a held writer, transactions that are sent in a known order, and waiting for a state.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::U64;
use lockkeeper::{Db, Keeper, KeeperBuilder, RunTxn, TxnError};
use tempfile::TempDir;

pub type Numbers = Db<U64<BigEndian>, U64<BigEndian>>;

/// The database that all of these tests use, and that the other processes know.
pub const NUMBERS: &str = "numbers";

/// A limit for what has to happen soon; far above what a busy machine needs, far below the default deadline of 30 s.
pub const SOON: Duration = Duration::from_secs(10);

/// A folder on the disk that the build is on: a file system in memory has no flush that could fail or be slow.
pub fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn open(folder: &std::path::Path) -> (Keeper, Numbers) {
    open_with(Keeper::builder().path(folder))
}

pub fn open_with(builder: KeeperBuilder) -> (Keeper, Numbers) {
    let keeper = builder.open().unwrap();
    let numbers = keeper.blocking_database(NUMBERS).unwrap();
    (keeper, numbers)
}

pub fn put(keeper: &Keeper, numbers: Numbers, key: u64, value: u64) -> Result<(), TxnError> {
    keeper.blocking_update(move |txn| Ok(numbers.put(txn, &key, &value)?))
}

pub fn get(keeper: &Keeper, numbers: Numbers, key: u64) -> Option<u64> {
    keeper
        .blocking_view(move |txn| Ok(numbers.get(txn, &key)?))
        .unwrap()
}

/// An update that puts one number.
#[track_caller]
pub fn putting(numbers: Numbers, key: u64, value: u64) -> RunTxn<()> {
    RunTxn::update(move |txn| Ok(numbers.put(txn, &key, &value)?))
}

/// Waits for a state that is about to be reached.
#[track_caller]
pub fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let limit = Instant::now() + SOON;
    while !reached() {
        assert!(
            Instant::now() < limit,
            "{}: not reached: {what}",
            Location::caller()
        );
        thread::sleep(Duration::from_millis(1));
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

pub fn stats(keeper: &Keeper) -> lockkeeper::KeeperStats {
    block_on(keeper.stats())
}

/// A transaction that was sent, and of which nobody has asked since. Those made one after the other are queued in that order.
pub struct Sent<T>(Pin<Box<dyn Future<Output = T> + Send>>);

impl<T> Sent<T> {
    #[track_caller]
    pub fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        let mut sent = Self(Box::pin(future));
        assert!(sent.poll().is_none(), "answered before it could be");
        sent
    }

    pub fn poll(&mut self) -> Option<T> {
        match self
            .0
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    pub fn answer(self) -> T {
        block_on(self.0)
    }

    pub fn in_thread(self) -> JoinHandle<T>
    where
        T: Send + 'static,
    {
        thread::spawn(|| self.answer())
    }
}

/// A body that keeps the writer until it is told to return.
pub struct Plug {
    release: mpsc::Sender<()>,
    answer: JoinHandle<Result<(), TxnError>>,
}

impl Plug {
    /// Returns when the body runs, alone in its batch. It writes nothing.
    pub fn hold(keeper: &Keeper) -> Self {
        Self::hold_as(keeper, RunTxn::update, |_| Ok(()))
    }

    /// The same with a body that first does `write`, and options that `describe` gives it.
    pub fn hold_as(
        keeper: &Keeper,
        describe: impl FnOnce(PlugBody) -> RunTxn<()>,
        mut write: impl FnMut(&mut lockkeeper::WriteTxn<'_>) -> Result<(), TxnError> + Send + 'static,
    ) -> Self {
        let (release, released) = mpsc::channel::<()>();
        let (running, runs) = mpsc::channel();
        let txn = describe(Box::new(move |txn| {
            write(txn)?;
            let _ = running.send(());
            // Ends when the sender is dropped.
            let _ = released.recv();
            Ok(())
        }));
        let keeper = keeper.clone();
        let answer = thread::spawn(move || keeper.blocking_run(txn));
        runs.recv_timeout(SOON).expect("the writer takes the body");
        Self { release, answer }
    }

    /// Lets the body return; answers what its caller was answered.
    pub fn release(self) -> Result<(), TxnError> {
        drop(self.release);
        self.answer.join().unwrap()
    }

    /// What its caller was answered, which is before the body returns; the body runs on until the rest is dropped.
    pub fn answer(self) -> (Result<(), TxnError>, mpsc::Sender<()>) {
        (self.answer.join().unwrap(), self.release)
    }
}

pub type PlugBody =
    Box<dyn FnMut(&mut lockkeeper::WriteTxn<'_>) -> Result<(), TxnError> + Send + 'static>;

/// Nothing is in flight, locked or read any more.
#[track_caller]
pub fn assert_idle(keeper: &Keeper) {
    until("everything given back", || {
        let stats = stats(keeper);
        stats.transactions.in_flight == 0
            && stats.transactions.waiting == 0
            && stats.environment.queued == 0
            && stats.environment.views.is_empty()
            && stats.locks.locks.now == 0
            && stats.locks.lockers.now == 0
            && stats.locks.waiting == 0
    });
}
