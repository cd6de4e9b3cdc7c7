//! In the actor of the pools, over orders that must not be carried out twice; and threads of workers that the system does not give.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::error::{JobError, PoolError, RetryError};
use crate::{
    Backoff, DrainPool, DropQuarantined, FailureKind, Job, JobId, ListPools, PausePool, Pool,
    PoolBuilder, PoolState, PoolStatsQuery, QuarantineQuery, ResumePool, RetryQuarantined,
    ScalePool, StopPool,
};

/// Where an order has been carried out, and its answer is on its way.
const DONE: &str = "having asked a pool";
const THREAD: &str = "a thread of a worker";

/// Restarts do not wait.
fn quick(keeper: &Keeper, name: &'static str) -> PoolBuilder {
    let none = Backoff::new(Duration::ZERO, Duration::ZERO, 1.0);
    keeper.pool(name).backoff(none)
}

fn steady(keeper: &Keeper, name: &'static str) -> Pool {
    let pool = keeper.pool(name).start(|worker| async move {
        worker.stopped().await;
        Ok(())
    });
    pool.expect("a pool")
}

fn is_lost<T>(answer: &Result<T, PoolError>) -> bool {
    matches!(answer, Err(PoolError::ActorPanicked(panicked)) if panicked.part == Part::WorkerPool)
}

fn is_bomb(panicked: &crate::ActorPanicked) -> bool {
    panicked.part == Part::WorkerPool && panicked.message.contains("a bomb in")
}

fn scale(pool: &str, workers: usize) -> ScalePool {
    ScalePool {
        pool: pool.into(),
        workers,
    }
}

/// Has the actor panic over a message, with another one behind it.
macro_rules! goes_off {
    ($keeper:expr, $name:literal, $message:expr, $error:path) => {
        $keeper.bombs(Part::WorkerPool).set($name);
        let next = PoolStatsQuery("steady".into());
        let (first, second) =
            run(async { tokio::join!($keeper.send($message), $keeper.send(next)) });
        assert!(matches!(&first, Err($error(panicked)) if is_bomb(panicked)), "{}", $name);
        assert!(second.is_ok(), "the next one is served");
    };
}

#[test]
fn a_panic_over_an_order_to_a_pool_is_answered_and_the_order_is_not_carried_out() {
    let (_folder, keeper) = keeper();
    let pool = steady(&keeper, "steady");
    let (name, deadline): (Arc<str>, _) = ("steady".into(), LONG);
    goes_off!(
        keeper,
        "ScalePool",
        scale("steady", 2),
        PoolError::ActorPanicked
    );
    goes_off!(
        keeper,
        "PausePool",
        PausePool(Arc::clone(&name)),
        PoolError::ActorPanicked
    );
    goes_off!(
        keeper,
        "ResumePool",
        ResumePool(Arc::clone(&name)),
        PoolError::ActorPanicked
    );
    let drain = DrainPool {
        pool: Arc::clone(&name),
        deadline,
    };
    goes_off!(keeper, "DrainPool", drain, PoolError::ActorPanicked);
    let stop = StopPool {
        pool: name,
        deadline,
    };
    goes_off!(keeper, "StopPool", stop, PoolError::ActorPanicked);
    assert_eq!((pool.state(), pool.stats().target), (PoolState::Running, 1));
    assert!(keeper.bombs(Part::WorkerPool).are_spent());
    assert_eq!(run(keeper.stats()).panics.worker_pool, 5);
    run(keeper.send(scale("steady", 2))).expect("the next order is carried out");
    assert_eq!(pool.stats().target, 2);
}

#[test]
fn so_is_one_over_a_message_about_a_quarantine() {
    let (_folder, keeper) = keeper();
    let _pool = steady(&keeper, "steady");
    let (pool, job): (Arc<str>, _) = ("steady".into(), JobId(1));
    goes_off!(
        keeper,
        "QuarantineQuery",
        QuarantineQuery(Arc::clone(&pool)),
        PoolError::ActorPanicked
    );
    let retry = RetryQuarantined {
        pool: Arc::clone(&pool),
        job,
    };
    goes_off!(keeper, "RetryQuarantined", retry, RetryError::ActorPanicked);
    let drop = DropQuarantined { pool, job };
    goes_off!(keeper, "DropQuarantined", drop, PoolError::ActorPanicked);
    // A list has no error: it is answered all the same.
    keeper.bombs(Part::WorkerPool).set(DONE);
    assert_eq!(run(keeper.send(ListPools)).len(), 1);
    assert!(keeper.bombs(Part::WorkerPool).are_spent());
}

