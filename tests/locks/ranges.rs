//! Ranges of keys beside keys: conflicts, queues, deadlocks, and no phantoms.

use super::*;

fn key(name: &str) -> Object {
    Object::new("keys", name)
}

fn range(from: &str, to: &str) -> Object {
    Object::range("keys", from..to).unwrap()
}

#[actix::test]
async fn a_key_conflicts_with_the_ranges_that_contain_it() {
    for door in Door::both(LockConfig::default()) {
        let (holder, asker) = (door.locker(), door.locker());
        let held = door.hold(&holder, &range("d", "m"), Mode::Read).await;
        for (name, inside) in [
            ("c", false),
            ("czz", false),
            ("d", true),
            ("d\0", true),
            ("k", true),
            ("lzz", true),
            ("m", false),
            ("m\0", false),
            ("", false),
        ] {
            drop(door.hold(&asker, &key(name), Mode::Read).await);
            let written = door.ask(&asker, &key(name), Mode::Write, Wait::No).await;
            assert_eq!(written.is_err(), inside, "{name:?}");
        }
        drop(
            door.hold(&asker, &Object::new("other", "k"), Mode::Write)
                .await,
        );
        drop(held);
        // The other way round.
        let _held = door.hold(&holder, &key("k"), Mode::Write).await;
        for (object, overlaps) in [
            (range("a", "k"), false),
            (range("a", "k\0"), true),
            (Object::range("keys", "a"..="k").unwrap(), true),
            (Object::range("keys", "k"..).unwrap(), true),
            (Object::range("keys", "k\0"..).unwrap(), false),
            (Object::range("keys", .."k").unwrap(), false),
            (Object::range::<&str>("keys", ..).unwrap(), true),
            (Object::whole("keys"), true),
            (Object::whole("other"), false),
            (Object::prefix("keys", "k"), true),
            (Object::prefix("keys", "kk"), false),
            (Object::prefix("keys", ""), true),
        ] {
            let read = door.ask(&asker, &object, Mode::Read, Wait::No).await;
            assert_eq!(read.is_err(), overlaps, "{object}");
            if let Err(error) = read {
                assert_eq!(error.conflict().unwrap().owners[0].locker, holder.id());
            }
        }
    }
}

#[actix::test]
async fn ranges_conflict_where_they_overlap() {
    for door in Door::both(LockConfig::default()) {
        let (holder, asker) = (door.locker(), door.locker());
        let _held = door.hold(&holder, &range("d", "m"), Mode::Write).await;
        for (from, to, overlaps) in [
            ("a", "d", false),
            ("a", "d\0", true),
            ("a", "z", true),
            ("e", "f", true),
            ("d", "m", true),
            ("lzz", "z", true),
            ("m", "z", false),
        ] {
            let read = door
                .ask(&asker, &range(from, to), Mode::Read, Wait::No)
                .await;
            assert_eq!(read.is_err(), overlaps, "{from}..{to}");
        }
        // One and the same locker may have them all.
        drop(door.hold(&holder, &range("a", "z"), Mode::Write).await);
        assert_eq!(Object::range("keys", "b".."b"), Err(lockkeeper::EmptyRange));
        assert_eq!(Object::range("keys", "b".."a"), Err(lockkeeper::EmptyRange));
    }
}

#[actix::test]
async fn a_prefix_is_the_range_of_its_keys() {
    for door in Door::both(LockConfig::default()) {
        let (holder, asker) = (door.locker(), door.locker());
        let prefix = Object::prefix("keys", [1, 255]);
        let _held = door.hold(&holder, &prefix, Mode::Read).await;
        for (bytes, inside) in [
            (&[1][..], false),
            (&[1, 254, 9], false),
            (&[1, 255], true),
            (&[1, 255, 0], true),
            (&[1, 255, 255, 255], true),
            (&[2], false),
        ] {
            let one = Object::new("keys", bytes);
            let written = door.ask(&asker, &one, Mode::Write, Wait::No).await;
            assert_eq!(written.is_err(), inside, "{bytes:?}");
        }
        // After all-ones there is nothing.
        let last = Object::prefix("last", [255, 255]);
        let _last = door.hold(&holder, &last, Mode::Read).await;
        door.refused(
            &asker,
            &Object::new("last", [255, 255, 255, 7]),
            Mode::Write,
        )
        .await;
        drop(
            door.hold(&asker, &Object::new("last", [255, 254]), Mode::Write)
                .await,
        );
    }
}

/// Who has read a range reads it again: nobody has put anything into it, and what is outside goes on.
#[actix::test]
async fn there_are_no_phantoms_in_a_range_that_is_read() {
    for door in Door::both(LockConfig::default()) {
        let rows = Arc::new(parking_lot::Mutex::new(std::collections::BTreeSet::from([
            "b", "f",
        ])));
        let reader = door.locker();
        let read = {
            let rows = Arc::clone(&rows);
            move || -> Vec<_> { rows.lock().range("d".."m").copied().collect() }
        };
        let held = door.hold(&reader, &range("d", "m"), Mode::Read).await;
        let first = read();
        let mut inserts = Vec::new();
        for name in ["d", "g", "lz"] {
            let (rows, writer) = (Arc::clone(&rows), door.locker());
            let asking = door.ask(&writer, &key(name), Mode::Write, Wait::Forever);
            let insert: Doing<()> = Box::pin(async move {
                let _held = asking.await.unwrap();
                rows.lock().insert(name);
            });
            inserts.push(door.until_queued(insert).await);
        }
        for name in ["a", "c", "m", "z"] {
            let _held = door.hold(&door.locker(), &key(name), Mode::Write).await;
            rows.lock().insert(name);
        }
        assert_eq!(read(), first, "no phantom");
        drop(held);
        for insert in inserts {
            insert.await.unwrap();
        }
        assert_eq!(read(), ["d", "f", "g", "lz"]);
    }
}

