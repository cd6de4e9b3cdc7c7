//! An application whose subscriber and whose recorder panic whenever they hear of a pool: its pools are served all the same. Both are
//! set once for a process, so this is one of its own.

use std::time::Duration;

use lockkeeper::{FailureKind, Job, JobError, OnFull, OnSilence, PoolError, PoolState};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::leases_shut::Deaf;
use crate::process;
use crate::support::{LONG, block_on, keeper, quick, running, until};

/// Panics whenever it hears of a pool.
struct Burns;

impl<S: Subscriber> Layer<S> for Burns {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        let is_of_pool = meta.fields().field("pool").is_some();
        assert!(
            !is_of_pool || meta.target() != "lockkeeper",
            "a subscriber burns"
        );
    }
}

impl Burns {
    fn hear(key: &Key) {
        let name = key.name();
        // That is recorded in the task which sees to the leases of a pool.
        let is_of_pool = name.starts_with("lockkeeper_pool") || name.contains("acquire");
        assert!(!is_of_pool, "a recorder burns");
    }
}

impl Recorder for Burns {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Self::hear(key);
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Self::hear(key);
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Self::hear(key);
        Histogram::noop()
    }
}

#[test]
fn observers_that_panic_end_no_supervision_and_take_no_answer_along() {
    let mut peer = process::Peer::start("observers::in_a_process_whose_observers_panic", &[]);
    assert_eq!(peer.ask("workers"), "served");
    assert_eq!(peer.ask("jobs"), "answered");
    assert_eq!(peer.ask("leases"), "held");
    assert_eq!(peer.ask("end"), "ended");
}

/// What the other process runs; in the test run itself it does nothing.
#[test]
fn in_a_process_whose_observers_panic() {
    if process::told().is_none() {
        return;
    }
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Those are many.
        let burns = |text: &str| text.ends_with("burns");
        if !panic.payload_as_str().is_some_and(burns) {
            before(panic);
        }
    }));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Burns)).unwrap();
    assert!(metrics::set_global_recorder(Burns).is_ok());
    let (_folder, keeper) = keeper();
    process::obey(|order| {
        match order {
            "workers" => workers(&keeper),
            "jobs" => jobs(&keeper),
            "leases" => under_leases(&keeper),
            _ => {
                let stats = block_on(keeper.stats());
                // What others do wrong is no panic of ours.
                assert_eq!(stats.panics.worker_pool, 0);
                block_on(keeper.shutdown(LONG)).unwrap();
                return "ended".into();
            }
        }
        match order {
            "jobs" => "answered",
            "leases" => "held",
            _ => "served",
        }
        .into()
    })
}

fn workers(keeper: &lockkeeper::Keeper) {
    let failing = quick(keeper, "failing")
        .workers(2)
        .start(|worker| async move {
            assert!(worker.restarts() > 1, "not yet");
            worker.stopped().await;
            Ok(())
        });
    let failing = failing.unwrap();
    until("they run", || {
        failing.stats().restarts == 4 && running(&failing) == 2
    });
    let gives_up = quick(keeper, "gives up").intensity(0, LONG);
    let gives_up = gives_up.start(|_| async { Err("no".into()) }).unwrap();
    let failed = block_on(gives_up.wait());
    assert!(
        matches!(failed, Err(PoolError::Failed { .. })),
        "{failed:?}"
    );
    let deaf = keeper
        .pool("deaf")
        .heartbeat(Duration::from_millis(20), OnSilence::Report);
    let deaf = deaf.start(|_| std::future::pending()).unwrap();
    until("it is silent", || deaf.stats().silences == 1);
    block_on(deaf.stop(Duration::from_millis(5))).unwrap();
    assert_eq!(
        (deaf.state(), deaf.stats().abandoned),
        (PoolState::Stopped, 1)
    );
    failing.scale(1).unwrap();
    until("one is left", || failing.stats().states.len() == 1);
    assert_eq!(failing.stats().last_failures[3].kind, FailureKind::Panic);
}

fn jobs(keeper: &lockkeeper::Keeper) {
    let jobs = quick(keeper, "jobs").queue(1).when_full(OnFull::Refuse);
    let jobs = jobs.quarantine_after(1).serve(|job: Job<u8>| async move {
        match *job {
            0 => panic!("it burns"),
            1 => Err(()),
            answer => Ok(answer),
        }
    });
    let jobs = jobs.unwrap();
    assert!(matches!(jobs.submit(2).blocking(), Ok(2)));
    assert!(matches!(
        jobs.submit(1).blocking(),
        Err(JobError::Failed(()))
    ));
    match jobs.submit(0).blocking() {
        Err(JobError::Panicked(panic)) => assert!(panic.quarantined.is_some()),
        other => panic!("{other:?}"),
    }
    block_on(jobs.pause()).unwrap();
    assert!(jobs.submit_and_forget(3).blocking().unwrap().is_some());
    let full = jobs.submit(4).blocking();
    assert!(
        matches!(full, Err(JobError::Full { job: 4, .. })),
        "{full:?}"
    );
    block_on(jobs.stop(LONG)).unwrap();
    assert_eq!(jobs.job_stats().stopped, 1);
    let late = jobs.submit(5).blocking();
    assert!(
        matches!(late, Err(JobError::Stopped { job: 5 })),
        "{late:?}"
    );
}

fn under_leases(keeper: &lockkeeper::Keeper) {
    let whole = quick(keeper, "whole").workers(2).under_lease("whole");
    let parts = quick(keeper, "parts").workers(2).partitioned("parts");
    let pools = [whole, parts].map(|pool| {
        let pool = pool.start(|worker| async move {
            worker.stopped().await;
            Ok(())
        });
        pool.unwrap()
    });
    until("both run", || pools.iter().all(|pool| running(pool) == 2));
    let leases = keeper.leases().unwrap();
    for (lease, lost) in [("whole", [1, 0]), ("parts/0", [1, 1])] {
        assert!(block_on(leases.force_release(lease)).unwrap().is_some());
        until("they run again", || {
            let of = |pool: &lockkeeper::Pool| pool.stats().lease.unwrap().lost;
            pools.each_ref().map(of) == lost && pools.iter().all(|pool| running(pool) == 2)
        });
    }
    let deaf = Deaf::start(quick(keeper, "deaf under a lease").under_lease("deaf"));
    assert!(block_on(leases.force_release("deaf")).unwrap().is_some());
    until("it is counted", || {
        deaf.pool.stats().lease.unwrap().overrun == 1
    });
    drop(deaf.end);
    until("it runs again", || running(&deaf.pool) == 1);
    block_on(deaf.pool.stop(LONG)).unwrap();
    for pool in pools {
        assert_eq!(pool.stats().failures, 0);
        block_on(pool.stop(LONG)).unwrap();
        assert!(pool.stats().lease.unwrap().given_back > 0);
    }
}
