//! How these tests begin: somebody who cannot be had out, a stop that is on its way, a folder that becomes free.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Str, U64};
use lockkeeper::{Keeper, OpenError, Pool, Records, ShutdownError, TxnError};
use parking_lot::Mutex;

use crate::rt::{Latch, aside, begin, builder, latch, until, until_closed};

/// Shorter than what runs here.
pub const SOON: Duration = Duration::from_millis(50);
/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(20);

/// The counters, for interactive transactions.
pub type Counts = Records<Str, U64<BigEndian>>;

pub fn counts(keeper: &Keeper) -> Counts {
    keeper.blocking_records("counters").unwrap()
}

/// A future that has been polled.
pub type Waits<T> = Pin<Box<dyn Future<Output = Result<T, TxnError>> + Send>>;

/// An interactive transaction that has written `key`, holds its lock, and waits for the world outside for ever.
pub fn waits_outside(keeper: &Keeper, records: Counts, key: &'static str) -> Waits<()> {
    let keeper = keeper.clone();
    let mut waits: Waits<()> = Box::pin(async move {
        keeper
            .transaction("interactive", |txn| async move {
                txn.put(records, key, &1_u64).await?;
                std::future::pending::<Result<(), TxnError>>().await
            })
            .await
    });
    begin(&mut waits);
    waits
}

/// A pool with one thread, which hears nothing before the latch is open.
pub fn deaf(keeper: &Keeper) -> (Pool, Latch) {
    let (latch, latched) = latch();
    let latched = Mutex::new(latched);
    let pool = keeper.pool("deaf").start_blocking(move |_| {
        latched.lock().pass();
        Ok(())
    });
    latch.entered();
    (pool.unwrap(), latch)
}

/// A stop that has begun.
pub fn stopping(keeper: &Keeper, deadline: Duration) -> JoinHandle<Result<(), ShutdownError>> {
    let stops = {
        let keeper = keeper.clone();
        aside(move || keeper.blocking_shutdown(deadline))
    };
    until_closed(keeper);
    stops
}

/// Waits until the folder can be opened.
#[track_caller]
pub fn until_free(folder: &Path) {
    until(|| match builder(folder).open() {
        Ok(keeper) => {
            keeper.blocking_shutdown(LONG).unwrap();
            true
        }
        Err(OpenError::AlreadyOpen { .. }) => false,
        Err(error) => panic!("{error}"),
    });
}

/// A keeper that somebody gets at who is there before it.
#[derive(Clone, Default)]
pub struct Later(Arc<Mutex<Option<Keeper>>>);

impl Later {
    pub fn is(&self, keeper: Keeper) {
        *self.0.lock() = Some(keeper);
    }

    pub fn get(&self) -> Option<Keeper> {
        self.0.lock().clone()
    }

    pub fn take(&self) -> Option<Keeper> {
        self.0.lock().take()
    }
}
