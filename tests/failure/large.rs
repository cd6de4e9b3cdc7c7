//! Transactions beyond what LMDB keeps in memory for one: a list of 131,071 dirty pages.

use std::time::Duration;

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Bytes, U64};
use lockkeeper::{Db, Durability, Keeper, RunTxn, TxnError};
use tempfile::TempDir;

use crate::support::{Numbers, Plug, Sent, assert_idle, folder, get, open_with, putting, stats};

type Big = Db<U64<BigEndian>, Bytes>;

/// Each has a page of its own.
const VALUE: [u8; 2100] = [7; 2100];
/// A debug build needs some seconds for what is written here.
const DEADLINE: Duration = Duration::from_secs(300);

fn large_environment() -> (TempDir, Keeper, Numbers, Big) {
    let folder = folder();
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(folder.path())
            .map_size(4 << 30)
            .durability(Durability::NoSync)
            .deadline(DEADLINE)
            // So that one commit has to carry everything that was queued.
            .batch(4096)
            .batch_time(Duration::from_secs(60)),
    );
    let big = keeper.blocking_database("big").unwrap();
    (folder, keeper, numbers, big)
}

#[test]
fn a_transaction_larger_than_lmdbs_list_of_dirty_pages_harms_no_neighbour() {
    const PAGES: u64 = 140_000;
    let (_folder, keeper, numbers, big) = large_environment();
    // The first run fails after a write, so that the second is in a nested transaction.
    let large = RunTxn::update(move |txn| {
        big.put(txn, &0, &VALUE)?;
        if txn.attempt() == 1 {
            return Err(TxnError::NoLockTable);
        }
        for key in 0..PAGES {
            big.put(txn, &key, &VALUE)?;
        }
        Ok(())
    });
    let plug = Plug::hold(&keeper);
    let before = Sent::new(keeper.run(putting(numbers, 1, 10)));
    let large = Sent::new(keeper.run(large));
    let after = Sent::new(keeper.run(putting(numbers, 2, 20)));
    plug.release().unwrap();
    before.answer().unwrap();
    let outcome = large.answer();
    after.answer().unwrap();
    let found = keeper.blocking_view(move |txn| Ok(big.len(txn)?)).unwrap();
    // LMDB writes pages early when the list is full, so this fits; should it not, the error says so and nothing is left.
    match outcome {
        Ok(()) => assert_eq!(found, PAGES),
        Err(TxnError::TooLarge) => assert_eq!(found, 0),
        Err(other) => panic!("{other:?}"),
    }
    assert_eq!(get(&keeper, numbers, 1), Some(10));
    assert_eq!(get(&keeper, numbers, 2), Some(20));
    assert_idle(&keeper);
}

/// A nested transaction can meet the end of the list through what its neighbours wrote: that is no reason to refuse it.
#[test]
fn a_batch_too_large_for_one_commit_is_split_between_its_bodies() {
    const BODIES: u64 = 1_500;
    const EACH: u64 = 100;
    let (_folder, keeper, _, big) = large_environment();
    let fails = |nth: u64| nth % 16 == 3;
    let batch = |bodies: u64, each: u64| {
        let plug = Plug::hold(&keeper);
        let sent: Vec<_> = (0..bodies)
            .map(|nth| {
                let txn = RunTxn::try_update(move |txn| {
                    for key in nth * each..(nth + 1) * each {
                        big.put(txn, &key, &VALUE)?;
                    }
                    if fails(nth) {
                        return Err(TxnError::Abort(nth));
                    }
                    Ok(())
                });
                Sent::new(keeper.run(txn))
            })
            .collect();
        plug.release().unwrap();
        for (nth, sent) in (0..).zip(sent) {
            match sent.answer() {
                Ok(()) => assert!(!fails(nth), "{nth}"),
                Err(TxnError::Abort(n)) => assert!(fails(nth) && n == nth, "{nth}"),
                Err(other) => panic!("{nth}: {other:?}"),
            }
        }
    };
    // Failures that are common have the bodies run nested from the start.
    for _ in 0..4 {
        batch(64, 1);
    }
    let before = stats(&keeper).environment.commits;
    batch(BODIES, EACH);
    // The plug's, and more than one for the batch.
    assert!(stats(&keeper).environment.commits > before + 2);
    let found = keeper.blocking_view(move |txn| Ok(big.len(txn)?)).unwrap();
    let kept = (0..BODIES).filter(|nth| !fails(*nth)).count() as u64;
    // Of the small batches, those that are not overwritten are at the lowest keys.
    assert!(found >= kept * EACH && found <= kept * EACH + 64, "{found}");
    assert_idle(&keeper);
}
