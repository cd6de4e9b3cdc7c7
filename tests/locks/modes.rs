//! Conflict tables of an application's own, by namespace.

use super::*;
use Mode::{IntentWrite, Read, Update, Write};

fn config() -> LockConfig {
    // Many may append beside readers, nobody may do anything while it is rotated; and the table is not
    // symmetric: a reader does not keep an appender waiting, an appender does not let a reader in.
    let journal = ConflictTable::new(
        &[Read, Update, Write],
        &[
            &[false, false, true],
            &[true, false, true],
            &[true, true, true],
        ],
    );
    LockConfig {
        own_conflicts: vec![
            ("journal".into(), journal.unwrap()),
            ("store".into(), ConflictTable::single_writer()),
        ],
        ..LockConfig::default()
    }
}

#[actix::test]
async fn a_namespace_goes_by_a_table_of_its_own() {
    for door in Door::both(config()) {
        let tables = [
            ("journal", config().own_conflicts[0].1),
            ("store", ConflictTable::single_writer()),
            ("other", ConflictTable::standard()),
        ];
        let (holder, asker) = (door.locker(), door.locker());
        for (namespace, table) in tables {
            let one = Object::new(namespace, "one");
            let overlapping = Object::prefix(namespace, "o");
            for held_in in Mode::ALL.into_iter().filter(|mode| table.knows(*mode)) {
                let _held = door.hold(&holder, &one, held_in).await;
                for wanted in Mode::ALL.into_iter().filter(|mode| table.knows(*mode)) {
                    for object in [&one, &overlapping] {
                        let granted = door.ask(&asker, object, wanted, Wait::No).await.is_ok();
                        let expected = !table.conflicts(held_in, wanted);
                        assert_eq!(granted, expected, "{namespace}: {held_in}, {wanted}");
                    }
                }
            }
        }
    }
}

#[actix::test]
async fn the_single_writer_announces_itself_beside_readers_and_writes_alone() {
    for door in Door::both(config()) {
        let store = Object::new("store", "data");
        let (reader, writer, second) = (door.locker(), door.locker(), door.locker());
        let reading = door.hold(&reader, &store, Read).await;
        let announced = door.hold(&writer, &store, IntentWrite).await;
        let error = door.refused(&second, &store, IntentWrite).await;
        assert_eq!(error.conflict().unwrap().owners[0].locker, writer.id());
        let writing = door
            .until_queued(door.upgrade(announced, Write, Wait::Forever))
            .await;
        drop(reading);
        let writing = writing.await.unwrap().unwrap();
        door.refused(&reader, &store, Read).await;
        let announced = door.downgrade(writing, IntentWrite).await.unwrap();
        drop(door.hold(&reader, &store, Read).await);
        drop(announced);
    }
}

#[actix::test]
async fn a_mode_that_the_table_does_not_know_is_refused_and_changes_nothing() {
    for door in Door::both(config()) {
        let store = Object::new("store", "data");
        let locker = door.locker();
        let error = door.refused(&locker, &store, Update).await;
        assert!(matches!(error, LockError::UnknownMode(Update)), "{error}");
        assert!(error.to_string().contains("update"), "{error}");
        let error = door
            .ask(&locker, &Object::whole("store"), Update, Wait::Forever)
            .await;
        assert!(matches!(error, Err(LockError::UnknownMode(Update))));
        let held = door.hold(&locker, &store, Write).await;
        let (held, error) = *door.downgrade(held, Update).await.unwrap_err();
        assert!(matches!(error, LockError::UnknownMode(Update)));
        let (held, error) = *door.upgrade(held, Update, Wait::No).await.unwrap_err();
        assert!(matches!(error, LockError::UnknownMode(Update)));
        let ops = LockOps::new()
            .lock(Object::new("store", "more"), Read)
            .lock(Object::new("store", "other"), Update);
        let failed = door.run(&locker, ops).await.unwrap_err().failed;
        assert!(matches!(failed.error, LockError::UnknownMode(Update)));
        assert_eq!(failed.at, 1);
        let left = (store.to_string(), locker.id(), Write, 1);
        assert_eq!(
            door.picture().await,
            [left],
            "the locker is usable, and holds what it held"
        );
        // Elsewhere the mode is known.
        drop(door.hold(&locker, &object("a"), Update).await);
        drop(held);
    }
}

#[actix::test]
async fn a_table_that_is_not_symmetric_queues_and_looks_for_deadlocks_by_its_own_rules() {
    for door in Door::both(config()) {
        let log = Object::new("journal", "log");
        let (reader, appender) = (door.locker(), door.locker());
        // A reader lets the appender in, and has to wait for it afterwards.
        let reading = door.hold(&reader, &log, Read).await;
        let appending = door.hold(&appender, &log, Update).await;
        let third = door.locker();
        let waiting = door.waits(&third, &log, Read).await;
        drop(appending);
        drop(waiting.await.unwrap().unwrap());
        // A waiter counts as a holder does: behind a waiting rotation everybody waits.
        let rotation = door.waits(&third, &log, Write).await;
        let error = door.refused(&appender, &log, Update).await;
        assert_eq!(error.conflict().unwrap().waiters[0].locker, third.id());
        drop(reading);
        drop(rotation.await.unwrap().unwrap());
        // Two readers that both want to rotate are a deadlock here too.
        let one = door.hold(&reader, &log, Read).await;
        let two = door.hold(&third, &log, Read).await;
        let first = door
            .until_queued(door.upgrade(one, Write, Wait::Forever))
            .await;
        let (two, error) = *door.upgrade(two, Write, Wait::Forever).await.unwrap_err();
        assert!(matches!(error, LockError::Deadlock(_)), "{error}");
        drop(two);
        first.await.unwrap().unwrap();
    }
}

#[actix::test]
async fn update_in_the_place_of_read_avoids_the_deadlock_of_two_who_upgrade() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let (one, two, reader) = (door.locker(), door.locker(), door.locker());
        let reading = door.hold(&reader, &a, Read).await;
        let first = door.hold(&one, &a, Update).await;
        let second = door.waits(&two, &a, Update).await;
        let writing = door.upgrade(first, Write, Wait::Forever);
        let writing = door.until_queued(writing).await;
        drop(reading);
        drop(writing.await.unwrap().unwrap());
        let second = second.await.unwrap().unwrap();
        drop(door.upgrade(second, Write, Wait::No).await.unwrap());
        assert_eq!(door.stats().await.deadlocks, 0);
    }
}
