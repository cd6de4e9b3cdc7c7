//! What happens when workers fail, panic, or fall silent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockkeeper::{
    FailureKind, OnSilence, PoolError, PoolState, Restart, Strategy, Worker, WorkerState,
};

use crate::support::{LONG, block_on, keeper, quick, running, until};

/// A worker that fails so often, in the way it is told, and then runs until it is stopped.
async fn fails_first(worker: Worker, times: u64) -> Result<(), lockkeeper::BoxError> {
    if worker.restarts() < times {
        return Err(format!("failure {}", worker.restarts() + 1).into());
    }
    worker.stopped().await;
    Ok(())
}

#[test]
fn a_worker_that_panics_is_told_of_with_message_and_place_and_started_again() {
    let (_folder, keeper) = keeper();
    let line = Arc::new(AtomicUsize::new(0));
    let place = Arc::clone(&line);
    let pool = quick(&keeper, "panics").workers(2).start(move |worker| {
        let place = Arc::clone(&place);
        async move {
            tokio::task::yield_now().await;
            if worker.number() == 1 && worker.restarts() == 0 {
                place.store(line!() as usize + 1, Ordering::SeqCst);
                panic!("no {}", "pears");
            }
            worker.stopped().await;
            Ok(())
        }
    });
    let pool = pool.unwrap();
    until("it was started again", || {
        pool.stats().restarts == 1 && running(&pool) == 2
    });
    let stats = pool.stats();
    assert_eq!((stats.failures, stats.last_failures.len()), (1, 1));
    let failure = &stats.last_failures[0];
    assert_eq!(
        (failure.worker, failure.restarts, failure.counted),
        (1, 0, true)
    );
    assert_eq!(
        (failure.kind, &*failure.message),
        (FailureKind::Panic, "no pears")
    );
    let place = format!("failing.rs:{}:", line.load(Ordering::SeqCst));
    assert!(
        failure.location.as_deref().unwrap().contains(&place),
        "{failure}"
    );
    assert!(failure.at.elapsed().unwrap() < LONG);
}

#[test]
fn a_panic_on_a_thread_and_one_before_the_first_await_are_failures_like_any_other() {
    let (_folder, keeper) = keeper();
    let on_thread = quick(&keeper, "thread").start_blocking(|worker| {
        assert!(worker.restarts() > 0, "on a thread");
        while !worker.pause_for(LONG) {}
        Ok(())
    });
    let at_once = quick(&keeper, "factory").start(|worker| {
        assert!(worker.restarts() > 0, "in the factory");
        async move {
            worker.stopped().await;
            Ok(())
        }
    });
    for (pool, message) in [(on_thread, "on a thread"), (at_once, "in the factory")] {
        let pool = pool.unwrap();
        until("it was started again", || {
            pool.stats().restarts == 1 && running(&pool) == 1
        });
        let failure = &pool.stats().last_failures[0];
        assert_eq!(
            (failure.kind, &*failure.message),
            (FailureKind::Panic, message)
        );
        assert!(failure.location.as_deref().unwrap().contains("failing.rs"));
    }
}

#[test]
fn a_panic_hook_of_the_application_is_called_as_without_us() {
    let (_folder, keeper) = keeper();
    // The tests of a binary share its hook: this one only counts what it is about.
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() == Some("for the hook") {
            count.fetch_add(1, Ordering::SeqCst);
        } else {
            before(panic);
        }
    }));
    let pool = quick(&keeper, "hooked").restart(Restart::Temporary);
    let pool = pool.start(|_| async { panic!("for the hook") }).unwrap();
    block_on(pool.wait()).unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[test]
fn transient_workers_are_started_again_after_a_failure_only_and_temporary_ones_never() {
    let (_folder, keeper) = keeper();
    let transient = quick(&keeper, "transient").restart(Restart::Transient);
    let transient = transient
        .start(|worker| async move {
            match worker.restarts() {
                0 => Err("not yet".into()),
                _ => Ok(()),
            }
        })
        .unwrap();
    block_on(transient.wait()).unwrap();
    let stats = transient.stats();
    assert_eq!(
        (stats.restarts, stats.failures, stats.state),
        (1, 1, PoolState::Finished)
    );

    let temporary = quick(&keeper, "temporary").restart(Restart::Temporary);
    let temporary = temporary.start(|_| async { Err("never".into()) }).unwrap();
    block_on(temporary.wait()).unwrap();
    let stats = temporary.stats();
    assert_eq!(
        (stats.restarts, stats.failures, stats.state),
        (0, 1, PoolState::Finished)
    );
    assert_eq!(stats.states, [WorkerState::Done]);
}

