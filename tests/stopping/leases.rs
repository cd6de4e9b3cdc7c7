//! Leases are given back each on its own, and their threads end with the keeper; so do pools under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lockkeeper::{
    KeeperBuilder, LeaseName, LeaseStore, Leases, LmdbLeases, PoolState, ShutdownError, Worker,
};
use parking_lot::Mutex;

use crate::begun::{LONG, SOON};
use crate::rt::{PATIENCE, aside, begin, block_on, builder, latch, until};
use crate::slow::Slow;

fn is_left_held(outcome: &Result<(), ShutdownError>, lease: &str) {
    let Err(ShutdownError::LeasesMaybeHeld { names }) = &outcome else {
        panic!("{outcome:?}");
    };
    let names: Vec<_> = names.iter().map(LeaseName::as_str).collect();
    assert_eq!(names, [lease]);
}

#[test]
fn one_that_cannot_be_given_back_keeps_no_other_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Slow::of(folder.path(), |name| name.as_str() == "stuck");
    let keeper = builder(folder.path())
        .lease_store(slow.clone())
        .open()
        .unwrap();
    let names = ["one", "other", "stuck"];
    let guards = names.map(|name| block_on(keeper.lease(name).acquire()).unwrap());
    for _ in 0..2 {
        let outcome = keeper.blocking_shutdown(SOON);
        is_left_held(&outcome, "stuck");
        assert!(!outcome.unwrap_err().is_retryable());
    }
    let held = |name: &'static str| {
        let name = LeaseName::new(name).unwrap();
        let record = block_on(async { slow.store.look(&name).await }).unwrap();
        record.is_some_and(|record| record.remaining.is_some())
    };
    assert_eq!(names.map(held), [false, false, true]);
    assert!(guards.iter().all(|guard| !guard.is_held()));
    // Everything else has ended.
    builder(folder.path()).open().unwrap();
}

#[test]
fn the_leases_of_a_keeper_can_be_had_by_the_next_one_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut guards = Vec::new();
    for round in 0..5 {
        let keeper = builder(folder.path()).open().unwrap();
        let guard = block_on(keeper.lease("job").try_acquire()).unwrap();
        guards.push(guard);
        keeper.blocking_shutdown(LONG).unwrap();
        assert!(!guards[round].is_held());
    }
    assert!(guards.is_sorted_by_key(|guard| guard.token()));
}

#[test]
fn whoever_waits_for_a_pool_is_answered_though_its_lease_is_not_given_back_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Slow::of(folder.path(), |_| true);
    let keeper = builder(folder.path())
        .lease_store(slow.clone())
        .open()
        .unwrap();
    let (runs, does_run) = mpsc::channel();
    let pool = keeper.pool("import").under_lease("import");
    let pool = pool.start(move |worker: Worker| {
        let _ = runs.send(());
        async move {
            worker.stopped().await;
            Ok(())
        }
    });
    let pool = pool.unwrap();
    does_run.recv_timeout(PATIENCE).unwrap();
    let waits = pool.wait();
    let waits = aside(move || block_on(waits));
    is_left_held(&keeper.blocking_shutdown(Duration::ZERO), "import");
    until(|| waits.is_finished());
    waits.join().unwrap().unwrap();
    block_on(pool.wait()).unwrap();
    assert_eq!(pool.state(), PoolState::Stopped);
}

#[test]
fn a_pool_that_is_resumed_while_its_lease_is_given_back_asks_for_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Slow::of(folder.path(), |_| true);
    let keeper = builder(folder.path())
        .lease_store(slow.clone())
        .open()
        .unwrap();
    let fails = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    let pool = keeper.pool("import").intensity(0, LONG);
    let pool = pool
        .under_lease("import")
        .start(move |worker: Worker| {
            let fails = failing.load(Ordering::SeqCst);
            async move {
                if fails {
                    return Err("no".into());
                }
                worker.stopped().await;
                Ok(())
            }
        })
        .unwrap();
    slow.until_asked();
    assert_eq!(pool.state(), PoolState::Failed);
    fails.store(false, Ordering::SeqCst);
    pool.resume().unwrap();
    let leases = keeper.leases().unwrap();
    let waiting = || block_on(leases.status("import")).unwrap().waiting;
    // Whoever saw to the lease before is at it still. So the next in line here is this one, and nobody of the pool.
    let mut next = Box::pin(keeper.lease("import").acquire());
    begin(&mut next);
    assert_eq!(waiting(), 1);
    slow.open();
    let guard = block_on(next).unwrap();
    until(|| waiting() == 1);
    assert_eq!(pool.stats().workers.running, 0);
    block_on(guard.release()).unwrap();
    until(|| pool.stats().workers.running == 1);
    assert_eq!(waiting(), 0);
    keeper.blocking_shutdown(LONG).unwrap();
    assert_eq!(pool.stats().lease.unwrap().given_back, 2);
}

