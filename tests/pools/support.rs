//! What the tests of pools share.

use std::time::{Duration, Instant};

use lockkeeper::{Backoff, Keeper, Pool, PoolBuilder};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(20);

pub fn keeper() -> (TempDir, Keeper) {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    (folder, keeper)
}

/// A pool whose restarts do not wait.
pub fn quick(keeper: &Keeper, name: &'static str) -> PoolBuilder {
    let none = Backoff::new(Duration::ZERO, Duration::ZERO, 1.0);
    keeper.pool(name).backoff(none)
}

/// A folder for leases that last for a moment: in memory, where the machine has that. How late a busy disk is says nothing of pools.
pub fn lease_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Waits for something that has to come about; looks every millisecond.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LONG, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn running(pool: &Pool) -> usize {
    pool.stats().workers.running
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
