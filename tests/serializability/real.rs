//! Interactive transactions of lockkeeper under the workloads.

use std::path::Path;
use std::time::Instant;

use lockkeeper::Isolation;

use crate::checker::Kind;
use crate::lockkeeper_store::{Door, Lockkeeper};
use crate::trial::{outcome, workload};
use crate::workload::Counts;

/// All doors for interactive transactions.
const DOORS: &[Door] = &[Door::Method, Door::Message, Door::ByHand];
/// The same, with plain updates in between.
const MIXED: &[Door] = &[Door::Method, Door::Message, Door::ByHand, Door::Plain];

/// Runs a workload of 500 transactions for each number of sessions; all must pass.
#[track_caller]
fn pass(isolation: Isolation, doors: &'static [Door], first_seed: u64, sessions: &[usize]) {
    for (seed, sessions) in (first_seed..).zip(sessions) {
        let (workload, folder) = (workload(seed, *sessions), tempfile::tempdir().unwrap());
        let store = Lockkeeper::open(folder.path(), isolation, doors);
        let begun = Instant::now();
        let (checked, counts) = outcome(workload, &store);
        println!("{sessions} sessions, {:?}: {counts:?}", begun.elapsed());
        if let Err(anomaly) = checked {
            panic!("{isolation:?} by {doors:?}, {workload:?}: {anomaly}");
        }
        let Counts {
            refused,
            panicked,
            dropped,
            again,
            ..
        } = counts;
        assert!(refused > 0 && panicked > 0 && dropped > 0, "{counts:?}");
        assert!(again > 0, "nobody met anybody: {counts:?}");
    }
}

// The four that follow are 10,000 transactions in all.

#[test]
fn serialisable_by_the_method() {
    let doors = &[Door::Method];
    pass(Isolation::Serializable, doors, 100, &[8, 8, 16, 32, 64]);
}

#[test]
fn serialisable_by_a_message() {
    let doors = &[Door::Message];
    pass(Isolation::Serializable, doors, 200, &[8, 8, 16, 32, 64]);
}

#[test]
fn serialisable_driven_by_hand() {
    let doors = &[Door::ByHand];
    pass(Isolation::Serializable, doors, 300, &[8, 8, 16, 16, 32]);
}

#[test]
fn serialisable_by_all_doors_at_once() {
    pass(Isolation::Serializable, DOORS, 400, &[8, 16, 16, 32, 64]);
}

#[test]
fn serialisable_beside_plain_updates() {
    pass(Isolation::Serializable, MIXED, 500, &[8, 16, 32, 64]);
}

#[test]
fn optimistic() {
    pass(Isolation::Optimistic, DOORS, 600, &[8, 16, 32]);
}

#[test]
fn optimistic_beside_plain_updates() {
    pass(Isolation::Optimistic, MIXED, 700, &[8, 16, 32]);
}

/// Runs workloads that cannot pass.
#[track_caller]
fn fail(
    open: impl Fn(&Path, Isolation, &'static [Door]) -> Lockkeeper,
    isolation: Isolation,
    doors: &'static [Door],
    kinds: &[Kind],
) {
    for seed in 0..6 {
        let (workload, folder) = (workload(seed, 16), tempfile::tempdir().unwrap());
        let store = open(folder.path(), isolation, doors);
        let (checked, _) = outcome(workload, &store);
        let anomaly = checked.expect_err("nobody kept them apart");
        println!("{anomaly}");
        assert!(kinds.contains(&anomaly.kind), "{workload:?}: {anomaly}");
    }
}

/// What nobody keeps apart loses updates, and more.
const UNLOCKED: &[Kind] = &[
    Kind::Internal,
    Kind::IncompatibleOrder,
    Kind::LostAppend,
    Kind::G0,
    Kind::G1c,
    Kind::GSingle,
    Kind::G2,
];

#[test]
fn the_same_with_locks_switched_off_fails() {
    let (open, level) = (Lockkeeper::without_locks, Isolation::Serializable);
    fail(open, level, DOORS, UNLOCKED);
}

#[test]
fn the_same_as_plain_updates_without_locks_fails() {
    let (open, level) = (Lockkeeper::open, Isolation::Serializable);
    fail(open, level, &[Door::PlainUnchecked], UNLOCKED);
}

#[test]
fn snapshots_fail_by_write_skew() {
    fail(Lockkeeper::open, Isolation::Snapshot, DOORS, &[Kind::G2]);
}
