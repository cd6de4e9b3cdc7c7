//! Sent again: what comes back, and what runs.

use lockkeeper::{RunTxn, TxnError};

use crate::support::{folder, get, open};
use crate::{Runs, add, assert_once, stored, with_keeper};

#[test]
fn sent_again_the_stored_answer_comes_back_and_the_body_does_not_run() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let runs = Runs::default();
    for _ in 0..3 {
        assert_once(&keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
    }
    assert_eq!(runs.count(), 1);
    // Another key is another transaction.
    let other = runs.bump(numbers, 1).idempotent([0, 255]);
    assert_eq!(keeper.blocking_run(other).unwrap(), 2);
}

#[test]
fn after_a_restart_the_stored_answer_comes_back() {
    let dir = folder();
    let runs = Runs::default();
    for _ in 0..3 {
        with_keeper(dir.path(), |keeper, numbers| {
            assert_once(keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
        });
    }
    assert_eq!(runs.count(), 1);
    assert_eq!(stored(dir.path()), 1);
}

#[test]
fn an_abort_is_not_stored() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    for expected in [Err("no"), Err("not yet"), Ok(1), Ok(1)] {
        let txn = RunTxn::try_update(move |txn| {
            let next = add(txn, numbers, 1)?;
            match expected {
                Ok(_) => Ok(next),
                Err(no) => Err(TxnError::Abort(no)),
            }
        });
        let outcome = keeper.blocking_run(txn.idempotent("key"));
        match (outcome, expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected),
            (Err(TxnError::Abort(no)), Err(expected)) => assert_eq!(no, expected),
            (outcome, _) => panic!("{outcome:?}"),
        }
    }
    assert_eq!(get(&keeper, numbers, 1), Some(1));
}

#[test]
fn a_panic_is_not_stored() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let panics = RunTxn::update(move |txn| {
        add(txn, numbers, 1)?;
        if numbers.get(txn, &1)? == Some(1) {
            panic!("too early");
        }
        Ok(0)
    });
    let error = keeper.blocking_run(panics.idempotent("key")).unwrap_err();
    assert!(matches!(error, TxnError::BodyPanicked { .. }), "{error:?}");
    let runs = Runs::default();
    assert_once(&keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
    assert_eq!(runs.count(), 1);
}

/// What the effect wrote and the answer are in one commit: where a body's writes are undone, its answer is too.
#[test]
fn a_body_that_runs_again_in_its_batch_stores_the_answer_of_the_run_that_was_committed() {
    let dir = folder();
    let keeper = lockkeeper::Keeper::builder()
        .path(dir.path())
        .map_size(1 << 16);
    let (keeper, numbers) = crate::support::open_with(keeper);
    let big = keeper
        .blocking_database::<lockkeeper::heed::types::Bytes, lockkeeper::heed::types::Bytes>("big")
        .unwrap();
    let filling = || {
        let txn = RunTxn::update(move |txn| {
            add(txn, numbers, 1)?;
            // The map is too small for it the first time.
            big.put(txn, b"big", &vec![1; 1 << 20])?;
            Ok(txn.attempt())
        });
        txn.idempotent("key")
    };
    let attempt = keeper.blocking_run(filling()).unwrap();
    assert!(attempt > 1, "the map had to grow");
    assert_eq!(keeper.blocking_run(filling()).unwrap(), attempt);
    assert_eq!(get(&keeper, numbers, 1), Some(1));
}

#[test]
fn the_first_sender_is_answered_what_everybody_will_be() {
    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    struct Receipt {
        number: u64,
        #[serde(skip)]
        scratch: u64,
    }
    let dir = folder();
    let (keeper, _) = open(dir.path());
    for _ in 0..2 {
        let txn = RunTxn::update(|_| {
            Ok(Receipt {
                number: 7,
                scratch: 9,
            })
        });
        let receipt = keeper.blocking_run(txn.idempotent("key")).unwrap();
        assert_eq!(
            receipt,
            Receipt {
                number: 7,
                scratch: 0
            }
        );
    }
}

#[test]
fn without_a_key_nothing_is_stored() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let runs = Runs::default();
    for _ in 0..2 {
        keeper
            .blocking_run(runs.bump(numbers, 1).request("the same"))
            .unwrap();
    }
    assert_eq!(runs.count(), 2);
    let databases = crate::support::stats(&keeper).environment.databases;
    assert!(
        databases
            .iter()
            .all(|db| db.name.as_deref() != Some(crate::ANSWERS))
    );
}
