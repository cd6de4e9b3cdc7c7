//! Without LMDB's lock file: updates exclude views.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Bytes, U64};
use lockkeeper::{
    CopyTo, DeleteDatabase, Growth, HandlerContext, Outcome, RunTxn, SetMapSize, Stage, TxnError,
};

use super::peer::{Peer, entries};
use super::{
    Begun, Blobs, KIB, LONG, MIB, builder, folder, gate_is_open, has, hold_view, hold_writer, open,
    stats, store, until, value,
};

#[test]
fn an_update_enters_when_no_view_is_open_and_keeps_new_ones_out() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).no_lock(true));
    keeper.blocking_update(store(blobs, 1, 100)).unwrap();
    let view = hold_view(&keeper, move |txn| {
        Ok((
            blobs.get(txn, &1)?.map(<[u8]>::to_vec),
            blobs.get(txn, &2)?.is_some(),
        ))
    });
    let ran = Arc::new(AtomicBool::new(false));
    let runs = Arc::clone(&ran);
    let mut update = Begun::new(keeper.update(move |txn| {
        runs.store(true, Ordering::SeqCst);
        blobs.delete(txn, &1)?;
        Ok(blobs.put(txn, &2, &value(2, 100))?)
    }));
    until("the gate shuts", || !gate_is_open(&keeper));
    let mut late = Begun::new(keeper.view(move |txn| Ok(blobs.get(txn, &2)?.is_some())));
    assert!(update.poll().is_none() && late.poll().is_none());
    assert!(!ran.load(Ordering::SeqCst));

    assert_eq!(view.release().unwrap(), (Some(value(1, 100)), false));
    update.answer().unwrap();
    assert!(late.answer().unwrap());
}

#[test]
fn a_view_waits_for_a_running_update() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).no_lock(true));
    let update = hold_writer(&keeper);
    let short = Begun::new(keeper.view(|_| Ok(())));
    let mut long = Begun::new(keeper.run(RunTxn::view(move |txn| Ok(blobs.len(txn)?))));
    assert!(long.poll().is_none());
    update.release().unwrap();
    short.answer().unwrap();
    assert_eq!(long.answer().unwrap(), 0);
}

#[test]
fn both_waits_end_with_their_deadlines() {
    let folder = folder();
    let span = Duration::from_millis(300);
    let builder = builder(folder.path()).no_lock(true).deadline(span);
    let keeper = builder.open().unwrap();
    // That is its time, too, and a slow disk may need more for the first commit.
    until("it has been made", || {
        keeper
            .blocking_database::<U64<BigEndian>, Bytes>("blobs")
            .is_ok()
    });
    let blobs: Blobs = keeper.blocking_database("blobs").unwrap();
    let view = hold_view(&keeper, |_| Ok(()));
    let ran = Arc::new(AtomicBool::new(false));
    let runs = Arc::clone(&ran);
    let begun = Instant::now();
    let error = keeper
        .blocking_update(move |_| {
            runs.store(true, Ordering::SeqCst);
            Ok(())
        })
        .unwrap_err();
    assert!(begun.elapsed() < LONG / 2);
    assert!(
        matches!(
            error,
            TxnError::MapBusy(_) | TxnError::DeadlineExceeded { .. }
        ),
        "{error}"
    );
    until("the gate opens again", || gate_is_open(&keeper));
    view.release().unwrap();
    let patient = RunTxn::update(store(blobs, 1, 10)).deadline(LONG);
    keeper.blocking_run(patient).unwrap();
    assert!(!ran.load(Ordering::SeqCst), "it never ran");

    let update = hold_writer(&keeper);
    for long in [false, true] {
        let begun = Instant::now();
        let error = if long {
            keeper.blocking_run(RunTxn::view(|_| Ok(())))
        } else {
            keeper.blocking_view(|_| Ok(()))
        };
        let error = error.unwrap_err();
        assert!(begun.elapsed() >= span && begun.elapsed() < LONG / 2);
        assert!(
            matches!(
                error,
                TxnError::DeadlineExceeded { deadline, stage: Stage::WaitedForGate | Stage::Ran | Stage::WasQueued }
                    if deadline == span
            ) || matches!(error, TxnError::WriterStalled { .. }),
            "{error}"
        );
    }
    update.release().unwrap();
    assert!(has(&keeper, blobs, 1, 10));
}

