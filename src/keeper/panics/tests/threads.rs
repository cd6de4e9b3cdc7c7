//! In the threads of the environment.

use super::*;
use crate::error::EnvError;
use crate::{Readable, Recover, RunTxn, Sync};

#[test]
fn i11_a_panic_of_the_writer_between_batches_poisons_and_it_recovers() {
    let (_folder, keeper) = keeper_on_fatal(OnFatal::Recover);
    let db = numbers(&keeper);
    put(&keeper, db, "before").expect("committed");
    keeper.bombs(Part::Environment).set("a turn of the writer");
    // Wakes it, and is answered before or after.
    let _ = run(keeper.send(Sync));
    until("it has panicked", || {
        keeper.bombs(Part::Environment).are_spent()
    });
    until("it has recovered", || put(&keeper, db, "after").is_ok());
    assert_eq!(
        ["before", "after"].map(|key| get(&keeper, db, key)),
        [Some(1); 2]
    );
}

#[test]
fn i11_a_panic_before_a_commit_is_answered_to_the_whole_batch_and_nothing_is_written() {
    let (_folder, keeper) = keeper();
    let db = numbers(&keeper);
    put(&keeper, db, "before").expect("committed");
    keeper.bombs(Part::Environment).set("before a commit");
    let put = |key| keeper.update(move |txn| Ok(db.put(txn, key, &1)?));
    let (one, other) = run(async { tokio::join!(put("one"), put("other")) });
    for answer in [one, other] {
        match answer {
            Err(TxnError::RecoveryNeeded(event)) => {
                assert!(
                    event.to_string().contains("a bomb in before a commit"),
                    "{event}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    run(keeper.send(Recover)).expect("recovered");
    let keys = ["before", "one", "other"];
    assert_eq!(keys.map(|key| get(&keeper, db, key)), [Some(1), None, None]);
    assert_eq!(run(keeper.stats()).panics.environment, 1);
}

#[test]
fn i11_a_panic_after_a_commit_is_answered_with_maybe_and_what_was_committed_is_there() {
    let (_folder, keeper) = keeper();
    let db = numbers(&keeper);
    put(&keeper, db, "before").expect("committed");
    for by_message in [false, true] {
        keeper.bombs(Part::Environment).set("after a commit");
        let update = RunTxn::update(move |txn| Ok(db.put(txn, "doubtful", &1)?));
        let answer = match by_message {
            false => run(keeper.run(update)),
            true => run(keeper.send(update)),
        };
        let error = answer.expect_err("it panicked");
        assert!(
            matches!(error, TxnError::MaybeCommitted { cause: Some(_) }),
            "{error:?}"
        );
        run(keeper.send(Recover)).expect("recovered");
        let keys = ["before", "doubtful"];
        assert_eq!(keys.map(|key| get(&keeper, db, key)), [Some(1); 2]);
    }
}

#[test]
fn i11_a_panic_in_a_recovery_is_answered_and_the_next_one_succeeds() {
    let (_folder, keeper) = keeper();
    let db = numbers(&keeper);
    let bombs = keeper.bombs(Part::Environment);
    bombs.set("before a commit");
    put(&keeper, db, "x").expect_err("it panicked");
    bombs.set("a recovery");
    let error = run(keeper.send(Recover)).expect_err("it panicked");
    let is_told = matches!(
        error,
        EnvError::Txn(TxnError::RecoveryNeeded(_) | TxnError::MaybeCommitted { .. })
    );
    assert!(is_told, "{error}");
    put(&keeper, db, "x").expect_err("still poisoned");
    run(keeper.send(Recover)).expect("recovered");
    put(&keeper, db, "x").expect("committed");
}

#[test]
fn a_panic_while_the_environment_is_closed_keeps_the_folder_from_nobody() {
    let (folder, keeper) = keeper();
    let db = numbers(&keeper);
    put(&keeper, db, "x").expect("committed");
    keeper
        .bombs(Part::Environment)
        .set("closing the environment");
    run(keeper.shutdown(LONG)).expect("stopped");
    assert!(keeper.bombs(Part::Environment).are_spent());
    let keeper = Keeper::open(folder.path()).expect("it can be opened at once");
    assert_eq!(get(&keeper, numbers(&keeper), "x"), Some(1));
}

#[test]
fn a_panic_of_a_reader_is_answered_and_the_thread_goes_on() {
    let (_folder, keeper) = keeper();
    let bombs = keeper.bombs(Part::Environment);
    let view = || RunTxn::view(|txn| Ok(txn.snapshot_id()));
    for _ in 0..3 {
        bombs.set("a view on a reader thread");
        let answers = run(async { tokio::join!(keeper.send(view()), keeper.send(view())) });
        let answers = [answers.0, answers.1];
        let is_panic = |answer: &&Result<usize, TxnError>| matches!(answer, Err(TxnError::ActorPanicked(panicked)) if panicked.part == Part::Reader);
        assert_eq!(answers.iter().filter(is_panic).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    }
    assert!(bombs.are_spent());
}

#[test]
fn a_panic_of_a_thread_that_holds_a_snapshot_is_answered_and_the_place_is_free_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let builder = Keeper::builder().path(folder.path()).snapshots(1);
    let keeper = builder.open().expect("a keeper");
    let bombs = keeper.bombs(Part::Environment);
    let env = &keeper.inner.runtime.env;
    let deadline = Instant::now() + LONG;
    let hold = || env.hold_snapshot(here(), None, deadline, LONG);
    let is_panic = |error: &TxnError| matches!(error, TxnError::ActorPanicked(panicked) if panicked.part == Part::SnapshotHolder);
    for _ in 0..2 {
        bombs.set("taking a snapshot");
        assert!(is_panic(&run(hold()).expect_err("it panicked")));
    }
    for _ in 0..3 {
        let snapshot = run(hold()).expect("a snapshot");
        bombs.set("holding a snapshot");
        let ask = || snapshot.ask(|txn| txn.snapshot_id());
        let (one, other) = run(async { tokio::join!(ask(), ask()) });
        for answer in [one, other] {
            assert!(is_panic(&answer.expect_err("it panicked")));
        }
        assert!(is_panic(&run(ask()).expect_err("it has ended")));
    }
    let snapshot = run(hold()).expect("a snapshot");
    assert!(run(snapshot.ask(|txn| txn.snapshot_id())).is_ok());
}

#[test]
fn a_panic_of_the_thread_that_serves_the_pools_ends_no_supervision() {
    let (_folder, keeper) = keeper();
    let pool = keeper.pool("steady").start(|worker| async move {
        worker.stopped().await;
        Ok(())
    });
    let pool = pool.expect("a pool");
    let bombs = keeper.bombs(Part::WorkerPool);
    bombs.set("a turn of the pools");
    pool.scale(2).expect("scaled");
    until("it has panicked", || bombs.are_spent());
    until("it goes on", || pool.stats().workers.running == 2);
    // A worker may have been started by whoever scaled, before the panic was told.
    let panics = || run(keeper.stats()).panics;
    until("it is counted", || panics().worker_pool == 1);
    assert_eq!(&*panics().last[0].message, "a bomb in a turn of the pools");
    run(pool.stop(LONG)).expect("stopped");
}
