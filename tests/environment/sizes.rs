//! `SetMapSize`: waits for who is inside, keeps others out meanwhile, and says who was in the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::{
    ClearStaleReaders, CopyTo, EnvError, EnvStatsQuery, Growth, Keeper, RunTxn, SetMapSize,
    SizeLimit, Sync, TxnError,
};

use super::{
    Begun, KIB, LONG, MIB, builder, folder, gate_is_open, has, hold_named_view, hold_view,
    hold_writer, open, stats, store, until, wait, with_time_enough,
};

#[test]
fn i01_a_change_waits_for_running_views_and_keeps_new_ones_out() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    keeper.blocking_update(store(blobs, 1, 100_000)).unwrap();
    let running = hold_view(&keeper, move |txn| {
        Ok(blobs.get(txn, &1)?.map(<[u8]>::to_vec))
    });

    let mut change = Begun::new(keeper.send(SetMapSize(8 * MIB)));
    until("the gate shuts", || !gate_is_open(&keeper));
    let mut late = Begun::new(keeper.view(move |txn| Ok(blobs.get(txn, &1)?.is_some())));
    let update = Begun::new(keeper.update(store(blobs, 2, 10)));
    assert!(change.poll().is_none());
    assert!(late.poll().is_none());

    // What the running view reads now is the old map, which is still there.
    assert_eq!(running.release().unwrap(), Some(super::value(1, 100_000)));
    assert_eq!(change.answer().unwrap(), 8 * MIB);
    assert!(late.answer().unwrap());
    update.answer().unwrap();
    let stats = stats(&keeper);
    assert_eq!((stats.map_size, stats.map_resizes), (8 * MIB, 1));
}

#[test]
fn i01_on_expiry_the_views_in_the_way_are_named_and_the_gate_opens_again() {
    let folder = folder();
    let patience = Duration::from_millis(300);
    let (keeper, blobs) = open(builder(folder.path()).resize_timeout(patience));
    // The writer has a moment to name them before the sender's time is over; a machine that is away may take longer.
    let (report, plain, begun, error) = with_time_enough(|_| {
        let report = hold_named_view(&keeper, "report");
        let plain = hold_view(&keeper, |_| Ok(()));
        let begun = Instant::now();
        let error = keeper.blocking_send(SetMapSize(8 * MIB)).unwrap_err();
        assert!(begun.elapsed() >= patience);
        let too_late = |error: &EnvError| {
            matches!(
                error,
                EnvError::Txn(TxnError::DeadlineExceeded { .. } | TxnError::WriterStalled { .. })
            )
        };
        if too_late(&error) {
            report.release().unwrap();
            plain.release().unwrap();
            return None;
        }
        Some((report, plain, begun, error))
    });
    let text = error.to_string();
    let EnvError::Txn(error) = error else {
        panic!("{error}")
    };
    assert!(error.is_retryable());
    let TxnError::MapBusy(busy) = error else {
        panic!("{error}")
    };
    assert_eq!(busy.update, None);
    assert!(busy.waited > Duration::ZERO && busy.waited <= begun.elapsed());
    assert_eq!(busy.views.len(), 2);
    assert_eq!(
        busy.views[0].name.as_deref(),
        Some("report"),
        "the oldest comes first"
    );
    assert_eq!(busy.views[1].name, None);
    // The clock of the ages is coarse.
    let coarse = Duration::from_millis(20);
    for view in &busy.views {
        assert!(view.age + coarse >= patience && view.age < LONG, "{view}");
        assert!(view.site.file().contains("environment"), "{view}");
    }
    assert!(text.contains("\"report\""), "{text}");

    assert!(gate_is_open(&keeper));
    keeper.blocking_update(store(blobs, 1, 10)).unwrap();
    assert!(has(&keeper, blobs, 1, 10));
    assert_eq!(stats(&keeper).map_size, MIB);

    report.release().unwrap();
    plain.release().unwrap();
    assert_eq!(keeper.blocking_send(SetMapSize(8 * MIB)).unwrap(), 8 * MIB);
}