/// Leases that are free soon after nobody refreshes them any more.
fn brief(builder: KeeperBuilder, store: LmdbLeases) -> KeeperBuilder {
    let brief = Duration::from_millis(100);
    builder
        .lease_store(store)
        .lease_refresh(brief)
        .lease_expiration(15 * brief)
        .lease_poll(brief / 5)
        .lease_max_clock_skew(brief)
}

#[test]
fn i09_a_lease_whose_worker_runs_on_is_not_given_back_by_the_stop_but_expires() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let store = || LmdbLeases::open(folders[2].path()).unwrap();
    let keepers = [0, 1].map(|keeper| brief(builder(folders[keeper].path()), store()));
    let [keeper, other] = keepers.map(|builder| builder.open().unwrap());
    let (mut deaf, latched) = latch();
    let (latched, (tell, told)) = (Mutex::new(latched), mpsc::channel());
    let pool = keeper.pool("import").under_lease("import");
    let pool = pool.start_blocking(move |worker: Worker| {
        let _ = tell.send(worker.lease().expect("it has one").clone());
        latched.lock().pass();
        Ok(())
    });
    let pool = pool.unwrap();
    let lease = told.recv_timeout(PATIENCE).unwrap();
    deaf.entered();
    let stops = {
        let keeper = keeper.clone();
        aside(move || keeper.blocking_shutdown(SOON))
    };
    let lost = block_on(lease.lost());
    assert!(!lease.is_held(), "{lost}");
    let (name, looked) = (LeaseName::new("import").unwrap(), Instant::now());
    let record = block_on(async { store().look(&name).await }).unwrap();
    let expires = looked + record.unwrap().remaining.expect("it is not given back");
    let guard = block_on(other.lease("import").acquire()).unwrap();
    assert!(Instant::now() >= expires);
    assert!(guard.token() > lease.token());
    let outcome = stops.join().unwrap();
    assert!(
        matches!(outcome, Err(ShutdownError::WorkersRunOn { .. })),
        "{outcome:?}"
    );
    assert_eq!(pool.stats().workers.abandoned, 1, "it runs still");
    deaf.open();
    is_left_held(&keeper.blocking_shutdown(LONG), "import");
    assert!(guard.is_held());
    block_on(guard.release()).unwrap();
    other.blocking_shutdown(LONG).unwrap();
}

#[test]
fn i09_leases_that_are_shut_down_by_themselves_wait_for_the_worker_under_them() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Slow::of(folder.path(), |_| true);
    let keeper = builder(folder.path()).open().unwrap();
    let leases = Leases::builder(slow.clone()).start().unwrap();
    let (mut deaf, latched) = latch();
    let (latched, asked) = (Mutex::new(latched), slow.clone());
    let (tell, told) = mpsc::channel();
    let pool = keeper.pool("import").under_lease(leases.lease("import"));
    let pool = pool.start_blocking(move |_| {
        latched.lock().pass();
        let _ = tell.send(asked.asked());
        Ok(())
    });
    let pool = pool.unwrap();
    deaf.entered();
    let ends = aside(move || block_on(leases.shutdown(LONG)));
    until(|| pool.stats().workers.abandoned == 1);
    deaf.open();
    let asked = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(asked, 0, "it was given back while its worker ran");
    slow.until_asked();
    slow.open();
    assert!(ends.join().unwrap().maybe_still_held.is_empty());
    block_on(pool.stop(LONG)).unwrap();
    keeper.blocking_shutdown(LONG).unwrap();
}