#[test]
fn i14_an_update_inside_a_view_is_refused() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).no_lock(true));
    let inner = keeper.clone();
    let error = keeper
        .blocking_view(move |_| Ok(inner.blocking_update(store(blobs, 1, 10))))
        .unwrap();
    assert!(matches!(error, Err(TxnError::NestedTransaction { .. })));
}

#[test]
fn a_second_process_is_refused() {
    let folder = folder();
    let mut peer = Peer::start(folder.path());
    let alone = format!("keeper {MIB} {MIB} no_lock");
    let with_locks = format!("keeper {MIB} {MIB}");

    let (keeper, blobs) = open(builder(folder.path()).no_lock(true));
    for order in [&alone, &with_locks] {
        let answer = peer.ask(order);
        assert!(answer.starts_with("OtherProcess"), "{answer}");
    }
    keeper.blocking_update(store(blobs, 1, 10)).unwrap();
    keeper.blocking_shutdown(LONG).unwrap();

    assert_eq!(peer.ask(&with_locks), "open");
    let refused = builder(folder.path()).no_lock(true).open().unwrap_err();
    assert!(
        matches!(refused, lockkeeper::OpenError::OtherProcess { .. }),
        "{refused}"
    );
    peer.kill();
    builder(folder.path()).no_lock(true).open().unwrap();
}

#[test]
fn growth_works_among_views() {
    let folder = folder();
    let (keeper, blobs) = open(
        builder(folder.path())
            .no_lock(true)
            .map_size(64 * KIB)
            .growth(Growth::Step(64 * KIB)),
    );
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (keeper, stop) = (keeper.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                let mut most = 0;
                while !stop.load(Ordering::Relaxed) {
                    let seen = keeper.blocking_view(move |txn| {
                        let entries = blobs.len(txn)?;
                        let sound = blobs.iter(txn)?.all(|entry| {
                            entry.is_ok_and(|(key, bytes)| bytes == value(key, 20_000))
                        });
                        assert!(sound, "a snapshot that is none");
                        Ok(entries)
                    });
                    let seen = seen.unwrap();
                    assert!(seen >= most);
                    most = seen;
                }
            })
        })
        .collect();
    for key in 0..60 {
        keeper.blocking_update(store(blobs, key, 20_000)).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|it| it.join().unwrap());
    assert!(stats(&keeper).map_resizes >= 15);
    keeper.blocking_send(SetMapSize(32 * MIB)).unwrap();
    assert_eq!(stats(&keeper).map_size, 32 * MIB);
    keeper.blocking_shutdown(LONG).unwrap();
    assert_eq!(entries(folder.path(), "blobs").len(), 60);
}

#[test]
fn handlers_databases_and_copies_work() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).no_lock(true));
    let again = |_: &mut HandlerContext, outcome| match outcome {
        Outcome::Aborted => Outcome::Retry,
        outcome => outcome,
    };
    let update = RunTxn::<u32>::try_update(move |txn| {
        blobs
            .put(txn, &1, &value(1, 3 * MIB))
            .map_err(TxnError::<()>::from)?;
        // The first attempts find the map full and run again by themselves.
        match txn.attempt() {
            0..=4 => Err(TxnError::Abort(())),
            attempt => Ok(attempt),
        }
    });
    assert!(keeper.blocking_run(update.handler(again)).unwrap() >= 5);

    let other = keeper.blocking_database::<Bytes, Bytes>("other").unwrap();
    keeper
        .blocking_update(move |txn| Ok(other.put(txn, b"k", b"v")?))
        .unwrap();
    keeper
        .blocking_send(DeleteDatabase("other".into()))
        .unwrap();
    let copy = super::folder();
    let target = copy.path().join("copy");
    keeper
        .blocking_send(CopyTo::new(&target).compact())
        .unwrap();
    assert_eq!(entries(&target, "blobs")[&1], value(1, 3 * MIB));
}
