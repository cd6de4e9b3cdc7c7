//! Several operations in one message, or in one call.

use super::*;

use Mode::{Read, Update, Write};

const SHORT: Wait = Wait::For(Duration::from_millis(3));

/// A locker that holds something of everything.
async fn busy(door: &Door) -> (Arc<Locker>, Vec<Held>) {
    let locker = door.locker();
    let mut held = Vec::new();
    for (name, mode) in [
        ("a", Read),
        ("a", Read),
        ("b", Write),
        ("c", Update),
        ("i", Mode::IntentRead),
    ] {
        held.push(door.hold(&locker, &object(name), mode).await);
    }
    (locker, held)
}

/// Changes all that [`busy`] has.
fn changes() -> LockOps {
    LockOps::new()
        .lock(object("a"), Read)
        .lock(object("new"), Write)
        .upgrade(object("a"), Read, Write, Wait::No)
        .downgrade(object("b"), Write, Update)
        .unlock(object("c"), Update)
        .lock(Object::prefix("test", "ne"), Read)
        .release_reads()
        .unlock_object(object("a"))
}

/// What became of each: g granted, r released, u undone, f failed, - not reached.
fn fates(outcomes: &[LockOutcome]) -> String {
    let fate = |outcome: &LockOutcome| match outcome {
        LockOutcome::Granted => 'g',
        LockOutcome::Released(_) => 'r',
        LockOutcome::Undone => 'u',
        LockOutcome::Failed(_) => 'f',
        LockOutcome::NotReached => '-',
        _ => '?',
    };
    outcomes.iter().map(fate).collect()
}

#[actix::test]
async fn all_or_nothing_restores_exactly_what_it_changed() {
    let config = LockConfig {
        own_conflicts: vec![("store".into(), ConflictTable::single_writer())],
        ..LockConfig::default()
    };
    for door in Door::both(config) {
        let other = door.locker();
        let theirs = door.hold(&other, &object("theirs"), Write).await;
        let (locker, held) = busy(&door).await;
        // Who waits for what is to be weakened or released must not get it on the way.
        let waiter = door.locker();
        let waiting = door.waits(&waiter, &object("b"), Read).await;
        let before = door.picture().await;
        type Expected = fn(&LockError) -> bool;
        let failures: [(LockOps, Expected); 8] = [
            (
                changes().lock_wait(object("theirs"), Read, Wait::No),
                |error| matches!(error, LockError::NotAvailable(_)),
            ),
            (changes().unlock(object("c"), Update), |error| {
                matches!(error, LockError::NotHeld)
            }),
            (changes().unlock(object("nothing"), Read), |error| {
                matches!(error, LockError::NotHeld)
            }),
            (changes().downgrade(object("new"), Read, Read), |error| {
                matches!(error, LockError::NotHeld)
            }),
            (changes().downgrade(object("b"), Update, Write), |error| {
                matches!(error, LockError::NotWeaker { .. })
            }),
            (
                changes().upgrade(object("c"), Update, Write, Wait::No),
                |error| matches!(error, LockError::NotHeld),
            ),
            (changes().lock(Object::new("store", "x"), Update), |error| {
                matches!(error, LockError::UnknownMode(Update))
            }),
            (
                changes().lock_wait(object("theirs"), Read, SHORT),
                |error| matches!(error, LockError::LockTimeout(_)),
            ),
        ];
        for (ops, expected) in failures {
            let ops = ops.lock(object("never"), Write).release_all();
            let RanInto { failed, guards } = door.run(&locker, ops).await.unwrap_err();
            assert!(expected(&failed.error), "{failed}");
            assert_eq!((failed.at, guards.len()), (8, 0));
            assert_eq!(fates(&failed.outcomes), "uuuuuuuuf--");
            assert_eq!(door.picture().await, before, "{failed}");
            assert!(!waiting.is_finished());
            assert_eq!(door.stats().await.waiting, 1);
            for part in ["operation 9 of 11", &failed.error.to_string()] {
                assert!(failed.to_string().contains(part), "{failed}");
            }
        }
        // After the timeout it is dead; until then it was usable.
        assert!(matches!(
            door.refused(&locker, &object("z"), Read).await,
            LockError::Dead(_)
        ));
        drop((held, theirs));
        waiting.await.unwrap().unwrap();
        drop((locker, waiter, other));
        door.is_empty().await;
    }
}

