//! Leases that are over while the thread that would tell of it is blocked.

use std::sync::Arc;

use lockkeeper::{Keeper, LeaseView, LmdbLeases, Worker};
use parking_lot::Mutex;

use crate::leases::{Door, keeper_on, leases};
use crate::support::{LONG, lease_folder, quick, running, until};

/// The leases under which runs were begun, and whether each was held then.
type Begun = Arc<Mutex<Vec<(LeaseView, bool)>>>;

fn note(begun: &Begun, worker: &Worker) -> usize {
    let lease = worker.lease().unwrap();
    let mut begun = begun.lock();
    begun.push((lease.clone(), lease.is_held()));
    begun.len()
}

/// Has `meanwhile` happen when the first lease is over and the thread of the leases, which would tell of it, is blocked.
fn when_over_and_untold(
    begun: &Begun,
    keeper: &Keeper,
    blocked: &Mutex<()>,
    meanwhile: impl FnOnce(),
) {
    let blocked = blocked.lock();
    let lease = begun.lock()[0].0.clone();
    until("it is over", || !lease.is_held());
    meanwhile();
    // What that leads to is carried out before another pool is started.
    let (tell, told) = flume::bounded(1);
    let next = keeper.pool("next").start(move |worker| {
        let tell = tell.clone();
        async move {
            tell.send(())?;
            worker.stopped().await;
            Ok(())
        }
    });
    told.recv_timeout(LONG).unwrap();
    drop((next, blocked));
}

#[test]
fn i09_an_async_worker_does_not_begin_under_a_lease_that_is_over_though_nobody_has_told_yet() {
    let folder = lease_folder();
    let door = Door::before(LmdbLeases::open(folder.path()).unwrap());
    let (_own, keeper) = keeper_on(door.clone());
    let begun = Begun::default();
    let noted = Arc::clone(&begun);
    let pool = quick(&keeper, "import").under_lease("import");
    let pool = pool.start(move |worker: Worker| {
        // Before its future is there.
        note(&noted, &worker);
        async move {
            worker.stopped().await;
            Ok(())
        }
    });
    let pool = pool.unwrap();
    until("it runs", || begun.lock().len() == 1);
    when_over_and_untold(&begun, &keeper, &door.blocked, || pool.scale(2).unwrap());
    until("both run", || {
        leases(&pool).acquired == 2 && begun.lock().len() >= 3
    });
    assert!(begun.lock().iter().all(|(_, was_held)| *was_held));
    assert_eq!((pool.stats().failures, leases(&pool).lost), (0, 1));
}

#[test]
fn i09_a_restart_that_is_due_when_the_lease_is_over_waits_though_nobody_has_told_yet() {
    let folder = lease_folder();
    let door = Door::before(LmdbLeases::open(folder.path()).unwrap());
    let (_own, keeper) = keeper_on(door.clone());
    let begun = Begun::default();
    let noted = Arc::clone(&begun);
    let (fail, may_fail) = flume::bounded::<()>(1);
    let pool = quick(&keeper, "import").under_lease("import");
    let pool = pool.start_blocking(move |worker: Worker| {
        if note(&noted, &worker) == 1 {
            let _ = may_fail.recv();
            return Err("it is time".into());
        }
        while !worker.pause_for(LONG) {}
        Ok(())
    });
    let pool = pool.unwrap();
    until("it runs", || begun.lock().len() == 1);
    when_over_and_untold(&begun, &keeper, &door.blocked, || {
        fail.send(()).unwrap();
        until("it is started again", || pool.stats().restarts == 1);
    });
    until("it runs again", || {
        leases(&pool).acquired == 2 && running(&pool) == 1
    });
    until("it has begun", || begun.lock().len() >= 2);
    assert!(begun.lock().iter().all(|(_, was_held)| *was_held));
    // What it was told in between is no failure.
    assert_eq!((pool.stats().failures, leases(&pool).lost), (1, 1));
}
