//! How pools end with their keeper.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{Keeper, PoolError, PoolState, ShutdownError};

use crate::support::{LONG, block_on, keeper, quick, running, until};

/// The threads of this process whose names begin so.
fn threads(prefix: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

#[test]
fn no_thread_of_a_pool_outlives_the_keeper() {
    for round in 0..10 {
        let (_folder, keeper) = keeper();
        let tasks = keeper.pool("tasks").workers(4).start(|worker| async move {
            worker.stopped().await;
            Ok(())
        });
        // The kernel keeps 15 bytes of a name.
        let blocking = keeper.pool("Q").workers(3).start_blocking(|worker| {
            while !worker.pause_for(LONG) {}
            Ok(())
        });
        let (tasks, blocking) = (tasks.unwrap(), blocking.unwrap());
        until("all threads are there", || threads("lockkeeper-Q-") >= 3);
        block_on(keeper.shutdown(LONG)).unwrap();
        assert_eq!(threads("lockkeeper-Q-"), 0, "in round {round}");
        assert!(tasks.state().is_over() && blocking.state().is_over());
    }
}

#[test]
fn a_worker_that_blocks_on_is_named_by_the_shutdown_and_joined_when_it_ends() {
    let (folder, keeper) = keeper();
    let (finish, may_finish) = flume::bounded::<()>(0);
    let pool = keeper
        .pool("stuck")
        .workers(2)
        .start_blocking(move |worker| {
            if worker.number() == 1 {
                let _ = may_finish.recv();
            }
            while !worker.pause_for(LONG) {}
            Ok(())
        });
    let pool = pool.unwrap();
    until("both run", || running(&pool) == 2);
    // Long enough for the other one, also on a busy machine.
    let stopped = block_on(keeper.shutdown(Duration::from_secs(1)));
    let Err(ShutdownError::WorkersRunOn { pool: name, what }) = &stopped else {
        panic!("{stopped:?}");
    };
    assert_eq!((&**name, &**what), ("stuck", "worker 1 runs on"));
    drop(finish);
    block_on(keeper.shutdown(LONG)).unwrap();
    assert_eq!(pool.stats().ended_late, 1);
    drop(Keeper::open(folder.path()).unwrap());
}

#[test]
fn a_paused_a_failed_and_a_finished_pool_end_with_the_keeper_too() {
    let (_folder, keeper) = keeper();
    let paused = keeper.pool("paused").start(|worker| async move {
        worker.stopped().await;
        Ok(())
    });
    let failed = quick(&keeper, "failed").intensity(0, LONG);
    let failed = failed.start(|_| async { Err("at once".into()) }).unwrap();
    let finished = quick(&keeper, "finished").restart(lockkeeper::Restart::Temporary);
    let finished = finished.start(|_| async { Ok(()) }).unwrap();
    let paused = paused.unwrap();
    block_on(paused.pause()).unwrap();
    block_on(failed.wait()).unwrap_err();
    block_on(finished.wait()).unwrap();
    block_on(keeper.shutdown(LONG)).unwrap();
    let states = [paused, failed, finished].map(|pool| pool.state());
    assert_eq!(
        states,
        [PoolState::Stopped, PoolState::Failed, PoolState::Stopped]
    );
}

#[test]
fn a_worker_that_waits_for_the_end_of_its_keeper_is_told_that_it_would_wait_for_itself() {
    let (_folder, keeper) = keeper();
    let refused = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&refused);
    let pool = keeper.pool("suicidal").start(move |worker| {
        let seen = Arc::clone(&seen);
        async move {
            let stopped = worker.keeper().shutdown(LONG).await;
            let inside = matches!(stopped, Err(ShutdownError::InsideWorker { .. }));
            seen.store(inside, Ordering::SeqCst);
            worker.stopped().await;
            Ok(())
        }
    });
    until("it is refused", || refused.load(Ordering::SeqCst));
    assert_eq!(pool.unwrap().state(), PoolState::Running);
}

#[test]
fn a_worker_may_stop_its_own_pool_but_not_wait_for_that() {
    let (_folder, keeper) = keeper();
    let (answered, answer) = flume::bounded(1);
    let pool = keeper.pool("own").workers(2).start(move |worker| {
        let answered = answered.clone();
        async move {
            if worker.number() == 0 {
                let own = worker.keeper().find_pool("own")?;
                answered.send(own.stop(LONG).await)?;
            }
            worker.stopped().await;
            Ok(())
        }
    });
    let refused = answer.recv_timeout(LONG).unwrap();
    assert!(
        matches!(refused, Err(PoolError::InsideWorker { .. })),
        "{refused:?}"
    );
    block_on(pool.unwrap().wait()).unwrap();
}

#[test]
fn an_application_that_stops_pools_itself_can_start_and_stop_them_for_ever() {
    let (_folder, keeper) = keeper();
    let began = Instant::now();
    let runs = Arc::new(AtomicUsize::new(0));
    for _ in 0..100 {
        let runs = Arc::clone(&runs);
        let pool = keeper.pool("again").workers(2).start(move |worker| {
            runs.fetch_add(1, Ordering::SeqCst);
            async move {
                worker.stopped().await;
                Ok(())
            }
        });
        block_on(pool.unwrap().stop(LONG)).unwrap();
    }
    assert!(runs.load(Ordering::SeqCst) <= 200);
    assert!(began.elapsed() < LONG);
    until("none is left", || keeper.pools().is_empty());
    let mut by_name = BTreeMap::new();
    for stats in block_on(keeper.stats()).pools {
        *by_name.entry(stats.name).or_insert(0) += 1;
    }
    assert!(by_name.is_empty(), "{by_name:?}");
}
