//! Maxima: exact, with an error that says what to do, a warning before, and changes while running.

use super::*;

fn limited() -> LockConfig {
    LockConfig {
        max_lockers: 10,
        max_locks: 20,
        max_objects: 10,
        ..LockConfig::default()
    }
}

fn is_limit(error: &LockError, which: LimitKind, value: usize) {
    let LockError::Limit { which: w, value: v } = error else {
        panic!("{error}")
    };
    assert_eq!((*w, *v), (which, value));
    let text = error.to_string();
    for part in [
        which.to_string(),
        value.to_string(),
        which.setting().to_owned(),
    ] {
        assert!(text.contains(&part), "{part} is not in {text}");
    }
}

#[actix::test]
async fn i13_each_limit_is_exact_and_nothing_that_is_held_is_lost() {
    for door in Door::both(limited()) {
        let parent = door.locker();
        let mut lockers = vec![Arc::clone(&parent)];
        for number in 1..10 {
            let parent = (number % 2 == 0).then_some(&parent);
            lockers.push(door.new_locker(LockerSpec::new(), parent).await.unwrap());
        }
        for parent in [None, Some(&parent)] {
            let error = door
                .new_locker(LockerSpec::new(), parent)
                .await
                .unwrap_err();
            is_limit(&error, LimitKind::Lockers, 10);
        }
        let mut held = Vec::new();
        for number in 0..10 {
            let one = object(&number.to_string());
            held.push(door.hold(&parent, &one, Mode::Read).await);
        }
        for one in [object("10"), Object::whole("test")] {
            is_limit(
                &door.refused(&parent, &one, Mode::Read).await,
                LimitKind::Objects,
                10,
            );
        }
        for number in 0..10 {
            let one = object(&number.to_string());
            held.push(door.hold(&lockers[1], &one, Mode::Read).await);
        }
        // A reference needs no room, another mode does; and an upgrade of the only one has its own.
        held.push(door.hold(&parent, &object("0"), Mode::Read).await);
        let error = door.refused(&parent, &object("0"), Mode::IntentRead).await;
        is_limit(&error, LimitKind::Locks, 20);
        let one = held.remove(1);
        let one = door.upgrade(one, Mode::Update, Wait::No).await.unwrap();
        held.push(door.downgrade(one, Mode::Read).await.unwrap());
        let picture = door.picture().await;
        assert_eq!(picture.len(), 20);
        // Several operations that do not fit change nothing.
        drop(held.pop());
        let before = door.picture().await;
        let ops = LockOps::new()
            .lock(object("2"), Mode::Update)
            .lock(object("3"), Mode::Update);
        let failed = door.run(&parent, ops).await.unwrap_err().failed;
        is_limit(&failed.error, LimitKind::Locks, 20);
        assert_eq!(failed.at, 1);
        assert_eq!(door.picture().await, before);
        assert_eq!(door.stats().await.limits_met, 6);
        // What has been released can be taken again.
        drop(held);
        drop(lockers);
        drop(parent);
        door.is_empty().await;
        let again = door.lockers(10);
        drop(door.hold(&again[9], &object("10"), Mode::Write).await);
    }
}

