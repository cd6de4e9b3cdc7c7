//! What can be seen of pools from outside: the events and spans of `tracing`, and the figures of `metrics`.

use std::collections::BTreeMap;

use lockkeeper::{PoolState, Restart};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use crate::layer;
use crate::leases::leases;
use crate::leases_shut::Deaf;
use crate::support::{LONG, block_on, keeper, quick, until};

fn events(message: &str) -> Vec<BTreeMap<&'static str, String>> {
    let mut events = layer::events(message);
    events.retain(|event| event.get("pool").is_some_and(|pool| pool == "seen"));
    events
}

#[test]
fn failures_and_the_end_of_a_pool_are_logged_and_counted_under_its_name() {
    layer::watch();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // Nothing else in this binary has one.
    recorder.install().unwrap();
    let (_folder, keeper) = keeper();
    let pool = quick(&keeper, "seen")
        .intensity(2, LONG)
        .restart(Restart::Transient);
    let pool = pool.start(|worker| async move {
        tracing::info!("from inside");
        tokio::task::yield_now().await;
        panic!("panic {}", worker.restarts());
    });
    let pool = pool.unwrap();
    block_on(pool.wait()).unwrap_err();
    assert_eq!(pool.state(), PoolState::Failed);
    let deaf = Deaf::start(quick(&keeper, "deaf").under_lease("deaf"));
    block_on(keeper.leases().unwrap().force_release("deaf")).unwrap();
    until("it is counted", || leases(&deaf.pool).overrun == 1);
    drop(deaf.end);
    block_on(keeper.shutdown(LONG)).unwrap();

    let figures = snapshotter.snapshot().into_vec();
    let figure_of = |pool: &str, name: &str, label: (&str, &str)| {
        let found = figures.iter().find(|(key, ..)| {
            let key = key.key();
            let has = |(label, value): (&str, &str)| {
                key.labels()
                    .any(|found| (found.key(), found.value()) == (label, value))
            };
            key.name() == name && has(("pool", pool)) && has(label)
        });
        found.map(|(.., value)| match value {
            DebugValue::Counter(count) => *count,
            DebugValue::Gauge(value) => value.0 as u64,
            DebugValue::Histogram(values) => values.len() as u64,
        })
    };
    let figure = |name: &str, label| figure_of("seen", name, label);
    let any = ("pool", "seen");
    assert_eq!(
        figure("lockkeeper_pool_failures_total", ("kind", "panic")),
        Some(3)
    );
    assert_eq!(figure("lockkeeper_pool_restarts_total", any), Some(2));
    assert_eq!(figure("lockkeeper_pools_failed_total", any), Some(1));
    assert_eq!(figure("lockkeeper_pool_workers", any), Some(0));

    let overrun = figure_of("deaf", "lockkeeper_pool_overrun_total", ("pool", "deaf"));
    assert_eq!(overrun, Some(1));
    assert_eq!(figure("lockkeeper_pool_overrun_total", any), None);
    let mut run_on =
        layer::events("workers run on though their lease is lost; nobody can stop them");
    run_on.retain(|event| event["pool"] == "deaf");
    assert_eq!(run_on.len(), 1, "{run_on:?}");
    assert_eq!(run_on[0]["runs"], "1");

    let given_up = events("a pool gives up");
    assert_eq!(given_up.len(), 1);
    assert_eq!(given_up[0]["restarts"], "3");
    assert!(given_up[0]["last"].contains("panic 2"), "{given_up:?}");
    assert_eq!(events("a worker failed").len(), 3);
    let runs = layer::spans(|span| span.name == "worker" && span.fields["pool"] == "seen");
    assert_eq!(runs.len(), 3);
    for (_, run) in &runs {
        assert!(
            run.closed && run.events.iter().any(|event| event == "from inside"),
            "{run:?}"
        );
    }
}

#[test]
fn a_job_that_nobody_waits_for_and_that_is_never_done_is_logged() {
    layer::watch();
    let (_folder, keeper) = keeper();
    let jobs = keeper.pool("seen").workers(0);
    let jobs = jobs
        .serve(|job: lockkeeper::Job<u8>| async move { Ok::<_, ()>(*job) })
        .unwrap();
    assert!(jobs.submit_and_forget(1).blocking().unwrap().is_some());
    block_on(jobs.stop(LONG)).unwrap();
    let lost = events("a job that nobody waits for ended without having been done");
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(lost[0]["end"], "stopped");
}
