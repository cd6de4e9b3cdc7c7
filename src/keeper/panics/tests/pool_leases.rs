//! In what sees to the leases of pools.

use std::sync::Arc;

use parking_lot::Mutex;

use super::leases::keeper_with_leases;
use super::*;
use crate::error::LeaseError;
use crate::{Pool, PoolBuilder, PoolLeaseStats, Worker};

const WHOLE: [&str; 3] = [
    "seeing to the leases of a pool",
    "asking for the lease of a pool",
    "holding a lease of a pool",
];
const PARTS: [&str; 7] = [
    "seeing to the leases of a pool",
    "sharing the partitions of a pool",
    "looking at the leases of a pool",
    "joining those who share a pool",
    "trying for a partition of a pool",
    "holding a lease of a pool",
    "taking part in a pool",
];

fn lease(pool: &Pool) -> PoolLeaseStats {
    pool.stats().lease.expect("it has leases")
}

/// What fails in these tests is what has to, and not the disk because it is slow.
fn keeper_with_patient_leases() -> (TempDir, Keeper) {
    keeper_with_leases(Duration::from_millis(500), Duration::from_secs(30))
}

/// Starts a pool whose leases panic once, at this place; it runs all the same.
fn goes_on(place: &'static str, under: impl FnOnce(PoolBuilder) -> PoolBuilder) {
    let (_folder, keeper) = keeper_with_patient_leases();
    keeper.bombs(Part::WorkerPool).set(place);
    let pool = under(keeper.pool("import").workers(2));
    let pool = pool.start(|worker: Worker| async move {
        worker.stopped().await;
        Ok(())
    });
    let pool = pool.expect("a pool");
    until(place, || {
        keeper.bombs(Part::WorkerPool).are_spent() && pool.stats().workers.running == 2
    });
    let stats = lease(&pool);
    assert_eq!((stats.panics, stats.lost), (1, 0), "{place}");
    let error = stats.last_error.unwrap_or_default();
    assert!(error.contains(place), "{error}");
    assert_eq!(run(keeper.stats()).panics.worker_pool, 1);
    run(keeper.shutdown(LONG)).expect("stopped");
    let stats = lease(&pool);
    assert_eq!(stats.given_back, stats.acquired, "{place}");
}

#[test]
fn a_panic_in_what_sees_to_the_lease_of_a_pool_is_told_and_the_pool_runs_all_the_same() {
    for place in WHOLE {
        goes_on(place, |pool| pool.under_lease("import"));
    }
}

#[test]
fn a_panic_in_what_shares_the_partitions_of_a_pool_is_told_and_the_pool_runs_all_the_same() {
    for place in PARTS {
        goes_on(place, |pool| pool.partitioned("import"));
    }
}

#[test]
fn i09_what_a_pool_holds_when_its_sharing_panics_is_given_back_only_when_its_workers_have_ended() {
    let (_folder, keeper) = keeper_with_patient_leases();
    let (end, may_end) = flume::bounded(2);
    let held: Arc<Mutex<Vec<bool>>> = Arc::default();
    let seen = Arc::clone(&held);
    let pool = keeper.pool("import").workers(2).partitioned("import");
    let pool = pool.start_blocking(move |worker: Worker| {
        let lease = worker.lease().expect("a lease");
        while !worker.pause_for(LONG) {}
        seen.lock().push(lease.is_held());
        let _ = may_end.recv();
        seen.lock().push(lease.is_held());
        Ok(())
    });
    let pool = pool.expect("a pool");
    until("both run", || pool.stats().workers.running == 2);
    // When it looks the next time.
    let place = "what a partition of a pool tells";
    keeper.bombs(Part::WorkerPool).set(place);
    until("both are told", || held.lock().len() == 2);
    assert_eq!((lease(&pool).panics, lease(&pool).given_back), (1, 0));
    for name in ["import/0", "import/1"] {
        let refused = run(keeper.lease(name).try_acquire());
        assert!(matches!(refused, Err(LeaseError::Busy { .. })), "{name}");
    }
    for _ in 0..2 {
        end.send(()).expect("it waits");
    }
    until("both run again", || {
        lease(&pool).acquired == 4 && pool.stats().workers.running == 2
    });
    assert_eq!(*held.lock(), [true; 4]);
    assert_eq!((lease(&pool).given_back, lease(&pool).lost), (2, 0));
    drop(end);
    run(keeper.shutdown(LONG)).expect("stopped");
}