#[actix::test]
async fn a_warning_comes_at_the_share_and_again_only_after_a_retreat() {
    let config = LockConfig {
        limit_warning: 50,
        max_locks: 40,
        ..LockConfig::default()
    };
    for door in Door::both(config) {
        let mut events = door.locks().subscribe();
        let locker = door.locker();
        let mut held: Vec<Held> = Vec::new();
        let near = |event: LockEvent| match event {
            LockEvent::LimitNear { which, used, limit } => (which, used, limit),
            other => panic!("{other:?}"),
        };
        // Up to 25, then down and up; the mark is 20, and far enough below is under 18.
        for (lowest, told) in [(0, true), (19, false), (18, false), (17, true)] {
            held.truncate(lowest);
            while held.len() < 25 {
                assert!(held.len() > 19 || events.is_empty(), "not before the mark");
                let one = object(&held.len().to_string());
                held.push(door.hold(&locker, &one, Mode::Write).await);
            }
            if told {
                assert_eq!(near(events.try_recv().unwrap()), (LimitKind::Locks, 20, 40));
            }
            assert!(events.try_recv().is_err(), "once, down to {lowest}");
        }
        // Who waits counts too.
        held.truncate(17);
        let waiter = door.locker();
        let mut waiting = Vec::new();
        for number in 0..3 {
            let one = object(&number.to_string());
            waiting.push(door.waits(&waiter, &one, Mode::Write).await);
        }
        assert_eq!(near(events.try_recv().unwrap()), (LimitKind::Locks, 20, 40));
        drop(held);
        for task in waiting {
            task.await.unwrap().unwrap();
        }
    }
}

#[actix::test]
async fn the_share_is_80_percent_and_can_be_turned_off() {
    for (limit_warning, expected) in [(80, Some((LimitKind::Lockers, 8, 10))), (0, None)] {
        let config = LockConfig {
            limit_warning,
            ..limited()
        };
        assert_eq!(LockConfig::default().limit_warning, 80);
        for door in Door::both(config) {
            let mut events = door.locks().subscribe();
            let mut all = Vec::new();
            for _ in 0..10 {
                all.push(door.new_locker(LockerSpec::new(), None).await.unwrap());
            }
            let told = events.try_recv().ok().map(|event| match event {
                LockEvent::LimitNear { which, used, limit } => (which, used, limit),
                other => panic!("{other:?}"),
            });
            assert_eq!(told, expected);
            assert!(events.try_recv().is_err());
        }
    }
}

