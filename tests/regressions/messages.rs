//! `keeper.send` takes every message, and answers it in its own terms when the actor has gone.

use std::sync::Arc;

use lockkeeper::{
    Acquire, ClearDatabase, ClearStaleReaders, CommitLocker, DeadlockHistory, Detect, Downgrade,
    EndLocker, EnvStatsQuery, Keeper, LockConfigQuery, LockError, LockMany, LockOps,
    LockSnapshotQuery, LockStatsQuery, Locker, LockerSpec, Mode, NewLocker, Object, Recover,
    Release, RunTxn, SetDetect, SetLimits, SetMapSize, SetTimeouts, Sync, TxnStatsQuery, Upgrade,
    VictimPolicy, Wait,
};

use crate::support::{SOON, Sent, folder, open, until};

fn object(name: &str) -> Object {
    Object::new("n", name.as_bytes())
}

#[test]
fn the_lock_table_is_reached_through_the_keeper() {
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    let guard = keeper
        .blocking_send(Acquire::new(object("a"), Mode::Write))
        .unwrap();
    let refused = keeper.blocking_send(Acquire::new(object("a"), Mode::Read).wait(Wait::No));
    let Err(LockError::NotAvailable(conflict)) = refused else {
        panic!("{refused:?}");
    };
    assert!(conflict.to_string().contains(file!()), "{conflict}");
    assert_eq!(keeper.blocking_send(LockStatsQuery::default()).locks.now, 1);

    // Who waits gets it when it is released; who goes away leaves the queue.
    let acquire = || Acquire::new(object("a"), Mode::Write).wait(Wait::Forever);
    let mut gone = Sent::new(keeper.send(acquire()));
    let waits = Sent::new(keeper.send(acquire()));
    until("both wait", || keeper.locks().stats().waiting == 2);
    assert!(gone.poll().is_none());
    drop(gone);
    until("one has gone", || keeper.locks().stats().waiting == 1);
    assert!(keeper.blocking_send(Release::Guard(guard)));
    let guard = waits.answer().unwrap();
    assert_eq!(guard.object(), &object("a"));
    drop(guard);
    assert_eq!(keeper.blocking_send(LockStatsQuery::default()).locks.now, 0);

    // By the name of the locker, once.
    let locker = Arc::new(keeper.locks().locker(LockerSpec::new()).unwrap());
    let asks = Acquire::new(object("b"), Mode::Write).locker(Arc::clone(&locker));
    let guard = keeper.blocking_send(asks).unwrap();
    let release = || Release::Lock {
        locker: Arc::clone(&locker),
        object: object("b"),
        mode: Mode::Write,
    };
    assert!(keeper.blocking_send(release()));
    assert!(!keeper.blocking_send(release()), "not held any more");
    assert!(!keeper.blocking_send(Release::Guard(guard)));
}

#[test]
fn i07_detection_can_be_asked_for_through_the_keeper() {
    let folder = folder();
    let keeper = Keeper::builder()
        .path(folder.path())
        .detect_on_block(false)
        .detect_interval(SOON * 100)
        .open()
        .unwrap();
    let lockers = [(); 2].map(|()| Arc::new(keeper.locks().locker(LockerSpec::new()).unwrap()));
    let ask = |who: usize, name: &str| {
        keeper.send(
            Acquire::new(object(name), Mode::Write)
                .locker(Arc::clone(&lockers[who]))
                .wait(Wait::Forever),
        )
    };
    let block_on = crate::support::block_on;
    let _held = [ask(0, "a"), ask(1, "b")].map(|ask| block_on(ask).unwrap());
    let waits = [ask(0, "b"), ask(1, "a")].map(|ask| Sent::new(ask).in_thread());
    until("both wait", || keeper.locks().stats().waiting == 2);
    let report = keeper.blocking_send(Detect::default());
    assert_eq!(report.victims.len(), 1, "{report:?}");
    let [older, younger] = waits;
    let victim = younger.join().unwrap();
    assert!(matches!(victim, Err(LockError::Deadlock(_))), "{victim:?}");
    lockers[1].release_all();
    older.join().unwrap().unwrap();
    assert!(keeper.blocking_send(Detect::default()).victims.is_empty());
}

