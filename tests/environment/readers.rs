//! Reader slots: of processes that died, of more threads than there are, and who has had one for how long.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::{ClearStaleReaders, EnvStatsQuery, RunTxn, Stage, Sync, TxnError};

use super::peer::Peer;
use super::{
    Begun, LONG, MIB, builder, folder, has, hold_named_view, hold_view, hold_writer, open, stats,
    store, until, wait,
};

/// A process that is killed while it reads.
fn die_reading(folder: &std::path::Path) {
    let mut reader = Peer::heed(folder, MIB);
    reader.ask("read");
    reader.kill();
}

#[test]
fn readers_that_died_are_cleared_on_demand() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).stale_reader_interval(Duration::ZERO));
    assert_eq!(keeper.blocking_send(ClearStaleReaders), 0);
    die_reading(folder.path());
    die_reading(folder.path());
    assert_eq!(keeper.blocking_send(ClearStaleReaders), 2);
    assert_eq!(keeper.blocking_send(ClearStaleReaders), 0);
    assert_eq!(stats(&keeper).stale_readers_cleared, 2);

    // One that lives is left alone.
    let mut reader = Peer::heed(folder.path(), MIB);
    reader.ask("read");
    assert_eq!(keeper.blocking_send(ClearStaleReaders), 0);
    keeper.blocking_update(store(blobs, 1, 10)).unwrap();
}

#[test]
fn readers_that_died_are_cleared_every_so_often() {
    let folder = folder();
    let interval = Duration::from_millis(10);
    let (keeper, _) = open(builder(folder.path()).stale_reader_interval(interval));
    die_reading(folder.path());
    until("they are cleared", || {
        stats(&keeper).stale_readers_cleared == 1
    });
}

#[test]
fn readers_that_died_are_cleared_on_open() {
    let folder = folder();
    // Somebody keeps the lock file, or it would be made anew.
    let keeps = Peer::heed(folder.path(), MIB);
    die_reading(folder.path());
    let (keeper, blobs) = open(builder(folder.path()).stale_reader_interval(Duration::ZERO));
    assert_eq!(
        keeper.blocking_send(ClearStaleReaders),
        0,
        "there are none left"
    );
    // Pages are used again: nobody holds an old snapshot.
    for n in 0..200 {
        keeper.blocking_update(store(blobs, 1, 50_000 + n)).unwrap();
    }
    assert!(stats(&keeper).used_bytes < MIB);
    drop(keeps);
}

#[test]
fn the_oldest_view_is_reported_with_its_name_and_age() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()));
    assert_eq!(stats(&keeper).oldest_view_ms, None);
    let begun = Instant::now();
    let report = hold_named_view(&keeper, "monthly report");
    // The clock of the ages has steps of a few milliseconds.
    thread::sleep(Duration::from_millis(30));
    let other = hold_view(&keeper, |_| Ok(()));
    let stats_now = stats(&keeper);
    let most = u64::try_from(begun.elapsed().as_millis()).unwrap() + 20;
    let age = stats_now.oldest_view_ms.unwrap();
    assert!((10..=most).contains(&age), "{age}");
    let [first, second] = &stats_now.views[..] else {
        panic!("{:?}", stats_now.views);
    };
    assert!(
        first.contains("\"monthly report\"") && first.contains("main.rs"),
        "{first}"
    );
    assert!(second.contains("main.rs"), "{second}");

    report.release().unwrap();
    assert_eq!(stats(&keeper).views.len(), 1);
    other.release().unwrap();
    assert!(stats(&keeper).views.is_empty());
}

#[test]
fn five_hundred_threads_on_a_hundred_and_twenty_six_slots_are_all_answered() {
    const THREADS: usize = 500;
    let folder = folder();
    // Whoever opens the lock file first decides how many there are.
    let first = Peer::heed(folder.path(), MIB);
    let (keeper, blobs) = open(builder(folder.path()).deadline(Duration::from_secs(30)));
    keeper.blocking_update(store(blobs, 1, 100)).unwrap();
    assert_eq!(stats(&keeper).max_readers, 126);

    // All of them are there until all are done: a slot is its thread's until the thread ends.
    let together = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (keeper, together) = (keeper.clone(), Arc::clone(&together));
            thread::Builder::new()
                .stack_size(256 << 10)
                .spawn(move || {
                    together.wait();
                    for _ in 0..3 {
                        let begun = Instant::now();
                        assert!(has(&keeper, blobs, 1, 100));
                        keeper
                            .blocking_run(RunTxn::view(move |txn| Ok(blobs.len(txn)?)))
                            .unwrap();
                        assert!(begun.elapsed() < Duration::from_secs(30));
                    }
                    together.wait();
                })
                .unwrap()
        })
        .collect();
    threads.into_iter().for_each(|it| it.join().unwrap());
    let stats = stats(&keeper);
    assert!(stats.readers <= 126 && stats.views_shipped > 3 * THREADS as u64);
    drop(first);
    keeper.blocking_shutdown(LONG).unwrap();
}

#[test]
fn the_number_of_slots_is_a_setting_of_the_first() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()));
    assert_eq!(stats(&keeper).max_readers, 4096);
    let folder = super::folder();
    let (keeper, _) = open(builder(folder.path()).max_readers(10));
    assert_eq!(stats(&keeper).max_readers, 10);
}

#[test]
fn i13_a_full_queue_of_the_readers_gives_an_answer() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()).reader_threads(1).reader_queue(1));
    let held = hold_named_view(&keeper, "holder");
    let queued = Begun::new(keeper.run(RunTxn::view(|_| Ok(1))));
    let late = RunTxn::view(|_| Ok(2)).deadline(Duration::from_millis(30));
    let late = wait(keeper.run(late));
    assert!(
        matches!(
            late,
            Err(TxnError::DeadlineExceeded {
                stage: Stage::WasQueued,
                ..
            })
        ),
        "{late:?}"
    );
    held.release().unwrap();
    assert_eq!(queued.answer().unwrap(), 1);
    assert_eq!(keeper.blocking_run(RunTxn::view(|_| Ok(3))).unwrap(), 3);
}

/// Commands that are no transactions have a bound of their own; beyond it senders wait, and all are answered.
#[test]
fn i13_a_thousand_commands_at_once_are_all_answered() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).queue(4));
    let held = hold_writer(&keeper);
    let syncs: Vec<_> = (0..1000).map(|_| Begun::new(keeper.send(Sync))).collect();
    // They take no place from the transactions, wherever they have come to: the actor has seen them all.
    wait(keeper.send(EnvStatsQuery)).unwrap();
    let update = Begun::new(keeper.update(store(blobs, 1, 10)));
    held.release().unwrap();
    for sync in syncs {
        sync.answer().unwrap();
    }
    update.answer().unwrap();
}
