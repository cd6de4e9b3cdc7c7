//! Panics put into each part of a keeper, while it handles, starts and stops.

mod handling;
mod leases;
mod locks;
mod messages;
mod pool_leases;
mod pools;
mod pools_thread;
mod starting;
mod threads;

use std::panic::Location;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::actors::supervisor::Runtime;
use crate::bombs::Bombs;
use crate::config::OnFatal;
use crate::error::{Part, TxnError};
use crate::{Db, Keeper, heed};

type Numbers = Db<heed::types::Str, heed::types::U32<heed::byteorder::BigEndian>>;

impl Runtime {
    /// Where panics are put into a part.
    pub(in crate::keeper) fn bombs(&self, part: Part) -> &Bombs {
        match part {
            Part::Supervisor => &self.supervision.bombs,
            Part::LockTable => {
                &self
                    .locks
                    .as_ref()
                    .expect("a lock table")
                    .supervision()
                    .bombs
            }
            Part::Leases => &self.leases.get().expect("leases").supervision.bombs,
            Part::WorkerPool => &self.pool_supervision.bombs,
            _ => &self.env.shared.supervision.bombs,
        }
    }
}

impl Keeper {
    fn bombs(&self, part: Part) -> &Bombs {
        self.inner.runtime.bombs(part)
    }
}

/// A keeper in a folder of its own, which stays poisoned if it is.
fn keeper() -> (TempDir, Keeper) {
    keeper_on_fatal(OnFatal::Wait)
}

fn keeper_on_fatal(policy: OnFatal) -> (TempDir, Keeper) {
    let folder = tempfile::tempdir().expect("a folder");
    let keeper = Keeper::builder()
        .path(folder.path())
        .on_fatal(policy)
        .open()
        .expect("a keeper");
    (folder, keeper)
}

fn numbers(keeper: &Keeper) -> Numbers {
    keeper.blocking_database("numbers").expect("a database")
}

fn put(keeper: &Keeper, db: Numbers, key: &'static str) -> Result<(), TxnError> {
    keeper.blocking_update(move |txn| Ok(db.put(txn, key, &1)?))
}

fn get(keeper: &Keeper, db: Numbers, key: &'static str) -> Option<u32> {
    keeper
        .blocking_view(move |txn| Ok(db.get(txn, key)?))
        .expect("a view")
}

/// Runs it on a runtime, with a bound for what must not hang.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime
        .block_on(async { tokio::time::timeout(LONG, future).await })
        .expect("no hang")
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
fn here() -> crate::Site {
    Location::caller()
}

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);
