//! However a pool ends, nobody who has submitted a job is left waiting.

use std::time::Duration;

use lockkeeper::{Job, JobError, Keeper, OnFull, PoolError, PoolState, Restart};

use crate::jobs_support::{Answer, Do, Jobs, MS, No, Stage, patient, send, soon, until_queued};
use crate::support::{LONG, keeper, quick, until};

const HOLD: Do = Do::Hold(1);
const TWO: Do = Do::Echo(2);

/// One job that runs, two that are queued, two that wait for a place.
struct Crowd {
    runs: tokio::task::JoinHandle<Answer>,
    rest: Vec<tokio::task::JoinHandle<Answer>>,
}

fn crowd(jobs: &Jobs, stage: &Stage, first: Do) -> Crowd {
    let runs = send(jobs, first);
    stage.until_begun(first);
    let rest = (0..4).map(|n| send(jobs, Do::Echo(n))).collect();
    until_queued(jobs, 2, 2);
    Crowd { runs, rest }
}

fn small(keeper: &Keeper, name: &'static str) -> lockkeeper::PoolBuilder {
    patient(keeper, name).queue(2).when_full(OnFull::Wait(LONG))
}

impl Crowd {
    /// All of them are answered, those that never began with their job.
    async fn rest_answered(&mut self, is_right: impl Fn(&JobError<Do, No>) -> bool) {
        let mut handed_back = Vec::new();
        for answer in self.rest.drain(..) {
            let error = soon(answer).await.unwrap().unwrap_err();
            assert!(is_right(&error), "{error:?}");
            handed_back.extend(error.into_job());
        }
        handed_back.sort_by_key(|job| format!("{job:?}"));
        let all: Vec<_> = (0..4).map(Do::Echo).collect();
        assert_eq!(handed_back, all);
    }

    async fn all_answered(mut self, is_right: impl Fn(&JobError<Do, No>) -> bool) -> Answer {
        self.rest_answered(is_right).await;
        soon(self.runs).await.unwrap()
    }
}

