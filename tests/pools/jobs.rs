//! Jobs that are submitted: answered, refused, late, given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{Job, JobError, OnFull, OnSilence};

use crate::jobs_support::{Do, MS, No, Stage, patient, send, soon, until_queued};
use crate::support::{LONG, keeper, until};

const HOLD: Do = Do::Hold(1);
const TWO: Do = Do::Echo(2);
const THREE: Do = Do::Echo(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_answered_by_its_handler_well_or_not_and_the_worker_goes_on() {
    let (_folder, keeper) = keeper();
    let jobs = Stage::new().serve(keeper.pool("jobs"));
    assert_eq!(soon(jobs.submit(TWO)).await.unwrap(), 2);
    let refused = soon(jobs.submit(Do::Fail)).await.unwrap_err();
    assert!(!refused.is_retryable());
    assert_eq!(refused.into_failed().unwrap(), No);
    assert_eq!(soon(jobs.submit(THREE)).await.unwrap(), 3);
    let stats = jobs.stats();
    assert_eq!((stats.failures, stats.restarts), (0, 0));
    let stats = stats.jobs.unwrap();
    assert_eq!((stats.submitted, stats.done, stats.failed), (3, 2, 1));
    assert_eq!(stats, jobs.job_stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_the_answer_of_its_job_and_a_failure_of_the_worker_and_the_others_are_served() {
    let (_folder, keeper) = keeper();
    let jobs = Stage::new().serve(patient(&keeper, "jobs"));
    let burns = send(&jobs, Do::Panic);
    let after = send(&jobs, TWO);
    let JobError::Panicked(panic) = soon(burns).await.unwrap().unwrap_err() else {
        panic!("another error");
    };
    assert_eq!(&*panic.message, "it burns");
    let place = panic.location.unwrap();
    assert!(place.contains("jobs_support.rs"), "{place}");
    assert_eq!((panic.panics, panic.quarantined), (1, None));
    assert_eq!(soon(after).await.unwrap().unwrap(), 2);
    let stats = jobs.stats();
    assert_eq!((stats.failures, stats.restarts), (1, 1));
    assert_eq!(&*stats.last_failures[0].message, "it burns");
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_a_full_queue_hands_back_what_it_refuses_or_drops() {
    let (_folder, keeper) = keeper();
    let no_time = OnFull::Wait(20 * MS);
    for on_full in [
        OnFull::Refuse,
        OnFull::DropNewest,
        OnFull::DropOldest,
        no_time,
    ] {
        let stage = Stage::new();
        let jobs = stage.serve(patient(&keeper, "jobs").queue(1).when_full(on_full));
        let holds = send(&jobs, HOLD);
        stage.until_begun(HOLD);
        let queued = send(&jobs, TWO);
        until_queued(&jobs, 1, 0);
        let third = send(&jobs, THREE);
        let refused = if on_full == OnFull::DropOldest {
            let dropped = soon(queued).await.unwrap().unwrap_err();
            stage.let_go();
            assert_eq!(soon(third).await.unwrap().unwrap(), 3);
            assert_eq!(stage.begun(), [HOLD, THREE]);
            dropped
        } else {
            let refused = soon(third).await.unwrap().unwrap_err();
            let forgotten = soon(jobs.submit_and_forget(THREE)).await;
            match on_full {
                OnFull::DropNewest => assert_eq!(forgotten.unwrap(), None),
                _ => assert_eq!(forgotten.unwrap_err().into_job(), Some(THREE)),
            }
            stage.let_go();
            assert_eq!(soon(queued).await.unwrap().unwrap(), 2);
            assert_eq!(stage.begun(), [HOLD, TWO]);
            refused
        };
        assert!(refused.is_retryable(), "{refused}");
        let expected = match (&refused, on_full) {
            (JobError::Dropped { job, on_full: told }, _) if *told == on_full => *job,
            (JobError::Full { job, waited, .. }, OnFull::Wait(time)) if *waited >= time => *job,
            (
                JobError::Full {
                    job,
                    waited,
                    capacity: 1,
                },
                OnFull::Refuse,
            ) if waited.is_zero() => *job,
            _ => panic!("{on_full:?}: {refused:?}"),
        };
        let was_dropped = if on_full == OnFull::DropOldest {
            TWO
        } else {
            THREE
        };
        assert_eq!(expected, was_dropped);
        assert_eq!(soon(holds).await.unwrap().unwrap(), 1);
        soon(jobs.stop(LONG)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_place_gets_it_in_the_order_of_arrival() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(
        patient(&keeper, "jobs")
            .queue(1)
            .when_full(OnFull::Wait(LONG)),
    );
    let holds = send(&jobs, HOLD);
    stage.until_begun(HOLD);
    let mut waiting = Vec::new();
    for n in 0..10 {
        waiting.push(send(&jobs, Do::Echo(n)));
        let n = usize::try_from(n).unwrap();
        until_queued(&jobs, 1, n);
    }
    stage.let_go();
    for (n, answer) in waiting.into_iter().enumerate() {
        assert_eq!(soon(answer).await.unwrap().unwrap() as usize, n);
    }
    soon(holds).await.unwrap().unwrap();
    let order: Vec<_> = (0..10).map(Do::Echo).collect();
    assert_eq!(stage.begun()[1..], order);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_deadline_passed_is_not_begun_and_its_submitter_hears_it_in_time() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(patient(&keeper, "jobs"));
    let holds = send(&jobs, HOLD);
    stage.until_begun(HOLD);
    let forgotten = jobs.submit(THREE).deadline(5 * MS).detach();
    assert!(soon(forgotten).await.unwrap().is_some());
    // The worker is busy for as long as the test likes: it cannot be who says so.
    let late = soon(jobs.submit(TWO).deadline(10 * MS)).await.unwrap_err();
    assert!(late.is_retryable());
    assert!(matches!(late, JobError::DeadlinePassed { waited, .. } if waited >= 10 * MS));
    assert_eq!(late.into_job(), Some(TWO));
    stage.let_go();
    soon(holds).await.unwrap().unwrap();
    assert_eq!(soon(jobs.submit(Do::Echo(4))).await.unwrap(), 4);
    assert_eq!(stage.begun(), [HOLD, Do::Echo(4)]);
    assert_eq!(jobs.job_stats().expired, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_its_deadline_the_submitter_of_a_job_that_runs_is_answered_and_it_runs_on() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(patient(&keeper, "jobs"));
    let answer = soon(jobs.submit(HOLD).deadline(20 * MS)).await;
    // On a busy machine it may not have begun in this time.
    match answer.unwrap_err() {
        JobError::DeadlinePassed { .. } => return,
        JobError::RunsOn => {}
        other => panic!("{other}"),
    }
    assert_eq!(jobs.job_stats().running, 1);
    stage.let_go();
    until("it ends", || jobs.job_stats().done == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn i12_a_job_whose_future_was_dropped_is_not_begun_and_leaves_its_place() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(
        patient(&keeper, "jobs")
            .queue(1)
            .when_full(OnFull::Wait(LONG)),
    );
    let holds = send(&jobs, HOLD);
    stage.until_begun(HOLD);
    let queued = send(&jobs, TWO);
    until_queued(&jobs, 1, 0);
    let waiting = send(&jobs, THREE);
    until_queued(&jobs, 1, 1);
    let forgotten = tokio::spawn(jobs.submit_and_forget(Do::Echo(4)));
    until_queued(&jobs, 1, 2);
    queued.abort();
    // Its place goes to the next.
    until_queued(&jobs, 1, 1);
    waiting.abort();
    until_queued(&jobs, 1, 0);
    // Taken, it is done whether anybody waits or not.
    assert!(soon(forgotten).await.unwrap().unwrap().is_some());
    // What has begun runs on.
    holds.abort();
    stage.let_go();
    until("both are done", || jobs.job_stats().done == 2);
    assert_eq!(stage.begun(), [HOLD, Do::Echo(4)]);
    assert_eq!(jobs.job_stats().gone, 2);
}

#[test]
fn threads_serve_and_threads_submit() {
    let (_folder, keeper) = keeper();
    let jobs = keeper
        .pool("threads")
        .workers(2)
        .serve_blocking(|job: Job<u32>| {
            let name = std::thread::current().name().map(str::to_owned);
            Ok::<_, No>((*job + 1, name))
        })
        .unwrap();
    let (next, thread) = jobs.submit(1).blocking().unwrap();
    assert_eq!(next, 2);
    assert!(thread.unwrap().starts_with("lockkeeper-threads-"));
    assert!(jobs.submit_and_forget(2).blocking().unwrap().is_some());
    until("it is done", || jobs.job_stats().done == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_jobs_is_not_silent_and_one_that_hangs_in_a_job_is() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let builder = patient(&keeper, "jobs").heartbeat(300 * MS, OnSilence::Replace);
    let jobs = stage.serve(builder);
    // Twice as long as it may be silent; a machine that is held up for so long is asked again.
    let mut said_so = false;
    for _ in 0..20 {
        let before = jobs.stats().silences;
        tokio::time::sleep(Duration::from_millis(700)).await;
        if jobs.stats().silences == before {
            said_so = true;
            break;
        }
    }
    assert!(said_so, "{:?}", jobs.stats());
    // It holds for ever, and its worker is replaced.
    let answer = soon(jobs.submit(HOLD)).await;
    assert!(matches!(answer, Err(JobError::Interrupted)), "{answer:?}");
    assert_eq!(soon(jobs.submit(TWO)).await.unwrap(), 2);
    assert!(jobs.stats().silences >= 1);
}

/// Every turn that is passed finds somebody, however few there are.
#[tokio::test(flavor = "multi_thread")]
async fn every_one_of_many_jobs_from_many_sides_is_answered_though_workers_panic_and_come_and_go() {
    const EACH: u32 = 250;
    let (_folder, keeper) = keeper();
    let runs = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&runs);
    let builder = patient(&keeper, "jobs").workers(4).queue(3);
    let builder = builder.when_full(OnFull::Wait(LONG)).quarantine_after(4);
    let jobs = builder
        .serve(move |job: Job<u32>| {
            let run = counter.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(run % 10 != 3 || job.attempt() > 3, "every tenth run");
                tokio::task::yield_now().await;
                Ok::<_, No>(*job)
            }
        })
        .unwrap();
    let began = Instant::now();
    let sides: Vec<_> = (0..8)
        .map(|side| {
            let jobs = jobs.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    let job = side * EACH + n;
                    assert_eq!(soon(jobs.submit(job)).await.unwrap(), job);
                }
            })
        })
        .collect();
    let mut workers = 0;
    while !sides.iter().all(tokio::task::JoinHandle::is_finished) {
        workers = workers % 4 + 1;
        jobs.scale(workers).unwrap();
        tokio::time::sleep(5 * MS).await;
        assert!(began.elapsed() < 3 * LONG, "{:?}", jobs.stats());
    }
    for side in sides {
        side.await.unwrap();
    }
    let stats = jobs.job_stats();
    assert_eq!(stats.done, u64::from(8 * EACH));
    assert_eq!(stats.begun, stats.done + stats.panics);
    assert!(stats.panics >= 100, "{stats:?}");
}

/// What a handler of this pool submits to it.
#[tokio::test(flavor = "multi_thread")]
async fn i14_a_handler_that_submits_to_its_own_pool_does_not_wait_for_itself() {
    #[derive(Debug, PartialEq, Eq)]
    enum Ask {
        Await,
        Forget,
        Nothing,
    }
    let (_folder, keeper) = keeper();
    let own = Arc::new(std::sync::OnceLock::<lockkeeper::JobPool<Ask, bool, No>>::new());
    let pool = Arc::clone(&own);
    let builder = patient(&keeper, "jobs").queue(1);
    let jobs = builder
        .when_full(OnFull::Wait(LONG))
        .serve(move |job: Job<Ask>| {
            let pool = Arc::clone(&pool);
            async move {
                let jobs = pool.get().unwrap();
                let refused = match *job {
                    Ask::Nothing => return Ok(true),
                    Ask::Await => jobs.submit(Ask::Nothing).await.unwrap_err(),
                    Ask::Forget => {
                        assert!(
                            jobs.submit_and_forget(Ask::Nothing)
                                .await
                                .unwrap()
                                .is_some()
                        );
                        jobs.submit_and_forget(Ask::Nothing).await.unwrap_err()
                    }
                };
                assert!(!refused.is_retryable());
                let is_right = matches!(&refused, JobError::InsideWorker { job: Ask::Nothing });
                Ok::<_, No>(is_right)
            }
        });
    own.set(jobs.unwrap()).ok().unwrap();
    let jobs = own.get().unwrap();
    assert!(soon(jobs.submit(Ask::Await)).await.unwrap());
    assert!(soon(jobs.submit(Ask::Forget)).await.unwrap());
    // What had a place is done.
    until("it is done", || jobs.job_stats().done == 3);
    assert_eq!(jobs.job_stats().waiting, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_pool_that_is_scaled_to_nothing_wait_as_if_it_were_paused() {
    let (_folder, keeper) = keeper();
    let jobs = Stage::new().serve(patient(&keeper, "jobs"));
    until("one runs", || jobs.stats().workers.running == 1);
    jobs.scale(0).unwrap();
    // One that was told to stop may take a job still.
    until("none is left", || {
        let workers = jobs.stats().workers;
        workers.running + workers.stopping == 0
    });
    let late = soon(jobs.submit(THREE).deadline(5 * MS)).await.unwrap_err();
    assert!(matches!(late, JobError::DeadlinePassed { .. }), "{late:?}");
    let waits = send(&jobs, TWO);
    until_queued(&jobs, 1, 0);
    jobs.scale(1).unwrap();
    assert_eq!(soon(waits).await.unwrap().unwrap(), 2);
}
