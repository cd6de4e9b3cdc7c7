//! The workers of a keeper's pools are told first, served until they have ended, and joined.

use std::sync::mpsc;
use std::time::Duration;

use lockkeeper::{
    Acquire, Job, JobError, LockerSpec, Mode, Object, RunTxn, ShutdownError, TxnError, Wait, Worker,
};
use parking_lot::Mutex;

use crate::begun::{Counts, LONG, SOON, counts, deaf, stopping, until_free};
use crate::rt::{PATIENCE, aside, block_on, bump, latch, open, read, until};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Uses whatever a keeper has.
async fn everything(worker: &Worker, records: Counts) -> Result<(), Failure> {
    let keeper = worker.keeper();
    let counters = keeper.database("counters").await?;
    keeper.run(bump(counters, "n")).await?;
    keeper.send(bump(counters, "n")).await?;
    keeper.view(move |txn| Ok(counters.get(txn, "n")?)).await?;
    keeper.run(RunTxn::view(|_| Ok(()))).await?;
    let done: Result<(), TxnError> = keeper
        .transaction("last", |txn| async move {
            let n: Option<u64> = txn.get_as(records, "n").await?;
            Ok(txn.put(records, "n", &(n.unwrap_or(0) + 1)).await?)
        })
        .await;
    done?;
    let begun = keeper.begin().await?;
    begun.put(records, "m", &1).await?;
    begun.commit().await?;
    let object = Object::new("boats", b"1");
    let locker = keeper.locks().locker(LockerSpec::new())?;
    locker.blocking_lock(&object, Mode::Write, Wait::No)?;
    drop(locker);
    let guard = keeper.lease("last").try_acquire().await?;
    guard.release().await.map_err(|_| "held still")?;
    Ok(())
}

#[test]
fn a_worker_is_served_until_it_has_ended_while_everybody_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let records = counts(&keeper);
    let (mut latch, latched) = latch();
    let latched = std::sync::Arc::new(Mutex::new(Some(latched)));
    let (told, was_told) = mpsc::channel();
    let pool = keeper.pool("import").start(move |worker: Worker| {
        let (told, latched) = (told.clone(), latched.lock().take());
        async move {
            worker.stopped().await;
            let latched = latched.ok_or("it runs once")?;
            // A thread for work that blocks is none of the worker's own, but whoever awaits it is.
            tokio::task::spawn_blocking(move || latched.pass()).await?;
            told.send(everything(&worker, records).await)?;
            Ok(())
        }
    });
    let _pool = pool.unwrap();
    let stops = stopping(&keeper, LONG);
    latch.entered();
    let refused = keeper.blocking_update(|_| Ok(()));
    assert!(matches!(refused, Err(TxnError::ShuttingDown)));
    let acquire = Acquire::new(Object::new("boats", b"2"), Mode::Read);
    assert!(keeper.blocking_send(acquire).is_err());
    let late = keeper.pool("late").start(|_| async { Ok(()) });
    assert!(late.is_err());
    assert!(!stops.is_finished());
    latch.open();
    was_told.recv_timeout(PATIENCE).unwrap().unwrap();
    stops.join().unwrap().unwrap();
    let (again, counters) = open(folder.path());
    assert_eq!(read(&again, counters, "n"), Some(3));
}

#[test]
fn i14_in_a_worker_of_either_kind() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let (asked, was_asked) = mpsc::channel();
    let ask = asked.clone();
    let by_task = keeper.pool("tasks").start(move |worker: Worker| {
        let ask = ask.clone();
        async move {
            let answers = [
                worker.keeper().shutdown(Duration::MAX).await,
                worker.keeper().blocking_shutdown(Duration::MAX),
            ];
            let _ = ask.send(("tasks", answers));
            worker.stopped().await;
            Ok(())
        }
    });
    let by_thread = keeper
        .pool("threads")
        .start_blocking(move |worker: Worker| {
            let answers = [
                block_on(worker.keeper().shutdown(Duration::MAX)),
                worker.keeper().blocking_shutdown(Duration::MAX),
            ];
            let _ = asked.send(("threads", answers));
            block_on(worker.stopped());
            Ok(())
        });
    let _pools = (by_task.unwrap(), by_thread.unwrap());
    for _ in 0..2 {
        let (name, answers) = was_asked.recv_timeout(PATIENCE).unwrap();
        for answer in answers {
            assert!(
                matches!(&answer, Err(ShutdownError::InsideWorker { pool }) if **pool == *name),
                "{answer:?}"
            );
        }
    }
    keeper.blocking_update(|_| Ok(())).unwrap();
    keeper.blocking_shutdown(LONG).unwrap();
}

