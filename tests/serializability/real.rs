//! Interactive transactions of lockkeeper under the workloads.

use lockkeeper::Isolation;

use crate::checker::Kind;
use crate::lockkeeper_store::{Door, Lockkeeper};
use crate::trial::{outcome, workload};
use crate::workload::Counts;

/// All doors for interactive transactions.
const DOORS: &[Door] = &[Door::Method, Door::Message, Door::ByHand];
/// The same, with plain updates in between.
const MIXED: &[Door] = &[Door::Method, Door::Message, Door::ByHand, Door::Plain];

/// Runs workloads that must pass, 500 transactions each.
#[track_caller]
fn passes(isolation: Isolation, doors: &'static [Door], seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let sessions = [8, 16, 32, 64][seed as usize % 4];
        let (workload, folder) = (workload(seed, sessions), tempfile::tempdir().unwrap());
        let begun = std::time::Instant::now();
        let store = Lockkeeper::open(folder.path(), isolation, doors);
        let (checked, counts) = outcome(workload, &store);
        println!("{sessions} sessions: {:?}, {counts:?}", begun.elapsed());
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

#[test]
fn serialisable_transactions() {
    passes(Isolation::Serializable, DOORS, 0..8);
}

#[test]
fn serialisable_transactions_beside_plain_updates() {
    passes(Isolation::Serializable, MIXED, 100..104);
}

#[test]
fn optimistic_transactions() {
    passes(Isolation::Optimistic, DOORS, 200..204);
}

#[test]
fn optimistic_transactions_beside_plain_updates() {
    passes(Isolation::Optimistic, MIXED, 300..304);
}

#[test]
fn the_same_without_locks_fails() {
    for seed in 0..8 {
        let (workload, folder) = (workload(seed, 16), tempfile::tempdir().unwrap());
        let doors = &[Door::PlainUnchecked];
        let store = Lockkeeper::open(folder.path(), Isolation::Serializable, doors);
        let (checked, _) = outcome(workload, &store);
        let anomaly = checked.expect_err("nobody kept them apart");
        println!("{anomaly}");
        assert!(
            matches!(
                anomaly.kind,
                Kind::IncompatibleOrder | Kind::LostAppend | Kind::GSingle | Kind::G2
            ),
            "{anomaly}"
        );
    }
}