#[actix::test]
async fn all_that_can_be_done_is_done_and_told() {
    for door in Door::both(LockConfig::default()) {
        let (locker, held) = busy(&door).await;
        let id = locker.id();
        let Ran { outcomes, guards } = door.run(&locker, changes()).await.unwrap();
        assert_eq!(fates(&outcomes), "ggggrgrr");
        let released: Vec<usize> = (outcomes.iter())
            .filter_map(|outcome| match outcome {
                LockOutcome::Released(count) => Some(*count),
                _ => None,
            })
            .collect();
        // c; for reading a, i and the range; and of a the write lock.
        assert_eq!(released, [1, 3, 1]);
        let left = [
            (object("b").to_string(), id, Update, 1),
            (object("new").to_string(), id, Write, 1),
        ];
        assert_eq!(door.picture().await, left);
        if let Door::Message(..) = door {
            let mut guarded: Vec<_> = guards
                .iter()
                .map(|guard| (guard.object().clone(), guard.mode()))
                .collect();
            guarded.sort();
            assert_eq!(guarded, [(object("b"), Update), (object("new"), Write)]);
        }
        drop((guards, held, locker));
        door.is_empty().await;
    }
}

#[actix::test]
async fn stop_at_the_first_error_keeps_what_was_done() {
    for door in Door::both(LockConfig::default()) {
        let other = door.locker();
        let theirs = door.hold(&other, &object("theirs"), Write).await;
        let (locker, held) = busy(&door).await;
        let ops = changes()
            .lock_wait(object("theirs"), Read, Wait::No)
            .lock(object("never"), Write)
            .stop_at_first_error();
        assert_eq!((ops.len(), ops.is_empty()), (10, false));
        let RanInto { failed, guards } = door.run(&locker, ops).await.unwrap_err();
        assert!(
            matches!(failed.error, LockError::NotAvailable(_)),
            "{failed}"
        );
        assert_eq!(
            (failed.at, fates(&failed.outcomes).as_str()),
            (8, "ggggrgrrf-")
        );
        let left = [
            (object("b").to_string(), locker.id(), Update, 1),
            (object("new").to_string(), locker.id(), Write, 1),
            (object("theirs").to_string(), other.id(), Write, 1),
        ];
        assert_eq!(door.picture().await, left);
        if let Door::Message(..) = door {
            assert_eq!(guards.len(), 2);
        }
        drop((guards, held, theirs, locker, other));
        door.is_empty().await;
    }
}

#[actix::test]
async fn earlier_locks_are_held_while_later_ones_wait_and_releases_come_at_the_end_of_all_or_nothing()
 {
    for door in Door::both(LockConfig::default()) {
        for stop in [false, true] {
            let (other, waiter, locker) = (door.locker(), door.locker(), door.locker());
            let theirs = door.hold(&other, &object("theirs"), Write).await;
            let own = door.hold(&locker, &object("own"), Write).await;
            let weak = door.hold(&locker, &object("weak"), Write).await;
            let ops = LockOps::new()
                .lock(object("first"), Write)
                .unlock(object("own"), Write)
                .downgrade(object("weak"), Write, Read)
                .lock_wait(object("theirs"), Write, Wait::Forever)
                .lock(object("last"), Write);
            let ops = if stop { ops.stop_at_first_error() } else { ops };
            let running = door.until_queued(door.run(&locker, ops)).await;
            door.refused(&waiter, &object("first"), Read).await;
            for name in ["own", "weak"] {
                let free = door.ask(&waiter, &object(name), Read, Wait::No).await;
                assert_eq!(free.is_ok(), stop, "{name}");
            }
            drop(theirs);
            let ran = running.await.unwrap().unwrap();
            assert_eq!(fates(&ran.outcomes), "grggg");
            let names: Vec<_> = door
                .picture()
                .await
                .into_iter()
                .map(|held| (held.0, held.2))
                .collect();
            let expected = [
                ("first", Write),
                ("last", Write),
                ("theirs", Write),
                ("weak", Read),
            ];
            assert_eq!(
                names,
                expected.map(|(name, mode)| (object(name).to_string(), mode))
            );
            drop((own, weak, ran));
            drop((locker, waiter, other));
            door.is_empty().await;
        }
    }
}

#[actix::test]
async fn each_request_has_a_time_of_its_own() {
    for door in Door::both(LockConfig::default()) {
        let other = door.locker();
        let theirs = door.hold(&other, &object("theirs"), Write).await;
        for (first, second, named) in [(3, 60_000, 3), (60_000, 7, 7)] {
            let ms = |time| Wait::For(Duration::from_millis(time));
            let locker = door.locker();
            let release = door.hold(&other, &object("soon"), Write).await;
            let name = if named == first { "theirs" } else { "soon" };
            let ops = LockOps::new()
                .lock_wait(object(name), Read, ms(first))
                .lock_wait(object("theirs"), Read, ms(second));
            let begun = Instant::now();
            let running = door.until_queued(door.run(&locker, ops)).await;
            drop(release);
            let failed = running.await.unwrap().unwrap_err().failed;
            let conflict = failed.error.conflict().unwrap();
            let timeout = Duration::from_millis(named);
            assert_eq!(
                (conflict.kind, conflict.timeout),
                (ConflictKind::LockTimeout, Some(timeout))
            );
            assert!(begun.elapsed() >= timeout, "not early");
            assert_eq!(failed.at, usize::from(named == second));
        }
        drop(theirs);
    }
}

