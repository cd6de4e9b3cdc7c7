//! Jobs that panic again and again.

use lockkeeper::{
    DropQuarantined, JobError, JobId, JobPanic, PoolError, PoolStatsQuery, QuarantineQuery,
    RetryError, RetryQuarantined,
};

use crate::jobs_support::{Answer, Do, Stage, patient, send, soon, until_queued};
use crate::support::{LONG, keeper, until};

const TWO: Do = Do::Echo(2);

#[track_caller]
fn panic_of(answer: Answer) -> JobPanic {
    match answer {
        Err(JobError::Panicked(panic)) => panic,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_begun_again_until_it_has_panicked_so_often_in_a_row_and_others_go_first() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(patient(&keeper, "jobs").quarantine_after(3));
    let holds = send(&jobs, Do::Hold(1));
    stage.until_begun(Do::Hold(1));
    let twice = send(&jobs, Do::PanicTimes(2));
    until_queued(&jobs, 1, 0);
    let after = send(&jobs, TWO);
    until_queued(&jobs, 2, 0);
    stage.let_go();
    // Twice is not three times.
    assert_eq!(soon(twice).await.unwrap().unwrap(), 2);
    soon(after).await.unwrap().unwrap();
    soon(holds).await.unwrap().unwrap();
    let again = Do::PanicTimes(2);
    assert_eq!(stage.begun(), [Do::Hold(1), again, TWO, again, again]);
    assert!(jobs.quarantine().list().is_empty());
    assert_eq!(jobs.stats().restarts, 2);

    let panic = panic_of(soon(jobs.submit(Do::PanicTimes(7))).await);
    assert_eq!((&*panic.message, panic.panics), ("attempt 3", 3));
    let [put] = &jobs.quarantine().list()[..] else {
        panic!("one is put aside");
    };
    assert_eq!(Some(put.id), panic.quarantined);
    assert_eq!(
        (*put.job, put.panics, put.at),
        (Do::PanicTimes(7), 3, panic.at)
    );
    assert_eq!(put.panic, panic);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_quarantine_is_retried_or_dropped_by_hand() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(patient(&keeper, "jobs").quarantine_after(2));
    let quarantine = jobs.quarantine();
    let first = panic_of(soon(jobs.submit(Do::PanicUntilMended)).await);
    let second = panic_of(soon(jobs.submit(Do::Panic)).await);
    let (first, second) = (first.quarantined.unwrap(), second.quarantined.unwrap());
    let ids = || {
        quarantine
            .list()
            .iter()
            .map(|put| put.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(), [first, second]);

    // Nothing has changed: it is back, behind the other.
    quarantine.retry(first).unwrap();
    until("it is back", || ids() == [second, first]);
    assert_eq!(quarantine.list()[1].panics, 4);
    stage.mend();
    quarantine.retry(first).unwrap();
    until("it is done", || jobs.job_stats().done == 1);
    assert_eq!(ids(), [second]);

    let dropped = quarantine.drop(second).unwrap();
    assert_eq!((dropped.id, *dropped.job), (second, Do::Panic));
    assert!(ids().is_empty());
    assert!(quarantine.drop(second).is_none());
    let unknown = quarantine.retry(second).unwrap_err();
    assert_eq!(unknown, RetryError::Unknown(second));
    let stats = jobs.job_stats();
    assert_eq!(
        (stats.put_aside, stats.retried, stats.quarantined),
        (3, 2, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_a_full_quarantine_keeps_what_it_has_and_says_so_to_who_comes() {
    let (_folder, keeper) = keeper();
    let builder = patient(&keeper, "jobs").quarantine_after(1);
    let jobs = Stage::new().serve(builder.quarantine_limit(1));
    let kept = panic_of(soon(jobs.submit(Do::Panic)).await);
    let lost = panic_of(soon(jobs.submit(Do::Panic)).await);
    assert_eq!((kept.quarantined, lost.quarantined), (Some(JobId(1)), None));
    assert_eq!(jobs.quarantine().list().len(), 1);
    assert_eq!(jobs.job_stats().not_put_aside, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_nobody_waits_for_any_more_is_not_begun_again() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(patient(&keeper, "jobs").quarantine_after(3));
    // Forgotten is not given up: this one is begun until it is put aside.
    let taken = soon(jobs.submit_and_forget(Do::Panic)).await.unwrap();
    until("it is put aside", || jobs.job_stats().quarantined == 1);
    assert_eq!(jobs.quarantine().list()[0].id, taken.unwrap());
    assert_eq!(stage.begun(), [Do::Panic; 3]);

    // And this one had begun when its submitter went away.
    let holds = send(&jobs, Do::Hold(1));
    stage.until_begun(Do::Hold(1));
    let queued = send(&jobs, Do::PanicTimes(9));
    until_queued(&jobs, 1, 0);
    queued.abort();
    until_queued(&jobs, 0, 0);
    stage.let_go();
    soon(holds).await.unwrap().unwrap();
    assert_eq!(soon(jobs.submit(TWO)).await.unwrap(), 2);
    assert!(!stage.begun().contains(&Do::PanicTimes(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_the_quarantine_can_be_read_and_nothing_is_retried() {
    let (_folder, keeper) = keeper();
    let jobs = Stage::new().serve(patient(&keeper, "jobs").quarantine_after(1));
    let put = panic_of(soon(jobs.submit(Do::Panic)).await);
    soon(jobs.stop(LONG)).await.unwrap();
    assert_eq!(jobs.quarantine().list().len(), 1);
    let refused = jobs.quarantine().retry(put.quarantined.unwrap());
    assert_eq!(refused, Err(RetryError::Stopped));
    assert!(jobs.quarantine().drop(JobId(1)).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quarantine_is_looked_after_by_message_too() {
    let (_folder, keeper) = keeper();
    let stage = Stage::new();
    let jobs = stage.serve(patient(&keeper, "jobs").quarantine_after(1));
    for job in [Do::PanicUntilMended, Do::Panic] {
        panic_of(soon(jobs.submit(job)).await);
    }
    let (first, second, pool) = (JobId(1), JobId(2), "jobs".into());
    let list = soon(keeper.send(QuarantineQuery("jobs".into())))
        .await
        .unwrap();
    let ids: Vec<_> = list.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [first, second]);
    assert_eq!(&*list[1].panic.message, "it burns");
    let dropped = DropQuarantined { pool, job: second };
    assert!(soon(keeper.send(dropped.clone())).await.unwrap());
    assert!(!soon(keeper.send(dropped)).await.unwrap());
    stage.mend();
    let retry = |pool: &str, job| RetryQuarantined {
        pool: pool.into(),
        job,
    };
    soon(keeper.send(retry("jobs", first))).await.unwrap();
    until("it is done", || jobs.job_stats().done == 1);
    let unknown = soon(keeper.send(retry("jobs", first))).await;
    assert_eq!(unknown, Err(RetryError::Unknown(first)));
    let none = soon(keeper.send(retry("other", first))).await.unwrap_err();
    assert!(matches!(none, RetryError::NoSuchPool { .. }));
    let none = soon(keeper.send(QuarantineQuery("other".into()))).await;
    assert!(matches!(none, Err(PoolError::NoSuchPool { .. })));
    // How many are queued is among the statistics.
    let stats = soon(keeper.send(PoolStatsQuery("jobs".into())))
        .await
        .unwrap();
    assert_eq!((stats.queued, stats.jobs.unwrap().put_aside), (0, 2));
}