#[test]
fn more_failures_than_allowed_fail_the_pool_which_keeps_the_last_and_can_begin_anew() {
    let (_folder, keeper) = keeper();
    let pool = quick(&keeper, "broken")
        .workers(2)
        .intensity(3, Duration::from_secs(60));
    let pool = pool
        .start(|worker: Worker| async move {
            if worker.number() == 0 {
                fails_first(worker, 4).await
            } else {
                worker.stopped().await;
                Ok(())
            }
        })
        .unwrap();
    let failed = block_on(pool.wait()).unwrap_err();
    let PoolError::Failed { name, last } = &failed else {
        panic!("{failed:?}");
    };
    assert_eq!(
        (&**name, &*last.as_ref().unwrap().message),
        ("broken", "failure 4")
    );
    assert!(
        failed.to_string().contains("worker 0 failed: failure 4"),
        "{failed}"
    );
    assert_eq!((pool.state(), running(&pool)), (PoolState::Failed, 0));
    assert_eq!(pool.stats().restarts, 3);
    assert_eq!(
        keeper.find_pool("broken").unwrap().state(),
        PoolState::Failed
    );

    pool.resume().unwrap();
    // It had been started again three times; it fails once more, which is allowed again.
    until("all run", || {
        running(&pool) == 2 && pool.stats().restarts == 4
    });
    assert_eq!(pool.state(), PoolState::Running);
}

#[test]
fn one_for_all_stops_the_others_from_the_last_and_starts_all_from_the_first() {
    let (_folder, keeper) = keeper();
    let log = Arc::new(Mutex::new(Vec::new()));
    let (fail, may_fail) = flume::bounded::<()>(0);
    let shared = Arc::clone(&log);
    let pool = quick(&keeper, "group")
        .workers(3)
        .strategy(Strategy::OneForAll);
    let pool = pool.start(move |worker| {
        let (log, may_fail) = (Arc::clone(&shared), may_fail.clone());
        async move {
            if worker.number() == 1 && worker.restarts() == 0 {
                let _ = may_fail.recv_async().await;
                return Err("one for all".into());
            }
            worker.stopped().await;
            log.lock().unwrap().push(worker.number());
            Ok(())
        }
    });
    let pool = pool.unwrap();
    until("all run", || running(&pool) == 3);
    drop(fail);
    until("all run again", || {
        pool.stats().restarts == 3 && running(&pool) == 3
    });
    assert_eq!(*log.lock().unwrap(), [2, 0]);
    assert_eq!(pool.stats().failures, 1);
}

#[test]
fn a_silent_worker_is_reported_once_and_heard_again() {
    let (_folder, keeper) = keeper();
    let (go_on, may_go_on) = flume::bounded::<()>(0);
    let pool = keeper
        .pool("silent")
        .heartbeat(Duration::from_millis(20), OnSilence::Report);
    let pool = pool.start_blocking(move |worker| {
        let _ = may_go_on.recv();
        while !worker.pause_for(Duration::from_millis(1)) {
            worker.heartbeat();
        }
        Ok(())
    });
    let pool = pool.unwrap();
    until("it is silent", || pool.stats().workers.silent == 1);
    assert_eq!(pool.stats().states, [WorkerState::Silent]);
    // More than one interval later it is still the same silence.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(pool.stats().silences, 1);
    drop(go_on);
    until("it is heard", || pool.stats().workers.silent == 0);
    assert_eq!((pool.stats().failures, running(&pool)), (0, 1));
}

