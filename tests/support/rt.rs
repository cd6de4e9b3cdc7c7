//! What the tests of the runtime share: keepers on temporary folders, a writer that is held, and a small HTTP client.

// Each test binary compiles its own copy, and uses only part of it.
#![allow(dead_code)]

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Str, U64};
use lockkeeper::{Db, Keeper, KeeperBuilder, RunTxn, TxnError};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub type Counters = Db<Str, U64<BigEndian>>;

/// A keeper as small as the tests need it.
pub fn builder(folder: &Path) -> KeeperBuilder {
    Keeper::builder()
        .path(folder)
        .map_size(1 << 20)
        .max_map_size(1 << 28)
}

pub fn open(folder: &Path) -> (Keeper, Counters) {
    let keeper = builder(folder).open().unwrap();
    let counters = counters(&keeper);
    (keeper, counters)
}

pub fn counters(keeper: &Keeper) -> Counters {
    keeper.blocking_database("counters").unwrap()
}

/// Adds one to a counter and answers what it has then.
#[track_caller]
pub fn bump(counters: Counters, key: &'static str) -> RunTxn<u64> {
    RunTxn::update(move |txn| {
        let next = counters.get(txn, key)?.unwrap_or(0) + 1;
        counters.put(txn, key, &next)?;
        Ok(next)
    })
}

pub fn read(keeper: &Keeper, counters: Counters, key: &'static str) -> Option<u64> {
    keeper
        .blocking_view(move |txn| Ok(counters.get(txn, key)?))
        .unwrap()
}

/// Waits until something is so.
#[track_caller]
pub fn until(mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "it does not happen");
        thread::sleep(Duration::from_micros(200));
    }
}

/// Tries with ever more time until it was enough: a body begins when the machine lets it.
pub fn with_time_enough<T>(mut attempt: impl FnMut(Duration) -> Option<T>) -> T {
    let mut span = Duration::from_millis(50);
    loop {
        if let Some(done) = attempt(span) {
            return done;
        }
        assert!(span < PATIENCE, "no time is enough");
        span *= 2;
    }
}

/// Waits until nothing new is let in.
#[track_caller]
pub fn until_closed(keeper: &Keeper) {
    until(|| keeper.blocking_view(|_| Ok(())).is_err());
}

pub fn in_flight(keeper: &Keeper) -> usize {
    block_on(keeper.stats()).transactions.in_flight
}

/// A body that waits until it is told to go on.
pub struct Latch {
    entered: mpsc::Receiver<()>,
    go_on: Option<mpsc::Sender<()>>,
}

/// The body's end of a [`Latch`].
pub struct Latched {
    entered: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

pub fn latch() -> (Latch, Latched) {
    let (entered, has_entered) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let latch = Latch {
        entered: has_entered,
        go_on: Some(go_on),
    };
    let latched = Latched {
        entered,
        go_on: may_go_on,
    };
    (latch, latched)
}

impl Latch {
    /// Waits until the body is there.
    pub fn entered(&self) {
        self.entered
            .recv_timeout(PATIENCE)
            .expect("the body begins");
    }

    /// Whether the body has come.
    pub fn has_been_entered(&self) -> bool {
        self.entered.try_recv().is_ok()
    }

    /// Lets it go on, now and whenever it comes again.
    pub fn open(&mut self) {
        self.go_on = None;
    }
}

impl Latched {
    pub fn pass(&self) {
        let _ = self.entered.send(());
        // An error means "open".
        let _ = self.go_on.recv();
    }
}

/// The writer, kept by a body.
pub struct Held<T = ()> {
    pub latch: Latch,
    pub answer: JoinHandle<Result<T, TxnError>>,
}

impl<T> Held<T> {
    pub fn release(mut self) -> Result<T, TxnError> {
        self.latch.open();
        self.answer.join().unwrap()
    }
}

/// Has a body keep the writer until it is released; answers when it does.
pub fn hold_writer(keeper: &Keeper) -> Held {
    let (latch, latched) = latch();
    let txn = RunTxn::update(move |_| {
        latched.pass();
        Ok(())
    });
    // The future, not a clone of the keeper: some tests drop the last one.
    let run = keeper.run(txn.name("holder"));
    let answer = thread::spawn(move || block_on(run));
    latch.entered();
    Held { latch, answer }
}

/// Runs something on a thread of its own.
pub fn aside<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn(run)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// An executor without anything: no reactor, no timers, no tasks.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(out) => return out,
            Poll::Pending => thread::park(),
        }
    }
}

/// Polls a future once; it must not be ready.
pub fn begin<F: Future + Unpin>(future: &mut F) {
    let polled = std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "it was to wait");
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Sends a request.
pub fn ask(server: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    stream
}

/// Sends a request and reads the answer.
pub fn get(server: SocketAddr, path: &str) -> Answer {
    let mut text = String::new();
    ask(server, path).read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).expect("an answer has a status");
    Answer {
        status: status.parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}