fn was_stopped(error: &JobError<Do, No>) -> bool {
    matches!(error, JobError::Stopped { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_stopped_hands_back_what_has_not_begun_at_once_and_lets_finish_what_runs() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(small(&keeper, "jobs"));
    let Crowd { runs, rest } = crowd(&jobs, &stage, HOLD);
    let stopped = tokio::spawn(jobs.stop(LONG));
    for answer in rest {
        assert!(was_stopped(&soon(answer).await.unwrap().unwrap_err()));
    }
    assert!(!stopped.is_finished());
    stage.let_go();
    assert_eq!(soon(runs).await.unwrap().unwrap(), 1);
    soon(stopped).await.unwrap().unwrap();
    let late = soon(jobs.submit(TWO)).await.unwrap_err();
    assert!(was_stopped(&late) && !late.is_retryable());
    assert_eq!(late.into_job(), Some(TWO));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_does_not_end_by_the_deadline_of_a_stop_is_interrupted() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(small(&keeper, "jobs"));
    let crowd = crowd(&jobs, &stage, HOLD);
    let stopped = soon(jobs.stop(20 * MS)).await;
    assert!(stopped.is_ok(), "{stopped:?}");
    let answer = crowd.all_answered(was_stopped).await;
    assert!(matches!(answer, Err(JobError::Interrupted)), "{answer:?}");
    assert_eq!(jobs.job_stats().interrupted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_submitter_of_a_job_on_a_thread_that_nobody_can_stop_is_answered() {
    let (_folder, keeper) = keeper();
    let (go_on, held) = flume::bounded::<()>(0);
    let jobs = keeper
        .pool("threads")
        .serve_blocking(move |_: Job<u32>| {
            // Until the other end is dropped.
            let _ = held.recv();
            Ok::<_, No>(())
        })
        .unwrap();
    let answer = tokio::spawn(jobs.submit(1));
    until("it runs", || jobs.job_stats().running == 1);
    let stopped = soon(jobs.stop(20 * MS)).await;
    assert!(matches!(stopped, Err(PoolError::RunsOn { workers: 1, .. })));
    let answer = soon(answer).await.unwrap();
    assert!(matches!(answer, Err(JobError::Interrupted)), "{answer:?}");
    // And what it answers after that, nobody hears.
    drop(go_on);
    until("it ends", || jobs.stats().ended_late == 1);
    assert_eq!(jobs.job_stats().done, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_fails_answers_everything_with_why_and_takes_jobs_again_when_it_is_resumed() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let builder = quick(&keeper, "jobs").intensity(0, LONG).workers(2);
    let jobs = stage.serve(builder.queue(2).when_full(OnFull::Wait(LONG)));
    // Two workers: one holds, the other is kept until the queue is full, and panics.
    let holds = send(&jobs, Do::Hold(1));
    let other = send(&jobs, Do::Hold(2));
    until("both run", || jobs.job_stats().running == 2);
    let burns = send(&jobs, Do::Panic);
    until_queued(&jobs, 1, 0);
    let rest: Vec<_> = (0..3).map(|n| send(&jobs, Do::Echo(n))).collect();
    until_queued(&jobs, 2, 2);
    stage.let_go();
    let burnt = soon(burns).await.unwrap().unwrap_err();
    assert!(matches!(burnt, JobError::Panicked(_)), "{burnt:?}");
    stage.let_go();
    let (one, two) = (soon(holds).await.unwrap(), soon(other).await.unwrap());
    assert!(one.is_ok() && two.is_ok());
    let mut handed_back = 0;
    for answer in rest {
        match soon(answer).await.unwrap() {
            // The worker that held may have come to it before it was told to stop.
            Ok(_) => {}
            Err(JobError::PoolFailed { last, .. }) => {
                let last = last.unwrap();
                assert!(last.contains("it burns"), "{last}");
                handed_back += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    until("it has failed", || jobs.state() == PoolState::Failed);
    let late = soon(jobs.submit(TWO)).await.unwrap_err();
    assert!(matches!(late, JobError::PoolFailed { .. }) && !late.is_retryable());
    assert!(handed_back <= 3);
    jobs.resume().unwrap();
    // From the next moment on.
    let again = soon(jobs.submit(TWO)).await;
    assert_eq!(again.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_worker_left_everything_is_answered_until_there_are_more() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(
        small(&keeper, "jobs")
            .restart(Restart::Temporary)
            .quarantine_after(2),
    );
    let holds = send(&jobs, HOLD);
    stage.until_begun(HOLD);
    let burns = send(&jobs, Do::Panic);
    until_queued(&jobs, 1, 0);
    let queued = send(&jobs, TWO);
    until_queued(&jobs, 2, 0);
    stage.let_go();
    soon(holds).await.unwrap().unwrap();
    // It was to begin again, and there is nobody to do so.
    let burnt = soon(burns).await.unwrap().unwrap_err();
    assert!(matches!(burnt, JobError::Panicked(_)), "{burnt:?}");
    let left = soon(queued).await.unwrap().unwrap_err();
    assert!(matches!(left, JobError::NoWorkers { job: TWO }), "{left:?}");
    let late = soon(jobs.submit(TWO)).await.unwrap_err();
    assert!(matches!(late, JobError::NoWorkers { .. }), "{late:?}");
    jobs.scale(2).unwrap();
    let again = soon(jobs.submit(TWO)).await;
    assert_eq!(again.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_is_shut_down_or_dropped_answers_everything() {
    for is_dropped in [false, true] {
        let (_folder, keeper) = keeper();
        let stage = Stage::new();
        let jobs = stage.serve(small(&keeper, "jobs").grace(50 * MS));
        let mut crowd = crowd(&jobs, &stage, HOLD);
        if is_dropped {
            drop(keeper);
            // Nothing new is taken, and nobody waits for a place any more; what runs and what is queued is done.
            until_queued(&jobs, 2, 0);
            stage.let_go();
            let mut done = 0;
            for answer in crowd.rest.drain(..) {
                match soon(answer).await.unwrap() {
                    Ok(_) => done += 1,
                    Err(error) => assert!(was_stopped(&error), "{error:?}"),
                }
            }
            assert_eq!(done, 2);
            assert_eq!(soon(crowd.runs).await.unwrap().unwrap(), 1);
        } else {
            // It does not end, and so it is cut short.
            drop(soon(keeper.shutdown(Duration::from_millis(100))).await);
            let answer = crowd.all_answered(was_stopped).await;
            assert!(matches!(answer, Err(JobError::Interrupted)), "{answer:?}");
        }
        let late = soon(jobs.submit(TWO)).await.unwrap_err();
        assert!(was_stopped(&late), "{late:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_more_urgent_shutdown_cuts_the_jobs_short_for_which_the_first_had_time() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(small(&keeper, "jobs").grace(100 * LONG));
    let crowd = crowd(&jobs, &stage, HOLD);
    let patient = {
        let keeper = keeper.clone();
        tokio::spawn(async move { keeper.shutdown(Duration::MAX).await })
    };
    // It does what is queued, and would for ever.
    until_queued(&jobs, 2, 0);
    until("it drains", || jobs.state() == PoolState::Draining);
    soon(keeper.shutdown(Duration::ZERO)).await.unwrap();
    soon(patient).await.unwrap().unwrap();
    let answer = crowd.all_answered(was_stopped).await;
    assert!(matches!(answer, Err(JobError::Interrupted)), "{answer:?}");
    assert_eq!(jobs.stats().abandoned, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_takes_nothing_new_and_does_what_is_queued() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(small(&keeper, "jobs").quarantine_after(3));
    let holds = send(&jobs, HOLD);
    stage.until_begun(HOLD);
    let rest = [send(&jobs, Do::PanicTimes(2)), send(&jobs, TWO)];
    until_queued(&jobs, 2, 0);
    let waits = send(&jobs, Do::Echo(3));
    until_queued(&jobs, 2, 1);
    let drained = tokio::spawn(jobs.drain(LONG));
    assert!(was_stopped(&soon(waits).await.unwrap().unwrap_err()));
    assert!(was_stopped(&soon(jobs.submit(TWO)).await.unwrap_err()));
    stage.let_go();
    soon(holds).await.unwrap().unwrap();
    for answer in rest {
        assert_eq!(soon(answer).await.unwrap().unwrap(), 2);
    }
    soon(drained).await.unwrap().unwrap();
    assert_eq!(jobs.state(), PoolState::Drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_fails_while_it_drains_does_not_drain_any_more_when_it_is_resumed() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(quick(&keeper, "jobs").intensity(0, LONG).queue(2));
    let holds = send(&jobs, HOLD);
    stage.until_begun(HOLD);
    let burns = send(&jobs, Do::Panic);
    until_queued(&jobs, 1, 0);
    let drained = tokio::spawn(jobs.drain(LONG));
    until("it drains", || jobs.state() == PoolState::Draining);
    stage.let_go();
    soon(holds).await.unwrap().unwrap();
    assert!(soon(burns).await.unwrap().is_err());
    let failed = soon(drained).await.unwrap();
    assert!(
        matches!(failed, Err(PoolError::Failed { .. })),
        "{failed:?}"
    );
    jobs.resume().unwrap();
    for _ in 0..10 {
        assert_eq!(soon(jobs.submit(TWO)).await.unwrap(), 2);
    }
    let stats = jobs.stats();
    assert_eq!((stats.state, stats.failures), (PoolState::Running, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_drain_has_not_done_by_its_deadline_is_handed_back() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(small(&keeper, "jobs").grace(20 * MS));
    let holds = send(&jobs, HOLD);
    stage.until_begun(HOLD);
    let queued = send(&jobs, TWO);
    until_queued(&jobs, 1, 0);
    drop(soon(jobs.drain(30 * MS)).await);
    let left = soon(queued).await.unwrap().unwrap_err();
    assert!(was_stopped(&left), "{left:?}");
    let cut = soon(holds).await.unwrap();
    assert!(matches!(cut, Err(JobError::Interrupted)), "{cut:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_pool_is_drained_at_once() {
    let (_folder, keeper) = keeper();
    let jobs = Stage::new().serve(small(&keeper, "jobs").workers(4));
    assert_eq!(soon(jobs.submit(TWO)).await.unwrap(), 2);
    let began = std::time::Instant::now();
    soon(jobs.drain(100 * LONG)).await.unwrap();
    assert!(began.elapsed() < LONG);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_pool_is_paused_jobs_are_queued_and_none_begins() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(small(&keeper, "jobs"));
    soon(jobs.pause()).await.unwrap();
    let answer = send(&jobs, TWO);
    until_queued(&jobs, 1, 0);
    assert_eq!(jobs.stats().queued, 1);
    assert!(stage.begun().is_empty());
    jobs.resume().unwrap();
    assert_eq!(soon(answer).await.unwrap().unwrap(), 2);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let (_folder, keeper) = keeper();
    let handler = |job: Job<u32>| async move { Ok::<_, No>(*job) };
    let no_queue = keeper.pool("jobs").queue(0).serve(handler).unwrap_err();
    assert!(matches!(
        no_queue,
        PoolError::BadOption {
            option: "queue",
            ..
        }
    ));
    let too_short = Duration::from_micros(999);
    let restless = keeper
        .pool("jobs")
        .heartbeat(too_short, lockkeeper::OnSilence::Report);
    let restless = restless.serve(handler);
    assert!(matches!(
        restless,
        Err(PoolError::BadOption {
            option: "heartbeat",
            ..
        })
    ));
    let no_panic = keeper.pool("jobs").quarantine_after(0).serve(handler);
    let option = "quarantine_after";
    assert!(matches!(no_panic, Err(PoolError::BadOption { option: told, .. }) if told == option));
}