#[test]
fn a_hundred_changes_at_once_are_one_change() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()));
    let holder = hold_writer(&keeper);
    let sent: Vec<_> = (1..=100)
        .map(|n| Begun::new(keeper.send(SetMapSize(MIB + n * 64 * KIB))))
        .collect();
    // The actor answers in order: once it has answered this, those before it are with the writer.
    keeper.blocking_send(EnvStatsQuery).unwrap();
    holder.release().unwrap();

    for change in sent {
        assert_eq!(change.answer().unwrap(), MIB + 6400 * KIB);
    }
    let stats = stats(&keeper);
    assert_eq!((stats.map_size, stats.map_resizes), (MIB + 6400 * KIB, 1));
}

#[test]
fn a_hundred_updates_that_find_the_map_full_make_one_change_for_each_generation() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let holder = hold_writer(&keeper);
    let sent: Vec<_> = (0..100)
        .map(|key| Begun::new(keeper.update(store(blobs, key, 60_000))))
        .collect();
    holder.release().unwrap();
    for update in sent {
        update.answer().unwrap();
    }
    // 6 MB: from 1 to 2, 4 and 8 MiB, and not 2^100.
    let stats = stats(&keeper);
    assert_eq!(
        (stats.map_size, stats.map_resizes, stats.map_fulls),
        (8 * MIB, 3, 3)
    );
    assert!((0..100).all(|key| has(&keeper, blobs, key, 60_000)));
}

#[test]
fn changes_and_full_maps_at_once_do_not_multiply() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let holder = hold_writer(&keeper);
    let mut updates = Vec::new();
    let mut changes = Vec::new();
    for key in 0..50 {
        updates.push(Begun::new(keeper.update(store(blobs, key, 60_000))));
        changes.push(Begun::new(keeper.send(SetMapSize(16 * MIB))));
    }
    keeper.blocking_send(EnvStatsQuery).unwrap();
    holder.release().unwrap();
    updates.into_iter().for_each(|it| it.answer().unwrap());
    for change in changes {
        assert_eq!(change.answer().unwrap(), 16 * MIB);
    }
    let stats = stats(&keeper);
    assert_eq!(stats.map_size, 16 * MIB);
    assert!(
        stats.map_resizes <= 3,
        "to 2 and 4 MiB at the most, and to 16: {}",
        stats.map_resizes
    );
}

#[test]
fn sizes_that_are_not_possible_change_nothing() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).max_map_size(4 * MIB));
    keeper.blocking_update(store(blobs, 1, 600_000)).unwrap();
    for asked in [0, 64 * KIB, 4 * MIB + 1, u64::MAX] {
        let refused = keeper.blocking_send(SetMapSize(asked));
        let Err(EnvError::BadSize { asked: named, .. }) = refused else {
            panic!("{asked}: {refused:?}");
        };
        assert_eq!(named, asked);
    }
    assert_eq!(stats(&keeper).map_size, MIB);
    assert!(has(&keeper, blobs, 1, 600_000));

    let page = stats(&keeper).page_size;
    assert_eq!(
        keeper.blocking_send(SetMapSize(2 * MIB + 1)).unwrap(),
        2 * MIB + page,
        "in whole pages"
    );
    assert_eq!(
        keeper.blocking_send(SetMapSize(MIB)).unwrap(),
        MIB,
        "it may shrink"
    );
    assert!(has(&keeper, blobs, 1, 600_000));
}

#[test]
fn a_size_may_be_set_while_the_map_does_not_grow_by_itself() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).growth(Growth::Fixed));
    let full = keeper.blocking_update(store(blobs, 1, 2 * MIB));
    assert!(matches!(full, Err(TxnError::EnvironmentFull { .. })));
    keeper.blocking_send(SetMapSize(4 * MIB)).unwrap();
    keeper.blocking_update(store(blobs, 1, 2 * MIB)).unwrap();
}

