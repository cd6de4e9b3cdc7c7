//! What is refused, what may finish, and what is aborted.

use std::time::Duration;

use lockkeeper::{
    Acquire, AcquireLease, CopyTo, DatabaseError, EnvError, LeaseError, LockError, LockMany,
    LockOps, LockerSpec, Mode, NewLocker, Object, RunTxn, SetMapSize, ShutdownError, Sync,
    TxnError, Wait,
};

use crate::begun::{LONG, SOON, counts, stopping, until_free, waits_outside};
use crate::rt::{aside, begin, block_on, builder, bump, hold_writer, latch, open, read, until};

fn refused<T>(what: &str, outcome: Result<T, TxnError>) {
    match outcome {
        Err(TxnError::ShuttingDown) => {}
        Err(error) => panic!("{what}: {error:?}"),
        Ok(_) => panic!("{what} was taken"),
    }
}

#[test]
fn everything_new_is_refused_in_its_own_terms_while_what_was_begun_finishes() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    let records = counts(&keeper);
    // What was begun: a body, an interactive transaction, a locker, a lease.
    let held = hold_writer(&keeper);
    let (inside, is_inside) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = tokio::sync::watch::channel(());
    let interactive: std::thread::JoinHandle<Result<(), TxnError>> = {
        let keeper = keeper.clone();
        aside(move || {
            block_on(async {
                keeper
                    .transaction("interactive", |txn| {
                        let (inside, mut may_go_on) = (inside.clone(), may_go_on.clone());
                        async move {
                            inside.send(()).unwrap();
                            // An error means "open".
                            let _ = may_go_on.changed().await;
                            txn.get(records, "n").await?;
                            Ok(txn.put(records, "n", &7).await?)
                        }
                    })
                    .await
            })
        })
    };
    is_inside.recv().unwrap();
    let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
    let guard = block_on(keeper.lease("job").acquire()).unwrap();
    let leases = keeper.leases().unwrap();

    let stops = stopping(&keeper, LONG);
    refused("update", keeper.blocking_update(|_| Ok(())));
    refused("view", keeper.blocking_view(|_| Ok(())));
    refused("long view", keeper.blocking_run(RunTxn::view(|_| Ok(()))));
    refused("message", keeper.blocking_send(RunTxn::update(|_| Ok(()))));
    refused(
        "with a lock",
        keeper.blocking_run(RunTxn::update(|_| Ok(())).write_lock(Object::new("a", b"b"))),
    );
    let transaction = async {
        keeper
            .transaction("interactive", |_| async { Ok(()) })
            .await
    };
    refused("transaction", block_on(transaction));
    refused("begin", block_on(async { keeper.begin().await }));
    refused("snapshot", block_on(keeper.hold_snapshot("late", LONG)));
    refused(
        "place",
        keeper
            .try_admit(RunTxn::update(|_| Ok(())))
            .map_err(|refused| refused.why),
    );
    for (what, answer) in [
        ("size", keeper.blocking_send(SetMapSize(2 << 20)).map(drop)),
        ("sync", keeper.blocking_send(Sync)),
        ("copy", keeper.blocking_send(CopyTo::new("never")).map(drop)),
    ] {
        match answer {
            Err(EnvError::Txn(error)) => refused(what, Err::<(), _>(error)),
            other => panic!("{what}: {other:?}"),
        }
    }
    match keeper.blocking_database::<(), ()>("late") {
        Err(DatabaseError::Txn(error)) => refused("database", Err::<(), _>(error)),
        other => panic!("{other:?}"),
    }
    let late = keeper.locks().locker(LockerSpec::new());
    assert!(matches!(late, Err(LockError::ShuttingDown)));
    let late = keeper.blocking_send(NewLocker {
        spec: LockerSpec::new(),
        parent: None,
    });
    assert!(matches!(late, Err(LockError::ShuttingDown)));
    let late = keeper.blocking_send(Acquire::new(Object::new("a", b"c"), Mode::Read));
    assert!(matches!(late, Err(LockError::ShuttingDown)));
    for late in [
        block_on(keeper.lease("late").try_acquire()),
        block_on(leases.try_acquire("late")),
        keeper.blocking_send(AcquireLease::new("late")),
    ] {
        assert!(matches!(late, Err(LeaseError::ShuttingDown)), "{late:?}");
    }
    assert!(matches!(keeper.leases(), Err(LeaseError::ShuttingDown)));

    // What was begun goes on as if nothing were.
    assert!(guard.is_held());
    locker
        .blocking_lock(&Object::new("a", b"d"), Mode::Write, Wait::No)
        .unwrap();
    let many = LockMany::new(
        std::sync::Arc::new(locker),
        LockOps::new().lock(Object::new("a", b"e"), Mode::Read),
    );
    keeper.blocking_send(many).unwrap();
    assert!(!stops.is_finished());
    drop(go_on);
    held.release().unwrap();
    interactive.join().unwrap().unwrap();
    stops.join().unwrap().unwrap();
    assert!(!guard.is_held(), "given back with the keeper");

    let (again, counters_again) = open(folder.path());
    assert_eq!(read(&again, counters_again, "n"), Some(7));
    refused("after", keeper.blocking_run(bump(counters, "n")));
}

