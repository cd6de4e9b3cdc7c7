//! Leases that are shut down under a pool whose worker does not stop, or not yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lockkeeper::{Keeper, Leases, LmdbLeases, Pool, PoolLeaseState, PoolState, Worker};

use crate::leases::{EXPIRATION, POLL, REFRESH, keeper_on, leases};
use crate::support::{LONG, block_on, lease_folder, quick, running, until};

/// A worker on a thread that does not stop when it is told to.
pub struct Deaf {
    pub pool: Pool,
    pub end: flume::Sender<()>,
}

impl Deaf {
    pub fn start(pool: lockkeeper::PoolBuilder) -> Self {
        let (end, may_end) = flume::bounded(1);
        let (begin, has_begun) = flume::bounded(1);
        let pool = pool.start_blocking(move |worker: Worker| {
            let _ = begin.try_send(());
            while !worker.pause_for(LONG) {}
            let _ = may_end.recv();
            Ok(())
        });
        let pool = pool.unwrap();
        // Not before: a worker whose lease is lost by then does not begin.
        has_begun.recv_timeout(LONG).unwrap();
        Self { pool, end }
    }
}

/// A keeper, and leases of the application's own.
fn with_own_leases() -> (tempfile::TempDir, Keeper, Leases) {
    let (folder, keeper) = crate::support::keeper();
    let own = Leases::builder(LmdbLeases::open(folder.path().join("own")).unwrap());
    let own = own.refresh(REFRESH).expiration(EXPIRATION).poll(POLL);
    let own = own.max_clock_skew(Duration::from_millis(100));
    (folder, keeper, own.start().unwrap())
}

#[test]
fn a_lease_that_is_lost_because_its_leases_are_shut_down_is_counted_once() {
    let (_folder, keeper, own) = with_own_leases();
    let deaf = Deaf::start(quick(&keeper, "import").under_lease(own.lease("import")));
    // It is waited for no longer than the store keeps it.
    assert_eq!(block_on(own.shutdown(Duration::MAX)).maybe_still_held, []);
    until("nobody sees to it any more", || {
        leases(&deaf.pool).state == PoolLeaseState::Idle
    });
    assert_eq!(leases(&deaf.pool).lost, 1);
    drop(deaf.end);
    block_on(deaf.pool.stop(LONG)).unwrap();
    assert_eq!(leases(&deaf.pool).lost, 1);
}

#[test]
fn a_worker_that_runs_on_when_the_leases_are_shut_down_is_counted() {
    let (_folder, keeper, own) = with_own_leases();
    let deaf = Deaf::start(
        quick(&keeper, "import")
            .workers(1)
            .partitioned(own.lease("import")),
    );
    block_on(own.shutdown(LONG));
    until("it is counted", || leases(&deaf.pool).overrun == 1);
    assert_eq!(leases(&deaf.pool).lost, 1);
    drop(deaf.end);
    block_on(deaf.pool.stop(LONG)).unwrap();
    assert_eq!(leases(&deaf.pool).overrun, 1);
}

#[test]
fn a_worker_that_runs_on_when_the_keeper_is_shut_down_is_counted() {
    let folder = lease_folder();
    let (_own, keeper) = keeper_on(LmdbLeases::open(folder.path()).unwrap());
    let deaf = Deaf::start(quick(&keeper, "import").under_lease("import"));
    block_on(keeper.shutdown(Duration::from_millis(20))).unwrap_err();
    until("it is counted", || leases(&deaf.pool).overrun == 1);
    assert_eq!(leases(&deaf.pool).lost, 1);
    drop(deaf.end);
    // Whatever became of its lease.
    let _ = block_on(keeper.shutdown(LONG));
    assert_eq!(leases(&deaf.pool).overrun, 1);
}

#[test]
fn partitions_that_become_free_while_a_keeper_stops_take_no_time_from_its_workers() {
    // A machine that is held up for longer than a lease lasts is asked again.
    assert!((1..=5).any(|_| nothing_is_lost_while_partitions_become_free()));
}

/// Answers whether no lease was lost; else nothing is said.
fn nothing_is_lost_while_partitions_become_free() -> bool {
    let folder = lease_folder();
    let keepers = [(); 3].map(|()| keeper_on(LmdbLeases::open(folder.path()).unwrap()));
    let [(_, slow), (_, quickly), (_, other)] = &keepers;
    let builder = |keeper: &Keeper| {
        let pool = quick(keeper, "import").workers(4);
        // Far less than the stop gives.
        pool.grace(Duration::from_millis(10)).partitioned("import")
    };
    let idle = |worker: Worker| async move {
        worker.stopped().await;
        Ok(())
    };
    let (finish, may_finish) = flume::bounded::<()>(0);
    let finished = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&finished);
    let busy = builder(slow).start(move |worker: Worker| {
        let (may_finish, finished) = (may_finish.clone(), Arc::clone(&counted));
        async move {
            worker.stopped().await;
            let _ = may_finish.recv_async().await;
            finished.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let busy = busy.unwrap();
    let brief = builder(quickly).start(idle).unwrap();
    until("both have their share", || {
        (running(&busy), running(&brief)) == (2, 2)
    });
    let abandoned = busy.stats().abandoned;
    let stops = {
        let keeper = slow.clone();
        std::thread::spawn(move || keeper.blocking_shutdown(LONG))
    };
    until("it was told", || busy.state() == PoolState::Stopping);
    block_on(quickly.shutdown(LONG)).unwrap();
    // What has become free is for those who stay.
    let next = builder(other).start(idle).unwrap();
    until("the next one has it", || {
        running(&next) == 2 && leases(&next).members == 1
    });
    let stopping = busy.stats().workers.stopping;
    drop(finish);
    stops.join().unwrap().unwrap();
    if leases(&busy).lost > 0 {
        return false;
    }
    assert_eq!(stopping, 2);
    assert_eq!(finished.load(Ordering::SeqCst), 2);
    assert_eq!(busy.stats().abandoned, abandoned);
    let lease = leases(&busy);
    assert_eq!((lease.given_back, lease.lost), (lease.acquired, 0));
    until("the next one has all", || running(&next) == 4);
    true
}
