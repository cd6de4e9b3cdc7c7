//! The workloads find what is wrong with stores that are wrong, and nothing in one that is right.

use crate::checker::{Anomaly, Kind, Summary, check};
use crate::memory::{Level, Memory};
use crate::script::Sizes;
use crate::store::Store;
use crate::workload::{Counts, Workload};

/// A workload as it is run in these tests.
pub fn workload(seed: u64, sessions: usize) -> Workload {
    Workload {
        seed,
        sessions,
        txns: 500,
        sizes: Sizes::hot(sessions),
    }
}

/// Runs a workload on several threads and looks what came of it.
pub fn outcome<S: Store>(workload: Workload, store: &S) -> (Result<Summary, Box<Anomaly>>, Counts) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    let (history, counts) = runtime.block_on(workload.run(store));
    (check(&history), counts)
}

#[test]
fn a_store_that_is_right_passes() {
    for seed in 0..4 {
        let workload = workload(seed, 16);
        let (checked, counts) = outcome(workload, &Memory::new(Level::OneAtATime));
        let summary = checked.unwrap_or_else(|anomaly| panic!("{workload:?}: {anomaly}"));
        println!("{counts:?} {summary:?}");
        let Counts {
            committed,
            refused,
            panicked,
            dropped,
            ..
        } = counts;
        assert!(refused > 0 && panicked > 0 && dropped > 0, "{counts:?}");
        assert!(summary.taken >= committed && summary.edges > committed);
    }
}

#[track_caller]
fn fails(level: Level, kinds: &[Kind]) {
    for seed in 0..4 {
        let workload = workload(seed, 16);
        let (checked, counts) = outcome(workload, &Memory::new(level));
        let anomaly = checked.expect_err("it is wrong");
        println!("{counts:?}: {anomaly}");
        assert!(kinds.contains(&anomaly.kind), "{workload:?}: {anomaly}");
    }
}

#[test]
fn snapshots_that_do_not_look_at_what_was_read_fail() {
    fails(Level::Snapshot, &[Kind::G2]);
}

#[test]
fn reads_of_what_is_committed_without_any_lock_fail() {
    fails(
        Level::ReadCommitted,
        &[
            Kind::Internal,
            Kind::IncompatibleOrder,
            Kind::LostAppend,
            Kind::GSingle,
            Kind::G2,
        ],
    );
}

#[test]
fn writes_that_outlive_their_transaction_fail() {
    fails(
        Level::Dirty,
        &[Kind::Internal, Kind::AbortedRead, Kind::IntermediateRead],
    );
}