#[test]
fn a_worker_that_runs_on_is_named_keeps_no_environment_open_and_is_joined_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let (_pool, mut latch) = deaf(&keeper);
    let outcome = keeper.blocking_shutdown(SOON);
    let Err(ShutdownError::WorkersRunOn { pool, .. }) = &outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(&**pool, "deaf");
    assert!(outcome.unwrap_err().is_retryable());
    until_free(folder.path());
    latch.open();
    keeper.blocking_shutdown(LONG).unwrap();
}

#[test]
fn a_second_more_urgent_shutdown_cuts_the_workers_short() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let (entered, has_entered) = mpsc::channel();
    let pool = keeper.pool("deaf").start(move |_| {
        let entered = entered.clone();
        async move {
            let _ = entered.send(());
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    let pool = pool.unwrap();
    has_entered.recv_timeout(PATIENCE).unwrap();
    let patient = stopping(&keeper, Duration::MAX);
    // It waits for this pool, and would for ever.
    until(|| pool.stats().workers.stopping == 1);
    keeper.blocking_shutdown(Duration::ZERO).unwrap();
    patient.join().unwrap().unwrap();
    assert_eq!(pool.stats().abandoned, 1);
}

#[test]
fn a_second_more_urgent_shutdown_does_not_wait_for_a_thread_that_nobody_can_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let (pool, mut latch) = deaf(&keeper);
    let patient = stopping(&keeper, Duration::MAX);
    until(|| pool.stats().workers.stopping == 1);
    let outcome = keeper.blocking_shutdown(SOON);
    assert!(
        matches!(outcome, Err(ShutdownError::WorkersRunOn { .. })),
        "{outcome:?}"
    );
    until_free(folder.path());
    latch.open();
    patient.join().unwrap().unwrap();
}

#[test]
fn job_pools_take_nothing_new_from_the_call_on_and_each_has_notice_before_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let (entered, has_entered) = mpsc::channel();
    let pools: Vec<_> = ["first", "second"]
        .into_iter()
        .map(|name| {
            let entered = entered.clone();
            let handler = move |job: Job<u8>| {
                let entered = entered.clone();
                async move {
                    let _ = entered.send(());
                    job.worker().stopped().await;
                    Ok::<_, ()>(*job)
                }
            };
            keeper.pool(name).serve(handler).unwrap()
        })
        .collect();
    let answers: Vec<_> = pools
        .iter()
        .map(|pool| {
            let answer = pool.submit(1);
            aside(move || block_on(answer))
        })
        .collect();
    for _ in &pools {
        has_entered.recv_timeout(PATIENCE).unwrap();
    }
    let mut stops = std::pin::pin!(keeper.shutdown(Duration::from_secs(2)));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(stops.as_mut().poll(&mut cx).is_pending());
    for pool in &pools {
        let late = block_on(pool.submit(2));
        assert!(
            matches!(late, Err(JobError::Stopped { job: 2 })),
            "{late:?}"
        );
    }
    // Each was told a little before the end, and so could answer.
    for answer in answers {
        assert!(matches!(answer.join().unwrap(), Ok(1)));
    }
    block_on(stops).unwrap();
}

#[test]
fn the_last_handle_of_the_application_stops_the_pools_too() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    let (worked, has_worked) = mpsc::channel();
    let pool = keeper.pool("steady").start(move |worker: Worker| {
        let worked = worked.clone();
        async move {
            while !worker.is_stopping() {
                worker.keeper().run(bump(counters, "n")).await?;
                let _ = worked.send(());
            }
            Ok(())
        }
    });
    let pool = pool.unwrap();
    has_worked.recv_timeout(PATIENCE).unwrap();
    drop(keeper);
    until_free(folder.path());
    drop(pool);
}
