//! While handling a message: whoever sent it is answered, those behind it are served, and the address stays good.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::MailboxError;

use super::*;
use crate::error::{DatabaseError, EnvError, LeaseError, LockError};
use crate::{
    Acquire, AcquireLease, ClearDatabase, ClearStaleReaders, CommitLocker, CopyTo, DeleteDatabase,
    EnvStatsQuery, ForgetToken, LeaseInfo, ListLeases, LockMany, LockOps, LockStatsQuery, Mode,
    NewLocker, Object, Recover, Release, RunTxn, SetMapSize, StoreId, Sync, TxnStatsQuery, Wait,
};

fn new_locker() -> NewLocker {
    NewLocker {
        spec: crate::LockerSpec::new(),
        parent: None,
    }
}

fn is_by(part: Part, error: &TxnError) -> bool {
    matches!(error, TxnError::ActorPanicked(panicked) if panicked.part == part)
}

/// Has the actor panic over a message, with another one behind it.
macro_rules! goes_off {
    ($keeper:expr, $name:literal, $message:expr, $error:pat => $inner:expr) => {
        let bombs = $keeper.bombs(Part::Environment);
        bombs.set($name);
        let (first, second) = tokio::join!($keeper.send($message), $keeper.send(Sync));
        match first {
            Err($error) => assert!(is_by(Part::Environment, &$inner), $name),
            other => panic!("{}: {other:?}", $name),
        }
        assert!(second.is_ok(), "the next one is served");
        assert!(bombs.are_spent());
    };
}

#[test]
fn a_panic_in_the_environment_actor_is_answered_and_it_goes_on() {
    // Each with a keeper of its own: five in a while are as many as one lives with.
    let (folder, keeper) = keeper();
    let kept = keeper.environment().clone();
    run(async {
        goes_off!(keeper, "SetMapSize", SetMapSize(1 << 31), EnvError::Txn(error) => error);
        let copy = CopyTo {
            folder: folder.path().join("copy"),
            compact: false,
        };
        goes_off!(keeper, "CopyTo", copy, EnvError::Txn(error) => error);
        goes_off!(keeper, "EnvStatsQuery", EnvStatsQuery, error => error);
        goes_off!(keeper, "Recover", Recover, EnvError::Txn(error) => error);
        goes_off!(keeper, "ClearDatabase", ClearDatabase("x".into()), DatabaseError::Txn(error) => error);
        assert!(kept.connected() && kept.send(Sync).await.expect("the actor").is_ok());
    });
    let stats = run(keeper.stats()).panics;
    assert_eq!((stats.environment, stats.supervisor), (5, 0));
    assert_eq!(stats.last.len(), 1);
}

#[test]
fn so_is_a_panic_over_each_of_its_other_messages() {
    let (_folder, keeper) = keeper();
    let bombs = keeper.bombs(Part::Environment);
    run(async {
        goes_off!(keeper, "DeleteDatabase", DeleteDatabase("x".into()), DatabaseError::Txn(error) => error);
        let forget = ForgetToken {
            store: StoreId::new("x"),
            name: crate::LeaseName::new("x").expect("a name"),
        };
        goes_off!(keeper, "ForgetToken", forget, EnvError::Txn(error) => error);
        bombs.set("Sync");
        let first = keeper.send(Sync).await;
        assert!(matches!(first, Err(EnvError::Txn(error)) if !error.is_retryable()));
        bombs.set("ClearStaleReaders");
        assert_eq!(keeper.send(ClearStaleReaders).await, 0);
        assert!(keeper.send(Sync).await.is_ok());
    });
    assert_eq!(run(keeper.stats()).panics.environment, 4);
}

#[test]
fn a_panic_in_the_supervisor_actor_is_answered_and_it_goes_on() {
    let (_folder, keeper) = keeper();
    let bombs = keeper.bombs(Part::Supervisor);
    let kept = keeper.supervisor().clone();
    let runs = Arc::new(AtomicUsize::new(0));
    let update = || {
        let runs = Arc::clone(&runs);
        RunTxn::update(move |_| Ok(runs.fetch_add(1, Ordering::Relaxed)))
    };
    run(async {
        for place in ["RunTxn", "RunTxn, direct"] {
            bombs.set(place);
            let both = tokio::join!(keeper.send(update()), keeper.send(update()));
            let error = both.0.expect_err("it panicked");
            assert!(is_by(Part::Supervisor, &error), "{place}: {error}");
            assert!(both.1.is_ok(), "the next one is served");
        }
        let locked = || update().write_lock(Object::new("x", b"1"));
        bombs.set("running a transaction");
        let error = keeper.send(locked()).await.expect_err("it panicked");
        assert!(is_by(Part::Supervisor, &error), "{error}");
        assert!(keeper.send(locked()).await.is_ok(), "its lock is free");
        bombs.set("TxnStatsQuery");
        assert_eq!(keeper.send(TxnStatsQuery).await.in_flight, 0);
        assert!(kept.connected() && kept.send(update()).await.expect("the actor").is_ok());
    });
    assert!(bombs.are_spent());
    assert_eq!(run(keeper.stats()).panics.supervisor, 4);
    assert_eq!(
        runs.load(Ordering::Relaxed),
        4,
        "no body ran that was answered with a panic"
    );
}

