//! Group commit: the bodies of one batch share a commit and nothing else.

use std::panic;
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use lockkeeper::{Durability, RunTxn, TxnError};

use super::{Begun, Blobs, builder, folder, has, hold_writer, open, stats, store, value};

/// Bodies that panic on purpose say so; their backtraces are noise.
fn quiet_panics() {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let on_purpose = info
                .payload()
                .downcast_ref::<String>()
                .is_some_and(|text| text.starts_with("on purpose"));
            if !on_purpose {
                usual(info);
            }
        }));
    });
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Commits,
    Aborts,
    Panics,
    /// Fails without having written.
    Declines,
}

#[derive(Debug, PartialEq)]
struct No(u64);

/// Writes a value of its own, adds 1 to a number that all share, and ends; answers the number.
fn body(blobs: Blobs, key: u64, end: End) -> RunTxn<u64, No> {
    RunTxn::<u64>::try_update(move |txn| {
        if end == End::Declines {
            return Err(TxnError::Abort(No(key)));
        }
        let shared = blobs
            .get(txn, &SHARED)?
            .map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        blobs.put(txn, &SHARED, &(shared + 1).to_be_bytes())?;
        blobs.put(txn, &key, &value(key, 200))?;
        match end {
            End::Commits => Ok(shared + 1),
            End::Aborts => Err(TxnError::Abort(No(key))),
            _ => panic!("on purpose: {key}"),
        }
    })
}

const SHARED: u64 = u64::MAX;

/// Sends bodies that end so in one batch, and checks every answer and everything that is left.
fn run_batch(ends: &[End]) {
    quiet_panics();
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let before = stats(&keeper);
    let holder = hold_writer(&keeper);
    let sent: Vec<_> = (0..)
        .zip(ends)
        .map(|(key, &end)| Begun::new(keeper.run(body(blobs, key, end))))
        .collect();
    holder.release().unwrap();

    let mut numbers = 0;
    for ((key, &end), answer) in (0..).zip(ends).zip(sent) {
        match (end, answer.answer()) {
            // Each sees the writes of those before it that are kept, and of no others.
            (End::Commits, Ok(number)) => {
                numbers += 1;
                assert_eq!(number, numbers, "{key}");
            }
            (End::Aborts | End::Declines, Err(TxnError::Abort(No(no)))) => assert_eq!(no, key),
            (End::Panics, Err(TxnError::BodyPanicked { message, site })) => {
                assert_eq!(message, format!("on purpose: {key}"));
                assert!(site.file().ends_with("batches.rs"));
            }
            (end, answer) => panic!("{key} {end:?}: {answer:?}"),
        }
    }
    for (key, &end) in (0..).zip(ends) {
        assert_eq!(has(&keeper, blobs, key, 200), end == End::Commits, "{key}");
    }
    let after = stats(&keeper);
    assert_eq!(after.bodies - before.bodies, ends.len() as u64 + 1);
    assert_eq!(
        after.batches - before.batches,
        2,
        "the holder, and all others"
    );
    keeper.blocking_update(store(blobs, 5000, 10)).unwrap();
}

#[test]
fn i03_bodies_that_fail_or_panic_undo_their_own_writes_alone() {
    let ends: Vec<_> = (0..64)
        .map(|n| match n % 4 {
            1 => End::Aborts,
            2 => End::Panics,
            3 => End::Declines,
            _ => End::Commits,
        })
        .collect();
    run_batch(&ends);
}

#[test]
fn i03_one_body_that_fails_among_many() {
    for bad in [0, 1, 31, 63] {
        let mut ends = [End::Commits; 64];
        ends[bad] = End::Panics;
        run_batch(&ends);
        ends[bad] = End::Aborts;
        run_batch(&ends);
    }
}

#[test]
fn i03_a_body_that_works_among_many_that_fail() {
    let mut ends = [End::Aborts; 64];
    ends[40] = End::Commits;
    run_batch(&ends);
    run_batch(&[End::Aborts; 64]);
    run_batch(&[End::Panics; 3]);
}

