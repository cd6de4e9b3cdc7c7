//! Two levels side by side: each transaction is promised what its own level promises, whatever the other's is.

use lockkeeper::Isolation;

use super::Shop;
use super::cases::CASES;
use super::matrix::{Anomaly, Cell, expected};

/// In how many random orders of the steps each pair of levels meets.
const ORDERS: u64 = 6;

/// The transactions of a case whose levels have to keep the anomaly out for it not to happen.
fn victims(anomaly: Anomaly) -> &'static [usize] {
    match anomaly {
        // Who reads.
        Anomaly::DirtyRead => &[1],
        Anomaly::FuzzyRead | Anomaly::ReadSkew | Anomaly::Phantom => &[0],
        // Who writes over what the other has written, or in spite of it: the one or the other.
        Anomaly::LostUpdate
        | Anomaly::LostForUpdate
        | Anomaly::WriteSkew
        | Anomaly::RangeSkew
        | Anomaly::ReadOnly => &[0, 1],
    }
}

async fn meet(shop: &Shop, levels: [Isolation; 2]) {
    let two = CASES.iter().filter(|case| case.scripts.len() == 2);
    for case in two {
        let mut victims = victims(case.anomaly).iter();
        if !victims.all(|victim| expected(levels[*victim], case.anomaly) == Cell::Never) {
            continue;
        }
        let orders = (0..ORDERS).map(|seed| case.random(seed));
        for order in orders.chain([case.forced(), case.turned()]) {
            let outcome = shop.play(case, &levels, &order).await;
            assert!(
                !(case.happened)(&outcome),
                "{levels:?} {:?} ({}) in the order {order:?}: {:?} {:?}",
                case.anomaly,
                case.name,
                outcome.committed,
                outcome.after
            );
        }
    }
}

fn beside_all(isolation: Isolation) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let shop = Shop::open();
    runtime.block_on(async {
        for other in Isolation::ALL {
            meet(&shop, [isolation, other]).await;
        }
    });
}

#[test]
fn serializable_beside_any_other_level_is_serializable() {
    beside_all(Isolation::Serializable);
}

#[test]
fn repeatable_read_beside_any_other_level_is_repeatable() {
    beside_all(Isolation::RepeatableRead);
}

#[test]
fn read_committed_beside_any_other_level_reads_what_is_committed() {
    beside_all(Isolation::ReadCommitted);
}

#[test]
fn snapshot_beside_any_other_level_is_a_snapshot() {
    beside_all(Isolation::Snapshot);
}

#[test]
fn optimistic_beside_any_other_level_is_serializable() {
    beside_all(Isolation::Optimistic);
}
