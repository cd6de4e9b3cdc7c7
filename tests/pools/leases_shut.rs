//! Leases that are shut down under a pool whose worker does not stop.

use std::time::Duration;

use lockkeeper::{Keeper, Leases, LmdbLeases, Pool, PoolLeaseState, Worker};

use crate::leases::{EXPIRATION, POLL, REFRESH, keeper_on, leases};
use crate::support::{LONG, block_on, quick, until};

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
    block_on(own.shutdown(LONG));
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
    let folder = tempfile::tempdir().unwrap();
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