#[actix::test]
async fn a_limit_is_raised_while_running_and_never_set_below_what_is_in_use() {
    for door in Door::both(limited()) {
        let lockers = door.lockers(10);
        let mut held = Vec::new();
        for number in 0..5 {
            held.push(
                door.hold(&lockers[0], &object(&number.to_string()), Mode::Read)
                    .await,
            );
            held.push(
                door.hold(&lockers[1], &object(&number.to_string()), Mode::Read)
                    .await,
            );
        }
        let lower = SetLimits {
            lockers: Some(20),
            locks: Some(9),
            objects: Some(4),
        };
        let error = door.set_limits(lower).await.unwrap_err();
        assert_eq!(
            (error.which, error.asked, error.used),
            (LimitKind::Locks, 9, 10)
        );
        let text = error.to_string();
        for part in ["max_locks", "9", "10"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        // None has changed, not the first one either.
        let error = door.new_locker(LockerSpec::new(), None).await.unwrap_err();
        is_limit(&error, LimitKind::Lockers, 10);
        assert_eq!(door.locks().config().max_lockers, 10);
        let exact = SetLimits {
            lockers: Some(11),
            locks: Some(10),
            objects: Some(5),
        };
        door.set_limits(exact).await.unwrap();
        let eleventh = door.new_locker(LockerSpec::new(), None).await.unwrap();
        is_limit(
            &door.refused(&eleventh, &object("0"), Mode::Read).await,
            LimitKind::Locks,
            10,
        );
        let stats = door.stats().await;
        let limits = (stats.lockers.limit, stats.locks.limit, stats.objects.limit);
        assert_eq!(limits, (11, 10, 5));
        let config = door.locks().config();
        assert_eq!(
            (config.max_lockers, config.max_locks, config.max_objects),
            limits
        );
        drop(held);
        // Nothing given, nothing changed.
        door.set_limits(SetLimits::default()).await.unwrap();
        assert_eq!(door.stats().await.locks.limit, 10);
    }
}

#[actix::test]
async fn cleared_statistics_begin_anew_and_touch_no_limit() {
    for door in Door::both(limited()) {
        let lockers = door.lockers(3);
        let a = object("a");
        let held = door.hold(&lockers[0], &a, Mode::Write).await;
        drop(door.hold(&lockers[0], &object("b"), Mode::Write).await);
        let waiting = door.waits(&lockers[1], &a, Mode::Read).await;
        door.refused(&lockers[2], &a, Mode::Read).await;
        let seen = door.stats_and(true).await;
        assert_eq!((seen.grants, seen.waits, seen.not_available), (2, 1, 1));
        assert_eq!(
            (seen.locks.now, seen.locks.max, seen.objects.max),
            (2, 2, 2)
        );
        let stats = door.stats().await;
        assert_eq!((stats.grants, stats.waits, stats.not_available), (0, 0, 0));
        assert_eq!(
            (stats.lockers.now, stats.lockers.max, stats.lockers.limit),
            (3, 3, 10)
        );
        assert_eq!(
            (stats.locks.now, stats.locks.max, stats.locks.limit),
            (2, 2, 20)
        );
        assert_eq!(
            (stats.objects.now, stats.objects.max, stats.waiting),
            (1, 1, 1)
        );
        drop(held);
        drop(waiting.await.unwrap().unwrap());
        // The limit is where it was.
        let mut all = door.lockers(7);
        let error = door.new_locker(LockerSpec::new(), None).await.unwrap_err();
        is_limit(&error, LimitKind::Lockers, 10);
        all.clear();
        drop(lockers);
        door.is_empty().await;
    }
}

/// A change of the mode, or of the owner, is one lock before and one afterwards.
#[actix::test]
async fn i13_no_more_is_ever_in_use_than_the_limit_says() {
    for door in Door::both(LockConfig {
        max_locks: 1,
        ..LockConfig::default()
    }) {
        let mut events = door.locks().subscribe();
        let parent = door.locker();
        let child = door.child(&parent).await;
        let held = door.hold(&parent, &object("a"), Mode::Read).await;
        assert!(matches!(
            events.try_recv(),
            Ok(LockEvent::LimitNear { used: 1, .. })
        ));
        let most = || door.locks().stats().locks.max;
        let held = door.upgrade(held, Mode::Write, Wait::No).await.unwrap();
        assert_eq!(most(), 1, "after an upgrade");
        let held = door.downgrade(held, Mode::Read).await.unwrap();
        assert_eq!(most(), 1, "after a downgrade");
        drop(held);
        child
            .lock(&object("b"), Mode::Read, Wait::No)
            .await
            .unwrap();
        door.commit(child).await.unwrap();
        assert_eq!(most(), 1, "after a commit");
    }
}

#[actix::test]
async fn i13_operations_of_one_message_stay_within_the_limit() {
    for door in Door::both(LockConfig {
        max_locks: 2,
        ..LockConfig::default()
    }) {
        let locker = door.locker();
        let _held = [
            door.hold(&locker, &object("a"), Mode::Write).await,
            door.hold(&locker, &object("b"), Mode::Write).await,
        ];
        let ops = LockOps::new()
            .downgrade(object("a"), Mode::Write, Mode::Read)
            .downgrade(object("b"), Mode::Write, Mode::Read);
        let ran = door.run(&locker, ops).await;
        let most = door.stats().await.locks.max;
        assert!(most <= 2, "{most} locks of 2 were in use: {ran:?}");
    }
}

#[actix::test]
async fn a_change_of_the_mode_alone_is_no_reason_to_warn() {
    for door in Door::both(LockConfig {
        max_locks: 10,
        ..LockConfig::default()
    }) {
        let mut events = door.locks().subscribe();
        let locker = door.locker();
        let mut held = Vec::new();
        for number in 0..7 {
            let one = object(&number.to_string());
            held.push(door.hold(&locker, &one, Mode::Write).await);
        }
        let last = held.pop().unwrap();
        let last = door.downgrade(last, Mode::Read).await.unwrap();
        let last = door.upgrade(last, Mode::Write, Wait::No).await.unwrap();
        let told = events.try_recv();
        assert!(
            told.is_err(),
            "seven are in use, and eight is the mark: {told:?}"
        );
        drop(last);
    }
}

/// Berkeley DB's `db_stat -c` begins with them.
#[actix::test]
async fn how_the_table_is_set_can_be_asked_for_with_all_changes() {
    let start = LockConfig {
        seed: 7,
        order_warnings: true,
        own_conflicts: vec![("store".into(), ConflictTable::single_writer())],
        ..limited()
    };
    for door in Door::both(start.clone()) {
        assert_eq!(door.config().await, start);
        let (short, long) = (Duration::from_millis(7), Duration::from_secs(70));
        door.set_detect(SetDetect {
            on_block: Some(false),
            interval: Some(long),
            policy: Some(VictimPolicy::MinWrite),
        })
        .await;
        door.set_timeouts(SetTimeouts {
            lock: Some(short),
            no_wait: Some(true),
            txn: Some(long),
            max_hold: Some(long),
            abort_on_max_hold: Some(true),
        })
        .await;
        let more = SetLimits {
            locks: Some(21),
            ..SetLimits::default()
        };
        door.set_limits(more).await.unwrap();
        let less = SetLimits {
            lockers: Some(0),
            ..SetLimits::default()
        };
        let _locker = door.locker();
        door.set_limits(less).await.unwrap_err();
        let changed = LockConfig {
            detect_on_block: false,
            detect_interval: long,
            detect_policy: VictimPolicy::MinWrite,
            lock_timeout: short,
            no_wait: true,
            txn_timeout: long,
            max_hold: long,
            abort_on_max_hold: true,
            max_locks: 21,
            ..start.clone()
        };
        assert_eq!(door.config().await, changed);
    }
}

/// Whoever sets a limit by the most that was in use does not refuse what was granted before.
#[actix::test]
async fn the_most_in_use_counts_what_a_message_takes_and_releases() {
    let three = || {
        let names = ["a", "b", "c"].into_iter();
        names.fold(LockOps::new(), |ops, name| {
            ops.lock(object(name), Mode::Write)
        })
    };
    let let_go = |ops: LockOps, name| ops.unlock(object(name), Mode::Write);
    type Finish = fn(LockOps) -> LockOps;
    let works: [(Finish, bool); 4] = [
        (|ops| ops, true),
        (LockOps::stop_at_first_error, true),
        (LockOps::release_all, true),
        // Nothing is taken in the end, but there was room for it.
        (
            |ops| ops.lock_wait(object("theirs"), Mode::Read, Wait::No),
            false,
        ),
    ];
    for (finish, is_done) in works {
        let config = LockConfig {
            max_locks: 5,
            max_objects: 5,
            ..LockConfig::default()
        };
        for door in Door::both(config) {
            let mut events = door.locks().subscribe();
            let (other, locker) = (door.locker(), door.locker());
            let _theirs = door.hold(&other, &object("theirs"), Mode::Write).await;
            let ops = finish(let_go(let_go(three(), "a"), "b"));
            assert_eq!(door.run(&locker, ops.clone()).await.is_ok(), is_done);
            let stats = door.stats().await;
            assert_eq!((stats.locks.max, stats.objects.max), (4, 4), "{ops:?}");
            let near = events.try_recv();
            assert!(matches!(near, Ok(LockEvent::LimitNear { used: 4, .. })));
            // It is the least limit with which the same is done again.
            locker.release_all();
            for (limit, is_done) in [(4, is_done), (3, false)] {
                let limits = SetLimits {
                    locks: Some(limit),
                    ..SetLimits::default()
                };
                door.set_limits(limits).await.unwrap();
                let ran = door.run(&locker, ops.clone()).await;
                assert_eq!(ran.is_ok(), is_done, "{limit}: {ran:?}");
                drop(ran);
                locker.release_all();
            }
        }
    }
}
