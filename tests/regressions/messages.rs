//! `keeper.send` takes every message, and answers it in its own terms when the actor has gone.

use std::sync::Arc;

use lockkeeper::{
    Acquire, ClearDatabase, ClearStaleReaders, Detect, EnvStatsQuery, Keeper, LockError,
    LockStatsQuery, LockerSpec, Mode, Object, Recover, Release, RunTxn, SetMapSize, Sync,
    TxnStatsQuery, Wait,
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
