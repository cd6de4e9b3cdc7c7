//! In the thread that serves the leases, and in their core.

use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::error::{LeaseError, ShutdownError};
use crate::{Fence, LeaseGuard, Leases, LmdbLeases, LostReason, PoolLeaseState, Worker};

fn acquire(keeper: &Keeper, name: &'static str) -> Result<LeaseGuard, LeaseError> {
    run(keeper.lease(name).acquire())
}

#[test]
fn i09_a_panic_in_the_leases_loses_them_all_tells_all_who_wait_and_others_begin_anew() {
    for place in ["a step of the leases", "the leases' driver"] {
        let (_folder, keeper) = keeper();
        let guard = acquire(&keeper, "a").expect("free");
        let waiting = {
            let keeper = keeper.clone();
            std::thread::spawn(move || acquire(&keeper, "a"))
        };
        let leases = keeper.leases().expect("leases");
        until("it waits", || {
            run(leases.status("a")).is_ok_and(|status| status.waiting == 1)
        });
        keeper.bombs(Part::Leases).set(place);
        // It goes on with the next refresh, at the latest.
        let reason = run(guard.lost());
        assert_eq!(reason, LostReason::Shutdown, "{place}");
        assert!(!guard.is_held());
        let answer = waiting.join().expect("no panic");
        assert!(
            matches!(answer, Err(LeaseError::ActorPanicked(_))),
            "{answer:?}"
        );
        let refused = run(leases.acquire("b"));
        assert!(
            matches!(refused, Err(LeaseError::ActorPanicked(_))),
            "{refused:?}"
        );
        let released = run(guard.release());
        assert!(released.is_err(), "it may be held until it expires");
        let left = run(leases.shutdown(LONG)).maybe_still_held;
        assert_eq!(
            left.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            ["a"]
        );

        // The keeper's are started anew; what was held is somebody else's until it expires.
        let b = acquire(&keeper, "b").expect("free");
        assert!(b.is_held());
        let busy = run(keeper.lease("a").try_acquire());
        assert!(matches!(busy, Err(LeaseError::Busy { .. })), "{busy:?}");
        assert_eq!(run(keeper.stats()).panics.leases, 1);
        run(b.release()).expect("released");
        run(keeper.shutdown(LONG)).expect("stopped");
    }
}

/// Leases that are free soon after nobody refreshes them any more.
fn keeper_with_brief_leases() -> (TempDir, Keeper) {
    keeper_with_leases(Duration::from_millis(300), Duration::from_secs(4))
}

/// A keeper that polls often. A call of the store may take three refreshes, or a sixth of the expiration.
pub(super) fn keeper_with_leases(refresh: Duration, expiration: Duration) -> (TempDir, Keeper) {
    let folder = tempfile::tempdir().expect("a folder");
    let often = Duration::from_millis(100);
    let keeper = Keeper::builder()
        .path(folder.path())
        .lease_refresh(refresh)
        .lease_expiration(expiration)
        .lease_poll(often)
        .lease_max_clock_skew(often)
        .open()
        .expect("a keeper");
    (folder, keeper)
}

#[test]
fn i09_workers_under_leases_that_a_panic_has_ended_are_told_and_run_again_under_new_ones() {
    for place in ["a step of the leases", "the leases' driver"] {
        let (_folder, keeper) = keeper_with_brief_leases();
        let tokens: Arc<Mutex<Vec<Fence>>> = Arc::default();
        let seen = Arc::clone(&tokens);
        let whole = keeper.pool("whole").under_lease("whole");
        // It hears of the end of its lease by being told alone.
        let whole = whole.start_blocking(move |worker: Worker| {
            seen.lock().push(worker.lease().expect("a lease").token());
            while !worker.pause_for(LONG) {}
            Ok(())
        });
        let whole = whole.expect("a pool");
        let parts = keeper.pool("parts").workers(2).partitioned("parts");
        let parts = parts.start(|worker: Worker| async move {
            worker.stopped().await;
            Ok(())
        });
        let parts = parts.expect("a pool");
        let lease = |pool: &crate::Pool| pool.stats().lease.expect("it has leases");
        until("both run", || {
            tokens.lock().len() == 1 && parts.stats().workers.running == 2
        });
        keeper.bombs(Part::Leases).set(place);
        until("the worker was told, and runs again", || {
            tokens.lock().len() == 2
        });
        until("those of the other run again", || {
            lease(&parts).acquired == 4 && parts.stats().workers.running == 2
        });
        assert!(tokens.lock().is_sorted_by(|one, other| one < other));
        for (pool, leases) in [(&whole, 1), (&parts, 2)] {
            let stats = lease(pool);
            assert_eq!((stats.lost, stats.acquired), (leases, 2 * leases));
            assert_eq!(stats.state, PoolLeaseState::Held);
            assert_eq!(pool.stats().failures, 0);
        }
        run(keeper.shutdown(LONG)).expect("stopped");
        assert_eq!(lease(&whole).given_back, 1);
    }
}

