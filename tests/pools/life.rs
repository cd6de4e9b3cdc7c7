//! How pools start, change their size, pause, and end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::heed::types::Str;
use lockkeeper::{Job, Keeper, PoolError, PoolState, Restart, Strategy, Worker};

use crate::support::{LONG, block_on, keeper, running, until};

#[test]
fn each_worker_has_its_number_and_a_keeper_that_commits() {
    let (_folder, keeper) = keeper();
    let done = keeper.blocking_database::<Str, Str>("done").unwrap();
    let pool = keeper.pool("import").workers(4).restart(Restart::Transient);
    let pool = pool
        .start(move |worker: Worker| async move {
            assert_eq!((worker.pool(), worker.restarts()), ("import", 0));
            let number = worker.number().to_string();
            let put = worker
                .keeper()
                .update(move |txn| Ok(done.put(txn, &number, "yes")?));
            put.await?;
            Ok(())
        })
        .unwrap();
    block_on(pool.wait()).unwrap();
    assert_eq!(pool.state(), PoolState::Finished);
    assert_eq!(pool.stats().workers.done, 4);
    for number in ["0", "1", "2", "3"] {
        let found = keeper.blocking_view(move |txn| Ok(done.get(txn, number)?.map(str::to_owned)));
        assert_eq!(found.unwrap().as_deref(), Some("yes"));
    }
}

#[test]
fn blocking_workers_run_on_threads_with_the_name_of_the_pool_and_their_number() {
    let (_folder, keeper) = keeper();
    let names = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&names);
    let pool = keeper.pool("io").workers(2).start_blocking(move |worker| {
        let name = thread::current().name().map(str::to_owned);
        seen.lock().unwrap().insert(name.unwrap());
        while !worker.pause_for(LONG) {}
        Ok(())
    });
    let pool = pool.unwrap();
    until("both have started", || names.lock().unwrap().len() == 2);
    let expected = ["lockkeeper-io-0", "lockkeeper-io-1"].map(str::to_owned);
    assert_eq!(*names.lock().unwrap(), BTreeSet::from(expected));
    let began = Instant::now();
    block_on(pool.stop(LONG)).unwrap();
    assert!(began.elapsed() < LONG / 2, "they sleep until they are told");
    assert_eq!(pool.state(), PoolState::Stopped);
}

#[test]
fn a_pool_is_scaled_while_it_runs_and_the_last_numbers_go_first() {
    let (_folder, keeper) = keeper();
    let pool = keeper.pool("scaled").workers(2).start(|worker| async move {
        worker.stopped().await;
        Ok(())
    });
    let pool = pool.unwrap();
    until("two run", || running(&pool) == 2);
    pool.scale(5).unwrap();
    until("five run", || running(&pool) == 5);
    pool.scale(1).unwrap();
    until("one is left", || pool.stats().states.len() == 1);
    assert_eq!((running(&pool), pool.stats().target), (1, 1));
    pool.scale(0).unwrap();
    until("none is left", || pool.stats().states.is_empty());
    assert_eq!(pool.state(), PoolState::Running);
    let refused = pool.scale(1_000_000);
    assert!(matches!(
        refused,
        Err(PoolError::TooManyWorkers { limit: 4096, .. })
    ));
    assert_eq!(pool.stats().failures, 0);
}

#[test]
fn a_pause_ends_the_runs_and_a_resume_begins_new_ones() {
    let (_folder, keeper) = keeper();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let pool = keeper.pool("paused").workers(3).start(move |worker| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            worker.stopped().await;
            Ok(())
        }
    });
    let pool = pool.unwrap();
    until("all run", || running(&pool) == 3);
    block_on(pool.pause()).unwrap();
    assert_eq!((pool.state(), running(&pool)), (PoolState::Paused, 0));
    assert_eq!(pool.stats().workers.idle, 3);
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    pool.resume().unwrap();
    until("all run again", || running(&pool) == 3);
    until("their bodies too", || runs.load(Ordering::SeqCst) == 6);
    assert_eq!(pool.stats().restarts, 0, "none of them had failed");
}

