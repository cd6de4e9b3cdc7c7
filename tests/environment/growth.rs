//! The policies by which the map grows, their bound, and what a full map leaves behind.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use lockkeeper::{ErrorClass, Growth, Keeper, RunTxn, TxnError};

use super::{
    Begun, Blobs, KIB, LONG, MIB, builder, folder, has, hold_writer, open, stats, store, value,
};

/// One update after the other, until one fails.
fn fill(keeper: &Keeper, blobs: Blobs, len: u64) -> (u64, TxnError) {
    for key in 0.. {
        if let Err(error) = keeper.blocking_update(store(blobs, key, len)) {
            return (key, error);
        }
    }
    unreachable!("the map is bounded")
}

#[track_caller]
fn assert_full(error: &TxnError, at: u64, most: u64) {
    let TxnError::EnvironmentFull { size, max } = error else {
        panic!("{error}");
    };
    assert_eq!((*size, *max), (at, most));
    assert_eq!(error.class(), ErrorClass::Full);
    assert!(!error.is_retryable());
}

#[test]
fn doubling_goes_on_until_a_body_fits() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let seen = Arc::new(AtomicU32::new(0));
    let attempt = Arc::clone(&seen);
    let mut put = store(blobs, 1, 5 * MIB);
    keeper
        .blocking_update(move |txn| {
            attempt.store(txn.attempt(), Ordering::Relaxed);
            put(txn)
        })
        .unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 4, "at 1, 2, 4 and 8 MiB");
    let stats = stats(&keeper);
    assert_eq!((stats.map_size, stats.map_resizes), (8 * MIB, 3));
    assert!(has(&keeper, blobs, 1, 5 * MIB));
}

#[test]
fn the_bound_ends_the_growth_and_the_environment_goes_on() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).max_map_size(3 * MIB));
    let (stored, error) = fill(&keeper, blobs, 100_000);
    assert_full(&error, 3 * MIB, 3 * MIB);
    assert!(stored >= 25, "{stored}");
    assert_eq!(stats(&keeper).map_size, 3 * MIB);

    assert!((0..stored).all(|key| has(&keeper, blobs, key, 100_000)));
    keeper
        .blocking_update(move |txn| Ok(blobs.delete(txn, &0)?))
        .unwrap();
    // Pages that were freed can be used after the next commit.
    keeper.blocking_update(store(blobs, 1000, 10)).unwrap();
    keeper
        .blocking_update(store(blobs, stored, 90_000))
        .unwrap();
}

#[test]
fn steps_are_no_more_than_needed() {
    let folder = folder();
    let step = 128 * KIB;
    let (keeper, blobs) = open(builder(folder.path()).growth(Growth::Step(step)));
    for key in 0..40 {
        keeper.blocking_update(store(blobs, key, 60_000)).unwrap();
    }
    let stats = stats(&keeper);
    assert_eq!((stats.map_size - MIB) % step, 0);
    assert_eq!((stats.map_size - MIB) / step, stats.map_resizes);
    assert!(stats.used_bytes + step >= stats.map_size, "{stats:?}");
}

#[test]
fn a_function_is_asked_with_the_present_size_and_may_say_no() {
    let folder = folder();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let growth = Growth::function(move |size| {
        log.lock().unwrap().push(size);
        (size < 2 * MIB).then_some(size + 512 * KIB + 1)
    });
    let (keeper, blobs) = open(builder(folder.path()).growth(growth));
    let (_, error) = fill(&keeper, blobs, 60_000);
    let page = stats(&keeper).page_size;
    let second = MIB + 512 * KIB + page;
    let third = second + 512 * KIB + page;
    assert_eq!(
        *asked.lock().unwrap(),
        [MIB, second, third],
        "whole pages, and once for each generation"
    );
    assert_full(&error, third, 64 * MIB);
    assert_eq!(stats(&keeper).map_size, third);
}

#[test]
fn a_function_that_answers_no_larger_size_ends_the_growth() {
    for answer in [0, MIB - 1, MIB] {
        let folder = folder();
        let growth = Growth::function(move |_| Some(answer));
        let (keeper, blobs) = open(builder(folder.path()).growth(growth));
        let error = keeper
            .blocking_update(store(blobs, 1, 2 * MIB))
            .unwrap_err();
        assert_full(&error, MIB, 64 * MIB);
        assert_eq!(stats(&keeper).map_size, MIB);
        keeper.blocking_update(store(blobs, 1, 1000)).unwrap();
        assert!(has(&keeper, blobs, 1, 1000));
    }
}