#[test]
fn a_worker_that_runs_on_when_a_panic_has_ended_its_lease_is_counted_once_and_others_get_the_lease()
{
    for (name, partitioned) in [("whole", false), ("parts/0", true)] {
        let (_folder, keeper) = keeper_with_brief_leases();
        let (end, may_end) = flume::bounded::<()>(0);
        let (begin, has_begun) = flume::bounded(1);
        let pool = match partitioned {
            false => keeper.pool("whole").under_lease("whole"),
            true => keeper.pool("parts").partitioned("parts"),
        };
        let pool = pool.start_blocking(move |worker: Worker| {
            let _ = begin.try_send(());
            while !worker.pause_for(LONG) {}
            // It was told, and does not care.
            let _ = may_end.recv();
            Ok(())
        });
        let pool = pool.expect("a pool");
        let lease = || pool.stats().lease.expect("it has one");
        has_begun.recv_timeout(LONG).expect("it begins");
        keeper.bombs(Part::Leases).set("the leases' driver");
        until("it is counted", || lease().overrun == 1);
        assert_eq!(lease().lost, 1);
        until("the pool is about to ask", || {
            let lease = lease();
            lease.state == PoolLeaseState::WaitingForLease
                && lease.share == partitioned.then_some(1)
        });
        let leases = keeper.leases().expect("others have begun");
        let is_free = || {
            let record = run(leases.holder(name)).expect("an answer");
            record.is_none_or(|record| record.remaining.is_none())
        };
        until("it is free", is_free);
        // A few polls, in which a pool that asks would get it.
        std::thread::sleep(Duration::from_millis(350));
        let other = run(leases.lease(name).try_acquire()).expect("nobody asks for it");
        assert_eq!((lease().acquired, lease().overrun), (1, 1));
        run(other.release()).expect("released");
        drop(end);
        until("it runs again", || pool.stats().workers.running == 1);
        assert_eq!((lease().overrun, pool.stats().ended_late), (1, 1));
        run(keeper.shutdown(LONG)).expect("stopped");
    }
}

#[test]
fn a_pool_under_leases_of_the_applications_own_says_when_a_panic_has_ended_them() {
    let (folder, keeper) = keeper();
    let store = LmdbLeases::open(folder.path().join("own")).expect("a store");
    let own = Leases::builder(store).start().expect("leases");
    let pool = keeper.pool("whole").under_lease(own.lease("whole"));
    let pool = pool.start_blocking(|worker: Worker| {
        while !worker.pause_for(LONG) {}
        Ok(())
    });
    let pool = pool.expect("a pool");
    until("it runs", || pool.stats().workers.running == 1);
    own.supervision().bombs.set("a step of the leases");
    until("its worker was told", || pool.stats().workers.running == 0);
    until("it says so", || {
        let lease = pool.stats().lease.expect("it has one");
        let error = lease.last_error.unwrap_or_default();
        lease.state == PoolLeaseState::Idle && error.contains("a bomb in a step of the leases")
    });
    run(pool.stop(LONG)).expect("stopped");
    run(keeper.shutdown(LONG)).expect("stopped");
}

#[test]
fn the_thread_of_leases_that_a_panic_has_ended_is_joined_by_the_stop() {
    let (_folder, keeper) = keeper();
    let broken = keeper.leases().expect("leases");
    let (tell, is_kept) = std::sync::mpsc::channel();
    let (let_go, kept) = std::sync::mpsc::channel::<()>();
    broken.spawn(async move {
        let _ = tell.send(());
        let _ = kept.recv();
    });
    is_kept.recv_timeout(LONG).expect("it runs");
    keeper.bombs(Part::Leases).set("a step of the leases");
    let refused = acquire(&keeper, "a");
    assert!(
        matches!(refused, Err(LeaseError::ActorPanicked(_))),
        "{refused:?}"
    );
    let guard = acquire(&keeper, "a").expect("others begin anew");
    run(guard.release()).expect("released");
    let outcome = run(keeper.shutdown(Duration::ZERO));
    assert!(
        matches!(outcome, Err(ShutdownError::TimedOut { .. })),
        "{outcome:?}"
    );
    drop(let_go);
    run(keeper.shutdown(LONG)).expect("stopped");
}
