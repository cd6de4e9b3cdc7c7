//! A pool that has failed and begins anew: whoever had to do with it before hears of the failure, however soon that comes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use lockkeeper::{Job, JobError, Keeper, OnSilence, Pool, PoolError, PoolState, Restart};

use crate::jobs_support::{No, soon};
use crate::support::{LONG, block_on, keeper, quick, running, until};

/// A job that keeps the thread on which it is dropped busy until it may go on.
struct Blocks {
    began: flume::Sender<()>,
    may_go_on: flume::Receiver<()>,
}

impl Drop for Blocks {
    fn drop(&mut self) {
        let _ = self.began.send(());
        let _ = self.may_go_on.recv_timeout(2 * LONG);
    }
}

/// A job that blocks; it is told where it is dropped, and goes on when the sender is dropped.
fn blocks() -> (Blocks, flume::Receiver<()>, flume::Sender<()>) {
    let ((began, has_begun), (go_on, may_go_on)) = (flume::bounded(1), flume::bounded(0));
    (Blocks { began, may_go_on }, has_begun, go_on)
}

/// Keeps the thread that serves the pools busy, until the answer is dropped.
fn keep_busy(keeper: &Keeper) -> flume::Sender<()> {
    let jobs = keeper.pool("busy").workers(0);
    let jobs = jobs.serve(|_: Job<Blocks>| async { Ok::<(), No>(()) });
    let jobs = jobs.unwrap();
    let (job, has_begun, go_on) = blocks();
    assert!(matches!(
        jobs.submit_and_forget(job).blocking(),
        Ok(Some(_))
    ));
    drop(jobs.stop(LONG));
    has_begun.recv_timeout(LONG).unwrap();
    go_on
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_pool_that_fails_hears_of_it_though_the_pool_is_resumed_at_once() {
    let (_folder, keeper) = keeper();
    let (burn, may_burn) = flume::bounded::<()>(0);
    let jobs = quick(&keeper, "jobs").intensity(0, LONG);
    let jobs = jobs.serve(move |job: Job<u32>| {
        let may_burn = may_burn.clone();
        async move {
            if *job == 0 {
                let _ = may_burn.recv_async().await;
                panic!("it burns");
            }
            Ok::<_, No>(*job)
        }
    });
    let jobs = jobs.unwrap();
    let burns = tokio::spawn(jobs.submit(0));
    until("it runs", || jobs.job_stats().running == 1);
    let queued = tokio::spawn(jobs.submit(1));
    until("one is queued", || jobs.job_stats().queued == 1);
    let ended = jobs.wait();
    // Nobody has told the queue that the pool has failed when it is resumed.
    let go_on = keep_busy(&keeper);
    drop(burn);
    until("it has failed", || jobs.state() == PoolState::Failed);
    jobs.resume().unwrap();
    match soon(queued).await.unwrap() {
        Err(JobError::PoolFailed {
            job: 1,
            last: Some(last),
        }) => {
            assert!(last.contains("it burns"), "{last}");
        }
        other => panic!("{other:?}"),
    }
    match soon(ended).await {
        Err(PoolError::Failed {
            last: Some(last), ..
        }) => assert_eq!(&*last.message, "it burns"),
        other => panic!("{other:?}"),
    }
    // And what comes now is taken.
    let after = tokio::spawn(jobs.submit(2));
    until("it is queued", || jobs.job_stats().queued == 1);
    assert_eq!(jobs.state(), PoolState::Running);
    drop(go_on);
    assert_eq!(soon(after).await.unwrap().unwrap(), 2);
    assert!(matches!(
        soon(burns).await.unwrap(),
        Err(JobError::Panicked(_))
    ));
    let stats = jobs.stats();
    assert_eq!((stats.failures, stats.state), (1, PoolState::Running));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_drained_a_pool_that_failed_is_answered_though_it_was_resumed_since() {
    let (_folder, keeper) = keeper();
    let (burn, may_burn) = flume::bounded::<()>(0);
    let jobs = quick(&keeper, "jobs").intensity(0, LONG);
    let jobs = jobs.serve(move |job: Job<u32>| {
        let may_burn = may_burn.clone();
        async move {
            let _ = may_burn.recv_async().await;
            assert!(*job > 0, "it burns");
            Ok::<_, No>(*job)
        }
    });
    let jobs = jobs.unwrap();
    let burns = tokio::spawn(jobs.submit(0));
    until("it runs", || jobs.job_stats().running == 1);
    let drained = jobs.drain(LONG);
    drop(burn);
    assert!(soon(burns).await.unwrap().is_err());
    until("it has failed", || jobs.state() == PoolState::Failed);
    jobs.resume().unwrap();
    let drained = soon(drained).await;
    assert!(
        matches!(drained, Err(PoolError::Failed { last: Some(_), .. })),
        "{drained:?}"
    );
    assert_eq!(soon(jobs.submit(3)).await.unwrap(), 3);
    // It fails no more: whoever waits from now on waits for this life.
    let ended = jobs.wait();
    soon(jobs.stop(LONG)).await.unwrap();
    soon(ended).await.unwrap();
}

fn failed(keeper: &Keeper) -> Pool {
    let pool = quick(keeper, "failed").intensity(0, LONG);
    let pool = pool.start(|worker| async move {
        // In its second life it stays.
        if worker
            .keeper()
            .pools()
            .iter()
            .all(|pool| pool.failures == 0)
        {
            return Err("at once".into());
        }
        worker.stopped().await;
        Ok(())
    });
    let pool = pool.unwrap();
    until("it has failed", || pool.state() == PoolState::Failed);
    pool
}

/// Does one before the other, the other way round, or both at the same time.
fn meet<A: Send, B>(
    round: u32,
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B,
) -> (A, B) {
    match round % 4 {
        0 => {
            let one = one();
            (one, other())
        }
        1 => {
            let other = other();
            (one(), other)
        }
        _ => {
            let start = Barrier::new(2);
            std::thread::scope(|scope| {
                let one = scope.spawn(|| {
                    start.wait();
                    one()
                });
                start.wait();
                let other = other();
                (one.join().unwrap(), other)
            })
        }
    }
}

#[test]
fn a_resume_that_meets_a_stop_is_done_or_refused_and_nobody_hangs() {
    let (_folder, keeper) = keeper();
    for round in 0..60 {
        let pool = failed(&keeper);
        let (resumed, stopped) = meet(round, || pool.resume(), || pool.stop(LONG));
        let stopped = block_on(stopped);
        match resumed {
            Ok(()) => assert!(stopped.is_ok(), "{stopped:?}"),
            Err(PoolError::Ended { .. }) => {
                assert!(
                    matches!(stopped, Err(PoolError::Failed { .. })),
                    "{stopped:?}"
                );
            }
            other => panic!("{other:?}"),
        }
        assert!(pool.state().is_over() && running(&pool) == 0);
        assert!(matches!(pool.resume(), Err(PoolError::Ended { .. })));
        let _ = block_on(pool.wait());
        until("it is forgotten", || keeper.find_pool("failed").is_err());
    }
}

#[test]
fn a_resume_that_meets_the_end_of_the_keeper_is_done_or_refused_and_nobody_hangs() {
    for round in 0..8 {
        let (_folder, keeper) = keeper();
        let pool = failed(&keeper);
        let stop = || keeper.blocking_shutdown(LONG);
        let (resumed, stopped) = meet(round, || pool.resume(), stop);
        stopped.unwrap();
        assert!(
            matches!(resumed, Ok(()) | Err(PoolError::Ended { .. })),
            "{resumed:?}"
        );
        assert!(pool.state().is_over() && running(&pool) == 0);
        let _ = block_on(pool.wait());
        assert!(matches!(pool.resume(), Err(PoolError::Ended { .. })));
    }
}

#[test]
fn a_job_that_blocks_where_it_is_dropped_keeps_nobody_from_scaling() {
    let (_folder, keeper) = keeper();
    let (burn, may_burn) = flume::bounded::<()>(0);
    let jobs = quick(&keeper, "jobs").restart(Restart::Temporary);
    let jobs = jobs.serve(move |job: Job<Option<Blocks>>| {
        let may_burn = may_burn.clone();
        async move {
            let _ = may_burn.recv_async().await;
            assert!(job.is_some(), "it burns");
            Ok::<(), No>(())
        }
    });
    let jobs = Arc::new(jobs.unwrap());
    assert!(matches!(
        jobs.submit_and_forget(None).blocking(),
        Ok(Some(_))
    ));
    let (job, has_begun, go_on) = blocks();
    assert!(matches!(
        jobs.submit_and_forget(Some(job)).blocking(),
        Ok(Some(_))
    ));
    // The last worker ends, nobody is left to do the other job, and it is dropped.
    drop(burn);
    has_begun.recv_timeout(LONG).unwrap();
    assert_eq!(jobs.state(), PoolState::Finished);
    let (tell, told) = flume::bounded(1);
    let scaling = {
        let jobs = Arc::clone(&jobs);
        std::thread::spawn(move || tell.send(jobs.scale(2)))
    };
    let scaled = told.recv_timeout(LONG / 2);
    drop(go_on);
    scaling.join().unwrap().unwrap();
    scaled.unwrap().unwrap();
    until("it runs", || running(jobs.pool()) == 1);
    assert!(matches!(
        jobs.submit(None).blocking(),
        Err(JobError::Panicked(_))
    ));
}

#[test]
fn a_worker_whose_start_took_long_is_not_silent_before_it_has_begun() {
    const LIMIT: Duration = Duration::from_secs(1);
    let (_folder, keeper) = keeper();
    let pool = quick(&keeper, "late").heartbeat(LIMIT, OnSilence::Replace);
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    let pool = pool.workers(0).start(move |worker| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            while !worker.is_stopping() {
                worker.heartbeat();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        }
    });
    let pool = pool.unwrap();
    // It is decided that it starts, and whoever starts it is busy.
    let go_on = keep_busy(&keeper);
    pool.scale(1).unwrap();
    let decided = Instant::now();
    until("it is late", || decided.elapsed() > LIMIT + LIMIT / 10);
    assert_eq!(begun.load(Ordering::SeqCst), 0);
    drop(go_on);
    until("it runs", || begun.load(Ordering::SeqCst) == 1);
    block_on(pool.pause()).unwrap();
    let stats = pool.stats();
    assert_eq!((stats.silences, stats.failures), (0, 0));
}
