//! What each isolation level keeps out and what it lets happen, and what the re-check at the commit sees and does not see.
//!
//! The table in `matrix.rs` says what is to be expected; `levels.rs` shows it, and the page about isolation has the same.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cases;
mod driver;
mod guide;
mod levels;
mod matrix;
mod mixed;
mod outside;
mod peers;
mod recheck;
mod script;
mod steady;

#[path = "../support/peer.rs"]
mod process;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Str, U64};
use lockkeeper::{Begun, Durability, Isolation, Keeper, Records, TxnError};
use tempfile::TempDir;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

type Stock = Records<Str, U64<BigEndian>>;

/// A keeper whose commits do not wait for a disk: nothing here is about durability.
struct Shop {
    keeper: Keeper,
    stock: Stock,
    folder: TempDir,
}

impl Shop {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper::builder()
            .path(folder.path())
            .map_size(1 << 24)
            .durability(Durability::NoSync)
            .deadline(PATIENCE)
            .lock_timeout(PATIENCE)
            // What is queued together is one batch, however slow the machine is.
            .batch_time(PATIENCE)
            .open()
            .unwrap();
        let stock = keeper.blocking_records("stock").unwrap();
        Self {
            keeper,
            stock,
            folder,
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A plain update that stores one value.
    async fn write(&self, key: &'static str, value: u64) {
        let stock = self.stock;
        let update = self
            .keeper
            .update(move |txn| Ok(stock.put(txn, key, &value)?));
        update.await.unwrap();
    }

    async fn value(&self, key: &'static str) -> Option<u64> {
        let stock = self.stock;
        let view = self.keeper.view(move |txn| Ok(stock.get(txn, key)?));
        view.await.unwrap()
    }

    async fn begin(&self, isolation: Isolation) -> Begun {
        self.keeper.begin().isolation(isolation).await.unwrap()
    }
}

/// Lost to what somebody else wrote: with `ReadChanged`, or in a snapshot with `WriteConflict`.
fn is_lost<T, E>(outcome: &Result<T, TxnError<E>>) -> bool {
    let lost = |error: &TxnError<E>| {
        matches!(
            error,
            TxnError::ReadChanged { .. } | TxnError::WriteConflict { .. }
        )
    };
    outcome.as_ref().err().is_some_and(lost)
}

/// Lets others run until this is so, or the test fails.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// A future that has been polled once, so that what it sends is sent.
struct Sent<T>(Pin<Box<dyn Future<Output = T>>>);

impl<T> Sent<T> {
    #[track_caller]
    fn new(future: impl Future<Output = T> + 'static) -> Self {
        let mut future: Pin<Box<dyn Future<Output = T>>> = Box::pin(future);
        let polled = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(_) => panic!("answered at once"),
            Poll::Pending => Self(future),
        }
    }

    async fn answer(self) -> T {
        self.0.await
    }
}