#[test]
fn what_waits_at_the_deadline_is_aborted_and_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let records = counts(&keeper);
    // It waits for the world outside, with a lock.
    let waits = waits_outside(&keeper, records, "n");
    // This one waits for its lock.
    let mut behind = Box::pin({
        let keeper = keeper.clone();
        async move {
            keeper
                .transaction("interactive", |txn| async move {
                    Ok(txn.put(records, "n", &2_u64).await?)
                })
                .await
        }
    });
    begin(&mut behind);
    let begun = block_on(async { keeper.begin().await }).unwrap();
    block_on(begun.put(records, "m", &3)).unwrap();
    let snapshot = block_on(keeper.hold_snapshot("held", LONG)).unwrap();

    keeper.blocking_shutdown(SOON).unwrap();
    // The folder is free, whatever is still there to be dropped.
    let (again, counters) = open(folder.path());
    assert_eq!(read(&again, counters, "n"), None);
    refused("waits", block_on(waits));
    refused("behind", block_on(behind));
    let get = block_on(begun.get(records, "n")).map(drop);
    refused("begun", get.map_err(TxnError::from));
    refused("commit", block_on(begun.commit()));
    drop(snapshot);
    assert_eq!(keeper.locks().stats().locks.now, 0);
    assert_eq!(read(&again, counters, "m"), None);
}

#[test]
fn what_nobody_drives_is_not_waited_for_beyond_its_own_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = builder(folder.path()).deadline(SOON).open().unwrap();
    let begun = block_on(async { keeper.begin().await }).unwrap();
    let admitted = keeper.try_admit(RunTxn::update(|_| Ok(()))).unwrap();
    keeper.blocking_shutdown(Duration::MAX).unwrap();
    drop((begun, admitted));
}

#[test]
fn views_behind_one_that_runs_on_are_answered_at_the_deadline_and_that_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = builder(folder.path()).reader_threads(1).open().unwrap();
    let (mut latch, latched) = latch();
    let long = RunTxn::view(move |_| {
        latched.pass();
        Ok(())
    });
    let long = keeper.run(long.name("report"));
    let long = aside(move || block_on(long));
    latch.entered();
    let behind = keeper.run(RunTxn::view(|_| Ok(())));
    let behind = aside(move || block_on(behind));
    until(|| block_on(keeper.stats()).environment.views_shipped == 2);
    let outcome = keeper.blocking_shutdown(SOON);
    let Err(ShutdownError::ViewsRunOn { views }) = &outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(views.len(), 1);
    assert_eq!(views[0].name.as_deref(), Some("report"));
    assert!(outcome.unwrap_err().is_retryable());
    refused("behind", behind.join().unwrap());
    latch.open();
    long.join().unwrap().unwrap();
    keeper.blocking_shutdown(LONG).unwrap();
}

#[test]
fn all_that_runs_on_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let held = hold_writer(&keeper);
    let (mut latch, latched) = latch();
    let view = {
        let keeper = keeper.clone();
        aside(move || {
            keeper.blocking_view(move |_| {
                latched.pass();
                Ok(())
            })
        })
    };
    latch.entered();
    let outcome = keeper.blocking_shutdown(Duration::ZERO);
    let Err(ShutdownError::Several(errors)) = &outcome else {
        panic!("{outcome:?}");
    };
    let text = outcome.as_ref().unwrap_err().to_string();
    assert_eq!(errors.len(), 2, "{text}");
    assert!(
        text.contains("holder") && text.contains("order.rs"),
        "{text}"
    );
    latch.open();
    view.join().unwrap().unwrap();
    held.release().unwrap();
    keeper.blocking_shutdown(LONG).unwrap();
}

#[test]
fn what_ran_on_beyond_the_deadline_takes_everything_with_it_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let held = hold_writer(&keeper);
    let outcome = keeper.blocking_shutdown(SOON);
    assert!(
        matches!(outcome, Err(ShutdownError::BodyRunsOn { .. })),
        "{outcome:?}"
    );
    held.release().unwrap();
    // Nobody asks again, and the handle is still there.
    until_free(folder.path());
    drop(keeper);
}