#[test]
fn in_a_batch_for_which_the_map_is_too_small_those_that_fit_are_committed() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).growth(Growth::Fixed));
    let holder = hold_writer(&keeper);
    let large = |key: u64| key % 3 == 1;
    let sent: Vec<_> = (0..12)
        .map(|key| {
            let len = if large(key) { 2 * MIB } else { 5_000 };
            let put = store(blobs, key, len);
            Begun::new(keeper.run(RunTxn::update(put).name(format!("put {key}"))))
        })
        .collect();
    holder.release().unwrap();
    for (key, update) in (0..).zip(sent) {
        match update.answer() {
            Ok(()) => assert!(!large(key), "{key}"),
            Err(error) => {
                assert!(large(key), "{key}: {error}");
                assert_full(&error, MIB, 64 * MIB);
            }
        }
        assert_eq!(has(&keeper, blobs, key, 5_000), !large(key), "{key}");
    }
    keeper.blocking_update(store(blobs, 100, 5_000)).unwrap();
}

#[test]
fn i03_a_full_map_that_a_body_swallows_is_noticed_all_the_same() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let attempts = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&attempts);
    keeper
        .blocking_update(move |txn| {
            count.fetch_add(1, Ordering::Relaxed);
            blobs.put(txn, &1, b"first")?;
            // The application thinks nothing of it.
            let _ = blobs.put(txn, &2, &value(2, 3 * MIB));
            let _ = blobs.put(txn, &3, b"last");
            Ok(())
        })
        .unwrap();
    assert_eq!(attempts.load(Ordering::Relaxed), 3);
    assert!(has(&keeper, blobs, 2, 3 * MIB));

    // One that makes an error of its own out of it is run again, too.
    let answer = keeper.blocking_try_update(move |txn| {
        blobs
            .put(txn, &4, &value(4, 6 * MIB))
            .map_err(|_| TxnError::Abort("something with the database"))
    });
    assert!(answer.is_ok(), "{answer:?}");
    assert!(has(&keeper, blobs, 4, 6 * MIB));
}

#[test]
fn i03_where_the_map_may_not_grow_a_swallowed_full_map_is_the_answer_and_nothing_is_kept() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).growth(Growth::Fixed));
    let swallow = move |key: u64| {
        RunTxn::update(move |txn| {
            blobs.put(txn, &key, b"first")?;
            let _ = blobs.put(txn, &(key + 1), &value(2, 3 * MIB));
            Ok(())
        })
    };
    let error = keeper.blocking_run(swallow(10)).unwrap_err();
    assert_full(&error, MIB, 64 * MIB);

    // In company, too.
    let holder = hold_writer(&keeper);
    let sent = [
        Begun::new(keeper.update(store(blobs, 20, 10))),
        Begun::new(keeper.run(swallow(30))),
        Begun::new(keeper.update(store(blobs, 40, 10))),
    ];
    holder.release().unwrap();
    let [first, second, third] = sent.map(Begun::answer);
    first.unwrap();
    assert_full(&second.unwrap_err(), MIB, 64 * MIB);
    third.unwrap();
    let keys = keeper.blocking_view(move |txn| {
        let entries: Result<Vec<_>, _> = blobs.iter(txn)?.collect();
        Ok(entries?.into_iter().map(|(key, _)| key).collect::<Vec<_>>())
    });
    assert_eq!(keys.unwrap(), [20, 40]);
}

#[test]
fn the_map_grows_ahead_of_need() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).grow_ahead(75));
    // 2.9 MB: 70 % of 4 MiB.
    for key in 0..90 {
        keeper.blocking_update(store(blobs, key, 30_000)).unwrap();
    }
    let stats = stats(&keeper);
    assert_eq!(stats.map_fulls, 0, "no update had to wait for it");
    assert_eq!((stats.map_size, stats.map_resizes), (4 * MIB, 2));
}

#[test]
fn i01_views_that_run_all_the_time_see_whole_snapshots_while_the_map_grows() {
    let folder = folder();
    let (keeper, blobs) = open(
        builder(folder.path())
            .map_size(64 * KIB)
            .growth(Growth::Step(64 * KIB)),
    );
    keeper
        .blocking_update(move |txn| {
            blobs.put(txn, &0, &value(0, 10))?;
            Ok(blobs.put(txn, &u64::MAX, &value(0, 10))?)
        })
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (keeper, stop) = (keeper.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                let mut views = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let same = keeper.blocking_view(move |txn| {
                        Ok(blobs.get(txn, &0)? == blobs.get(txn, &u64::MAX)?)
                    });
                    assert!(same.unwrap());
                    views += 1;
                }
                views
            })
        })
        .collect();
    for key in 1..100 {
        keeper
            .blocking_update(move |txn| {
                blobs.put(txn, &key, &value(key, 30_000))?;
                blobs.put(txn, &0, &value(key, 10))?;
                Ok(blobs.put(txn, &u64::MAX, &value(key, 10))?)
            })
            .unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    assert!(stats(&keeper).map_resizes >= 40);
    assert!((1..100).all(|key| has(&keeper, blobs, key, 30_000)));
    keeper.blocking_shutdown(LONG).unwrap();
}