#[test]
fn every_message_is_answered_after_the_keeper_has_shut_down() {
    let folder = folder();
    let (keeper, _) = open(folder.path());
    keeper.blocking_update(|_| Ok(())).unwrap();
    let before = keeper.blocking_send(TxnStatsQuery);
    assert_eq!((before.committed, before.in_flight), (1, 0));
    let kept = keeper
        .blocking_send(Acquire::new(object("kept"), Mode::Write))
        .unwrap();
    let locker = Arc::new(keeper.locks().locker(LockerSpec::new()).unwrap());
    let named = locker.blocking_lock(&object("named"), Mode::Write, Wait::No);
    named.unwrap();
    let waits = Sent::new(keeper.send(Acquire::new(object("kept"), Mode::Read)));
    keeper.blocking_shutdown(SOON).unwrap();

    let waited = waits.answer();
    assert!(matches!(waited, Err(LockError::ShuttingDown)), "{waited:?}");
    let acquired = keeper.blocking_send(Acquire::new(object("new"), Mode::Write));
    assert!(
        matches!(acquired, Err(LockError::ShuttingDown)),
        "{acquired:?}"
    );
    // What is held stays held, is counted, and can be released.
    assert_eq!(keeper.blocking_send(LockStatsQuery::default()).locks.now, 2);
    assert!(keeper.blocking_send(Release::Guard(kept)));
    let release = || Release::Lock {
        locker: Arc::clone(&locker),
        object: object("named"),
        mode: Mode::Write,
    };
    assert!(keeper.blocking_send(release()));
    assert!(!keeper.blocking_send(release()));
    assert_eq!(keeper.blocking_send(LockStatsQuery::default()).locks.now, 0);
    assert!(keeper.blocking_send(Detect::default()).victims.is_empty());
    assert_eq!(keeper.blocking_send(TxnStatsQuery).committed, 1);
    // Those of the others.
    assert!(keeper.blocking_send(RunTxn::update(|_| Ok(()))).is_err());
    assert!(keeper.blocking_send(EnvStatsQuery).is_err());
    assert!(keeper.blocking_send(SetMapSize(4 << 30)).is_err());
    assert!(keeper.blocking_send(Sync).is_err());
    assert!(keeper.blocking_send(Recover).is_err());
    assert!(
        keeper
            .blocking_send(ClearDatabase("numbers".into()))
            .is_err()
    );
    assert_eq!(keeper.blocking_send(ClearStaleReaders), 0);
}

/// Each message about locks that has no test of its own here does through the keeper what it does by the table's address.
#[test]
fn every_message_about_locks_is_answered_through_the_keeper() {
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    let begins = |parent: Option<&Arc<Locker>>| {
        let (spec, parent) = (LockerSpec::new(), parent.map(Arc::clone));
        keeper.blocking_send(NewLocker { spec, parent }).unwrap()
    };
    let held = || {
        let held = keeper.blocking_send(LockSnapshotQuery).held;
        let named = held.into_iter().map(|lock| {
            let object = lock.object.to_string();
            (object, lock.locker, lock.mode, lock.count)
        });
        named.collect::<Vec<_>>()
    };

    // Several operations, and a child that passes up what it took.
    let parent = begins(None);
    let child = begins(Some(&parent));
    let ops = LockOps::new()
        .lock(object("a"), Mode::Read)
        .lock(object("b"), Mode::Write);
    let many = LockMany::new(Arc::clone(&child), ops);
    let guards = keeper.blocking_send(many).unwrap().guards;
    let locker = Arc::clone(&child);
    keeper.blocking_send(CommitLocker { locker }).unwrap();
    drop(guards);
    let (id, other) = (parent.id(), begins(None));
    let passed_up = [
        ("n[a]".to_owned(), id, Mode::Read, 1),
        ("n[b]".to_owned(), id, Mode::Write, 1),
    ];
    assert_eq!(held(), passed_up);
    let taken =
        LockOps::new()
            .lock(object("c"), Mode::Write)
            .lock_wait(object("b"), Mode::Read, Wait::No);
    let many = LockMany::new(Arc::clone(&other), taken);
    let refused = keeper.blocking_send(many).unwrap_err();
    assert!(matches!(refused.failed.error, LockError::NotAvailable(_)));
    assert_eq!(held(), passed_up);

    // A lock changes its mode, or keeps it.
    let acquire = Acquire::new(object("a"), Mode::Read).locker(Arc::clone(&other));
    let guard = keeper.blocking_send(acquire).unwrap();
    let upgrade = Upgrade::new(guard, Mode::Write).wait(Wait::No);
    let kept = keeper.blocking_send(upgrade).unwrap_err();
    let site = kept.error.conflict().unwrap().asker.site;
    assert_eq!((kept.guard.mode(), site.file()), (Mode::Read, file!()));
    let upgrade = Upgrade::new(kept.guard, Mode::Update).wait(Wait::No);
    let guard = keeper.blocking_send(upgrade).unwrap();
    assert_eq!(guard.mode(), Mode::Update);
    let to = Mode::Read;
    let guard = keeper.blocking_send(Downgrade { guard, to }).unwrap();
    assert_eq!(guard.mode(), Mode::Read);
    let to = Mode::Write;
    let kept = keeper.blocking_send(Downgrade { guard, to }).unwrap_err();
    assert!(matches!(kept.error, LockError::NotWeaker { .. }));
    drop(kept);
    let locker = Arc::clone(&parent);
    assert!(keeper.blocking_send(EndLocker { locker }));
    assert_eq!(held(), []);

    // How it is set.
    let policy = Some(VictimPolicy::Oldest);
    keeper.blocking_send(SetDetect {
        policy,
        ..SetDetect::default()
    });
    let lock = Some(SOON);
    keeper.blocking_send(SetTimeouts {
        lock,
        ..SetTimeouts::default()
    });
    let locks = Some(0);
    keeper
        .blocking_send(SetLimits {
            locks,
            ..SetLimits::default()
        })
        .unwrap();
    let config = keeper.blocking_send(LockConfigQuery);
    let set = (config.detect_policy, config.lock_timeout, config.max_locks);
    assert_eq!(set, (VictimPolicy::Oldest, SOON, 0));
    let full = keeper.blocking_send(Acquire::new(object("a"), Mode::Read));
    assert!(matches!(full, Err(LockError::Limit { value: 0, .. })));
    assert!(keeper.blocking_send(DeadlockHistory).is_empty());
}
