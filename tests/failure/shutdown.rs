//! A keeper that goes down finishes what it has, and answers everything else.

use std::thread;
use std::time::Duration;

use lockkeeper::{
    CopyTo, DatabaseError, EnvError, EnvStatsQuery, ErrorClass, Keeper, Object, Recover, RunTxn,
    SetMapSize, ShutdownError, Sync, TxnError,
};

use crate::support::{
    NUMBERS, Numbers, Plug, SOON, Sent, folder, open, open_with, put, putting, until,
};

fn assert_all_refused(keeper: &Keeper, numbers: Numbers) {
    let down = |what: &str, answer: Result<(), TxnError>| {
        let error = answer.expect_err(what);
        assert!(matches!(error, TxnError::ShuttingDown), "{what}: {error:?}");
        assert_eq!(error.class(), ErrorClass::ShuttingDown);
    };
    down("update", put(keeper, numbers, 1, 1));
    down("view", keeper.blocking_view(|_| Ok(())));
    down("long view", keeper.blocking_run(RunTxn::view(|_| Ok(()))));
    down("message", keeper.blocking_send(RunTxn::update(|_| Ok(()))));
    down(
        "update with a lock",
        keeper.blocking_run(putting(numbers, 1, 1).write_lock(Object::new("a", b"b"))),
    );
    down("statistics", keeper.blocking_send(EnvStatsQuery).map(drop));
    for (what, answer) in [
        (
            "resize",
            keeper.blocking_send(SetMapSize(2 << 30)).map(drop),
        ),
        ("sync", keeper.blocking_send(Sync)),
        (
            "copy",
            keeper.blocking_send(CopyTo::new("nowhere")).map(drop),
        ),
    ] {
        match answer {
            Err(EnvError::Txn(error)) => down(what, Err(error)),
            other => panic!("{what}: {other:?}"),
        }
    }
    match keeper.blocking_database::<(), ()>("new") {
        Err(DatabaseError::Txn(error)) => down("database", Err(error)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_keeper_that_shuts_down_finishes_what_it_has_and_refuses_the_rest() {
    let folder = folder();
    let (keeper, numbers) = open_with(Keeper::builder().path(folder.path()).queue(3));
    let plug = Plug::hold(&keeper);
    let queued = Sent::new(keeper.run(putting(numbers, 1, 10)));
    let sent = Sent::new(keeper.send(putting(numbers, 2, 20)));
    // No place is left: this one was never admitted.
    let waiting = Sent::new(keeper.run(putting(numbers, 3, 30)));
    let stopping = keeper.clone();
    let stopping = thread::spawn(move || stopping.blocking_shutdown(SOON));
    until("shutting down", || {
        keeper.blocking_view(|_| Ok(())).is_err()
    });
    assert_all_refused(&keeper, numbers);
    let error = waiting.answer().unwrap_err();
    assert!(matches!(error, TxnError::ShuttingDown), "{error:?}");
    plug.release().unwrap();
    queued.answer().unwrap();
    sent.answer().unwrap();
    stopping.join().unwrap().unwrap();
    assert_all_refused(&keeper, numbers);
    match keeper.blocking_send(Recover) {
        Err(EnvError::Txn(TxnError::ShuttingDown)) => {}
        other => panic!("{other:?}"),
    }
    // Twice is once.
    keeper.blocking_shutdown(SOON).unwrap();

    // The folder is free at once, also while the old handle is still there; its databases are not those of the new one.
    let (next, again) = open(folder.path());
    let found = next
        .blocking_view(move |txn| {
            Ok((
                again.get(txn, &1)?,
                again.get(txn, &2)?,
                again.get(txn, &3)?,
            ))
        })
        .unwrap();
    assert_eq!(found, (Some(10), Some(20), None));
    let foreign = next.blocking_view(move |txn| Ok(numbers.get(txn, &1)?));
    assert!(
        matches!(
            foreign,
            Err(TxnError::Database(lockkeeper::DbError::Foreign))
        ),
        "{foreign:?}"
    );
}

#[test]
fn what_is_queued_behind_a_body_that_runs_on_is_answered_at_the_deadline_of_the_shutdown() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    let plug = Plug::hold_as(
        &keeper,
        |body| RunTxn::update(body).name("endless"),
        |_| Ok(()),
    );
    let queued = Sent::new(keeper.run(putting(numbers, 1, 10))).in_thread();
    let error = keeper
        .blocking_shutdown(Duration::from_millis(50))
        .unwrap_err();
    match &error {
        ShutdownError::BodyRunsOn { name, site, .. } => {
            assert_eq!(name.as_deref(), Some("endless"));
            assert!(site.file().ends_with("shutdown.rs"), "{site}");
        }
        other => panic!("{other:?}"),
    }
    // Nobody may open what is still in use.
    let again = Keeper::builder().path(folder.path()).open();
    assert!(
        matches!(again, Err(lockkeeper::OpenError::AlreadyOpen { .. })),
        "{again:?}"
    );
    // It does not wait for the body that runs on.
    let error = queued.join().unwrap().unwrap_err();
    assert!(matches!(error, TxnError::ShuttingDown), "{error:?}");
    plug.release().unwrap();
    until("the folder is free", || {
        Keeper::builder()
            .path(folder.path())
            .open()
            .is_ok_and(|next| next.blocking_database::<(), ()>(NUMBERS).is_ok())
    });
}
