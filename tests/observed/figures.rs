//! The metrics.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use lockkeeper::{
    Db, LockerSpec, Mode, Object, RunTxn, SetMapSize, TxnError, Wait, WhenFull,
    heed::types::{Bytes, Str},
};
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::rt::{
    aside, block_on, builder, bump, counters, hold_writer, in_flight, until, with_time_enough,
};

/// Every figure of the library that the traffic of this test moves.
const FIGURES: [(MetricKind, &str); 21] = [
    (MetricKind::Counter, "lockkeeper_batches_total"),
    (MetricKind::Counter, "lockkeeper_deadlocks_total"),
    (MetricKind::Counter, "lockkeeper_lease_passes_total"),
    (MetricKind::Counter, "lockkeeper_lease_store_errors_total"),
    (MetricKind::Counter, "lockkeeper_leases_acquired_total"),
    (MetricKind::Counter, "lockkeeper_leases_lost_total"),
    (MetricKind::Counter, "lockkeeper_lock_timeouts_total"),
    (MetricKind::Counter, "lockkeeper_lock_waits_total"),
    (MetricKind::Counter, "lockkeeper_map_resizes_total"),
    (MetricKind::Counter, "lockkeeper_overloaded_total"),
    (MetricKind::Counter, "lockkeeper_retries_total"),
    (MetricKind::Counter, "lockkeeper_transactions_total"),
    (MetricKind::Counter, "lockkeeper_views_total"),
    (MetricKind::Counter, "lockkeeper_writer_stalls_total"),
    (MetricKind::Gauge, "lockkeeper_leases_held"),
    (MetricKind::Gauge, "lockkeeper_map_bytes"),
    (MetricKind::Histogram, "lockkeeper_batch_bodies"),
    (MetricKind::Histogram, "lockkeeper_lease_acquire_seconds"),
    (MetricKind::Histogram, "lockkeeper_lease_pass_seconds"),
    (MetricKind::Histogram, "lockkeeper_lock_wait_seconds"),
    (MetricKind::Histogram, "lockkeeper_transaction_seconds"),
];

fn snapshotter() -> &'static Snapshotter {
    static SNAPSHOTTER: OnceLock<Snapshotter> = OnceLock::new();
    SNAPSHOTTER.get_or_init(|| {
        // Not while a lease is held: it would be counted only when it ends.
        let _alone = crate::leases::alone();
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        recorder.install().unwrap();
        snapshotter
    })
}

#[test]
fn every_figure_is_there_under_its_name_and_moves() {
    let snapshotter = snapshotter();
    let folder = tempfile::tempdir().unwrap();
    let keeper = builder(folder.path())
        .queue(2)
        .lock_timeout(Duration::from_millis(50))
        .open()
        .unwrap();
    let counters = counters(&keeper);
    let object = |name: &str| Object::new("figures", name);

    // Committed, aborted, failed.
    keeper.blocking_run(bump(counters, "n")).unwrap();
    let no = RunTxn::try_update(|_| Err::<(), _>(TxnError::Abort("no")));
    keeper.blocking_run(no).unwrap_err();
    let panics = RunTxn::update(|txn| match txn.attempt() {
        0 => Ok(()),
        _ => panic!("on purpose"),
    });
    keeper.blocking_send(panics).unwrap_err();

    // A lock timeout, a retry, and a deadlock between two lockers.
    let [one, two] = [0, 1].map(|_| keeper.locks().locker(LockerSpec::new()).unwrap());
    one.blocking_lock(&object("a"), Mode::Write, Wait::No)
        .unwrap();
    two.blocking_lock(&object("b"), Mode::Write, Wait::No)
        .unwrap();
    let txn = bump(counters, "n").write_lock(object("a")).retries(2);
    keeper.blocking_run(txn).unwrap_err();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| one.blocking_lock(&object("b"), Mode::Write, Wait::Forever));
        until(|| keeper.locks().stats().waiting == 1);
        two.blocking_lock(&object("a"), Mode::Write, Wait::Forever)
            .unwrap_err();
        drop(two);
        waits.join().unwrap().unwrap();
    });
    drop(one);

    // A writer that is kept, a place that is refused, and a map that grows.
    {
        let mut latch = with_time_enough(|span| {
            let (latch, latched) = crate::rt::latch();
            let txn = RunTxn::update(move |_| {
                latched.pass();
                Ok(())
            });
            keeper.blocking_run(txn.deadline(span)).unwrap_err();
            latch.has_been_entered().then_some(latch)
        });
        let stalled = bump(counters, "n").deadline(Duration::from_millis(20));
        keeper.blocking_run(stalled).unwrap_err();
        latch.open();
    }
    keeper.blocking_update(|_| Ok(())).unwrap();
    until(|| in_flight(&keeper) == 0);
    let held = hold_writer(&keeper);
    let second = aside({
        let run = keeper.run(bump(counters, "n"));
        move || block_on(run)
    });
    until(|| in_flight(&keeper) == 2);
    let refused = bump(counters, "n").when_full(WhenFull::Refuse);
    keeper.blocking_run(refused).unwrap_err();
    held.release().unwrap();
    second.join().unwrap().unwrap();
    keeper.blocking_send(SetMapSize(8 << 20)).unwrap();
    let big: Db<Str, Bytes> = keeper.blocking_database("big").unwrap();
    keeper
        .blocking_update(move |txn| {
            let value = vec![0; 1 << 20];
            for n in 0..16 {
                big.put(txn, &n.to_string(), &value)?;
            }
            Ok(())
        })
        .unwrap();
    let stats = block_on(keeper.stats());
    let map = stats.environment.map_size;
    assert!(map > 16 << 20);

    // Leases that are granted, refreshed, given back and lost, and one that is held.
    let leases = crate::leases::Traffic::new();
    let seen = snapshotter.snapshot().into_vec();
    drop(leases);
    let names: BTreeSet<_> = seen
        .iter()
        .map(|(key, ..)| (key.kind(), key.key().name().to_owned()))
        .filter(|(_, name)| name.starts_with("lockkeeper_"))
        .collect();
    let wanted: BTreeSet<_> = FIGURES
        .iter()
        .map(|&(kind, name)| (kind, name.to_owned()))
        .collect();
    let missing: Vec<_> = wanted.difference(&names).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    for (key, _, _, value) in &seen {
        let name = key.key().name();
        match value {
            DebugValue::Counter(counter) => assert!(*counter > 0, "{name}"),
            DebugValue::Histogram(values) => {
                assert!(values.iter().all(|value| value.0 >= 0.0), "{name}");
            }
            DebugValue::Gauge(held) if name == "lockkeeper_leases_held" => {
                assert_eq!(held.0, 1.0, "{name}");
            }
            DebugValue::Gauge(_) => {}
        }
    }
    let outcomes: BTreeSet<_> = seen
        .iter()
        .filter(|(key, ..)| key.key().name() == "lockkeeper_transactions_total")
        .flat_map(|(key, ..)| key.key().labels())
        .map(|label| (label.key().to_owned(), label.value().to_owned()))
        .collect();
    let wanted = ["aborted", "committed", "failed"].map(|value| ("outcome".into(), value.into()));
    assert_eq!(outcomes, BTreeSet::from(wanted));
}