#[test]
fn a_panic_in_the_lock_tables_actor_is_answered_and_it_goes_on() {
    let (_folder, keeper) = keeper();
    let bombs = keeper.bombs(Part::LockTable);
    let kept = keeper.lock_table().clone();
    let object = Object::new("x", b"1");
    let is_panic = |error: &LockError| matches!(error, LockError::ActorPanicked(_));
    run(async {
        let acquire = || Acquire::new(object.clone(), Mode::Write);
        bombs.set("Acquire");
        let (first, second) = tokio::join!(keeper.send(acquire()), keeper.send(acquire()));
        assert!(is_panic(&first.expect_err("it panicked")));
        let guard = second.expect("the next one is served");
        bombs.set("Release");
        // The guard is gone with the message, and its lock with it.
        assert!(keeper.send(Release::Guard(guard)).await);
        let guard = keeper.send(acquire()).await.expect("free");
        bombs.set("Release");
        let closed = kept.send(Release::Guard(guard)).await;
        assert!(matches!(closed, Err(MailboxError::Closed)));
        drop(keeper.send(acquire()).await.expect("free"));

        bombs.set("NewLocker");
        let in_place = keeper.send(new_locker()).await;
        assert!(is_panic(&in_place.expect_err("it panicked")));
        let locker = keeper.send(new_locker()).await.expect("a locker");
        bombs.set("LockMany");
        let ops = LockOps::new().lock(object.clone(), Mode::Write);
        let many = || LockMany::new(Arc::clone(&locker), ops.clone());
        let refused = keeper.send(many()).await.expect_err("it panicked");
        assert!(is_panic(&refused.failed.error));
        assert!(keeper.send(many()).await.is_ok());
        bombs.set("CommitLocker");
        let commit = CommitLocker {
            locker: Arc::clone(&locker),
        };
        assert!(is_panic(
            &keeper.send(commit).await.expect_err("it panicked")
        ));
        bombs.set("LockStatsQuery");
        let stats = keeper.send(LockStatsQuery::default()).await;
        assert!(stats.grants > 0, "it is answered in place");
        assert!(kept.connected() && kept.send(acquire().wait(Wait::No)).await.is_ok());
    });
    assert!(bombs.are_spent());
}

#[test]
fn a_panic_in_the_lease_actor_is_answered_and_it_goes_on() {
    let (_folder, keeper) = keeper();
    let bombs = keeper.bombs(Part::Leases);
    let kept = keeper.lease_actor().clone();
    let is_panic = |error: &LeaseError| matches!(error, LeaseError::ActorPanicked(panicked) if panicked.part == Part::Leases);
    run(async {
        for place in ["AcquireLease", "serving leases"] {
            bombs.set(place);
            let error = keeper.send(AcquireLease::new("a")).await;
            assert!(is_panic(&error.expect_err("it panicked")), "{place}");
        }
        let guard = keeper.send(AcquireLease::new("a")).await.expect("free");
        bombs.set("LeaseInfo");
        let info = keeper.send(LeaseInfo("a".into())).await;
        assert!(is_panic(&info.expect_err("it panicked")));
        assert!(guard.is_held(), "a panic in the actor costs no lease");
        bombs.set("ListLeases");
        let list = keeper.send(ListLeases).await;
        assert!(is_panic(&list.expect_err("it panicked")));
        let list = kept.send(ListLeases).await.expect("the actor");
        assert_eq!(list.expect("a list").len(), 1);
        guard.release().await.expect("released");
    });
    assert!(bombs.are_spent());
    assert_eq!(run(keeper.stats()).panics.leases, 4);
}

#[test]
fn i11_too_many_panics_of_an_actor_poison_the_keeper_until_it_recovers() {
    let (_folder, keeper) = keeper();
    let db = numbers(&keeper);
    put(&keeper, db, "before").expect("committed");
    let (tell, told) = std::sync::mpsc::channel();
    keeper.on_panic(move |event| tell.send(event.to_string()).expect("somebody listens"));
    let bombs = keeper.bombs(Part::LockTable);
    run(async {
        for _ in 0..6 {
            bombs.set("NewLocker");
            keeper.send(new_locker()).await.expect_err("it panicked");
        }
    });
    let event = told.recv_timeout(LONG).expect("the listener is told");
    assert!(
        event.contains("the lock table panicked: a bomb in NewLocker"),
        "{event}"
    );
    let refused = put(&keeper, db, "refused").expect_err("poisoned");
    assert!(matches!(refused, TxnError::RecoveryNeeded(_)), "{refused}");
    run(keeper.send(Recover)).expect("recovered");
    put(&keeper, db, "after").expect("committed");
    let all = ["before", "refused", "after"].map(|key| get(&keeper, db, key));
    assert_eq!(all, [Some(1), None, Some(1)]);
}

#[test]
fn an_actor_that_belongs_to_no_keeper_stops_after_too_many_panics() {
    actix::System::new().block_on(async {
        let (address, locks) =
            crate::LockTable::start_alone(crate::LockConfig::default()).expect("a system");
        for left in (0..6).rev() {
            locks.supervision().bombs.set("NewLocker");
            let answer = address.send(new_locker()).await;
            assert!(
                matches!(answer, Ok(Err(LockError::ActorPanicked(_)))),
                "{left}"
            );
        }
        assert!(address.send(new_locker()).await.is_err(), "it has stopped");
        let shut_down = || {
            matches!(
                locks.locker(crate::LockerSpec::new()),
                Err(LockError::ShuttingDown)
            )
        };
        until("the table is shut down", shut_down);
    });
}
