//! How long a wait may last: whose time counts, never too early, zero is for ever.

use super::*;

const LONG: Duration = Duration::from_secs(60);

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// How a wait for an object that stays locked ends, and that it does not end early.
async fn ends(door: &Door, locker: &Arc<Locker>, wait: Wait) -> LockError {
    let begun = Instant::now();
    let error = door
        .ask(locker, &object("a"), Mode::Read, wait)
        .await
        .unwrap_err();
    let took = begun.elapsed();
    let conflict = error.conflict().unwrap();
    if matches!(error, LockError::LockTimeout(_)) {
        assert!(
            took >= conflict.timeout.unwrap(),
            "early: {took:?}, {error}"
        );
        assert!(
            conflict.waited.unwrap() >= conflict.timeout.unwrap(),
            "{error}"
        );
    }
    assert!(took < PATIENCE, "{took:?}, {error}");
    error
}

#[track_caller]
fn is(error: &LockError, kind: ConflictKind, timeout: Duration) {
    let conflict = error.conflict().unwrap();
    assert_eq!(
        (conflict.kind, conflict.timeout),
        (kind, Some(timeout)),
        "{error}"
    );
}

#[actix::test]
async fn the_request_comes_before_the_locker_and_the_locker_before_the_table() {
    use ConflictKind::{LockTimeout, TransactionTimeout};
    let config = LockConfig {
        lock_timeout: ms(30),
        ..LockConfig::default()
    };
    for door in Door::both(config) {
        let holder = door.locker();
        let _held = door.hold(&holder, &object("a"), Mode::Write).await;
        let new = |spec| door.new_locker(spec, None);
        let plain = || LockerSpec::new();

        let table = new(plain()).await.unwrap();
        is(
            &ends(&door, &table, Wait::Default).await,
            LockTimeout,
            ms(30),
        );
        let own = new(plain().lock_timeout(ms(20))).await.unwrap();
        is(&ends(&door, &own, Wait::Default).await, LockTimeout, ms(20));
        own.release_all();
        is(
            &ends(&door, &own, Wait::For(ms(10))).await,
            LockTimeout,
            ms(10),
        );
        // Longer counts as well as shorter.
        let longer = new(plain().lock_timeout(ms(40))).await.unwrap();
        is(
            &ends(&door, &longer, Wait::Default).await,
            LockTimeout,
            ms(40),
        );
        longer.release_all();
        is(
            &ends(&door, &longer, Wait::For(ms(50))).await,
            LockTimeout,
            ms(50),
        );
        // A child has that of its nearest ancestor that has one.
        let parent = new(plain().lock_timeout(ms(15))).await.unwrap();
        let child = door.child(&parent).await;
        let grandchild = door.child(&child).await;
        is(
            &ends(&door, &grandchild, Wait::Default).await,
            LockTimeout,
            ms(15),
        );
        let nearer = plain().lock_timeout(ms(25));
        let nearer = door.new_locker(nearer, Some(&child)).await.unwrap();
        is(
            &ends(&door, &nearer, Wait::Default).await,
            LockTimeout,
            ms(25),
        );

        // The time of the transaction caps them all.
        for wait in [Wait::Default, Wait::For(LONG), Wait::Forever] {
            let begun = Instant::now();
            let short = new(plain().txn_timeout(ms(20)).lock_timeout(LONG))
                .await
                .unwrap();
            is(&ends(&door, &short, wait).await, TransactionTimeout, ms(20));
            assert!(begun.elapsed() >= ms(20), "not early");
        }
        // Also when it was over before the wait began; what is free is still given.
        let late = new(plain().txn_timeout(ms(1))).await.unwrap();
        let begun = Instant::now();
        until(|| begun.elapsed() > ms(3)).await;
        drop(door.hold(&late, &object("b"), Mode::Write).await);
        is(
            &ends(&door, &late, Wait::Forever).await,
            TransactionTimeout,
            ms(1),
        );
        // That of an ancestor aborts the ancestor, its own only itself.
        let parent = new(plain().txn_timeout(ms(20))).await.unwrap();
        let child = door.child(&parent).await;
        is(
            &ends(&door, &child, Wait::Forever).await,
            TransactionTimeout,
            ms(20),
        );
        assert!(matches!(
            door.refused(&parent, &object("b"), Mode::Read).await,
            LockError::Dead(_)
        ));
        let parent = door.locker();
        let spec = plain().txn_timeout(ms(10));
        let child = door.new_locker(spec, Some(&parent)).await.unwrap();
        is(
            &ends(&door, &child, Wait::Forever).await,
            TransactionTimeout,
            ms(10),
        );
        drop(door.hold(&parent, &object("b"), Mode::Read).await);
        let stats = door.stats().await;
        assert_eq!((stats.lock_timeouts, stats.txn_timeouts), (7, 6));
    }
}