#[test]
fn a_silent_async_worker_is_replaced_and_dropped_at_its_next_await() {
    let (_folder, keeper) = keeper();
    let pool = quick(&keeper, "replaced").heartbeat(Duration::from_millis(30), OnSilence::Replace);
    let pool = pool.start(|worker| async move {
        if worker.restarts() == 0 {
            std::future::pending::<()>().await;
        }
        while !worker.is_stopping() {
            worker.heartbeat();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    });
    let pool = pool.unwrap();
    until("it was replaced", || {
        let stats = pool.stats();
        stats.restarts >= 1 && stats.ended_late == stats.abandoned
    });
    assert_eq!(pool.stats().last_failures[0].kind, FailureKind::Silence);
}

#[test]
fn a_silent_blocking_worker_is_abandoned_and_counted_until_it_ends() {
    let (_folder, keeper) = keeper();
    let (finish, may_finish) = flume::bounded::<()>(0);
    let pool = quick(&keeper, "abandoned").intensity(1, Duration::from_secs(60));
    let pool = pool.heartbeat(Duration::from_millis(100), OnSilence::Replace);
    let pool = pool.start_blocking(move |worker| {
        if worker.restarts() == 0 {
            let _ = may_finish.recv();
            assert!(worker.is_stopping(), "it was told when it was replaced");
            return Ok(());
        }
        while !worker.pause_for(Duration::from_millis(5)) {
            worker.heartbeat();
        }
        Ok(())
    });
    let pool = pool.unwrap();
    until("another one runs beside it", || {
        let workers = pool.stats().workers;
        (workers.running, workers.abandoned) == (1, 1)
    });
    drop(finish);
    until("it has ended", || pool.stats().workers.abandoned == 0);
    assert_eq!((pool.stats().abandoned, pool.stats().ended_late), (1, 1));
}

#[test]
fn a_worker_that_blocks_where_it_must_not_holds_up_no_other_pools_supervision() {
    let (_folder, keeper) = keeper();
    let (finish, may_finish) = flume::bounded::<()>(0);
    let pool = quick(&keeper, "blocks").heartbeat(Duration::from_millis(20), OnSilence::Report);
    // As many as the runtime can have threads, and more.
    let pool = pool.workers(9).start(move |_| {
        let may_finish = may_finish.clone();
        async move {
            let _ = may_finish.recv();
            Ok(())
        }
    });
    let pool = pool.unwrap();
    let other = keeper.pool("threads").start_blocking(|worker| {
        while !worker.pause_for(LONG) {}
        Ok(())
    });
    until("silence is seen all the same", || pool.stats().silences > 1);
    block_on(other.unwrap().stop(LONG)).unwrap();
    drop(finish);
}

#[test]
fn what_fails_while_it_is_told_to_stop_is_noted_and_does_not_count() {
    let (_folder, keeper) = keeper();
    let pool = quick(&keeper, "sore loser").intensity(0, Duration::from_secs(60));
    let pool = pool.start(|worker| async move {
        worker.stopped().await;
        Err("at the end".into())
    });
    let pool = pool.unwrap();
    until("it runs", || running(&pool) == 1);
    block_on(pool.pause()).unwrap();
    assert_eq!(pool.state(), PoolState::Paused);
    let stats = pool.stats();
    assert!(!stats.last_failures[0].counted);
    assert_eq!(&*stats.last_failures[0].message, "at the end");
    pool.resume().unwrap();
    until("it runs again", || running(&pool) == 1);
    block_on(pool.stop(LONG)).unwrap();
}

#[test]
fn only_the_last_failures_are_kept() {
    let (_folder, keeper) = keeper();
    let pool = quick(&keeper, "many").intensity(100, Duration::from_secs(60));
    let pool = pool.start(|worker| fails_first(worker, 40)).unwrap();
    until("it has failed often", || {
        pool.stats().restarts == 40 && running(&pool) == 1
    });
    let stats = pool.stats();
    assert_eq!((stats.failures, stats.last_failures.len()), (40, 16));
    assert_eq!(&*stats.last_failures[15].message, "failure 40");
}

#[test]
fn an_error_is_kept_with_its_sources() {
    #[derive(Debug, thiserror::Error)]
    #[error("the import stopped")]
    struct Stopped(#[source] std::io::Error);
    let (_folder, keeper) = keeper();
    let pool = quick(&keeper, "sources").restart(Restart::Temporary);
    let pool =
        pool.start(|_| async { Err(Stopped(std::io::Error::other("no more paper")).into()) });
    let pool = pool.unwrap();
    block_on(pool.wait()).unwrap();
    let message = &pool.stats().last_failures[0].message;
    assert_eq!(&**message, "the import stopped: no more paper");
}

#[test]
fn a_pool_that_failed_and_is_served_no_more_is_not_resumed() {
    let (_folder, keeper) = keeper();
    let start = |name: &str| {
        let pool = keeper.pool(name).intensity(0, LONG);
        let pool = pool.start(|_| async { Err("at once".into()) }).unwrap();
        block_on(pool.wait()).unwrap_err();
        pool
    };
    let is_refused = |pool: &lockkeeper::Pool| {
        let state = PoolState::Failed;
        matches!(pool.resume(), Err(PoolError::Ended { state: told, .. }) if told == state)
    };
    let replaced = start("again");
    until("its name is free", || {
        let other = keeper.pool("again").start(|worker| async move {
            worker.stopped().await;
            Ok(())
        });
        other.is_ok()
    });
    assert!(is_refused(&replaced));
    let stopped = start("stopped");
    block_on(stopped.stop(LONG)).unwrap_err();
    assert!(is_refused(&stopped));
    until("it is forgotten", || keeper.find_pool("stopped").is_err());
    let left = start("left");
    block_on(keeper.shutdown(LONG)).unwrap();
    assert!(is_refused(&left));
}

#[test]
fn a_waker_that_panics_takes_no_supervision_along() {
    struct Burns;
    impl std::task::Wake for Burns {
        fn wake(self: Arc<Self>) {
            panic!("a waker burns");
        }
    }
    let (_folder, keeper) = keeper();
    let pool = keeper.pool("steady").start(|worker| async move {
        worker.stopped().await;
        Ok(())
    });
    let pool = pool.unwrap();
    until("it runs", || running(&pool) == 1);
    let waker = Arc::new(Burns).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut wait = std::pin::pin!(pool.wait());
    assert!(wait.as_mut().poll(&mut cx).is_pending());
    pool.scale(2).unwrap();
    let other = quick(&keeper, "other").start(|_| async { Ok(()) });
    until("another one is served", || {
        let stats = other.as_ref().unwrap().stats();
        stats.restarts > 0
    });
    block_on(pool.stop(LONG)).unwrap();
}
