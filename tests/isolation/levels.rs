//! The matrix, shown: what may happen at a level is made to happen, and what may not does not, in any order of the steps.

use lockkeeper::Isolation;

use super::Shop;
use super::cases::CASES;
use super::matrix::{ANOMALIES, Anomaly, Cell, FINER, expected};
use super::script::Case;

/// In how many orders of the steps the forbidden is looked for, beside the one that was made for it.
const ORDERS: u64 = 50;

/// A number from a number (splitmix64).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Case {
    pub fn forced(&self) -> Vec<usize> {
        let digits = self.schedule.chars().filter_map(|c| c.to_digit(10));
        digits.map(|digit| digit as usize).collect()
    }

    /// The forced order of the steps with the first two transactions changed over.
    pub fn turned(&self) -> Vec<usize> {
        let turn = |which: usize| match which {
            0 => 1,
            1 => 0,
            other => other,
        };
        self.forced().into_iter().map(turn).collect()
    }

    /// All steps in a random order; to begin and to commit are steps too.
    pub fn random(&self, seed: u64) -> Vec<usize> {
        let scripts = self.scripts.iter().enumerate();
        let steps = scripts.flat_map(|(which, script)| vec![which; script.len() + 2]);
        let mut order: Vec<_> = steps.collect();
        let mut random = seed;
        for last in (1..order.len()).rev() {
            random = mix(random);
            order.swap(last, usize::try_from(random % (last as u64 + 1)).unwrap());
        }
        order
    }
}

/// One cell: the level and the anomaly.
fn check(isolation: Isolation, anomaly: Anomaly) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let shop = Shop::open();
    runtime.block_on(async {
        let cases = CASES.iter().filter(|case| case.anomaly == anomaly);
        let mut shown = 0;
        for case in cases {
            shown += 1;
            let forced = case.forced();
            let outcome = shop.play(case, &[isolation], &forced).await;
            let is_allowed = expected(isolation, anomaly) == Cell::Happens;
            assert_eq!(
                (case.happened)(&outcome),
                is_allowed,
                "{isolation} {anomaly:?} ({}): {:?}",
                case.name,
                outcome.after
            );
            if is_allowed {
                continue;
            }
            for seed in 0..ORDERS {
                let order = case.random(seed);
                let outcome = shop.play(case, &[isolation], &order).await;
                assert!(
                    !(case.happened)(&outcome),
                    "{isolation} {anomaly:?} ({}) in the order {order:?}: {:?} {:?}",
                    case.name,
                    outcome.committed,
                    outcome.after
                );
            }
        }
        assert!(shown > 0, "nothing shows {anomaly:?}");
        let left = shop.keeper.locks().snapshot();
        assert!(left.held.is_empty() && left.waiting.is_empty(), "{left:?}");
    });
}

fn row(isolation: Isolation) {
    for anomaly in ANOMALIES.into_iter().chain(FINER) {
        check(isolation, anomaly);
    }
}

#[test]
fn serializable_keeps_every_anomaly_out() {
    row(Isolation::Serializable);
}

#[test]
fn repeatable_read_lets_phantoms_in_and_nothing_else() {
    row(Isolation::RepeatableRead);
}

#[test]
fn read_committed_keeps_out_what_is_not_committed_and_updates_lost_after_get_for_update() {
    row(Isolation::ReadCommitted);
}

#[test]
fn snapshot_lets_write_skew_in_and_what_follows_from_it() {
    row(Isolation::Snapshot);
}

#[test]
fn optimistic_keeps_every_anomaly_out() {
    row(Isolation::Optimistic);
}