#[test]
fn an_order_that_was_carried_out_when_a_panic_took_its_answer_is_not_carried_out_again() {
    let (_folder, keeper) = keeper();
    let pool = steady(&keeper, "steady");
    let bombs = keeper.bombs(Part::WorkerPool);
    bombs.set(DONE);
    assert!(is_lost(&run(keeper.send(scale("steady", 2)))));
    assert_eq!(pool.stats().target, 2);

    // This one has to wait, and is no handler's any more when it panics.
    let (finish, may_finish) = flume::bounded::<()>(0);
    let slow = keeper.pool("slow").start(move |worker| {
        let may_finish = may_finish.clone();
        async move {
            worker.stopped().await;
            let _ = may_finish.recv_async().await;
            Ok(())
        }
    });
    let slow = slow.expect("a pool");
    until("it runs", || slow.stats().workers.running == 1);
    bombs.set(DONE);
    let paused = run(async {
        let pause = keeper.send(PausePool("slow".into()));
        let others = async {
            while slow.state() != PoolState::Pausing {
                tokio::task::yield_now().await;
            }
            // Whoever has it paused twice undoes what others do meanwhile.
            slow.resume().expect("resumed");
            drop(finish);
        };
        tokio::join!(pause, others).0
    });
    assert!(is_lost(&paused), "{paused:?}");
    assert_eq!(slow.state(), PoolState::Running);

    let (name, deadline): (Arc<str>, _) = ("steady".into(), LONG);
    bombs.set(DONE);
    let resume = ResumePool(Arc::clone(&name));
    assert!(is_lost(&run(keeper.send(resume))));
    bombs.set(DONE);
    let stop = StopPool {
        pool: name,
        deadline,
    };
    assert!(is_lost(&run(keeper.send(stop))));
    assert_eq!(pool.state(), PoolState::Stopped);
    bombs.set(DONE);
    let drain = DrainPool {
        pool: "slow".into(),
        deadline,
    };
    assert!(is_lost(&run(keeper.send(drain))));
    assert_eq!(slow.state(), PoolState::Drained);
    assert!(bombs.are_spent());
    assert_eq!(run(keeper.stats()).panics.worker_pool, 5);
}

#[test]
fn an_order_whose_answer_never_came_is_not_carried_out_behind_the_back_of_whoever_asked() {
    let (_folder, keeper) = keeper();
    let pool = steady(&keeper, "steady");
    keeper.bombs(Part::WorkerPool).set("answering");
    assert!(is_lost(&run(keeper.send(scale("steady", 2)))));
    assert_eq!(pool.stats().target, 1);
    // A question does no harm, and is asked again.
    keeper.bombs(Part::WorkerPool).set("answering");
    let stats = run(keeper.send(PoolStatsQuery("steady".into())));
    assert_eq!(stats.expect("an answer").target, 1);
}

#[test]
fn a_job_that_is_taken_out_of_quarantine_by_message_is_so_once() {
    let (_folder, keeper) = keeper();
    let jobs = quick(&keeper, "jobs").quarantine_after(1);
    let jobs = jobs
        .serve(|_: Job<()>| async {
            if true {
                panic!("it burns")
            } else {
                Ok::<(), ()>(())
            }
        })
        .expect("a pool");
    run(jobs.submit(())).expect_err("it panicked");
    keeper.bombs(Part::WorkerPool).set(DONE);
    let drop = DropQuarantined {
        pool: "jobs".into(),
        job: JobId(1),
    };
    // Carried out twice it would be answered that there was none.
    assert!(is_lost(&run(keeper.send(drop))));
    assert!(jobs.quarantine().list().is_empty());
}

#[test]
fn a_worker_whose_thread_the_system_does_not_give_has_failed_and_is_started_again() {
    let (_folder, keeper) = keeper();
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    keeper.bombs(Part::WorkerPool).set(THREAD);
    let pool = quick(&keeper, "threads")
        .workers(2)
        .start_blocking(move |worker| {
            counted.fetch_add(1, Ordering::SeqCst);
            while !worker.pause_for(LONG) {}
            Ok(())
        });
    let pool = pool.expect("a pool");
    until("both run", || begun.load(Ordering::SeqCst) == 2);
    let stats = pool.stats();
    assert_eq!(
        (stats.failures, stats.restarts, stats.workers.running),
        (1, 1, 2)
    );
    let failure = &stats.last_failures[0];
    assert_eq!(
        (failure.kind, failure.worker, failure.counted),
        (FailureKind::NotStarted, 0, true)
    );
    assert!(!failure.message.is_empty());
    run(pool.stop(LONG)).expect("stopped");
    assert_eq!(pool.stats().workers.abandoned, 0);
}

#[test]
fn a_pool_whose_threads_the_system_does_not_give_fails_and_says_so_and_nobody_hangs() {
    let (_folder, keeper) = keeper();
    for _ in 0..3 {
        keeper.bombs(Part::WorkerPool).set(THREAD);
    }
    // Nobody can take it before the pool has failed.
    let jobs = quick(&keeper, "jobs").intensity(2, LONG).workers(0);
    let jobs = jobs
        .serve_blocking(|job: Job<u8>| Ok::<u8, ()>(*job))
        .expect("a pool");
    let waits = run(async {
        let waits = tokio::spawn(jobs.submit(7));
        while jobs.job_stats().queued == 0 {
            tokio::task::yield_now().await;
        }
        jobs.scale(1).expect("scaled");
        waits.await.expect("an answer")
    });
    match waits {
        Err(JobError::PoolFailed {
            job: 7,
            last: Some(last),
        }) => {
            assert!(last.contains("worker 0 was not started"), "{last}");
        }
        other => panic!("{other:?}"),
    }
    match run(jobs.wait()) {
        Err(PoolError::Failed {
            last: Some(last), ..
        }) => {
            assert_eq!(last.kind, FailureKind::NotStarted);
        }
        other => panic!("{other:?}"),
    }
    // There are threads again.
    jobs.resume().expect("resumed");
    assert_eq!(run(jobs.submit(8)).expect("an answer"), 8);

    // One that waits for its restart keeps nobody from stopping.
    keeper.bombs(Part::WorkerPool).set(THREAD);
    let later = Backoff::new(LONG * 100, LONG * 100, 1.0);
    let waiting = keeper
        .pool("waits")
        .backoff(later)
        .start_blocking(|_| Ok(()));
    let waiting = waiting.expect("a pool");
    until("it waits", || waiting.stats().workers.waiting == 1);
    run(keeper.shutdown(LONG)).expect("stopped");
    assert!(waiting.state().is_over() && jobs.state().is_over());
}