#[actix::test]
async fn i06_ranges_and_keys_are_served_in_the_order_in_which_they_came() {
    for door in Door::both(LockConfig::default()) {
        let first = door.locker();
        let held = door.hold(&first, &key("k"), Mode::Read).await;
        let lockers = door.lockers(5);
        let beside = door.hold(&lockers[4], &key("k"), Mode::Read).await;
        let whole = door.waits(&lockers[0], &range("a", "z"), Mode::Write).await;
        // A key that is free waits behind the range that waits; one outside does not.
        let error = door.refused(&lockers[3], &key("c"), Mode::Read).await;
        assert_eq!(
            error.conflict().unwrap().waiters[0].locker,
            lockers[0].id(),
            "{error}"
        );
        drop(door.hold(&lockers[3], &key("zz"), Mode::Write).await);
        let one = door.waits(&lockers[1], &key("c"), Mode::Read).await;
        let part = door.waits(&lockers[2], &range("b", "d"), Mode::Write).await;
        // Who holds in it comes first.
        let upgrading = door.waits(&first, &key("k"), Mode::Write).await;
        drop(beside);
        drop(upgrading.await.unwrap().unwrap());
        assert!(!whole.is_finished());
        drop(held);
        let whole = whole.await.unwrap().unwrap();
        assert!(!one.is_finished() && !part.is_finished());
        drop(whole);
        let one = one.await.unwrap().unwrap();
        assert!(!part.is_finished());
        drop(one);
        part.await.unwrap().unwrap();
    }
}

#[actix::test]
async fn i07_a_cycle_over_ranges_is_broken() {
    for door in Door::both(LockConfig::default()) {
        let (one, two) = (door.named("one").await, door.named("two").await);
        let first = door.hold(&one, &range("a", "f"), Mode::Read).await;
        let second = door
            .hold(&two, &Object::prefix("keys", "q"), Mode::Read)
            .await;
        let waiting = door.waits(&one, &key("qq"), Mode::Write).await;
        let closing = door.ask(&two, &range("e", "g"), Mode::Write, Wait::Forever);
        let error = closing.await.unwrap_err();
        let LockError::Deadlock(conflict) = &error else {
            panic!("{error}")
        };
        assert_eq!(conflict.cycle.len(), 2);
        for part in ["keys[e..g)", "keys[qq]"] {
            assert!(error.to_string().contains(part), "{part} is not in {error}");
        }
        drop(second);
        waiting.await.unwrap().unwrap();
        drop(first);
        // Behind one another only: two who read the same range and both insert.
        let (three, four) = (door.locker(), door.locker());
        let read = [
            door.hold(&three, &range("a", "f"), Mode::Read).await,
            door.hold(&four, &range("b", "g"), Mode::Read).await,
        ];
        let waiting = door.waits(&three, &key("c"), Mode::Write).await;
        let insert = door.ask(&four, &key("d"), Mode::Write, Wait::Forever).await;
        assert!(matches!(insert, Err(LockError::Deadlock(_))));
        drop(read);
        waiting.await.unwrap().unwrap();
    }
}

#[actix::test]
async fn ranges_are_upgraded_counted_and_released_like_keys() {
    for door in Door::both(LockConfig::default()) {
        let (one, two) = (door.locker(), door.locker());
        let read = door.hold(&one, &range("a", "f"), Mode::Read).await;
        let again = door.hold(&one, &range("a", "f"), Mode::Read).await;
        assert_eq!(
            door.picture().await,
            [(range("a", "f").to_string(), one.id(), Mode::Read, 2)]
        );
        let other = door.hold(&two, &range("e", "g"), Mode::Read).await;
        let writing = door.upgrade(read, Mode::Write, Wait::Forever);
        let writing = door.until_queued(writing).await;
        drop(other);
        let written = writing.await.unwrap().unwrap();
        door.refused(&two, &key("e"), Mode::Read).await;
        let read = door.downgrade(written, Mode::Read).await.unwrap();
        drop(door.hold(&two, &key("e"), Mode::Read).await);
        drop((read, again));
        assert_eq!(door.stats().await.objects.now, 0);
        // By ops, among keys.
        let ops = LockOps::new()
            .lock(range("a", "f"), Mode::Read)
            .lock(key("b"), Mode::Write)
            .unlock_object(range("a", "f"));
        let ran = door.run(&one, ops).await.unwrap();
        assert_eq!(
            door.picture().await,
            [(key("b").to_string(), one.id(), Mode::Write, 1)]
        );
        drop(ran);
    }
}