#[test]
fn a_drain_tells_the_workers_and_waits_for_them() {
    let (_folder, keeper) = keeper();
    let (finish, may_finish) = flume::bounded::<()>(0);
    let pool = keeper.pool("drained").workers(2).start(move |worker| {
        let may_finish = may_finish.clone();
        async move {
            worker.stopped().await;
            let _ = may_finish.recv_async().await;
            Ok(())
        }
    });
    let pool = pool.unwrap();
    until("both run", || running(&pool) == 2);
    let drained = pool.drain(LONG);
    until("both were told", || pool.stats().workers.stopping == 2);
    assert_eq!(pool.state(), PoolState::Draining);
    assert!(matches!(
        pool.resume(),
        Err(PoolError::Ended {
            state: PoolState::Draining,
            ..
        })
    ));
    drop(finish);
    block_on(drained).unwrap();
    assert_eq!(pool.state(), PoolState::Drained);
    assert!(matches!(pool.scale(3), Err(PoolError::Ended { .. })));
    until("it is forgotten", || keeper.find_pool("drained").is_err());
}

#[test]
fn an_async_worker_that_does_not_stop_is_dropped_at_its_next_await() {
    struct Told(Arc<AtomicUsize>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (_folder, keeper) = keeper();
    let dropped = Arc::new(AtomicUsize::new(0));
    let waiting = Arc::new(AtomicUsize::new(0));
    let (count, waits) = (Arc::clone(&dropped), Arc::clone(&waiting));
    let pool = keeper.pool("deaf").workers(2).start(move |_| {
        let (told, waits) = (Told(Arc::clone(&count)), Arc::clone(&waits));
        async move {
            let _told = told;
            waits.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    let pool = pool.unwrap();
    until("both wait", || waiting.load(Ordering::SeqCst) == 2);
    assert_eq!(running(&pool), 2);
    block_on(pool.stop(Duration::from_millis(20))).unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
    let stats = pool.stats();
    assert_eq!(
        (stats.abandoned, stats.ended_late, stats.workers.abandoned),
        (2, 2, 0)
    );
}

#[test]
fn a_blocking_worker_that_does_not_stop_is_abandoned_counted_and_its_late_end_noted() {
    let (_folder, keeper) = keeper();
    let (finish, may_finish) = flume::bounded::<()>(0);
    let pool = keeper.pool("stuck").start_blocking(move |_| {
        let _ = may_finish.recv();
        Ok(())
    });
    let pool = pool.unwrap();
    until("it runs", || running(&pool) == 1);
    let stopped = block_on(pool.stop(Duration::from_millis(20)));
    assert!(
        matches!(stopped, Err(PoolError::RunsOn { workers: 1, .. })),
        "{stopped:?}"
    );
    assert_eq!(
        (pool.state(), pool.stats().workers.abandoned),
        (PoolState::Stopped, 1)
    );
    drop(finish);
    until("its end is noted", || pool.stats().ended_late == 1);
    assert_eq!(pool.stats().workers.abandoned, 0);
}

#[test]
fn workers_of_a_group_stop_from_the_last_to_the_first() {
    let (_folder, keeper) = keeper();
    let order = Arc::new(Mutex::new(Vec::new()));
    let ended = Arc::clone(&order);
    let pool = keeper
        .pool("chain")
        .workers(4)
        .strategy(Strategy::RestForOne);
    let pool = pool.start(move |worker| {
        let ended = Arc::clone(&ended);
        async move {
            worker.stopped().await;
            ended.lock().unwrap().push(worker.number());
            Ok(())
        }
    });
    let pool = pool.unwrap();
    until("all run", || running(&pool) == 4);
    block_on(pool.stop(LONG)).unwrap();
    assert_eq!(*order.lock().unwrap(), [3, 2, 1, 0]);
}

#[test]
fn names_are_checked_and_belong_to_one_pool_that_runs() {
    let (_folder, keeper) = keeper();
    let start = |name: &str| {
        keeper.pool(name).start(|worker| async move {
            worker.stopped().await;
            Ok(())
        })
    };
    let long = "x".repeat(201);
    for bad in ["", "a\0b", &long] {
        assert!(
            matches!(start(bad), Err(PoolError::BadName { .. })),
            "{bad:?}"
        );
    }
    let first = start("import").unwrap();
    assert!(matches!(start("import"), Err(PoolError::NameTaken { .. })));
    block_on(first.stop(LONG)).unwrap();
    let second = start("import").unwrap();
    assert_eq!(
        keeper.find_pool("import").unwrap().state(),
        PoolState::Running
    );
    drop((first, second));
    assert!(keeper.find_pool("import").is_ok(), "the keeper owns it");
    assert!(matches!(
        keeper.find_pool("other"),
        Err(PoolError::NoSuchPool { .. })
    ));
}

#[test]
fn dropping_the_last_keeper_stops_the_pools_also_while_workers_have_handles() {
    let (folder, keeper) = keeper();
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let begun = Arc::new(AtomicUsize::new(0));
    let count_begun = Arc::clone(&begun);
    let pool = keeper.pool("import").workers(3).start(move |worker| {
        let (count, begun) = (Arc::clone(&count), Arc::clone(&count_begun));
        async move {
            let _mine = worker.keeper().clone();
            begun.fetch_add(1, Ordering::SeqCst);
            worker.stopped().await;
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let pool = pool.unwrap();
    until("all run", || begun.load(Ordering::SeqCst) == 3);
    drop(keeper);
    until("all have ended", || ended.load(Ordering::SeqCst) == 3);
    until("the folder is free", || Keeper::open(folder.path()).is_ok());
    assert_eq!(pool.state(), PoolState::Stopped);
}

#[test]
fn a_shutdown_stops_the_pools_first_and_takes_no_more() {
    let (_folder, keeper) = keeper();
    let db = keeper.blocking_database::<Str, Str>("last words").unwrap();
    let said = Arc::new(Mutex::new(None));
    let said_by = Arc::clone(&said);
    let pool = keeper.pool("import").start(move |worker| {
        let said_by = Arc::clone(&said_by);
        async move {
            worker.stopped().await;
            let last = worker
                .keeper()
                .update(move |txn| Ok(db.put(txn, "a", "b")?));
            *said_by.lock().unwrap() = Some(last.await.is_ok());
            Ok(())
        }
    });
    let pool = pool.unwrap();
    until("it runs", || running(&pool) == 1);
    block_on(keeper.shutdown(LONG)).unwrap();
    assert_eq!(
        *said.lock().unwrap(),
        Some(true),
        "it could commit what it had begun"
    );
    assert!(pool.state().is_over());
    let late = keeper.pool("late").start(|_| async { Ok(()) });
    assert!(matches!(late, Err(PoolError::ShuttingDown)), "{late:?}");
}

#[test]
fn a_factory_that_captures_nothing_may_be_an_async_closure() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let (_folder, keeper) = keeper();
    let pool = keeper.pool("x").workers(2).start(async |worker| {
        RUNS.fetch_add(1, Ordering::SeqCst);
        worker.stopped().await;
        Ok(())
    });
    let pool = pool.unwrap();
    until("both run", || RUNS.load(Ordering::SeqCst) == 2);
    block_on(pool.stop(LONG)).unwrap();
    let jobs = keeper
        .pool("y")
        .serve(async |job: Job<u8>| Ok::<_, ()>(*job + 1));
    assert_eq!(block_on(jobs.unwrap().submit(1)).unwrap(), 2);
}