#[test]
fn i14_the_map_cannot_be_changed_from_inside_a_body() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()));
    let inner = keeper.clone();
    let change = move || inner.blocking_send(SetMapSize(8 * MIB)).unwrap_err();
    let again = change.clone();
    let in_view = keeper.blocking_view(move |_| Ok(change())).unwrap();
    let in_update = keeper
        .blocking_run(RunTxn::update(move |_| Ok(again())))
        .unwrap();
    for error in [in_view, in_update] {
        assert!(
            matches!(error, EnvError::Txn(TxnError::NestedTransaction { .. })),
            "{error}"
        );
    }
    assert_eq!(wait(keeper.send(SetMapSize(8 * MIB))).unwrap(), 8 * MIB);
}

#[test]
fn an_update_in_the_way_is_named_too() {
    let folder = folder();
    let patience = Duration::from_millis(100);
    let (keeper, _) = open(builder(folder.path()).resize_timeout(patience));
    let holder = hold_writer(&keeper);
    let begun = Instant::now();
    let error = keeper.blocking_send(SetMapSize(8 * MIB)).unwrap_err();
    assert!(begun.elapsed() >= patience && begun.elapsed() < LONG / 2);
    let EnvError::Txn(TxnError::WriterStalled { name, site, since }) = error else {
        panic!("{error}");
    };
    assert_eq!(name.as_deref(), Some("holder"));
    assert!(site.file().ends_with("main.rs"));
    assert!(since >= patience && since < LONG);
    holder.release().unwrap();

    // What was refused does not happen later.
    assert_eq!(keeper.blocking_send(SetMapSize(4 * MIB)).unwrap(), 4 * MIB);
    assert_eq!(stats(&keeper).map_resizes, 1);
}

/// What one thread does again and again; it is told which time it is.
type Work = Box<dyn FnMut(&Keeper, u64) + Send>;

#[test]
fn i01_nobody_reads_the_map_while_it_changes() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    keeper.blocking_update(store(blobs, 1, 100_000)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let copies = super::folder();
    let target = copies.path().to_owned();
    let repeat = |mut work: Work| {
        let (keeper, stop) = (keeper.clone(), Arc::clone(&stop));
        thread::spawn(move || {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                work(&keeper, rounds);
                rounds += 1;
            }
            rounds
        })
    };
    let readers = [
        repeat(Box::new(|keeper, _| {
            assert_eq!(stats(keeper).unreadable, None);
        })),
        repeat(Box::new(move |keeper, _| {
            assert!(has(keeper, blobs, 1, 100_000));
        })),
        repeat(Box::new(move |keeper, nth| {
            let copy = CopyTo::new(target.join(nth.to_string()));
            let copy = if nth % 2 == 0 { copy.compact() } else { copy };
            keeper.blocking_send(copy).unwrap();
        })),
        repeat(Box::new(|keeper, _| {
            keeper.blocking_send(Sync).unwrap();
            keeper.blocking_send(ClearStaleReaders);
        })),
    ];
    for n in 0..200 {
        let size = (2 + n % 40) * MIB;
        assert_eq!(keeper.blocking_send(SetMapSize(size)).unwrap(), size);
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
}

/// One request that is not possible spoils nothing for those that come with it.
#[test]
fn a_size_that_is_not_possible_is_refused_alone() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()).max_map_size(8 * MIB));
    let held = hold_writer(&keeper);
    let fits = Begun::new(keeper.send(SetMapSize(4 * MIB)));
    let too_large = Begun::new(keeper.send(SetMapSize(64 * MIB)));
    held.release().unwrap();
    assert_eq!(fits.answer().unwrap(), 4 * MIB);
    let Err(EnvError::BadSize { asked, limit }) = too_large.answer() else {
        panic!("a map beyond its bound");
    };
    assert_eq!((asked, limit), (64 * MIB, SizeLimit::Maximum(8 * MIB)));
}
