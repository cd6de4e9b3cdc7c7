//! Locks that are held too long.

use super::*;

const MAX_HOLD: Duration = Duration::from_millis(100);

fn config() -> LockConfig {
    LockConfig {
        max_hold: MAX_HOLD,
        lock_timeout: Duration::ZERO,
        ..LockConfig::default()
    }
}

fn too_long(event: LockEvent) -> Option<Arc<lockkeeper::LockConflict>> {
    match event {
        LockEvent::HeldTooLong(conflict) => Some(conflict),
        _ => None,
    }
}

#[actix::test]
async fn the_holder_is_told_by_an_event_and_once_by_its_next_call() {
    for door in Door::both(config()) {
        let (a, b) = (object("a"), object("b"));
        let mut events = door.locks().subscribe();
        let (holder, asker) = (door.named("holder").await, door.named("asker").await);
        let begun = Instant::now();
        let held = door.hold(&holder, &a, Mode::Write).await;
        let waiting = door.waits(&asker, &a, Mode::Read).await;
        let conflict = event(&mut events, too_long).await;
        assert!(begun.elapsed() >= MAX_HOLD, "not early");
        assert_eq!(conflict.kind, ConflictKind::HeldTooLong);
        assert_eq!(
            (conflict.asker.locker, conflict.mode()),
            (holder.id(), Mode::Write)
        );
        assert_eq!(conflict.timeout, Some(MAX_HOLD));
        assert!(conflict.waited.unwrap() >= MAX_HOLD, "{conflict}");
        assert_eq!(conflict.waiters_total, 1);
        assert_eq!(conflict.waiters[0].locker, asker.id());
        let text = conflict.to_string();
        for part in [
            "holder (locker",
            "asker (locker",
            "test[a]",
            "write",
            "held",
            "100.0ms",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        // From here on nothing else is held too long, however slow the machine is.
        door.set_timeouts(SetTimeouts {
            max_hold: Some(Duration::ZERO),
            ..SetTimeouts::default()
        })
        .await;
        // The next call is told, once, and changes nothing.
        let error = door.refused(&holder, &b, Mode::Read).await;
        let LockError::HeldTooLong(told) = &error else {
            panic!("{error}")
        };
        assert_eq!(told.object, a);
        assert!(!error.is_retryable());
        drop(door.hold(&holder, &b, Mode::Read).await);
        assert!(!waiting.is_finished(), "it is held still");
        // Those who wait, and those who come, learn for how long it has been held.
        let other = door.locker();
        let conflict = Arc::clone(
            door.refused(&other, &a, Mode::Write)
                .await
                .conflict()
                .unwrap(),
        );
        assert_eq!(conflict.owners[0].locker, holder.id());
        assert!(conflict.owners[0].lasting >= MAX_HOLD, "{conflict}");
        let patient = Wait::For(Duration::from_millis(5));
        let error = door
            .ask(&other, &a, Mode::Write, patient)
            .await
            .unwrap_err();
        assert!(
            error.conflict().unwrap().owners[0].lasting >= MAX_HOLD,
            "{error}"
        );
        assert_eq!(door.stats().await.held_too_long, 1);
        drop(held);
        waiting.await.unwrap().unwrap();
    }
}

#[actix::test]
async fn several_operations_are_told_too() {
    for door in Door::both(config()) {
        let mut events = door.locks().subscribe();
        let holder = door.locker();
        let held = door.hold(&holder, &object("a"), Mode::Read).await;
        event(&mut events, too_long).await;
        let ops = || {
            LockOps::new()
                .lock(object("b"), Mode::Read)
                .lock(object("c"), Mode::Read)
        };
        let failed = door.run(&holder, ops()).await.unwrap_err().failed;
        assert!(
            matches!(failed.error, LockError::HeldTooLong(_)),
            "{failed}"
        );
        assert_eq!(failed.at, 0);
        assert_eq!(door.picture().await.len(), 1);
        drop(door.run(&holder, ops()).await.unwrap());
        drop(held);
    }
}

#[actix::test]
async fn with_abort_the_holder_is_dead_and_its_locks_stay_until_it_releases_them() {
    let config = LockConfig {
        abort_on_max_hold: true,
        ..config()
    };
    for door in Door::both(config) {
        let a = object("a");
        let mut events = door.locks().subscribe();
        let other = door.locker();
        let holder = door.locker();
        let child = door.child(&holder).await;
        let held = door.hold(&holder, &a, Mode::Write).await;
        let conflict = event(&mut events, too_long).await;
        assert_eq!(conflict.asker.locker, holder.id());
        let waiting = door.waits(&other, &a, Mode::Write).await;
        for dead in [&holder, &child] {
            let error = door.refused(dead, &object("c"), Mode::Read).await;
            let LockError::Dead(why) = &error else {
                panic!("{error}")
            };
            assert_eq!(why.kind, ConflictKind::HeldTooLong);
        }
        assert!(!waiting.is_finished());
        drop(held);
        drop(waiting.await.unwrap().unwrap());
        holder.release_all();
        drop(door.hold(&holder, &object("c"), Mode::Read).await);
    }
}

#[actix::test]
async fn with_abort_the_wait_of_a_holder_ends() {
    let config = LockConfig {
        abort_on_max_hold: true,
        ..config()
    };
    for door in Door::both(config) {
        let (a, b) = (object("a"), object("b"));
        let mut events = door.locks().subscribe();
        let (one, two) = (door.locker(), door.locker());
        let _held = door.hold(&one, &a, Mode::Write).await;
        event(&mut events, too_long).await;
        let waiting = door.waits(&two, &a, Mode::Read).await;
        let late = door.hold(&two, &b, Mode::Write).await;
        let error = waiting.await.unwrap().unwrap_err();
        let LockError::HeldTooLong(conflict) = &error else {
            panic!("{error}")
        };
        assert_eq!((&conflict.object, conflict.asker.locker), (&b, two.id()));
        drop(late);
    }
}

#[actix::test]
async fn a_lock_that_is_held_already_is_judged_by_the_new_time() {
    for door in Door::both(LockConfig::default()) {
        let mut events = door.locks().subscribe();
        let holder = door.locker();
        let mut held = vec![door.hold(&holder, &object("a"), Mode::Read).await];
        let max_hold = |max_hold| SetTimeouts {
            max_hold: Some(max_hold),
            ..SetTimeouts::default()
        };
        for (milliseconds, name) in [(10, "a"), (5, "b")] {
            let time = Duration::from_millis(milliseconds);
            door.set_timeouts(max_hold(time)).await;
            // A lock that was told is not told again.
            let conflict = event(&mut events, too_long).await;
            assert_eq!(
                (&conflict.object, conflict.timeout),
                (&object(name), Some(time))
            );
            assert!(conflict.waited.unwrap() >= time, "{conflict}");
            door.set_timeouts(max_hold(Duration::ZERO)).await;
            let error = door.refused(&holder, &object("b"), Mode::Read).await;
            assert!(matches!(error, LockError::HeldTooLong(_)), "{error}");
            held.push(door.hold(&holder, &object("b"), Mode::Read).await);
        }
        assert_eq!(door.stats().await.held_too_long, 2);
    }
}

#[actix::test]
async fn a_hold_is_told_once_also_when_the_lock_is_weakened_afterwards() {
    for door in Door::both(config()) {
        let (a, b) = (object("a"), object("b"));
        let mut events = door.locks().subscribe();
        let holder = door.locker();
        let held = door.hold(&holder, &a, Mode::Write).await;
        event(&mut events, too_long).await;
        let weaker = door.downgrade(held, Mode::Read).await.unwrap();
        // What comes next is about a lock that was taken later.
        let other = door.locker();
        let _later = door.hold(&other, &b, Mode::Read).await;
        let next = event(&mut events, too_long).await;
        assert_eq!(next.object, b, "{next}");
        assert_eq!(door.stats().await.held_too_long, 2);
        drop(weaker);
    }
}