#[actix::test]
async fn in_opposite_orders_one_is_undone_and_the_other_done() {
    for door in Door::both(LockConfig::default()) {
        let (one, two, gate) = (door.locker(), door.locker(), door.locker());
        let held = door.hold(&gate, &object("gate"), Write).await;
        let ops = |names: [&str; 3]| {
            let names = names.into_iter();
            names.fold(LockOps::new(), |ops, name| {
                ops.lock_wait(object(name), Write, Wait::Forever)
            })
        };
        let older = door
            .until_queued(door.run(&one, ops(["a", "gate", "b"])))
            .await;
        // It has b, and waits for a.
        let younger = door
            .until_queued(door.run(&two, ops(["b", "a", "c"])))
            .await;
        drop(held);
        let failed = younger.await.unwrap().unwrap_err().failed;
        let LockError::Deadlock(conflict) = &failed.error else {
            panic!("{failed}")
        };
        assert_eq!((conflict.cycle.len(), failed.at), (2, 1));
        assert_eq!(fates(&failed.outcomes), "uf-");
        let ran = older.await.unwrap().unwrap();
        assert_eq!(door.picture().await.len(), 3);
        two.release_all();
        drop(ran);
        one.release_all();
        drop(door.run(&two, ops(["b", "a", "c"])).await.unwrap());
    }
}

#[actix::test]
async fn counts_within_one_message_are_exact() {
    for door in Door::both(LockConfig::default()) {
        for stop in [false, true] {
            let locker = door.locker();
            let own = door.hold(&locker, &object("own"), Write).await;
            let ops = LockOps::new()
                .lock(object("a"), Read)
                .lock(object("a"), Read)
                .lock(object("a"), Read)
                .unlock(object("a"), Read)
                .release_all()
                .lock(object("b"), Read)
                .lock(object("b"), Read)
                .upgrade(object("b"), Read, Write, Wait::No);
            let ops = if stop { ops.stop_at_first_error() } else { ops };
            let ran = door.run(&locker, ops).await.unwrap();
            assert_eq!(fates(&ran.outcomes), "gggrrggg");
            let id = locker.id();
            let b = object("b").to_string();
            let left = [(b.clone(), id, Read, 1), (b, id, Write, 1)];
            assert_eq!(door.picture().await, left);
            if let Door::Message(..) = door {
                assert_eq!(ran.guards.len(), 2);
            }
            drop((ran, own, locker));
            door.is_empty().await;
        }
        let nothing = door.run(&door.locker(), LockOps::new()).await.unwrap();
        assert!(nothing.outcomes.is_empty());
    }
}

#[actix::test]
async fn the_answer_dropped_unread_releases_what_it_brings() {
    let (address, locks) = LockTable::start_alone(LockConfig::default()).unwrap();
    let door = Door::Message(locks, address.clone());
    let locker = door.locker();
    let ops = || {
        LockOps::new()
            .lock(object("a"), Write)
            .lock(object("b"), Read)
    };
    let is_free = || door.locks().stats().locks.now == 0;
    // Nobody asks for the answer.
    address.do_send(LockMany::new(Arc::clone(&locker), ops()));
    address.do_send(Acquire::new(object("a"), Write).locker(Arc::clone(&locker)));
    until(|| door.locks().stats().grants == 3 && is_free()).await;
    address.do_send(NewLocker {
        spec: LockerSpec::new(),
        parent: None,
    });
    // The answer is there, and goes away with who asked for it.
    for refused in [false, true] {
        let other = door.locker();
        let held = match refused {
            true => Some(door.hold(&other, &object("b"), Write).await),
            false => None,
        };
        let grants = door.locks().stats().grants;
        let ops = LockOps::new()
            .lock(object("a"), Write)
            .lock_wait(object("b"), Read, Wait::No)
            .stop_at_first_error();
        let mut asking = door.run(&locker, ops);
        let _ = asking
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        until(|| door.locks().stats().grants > grants).await;
        // What comes after it in the mailbox has been answered, so it has been too.
        drop(held);
        door.snapshot().await;
        drop(asking);
        until(is_free).await;
    }
    drop(locker);
    until(|| door.locks().stats().lockers.now == 0).await;
    door.is_empty().await;
}
