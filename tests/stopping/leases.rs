//! Leases are given back each on its own, and their threads end with the keeper; so do pools under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use lockkeeper::{LeaseName, LeaseStore, PoolState, ShutdownError, Worker};

use crate::begun::{LONG, SOON};
use crate::rt::{PATIENCE, aside, begin, block_on, builder, until};
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
