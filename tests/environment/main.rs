//! The environment as its users meet it: a map that changes size, databases, batches, copies, readers, other processes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod adoption;
mod away;
mod batches;
mod blocked;
mod commit_full;
mod copies;
mod databases;
mod durability;
mod growth;
mod handlers;
mod no_lock;
mod opening;
mod peer;
mod race;
mod readers;
mod records;
mod sizes;
mod snapshots;

#[path = "../support/peer.rs"]
mod process;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Bytes, U64};
use lockkeeper::{
    Db, EnvStats, Growth, Keeper, KeeperBuilder, ReadTxn, RunTxn, TxnError, WriteTxn,
};
use tempfile::TempDir;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Long enough for any machine; nothing waits so long unless something is broken.
const LONG: Duration = Duration::from_secs(60);

type Blobs = Db<U64<BigEndian>, Bytes>;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A small map that grows only when it has to.
fn builder(folder: &Path) -> KeeperBuilder {
    Keeper::builder()
        .path(folder)
        .map_size(MIB)
        .max_map_size(64 * MIB)
        .growth(Growth::Doubling)
        .grow_ahead(0)
        .batch_time(LONG)
        .resize_timeout(LONG)
        .deadline(LONG)
}

fn open(builder: KeeperBuilder) -> (Keeper, Blobs) {
    let keeper = builder.open().unwrap();
    let blobs = keeper.blocking_database("blobs").unwrap();
    (keeper, blobs)
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn stats(keeper: &Keeper) -> EnvStats {
    wait(keeper.stats()).environment
}

fn in_flight(keeper: &Keeper) -> usize {
    wait(keeper.stats()).transactions.in_flight
}

/// Waits for what another thread brings about.
#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LONG, "in vain: {what}");
        thread::sleep(Duration::from_micros(200));
    }
}

/// Tries with ever more time until it was enough: a body begins when the machine lets it.
fn with_time_enough<T>(mut attempt: impl FnMut(Duration) -> Option<T>) -> T {
    let mut span = Duration::from_millis(50);
    loop {
        if let Some(done) = attempt(span) {
            return done;
        }
        assert!(span < LONG, "no time is enough");
        span *= 2;
    }
}

/// A future that has been polled once, so that what it sends is sent.
struct Begun<T>(Pin<Box<dyn Future<Output = T>>>);

impl<T> Begun<T> {
    #[track_caller]
    fn new(future: impl Future<Output = T> + 'static) -> Self {
        match Self::try_new(future) {
            Ok(begun) => begun,
            Err(_) => panic!("answered at once"),
        }
    }

    /// The answer, if it is there at once.
    fn try_new(future: impl Future<Output = T> + 'static) -> Result<Self, T> {
        let mut begun = Self(Box::pin(future));
        match begun.poll() {
            Some(answer) => Err(answer),
            None => Ok(begun),
        }
    }

    /// The answer, if it is there by now; then this is done.
    fn poll(&mut self) -> Option<T> {
        match self
            .0
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    fn answer(self) -> T {
        wait(self.0)
    }
}

/// A body that runs until it is let go.
struct Held<T = ()> {
    leave: mpsc::Sender<()>,
    thread: JoinHandle<Result<T, TxnError>>,
}

impl<T> Held<T> {
    /// Runs `call` on a thread; it has to send once its body runs, and to end it when it receives.
    fn by(
        call: impl FnOnce(mpsc::Sender<()>, mpsc::Receiver<()>) -> Result<T, TxnError> + Send + 'static,
    ) -> Self
    where
        T: Send + 'static,
    {
        let (entered, is_inside) = mpsc::channel();
        let (leave, may_leave) = mpsc::channel();
        let thread = thread::spawn(move || call(entered, may_leave));
        is_inside.recv_timeout(LONG).unwrap();
        Self { leave, thread }
    }

    fn release(self) -> Result<T, TxnError> {
        self.leave.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

/// Keeps the writer.
fn hold_writer(keeper: &Keeper) -> Held {
    let keeper = keeper.clone();
    Held::by(move |entered, leave| {
        keeper.blocking_run(
            RunTxn::update(move |_| {
                entered.send(()).unwrap();
                leave.recv().unwrap();
                Ok(())
            })
            .name("holder")
            .deadline(LONG),
        )
    })
}

/// Keeps a view open in place, and answers what `read` finds at its end.
fn hold_view<T: Send + 'static>(
    keeper: &Keeper,
    mut read: impl FnMut(&ReadTxn<'_>) -> Result<T, TxnError> + Send + 'static,
) -> Held<T> {
    let keeper = keeper.clone();
    Held::by(move |entered, leave| {
        keeper.blocking_view(move |txn| {
            entered.send(()).unwrap();
            leave.recv().unwrap();
            read(txn)
        })
    })
}

/// Keeps a view open on a reader thread.
fn hold_named_view(keeper: &Keeper, name: &'static str) -> Held {
    let keeper = keeper.clone();
    Held::by(move |entered, leave| {
        keeper.blocking_run(
            RunTxn::view(move |_| {
                entered.send(()).unwrap();
                leave.recv().unwrap();
                Ok(())
            })
            .name(name)
            .deadline(LONG),
        )
    })
}

/// Whether a view gets in right now; while the gate is shut, it waits.
fn gate_is_open(keeper: &Keeper) -> bool {
    match Begun::try_new(keeper.view(|_| Ok(()))) {
        Ok(_waits) => false,
        Err(answer) => {
            answer.unwrap();
            true
        }
    }
}

/// The body of an update that stores a value of `len` bytes under `key`.
fn store(
    blobs: Blobs,
    key: u64,
    len: u64,
) -> impl FnMut(&mut WriteTxn<'_>) -> Result<(), TxnError> + Send + 'static {
    move |txn| Ok(blobs.put(txn, &key, &value(key, len))?)
}

fn value(key: u64, len: u64) -> Vec<u8> {
    vec![u8::try_from(key % 251).unwrap(); usize::try_from(len).unwrap()]
}

/// Whether `key` has the value that [`store`] gave it.
fn has(keeper: &Keeper, blobs: Blobs, key: u64, len: u64) -> bool {
    let read = keeper.blocking_view(move |txn| Ok(blobs.get(txn, &key)?.map(<[u8]>::to_vec)));
    read.unwrap() == Some(value(key, len))
}