#[test]
fn i03_however_failures_are_spread_the_outcome_is_that_of_one_body_after_the_other() {
    quiet_panics();
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let mut seed = 7_u64;
    let mut expected = 0;
    // The rate of failures climbs and falls again, so that every way to run a batch is taken.
    for (round, percent) in [0, 1, 5, 30, 60, 90, 30, 5, 1, 0].into_iter().enumerate() {
        for _ in 0..5 {
            let holder = hold_writer(&keeper);
            let first = round as u64 * 1000;
            let sent: Vec<_> = (first..first + 100)
                .map(|key| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let end = match (seed >> 33) % 100 {
                        n if n >= percent => End::Commits,
                        n if n % 8 == 0 => End::Panics,
                        _ => End::Aborts,
                    };
                    (end, Begun::new(keeper.run(body(blobs, key, end))))
                })
                .collect();
            holder.release().unwrap();
            for (end, answer) in sent {
                let answer = answer.answer();
                assert_eq!(answer.is_ok(), end == End::Commits);
                if let Ok(number) = answer {
                    expected += 1;
                    assert_eq!(number, expected);
                }
            }
        }
    }
}

#[test]
fn a_batch_is_one_commit_and_one_of_failures_is_none() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let send = |end| {
        let before = stats(&keeper);
        let holder = hold_writer(&keeper);
        let sent: Vec<_> = (0..50)
            .map(|key| Begun::new(keeper.run(body(blobs, key, end))))
            .collect();
        holder.release().unwrap();
        let _: Vec<_> = sent.into_iter().map(Begun::answer).collect();
        stats(&keeper).last_txn_id - before.last_txn_id
    };
    assert_eq!(send(End::Commits), 1);
    assert_eq!(send(End::Aborts), 0);
}

#[test]
fn a_body_can_see_that_it_runs_again() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let most = Arc::new(AtomicU32::new(0));
    let holder = hold_writer(&keeper);
    let seen = Arc::clone(&most);
    let mut put = store(blobs, 1, 10);
    let first = Begun::new(keeper.update(move |txn| {
        seen.fetch_max(txn.attempt(), Ordering::Relaxed);
        put(txn)
    }));
    let second = Begun::new(keeper.run(body(blobs, 2, End::Aborts)));
    holder.release().unwrap();
    first.answer().unwrap();
    assert!(second.answer().is_err());
    assert_eq!(most.load(Ordering::Relaxed), 2, "its neighbour had failed");
}

#[test]
fn i03_a_body_that_dirties_more_pages_than_lmdb_holds_is_no_trouble_for_its_neighbours() {
    // LMDB holds 2^17 dirty pages; a nested transaction must not have more.
    let folder = folder();
    let (keeper, blobs) = open(
        builder(folder.path())
            .max_map_size(2 << 30)
            .map_size(2 << 30)
            .durability(Durability::NoSync),
    );
    let holder = hold_writer(&keeper);
    let first = Begun::new(keeper.update(store(blobs, 1, 100)));
    let large = Begun::new(keeper.update(move |txn| {
        let page = value(9, 3_000);
        for key in 1_000..140_000 {
            blobs.put(txn, &key, &page)?;
        }
        Ok(())
    }));
    let bad = Begun::new(keeper.run(body(blobs, 3, End::Aborts)));
    let last = Begun::new(keeper.update(store(blobs, 2, 100)));
    holder.release().unwrap();
    first.answer().unwrap();
    let large = large.answer();
    assert!(matches!(bad.answer(), Err(TxnError::Abort(No(3)))));
    last.answer().unwrap();
    assert!(has(&keeper, blobs, 1, 100) && has(&keeper, blobs, 2, 100));
    let entries = keeper.blocking_view(move |txn| Ok(blobs.len(txn)?));
    let kept = match large {
        Ok(()) => 139_000,
        Err(TxnError::TooLarge) => 0,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(entries.unwrap(), 2 + kept);
}