#[actix::test]
async fn the_tables_time_for_transactions_counts_for_who_has_none() {
    for door in Door::both(without_detection()) {
        let holder = door.locker();
        let _held = door.hold(&holder, &object("a"), Mode::Write).await;
        let change = SetTimeouts {
            txn: Some(ms(20)),
            ..SetTimeouts::default()
        };
        let before = door.locker();
        door.set_timeouts(change).await;
        let after = door.locker();
        let endless = LockerSpec::new().txn_timeout(Duration::ZERO);
        let endless = door.new_locker(endless, None).await.unwrap();
        let endless = door.waits(&endless, &object("a"), Mode::Write).await;
        let before = door.waits(&before, &object("a"), Mode::Write).await;
        is(
            &ends(&door, &after, Wait::Default).await,
            ConflictKind::TransactionTimeout,
            ms(20),
        );
        // Those that were there keep the time they had, which was none; and zero is none.
        for _ in 0..3 {
            let next = door.locker();
            ends(&door, &next, Wait::Default).await;
        }
        assert!(!before.is_finished() && !endless.is_finished());
    }
}

#[actix::test]
async fn zero_is_for_ever_and_so_is_forever() {
    let config = LockConfig {
        lock_timeout: ms(5),
        ..LockConfig::default()
    };
    for door in Door::both(config) {
        let a = object("a");
        let holder = door.locker();
        let held = door.hold(&holder, &a, Mode::Write).await;
        let endless = LockerSpec::new().lock_timeout(Duration::ZERO);
        let endless = door.new_locker(endless, None).await.unwrap();
        let zero = door
            .until_queued(door.ask(&endless, &a, Mode::Read, Wait::Default))
            .await;
        let forever = door.waits(&door.locker(), &a, Mode::Read).await;
        // The others' time has come several times.
        for _ in 0..5 {
            let other = door.locker();
            ends(&door, &other, Wait::Default).await;
        }
        assert!(!zero.is_finished() && !forever.is_finished());
        drop(held);
        drop((
            zero.await.unwrap().unwrap(),
            forever.await.unwrap().unwrap(),
        ));
    }
}

#[actix::test]
async fn timeouts_are_changed_while_running() {
    let config = LockConfig {
        lock_timeout: LONG,
        ..LockConfig::default()
    };
    for door in Door::both(config) {
        let a = object("a");
        let holder = door.locker();
        let held = door.hold(&holder, &a, Mode::Write).await;
        let earlier = door.locker();
        let earlier = door
            .until_queued(door.ask(&earlier, &a, Mode::Read, Wait::Default))
            .await;
        let shorter = SetTimeouts {
            lock: Some(ms(10)),
            ..SetTimeouts::default()
        };
        door.set_timeouts(shorter).await;
        let asker = door.locker();
        is(
            &ends(&door, &asker, Wait::Default).await,
            ConflictKind::LockTimeout,
            ms(10),
        );
        assert!(!earlier.is_finished(), "it keeps the time it was given");
        assert_eq!(door.locks().config().lock_timeout, ms(10));
        let no_wait = SetTimeouts {
            no_wait: Some(true),
            ..SetTimeouts::default()
        };
        door.set_timeouts(no_wait).await;
        let asker = door.locker();
        let error = door
            .ask(&asker, &a, Mode::Read, Wait::Default)
            .await
            .unwrap_err();
        assert!(matches!(error, LockError::NotAvailable(_)), "{error}");
        // Who says that he waits does.
        is(
            &ends(&door, &asker, Wait::For(ms(5))).await,
            ConflictKind::LockTimeout,
            ms(5),
        );
        drop(held);
        drop(earlier.await.unwrap().unwrap());
    }
}

#[actix::test]
async fn none_of_many_is_early() {
    for door in Door::both(LockConfig::default()) {
        let holder = door.locker();
        let _held = door.hold(&holder, &object("a"), Mode::Write).await;
        let mut tasks = Vec::new();
        for number in 0..300_u64 {
            let door = door.clone();
            let timeout = Duration::from_micros(number * 7919 % 60_000 + 1);
            tasks.push(tokio::task::spawn_local(async move {
                let locker = door.locker();
                let wait = match number % 3 {
                    0 => Wait::Until(Instant::now() + timeout),
                    _ => Wait::For(timeout),
                };
                let begun = Instant::now();
                let error = ends(&door, &locker, wait).await;
                assert!(matches!(error, LockError::LockTimeout(_)), "{error}");
                assert!(number % 3 == 0 || begun.elapsed() >= timeout);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(door.stats().await.lock_timeouts, 300);
    }
}
