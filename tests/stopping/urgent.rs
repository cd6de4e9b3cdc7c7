//! A stop in a hurry after a patient one, with everything open that a keeper can have open.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use lockkeeper::{Job, JobError, ShutdownError, TxnError, Worker};

use crate::begun::{LONG, counts, stopping, until_free, waits_outside};
use crate::rt::{PATIENCE, aside, block_on, hold_writer, open, until};

#[test]
fn it_ends_everything_in_moments_but_the_body_that_nobody_can_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let guard = block_on(keeper.lease("job").acquire()).unwrap();
    let records = counts(&keeper);
    let outside = waits_outside(&keeper, records, "n");
    let begun = block_on(async { keeper.begin().await }).unwrap();
    block_on(begun.put(records, "m", &1)).unwrap();
    // Tasks that do not listen, under a lease and not; threads that do.
    let (runs, does_run) = mpsc::channel();
    let deaf = |runs: mpsc::Sender<()>| {
        move |_: Worker| {
            let _ = runs.send(());
            async {
                std::future::pending::<()>().await;
                Ok(())
            }
        }
    };
    let tasks = keeper.pool("tasks").workers(2).start(deaf(runs.clone()));
    let leased = keeper.pool("leased").under_lease("pool");
    let leased = leased.start(deaf(runs.clone()));
    let parts = keeper.pool("parts").workers(2).partitioned("parts");
    let parts = parts.start(deaf(runs.clone()));
    let told = runs.clone();
    let threads = keeper
        .pool("threads")
        .start_blocking(move |worker: Worker| {
            let _ = told.send(());
            while !worker.pause_for(LONG) {}
            Ok(())
        });
    let jobs = keeper.pool("jobs").serve(move |job: Job<u8>| {
        let _ = runs.send(());
        async move {
            std::future::pending::<()>().await;
            Ok::<_, ()>(*job)
        }
    });
    let jobs = jobs.unwrap();
    let pools = [tasks, leased, parts, threads].map(Result::unwrap);
    let submitted = [1, 2].map(|job| {
        let answer = jobs.submit(job);
        let answer = aside(move || block_on(answer));
        until(|| jobs.stats().jobs.unwrap().submitted == u64::from(job));
        answer
    });
    for _ in 0..7 {
        does_run.recv_timeout(PATIENCE).unwrap();
    }
    let held = hold_writer(&keeper);

    let patient = stopping(&keeper, Duration::from_secs(30));
    until(|| pools[0].stats().workers.stopping == 2);
    let asked = Instant::now();
    let outcome = keeper.blocking_shutdown(Duration::ZERO);
    assert!(
        matches!(&outcome, Err(ShutdownError::BodyRunsOn { name, .. }) if name.as_deref() == Some("holder")),
        "{outcome:?}"
    );
    // A second after the deadline is when it is answered at the latest.
    assert!(asked.elapsed() < LONG / 2, "{:?}", asked.elapsed());
    assert!(matches!(block_on(outside), Err(TxnError::ShuttingDown)));
    let committed = block_on(begun.commit());
    assert!(
        matches!(committed, Err(TxnError::ShuttingDown)),
        "{committed:?}"
    );
    let [running, queued] = submitted.map(|answer| answer.join().unwrap());
    assert!(running.is_err(), "{running:?}");
    assert!(
        matches!(queued, Err(JobError::Stopped { job: 2 })),
        "{queued:?}"
    );
    assert!(pools.iter().all(|pool| pool.state().is_over()) && jobs.state().is_over());
    assert!(!guard.is_held());
    assert!(!patient.is_finished());
    held.release().unwrap();
    patient.join().unwrap().unwrap();
    for pool in &pools[1..=2] {
        let stats = pool.stats().lease.unwrap();
        assert_eq!(stats.given_back, stats.acquired, "{stats:?}");
    }
    until_free(folder.path());
}
