//! The same through each door, and beside everything else that a transaction can be sent with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lockkeeper::{HandlerContext, Object, Outcome, RunTxn, TxnError};

use crate::support::{Plug, SOON, Sent, assert_idle, block_on, folder, get, open, until};
use crate::{Runs, add, assert_once};

#[test]
fn as_a_message_as_a_method_and_from_a_thread() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let runs = Runs::default();
    let keyed = || runs.bump(numbers, 1).idempotent("key");
    assert_eq!(block_on(keeper.send(keyed())).unwrap(), 1);
    assert_eq!(block_on(keeper.run(keyed())).unwrap(), 1);
    assert_eq!(keeper.blocking_send(keyed()).unwrap(), 1);
    assert_eq!(
        block_on(keeper.supervisor().send(keyed()))
            .unwrap()
            .unwrap(),
        1
    );
    let admitted = keeper.try_admit(keyed()).unwrap();
    assert_eq!(keeper.blocking_run(admitted).unwrap(), 1);
    assert_eq!(runs.count(), 1);
    assert_idle(&keeper);
}

/// A stored answer needs no writer, and no lock but the key's.
#[test]
fn while_a_body_keeps_the_writer_a_stored_answer_comes_back_at_once() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let runs = Runs::default();
    assert_once(&keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
    let x = Object::new("things", "x");
    let locker = keeper.locks().locker(Default::default()).unwrap();
    locker
        .blocking_lock(&x, lockkeeper::Mode::Write, lockkeeper::Wait::Default)
        .unwrap();
    let plug = Plug::hold(&keeper);
    let txn = runs.bump(numbers, 1).write_lock(x).idempotent("key");
    assert_once(&keeper, numbers, txn);
    plug.release().unwrap();
    assert_eq!(runs.count(), 1);
}

#[test]
fn i12_dropped_wherever_it_waits_it_leaves_nothing_behind() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let runs = Runs::default();
    let keyed = || runs.bump(numbers, 1).idempotent("key");
    // For the database of the answers.
    let plug = Plug::hold(&keeper);
    drop(Sent::new(keeper.run(keyed())));
    plug.release().unwrap();
    assert_idle(&keeper);
    keeper
        .blocking_run(runs.bump(numbers, 2).idempotent("other"))
        .unwrap();
    // For the writer, and behind that one for the key.
    let plug = Plug::hold(&keeper);
    let first = Sent::new(keeper.run(keyed()));
    drop(Sent::new(keeper.run(keyed())));
    drop(first);
    plug.release().unwrap();
    assert_idle(&keeper);
    assert_eq!(runs.count(), 1, "only the other's body has run");
    assert_once(&keeper, numbers, keyed());
}

#[test]
fn a_handler_sees_committed_when_the_stored_answer_comes_back() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let seen = Arc::new(AtomicUsize::new(0));
    let runs = Runs::default();
    for times in 1..=2 {
        let committed = Arc::clone(&seen);
        let handler = move |_: &mut HandlerContext, outcome| {
            assert!(matches!(outcome, Outcome::Committed));
            committed.fetch_add(1, Ordering::SeqCst);
            outcome
        };
        let txn = runs.bump(numbers, 1).handler(handler).idempotent("key");
        assert_once(&keeper, numbers, txn);
        assert_eq!(seen.load(Ordering::SeqCst), times);
    }
    assert_eq!(runs.count(), 1);
}

/// A retry runs again what was lost, and an answer that was stored meanwhile ends it.
#[test]
fn a_lost_attempt_is_run_again_under_its_key() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let x = Object::new("things", "x");
    let locker = keeper.locks().locker(Default::default()).unwrap();
    locker
        .blocking_lock(&x, lockkeeper::Mode::Write, lockkeeper::Wait::Default)
        .unwrap();
    let runs = Runs::default();
    let txn = runs
        .bump(numbers, 1)
        .write_lock(x)
        .lock_timeout(Duration::from_millis(5))
        .retries(1_000)
        .idempotent("key");
    let sent = Sent::new(keeper.run(txn)).in_thread();
    until("it has lost an attempt", || {
        crate::support::stats(&keeper).transactions.retries > 0
    });
    drop(locker);
    assert_eq!(sent.join().unwrap().unwrap(), 1);
    assert_eq!(runs.count(), 1);
    assert_once(&keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
    assert_idle(&keeper);
}

#[test]
fn a_handler_that_asks_for_another_attempt_of_an_abort_gets_it_and_the_success_is_stored() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let keyed = || {
        let txn = RunTxn::try_update(move |txn| {
            let next = add(txn, numbers, 1)?;
            match txn.attempt() {
                1 => Err(TxnError::Abort("not yet")),
                _ => Ok(next),
            }
        });
        let again = |_: &mut HandlerContext, outcome| match outcome {
            Outcome::Aborted => Outcome::Retry,
            outcome => outcome,
        };
        txn.handler(again).idempotent("key")
    };
    for _ in 0..2 {
        assert_eq!(keeper.blocking_run(keyed()).unwrap(), 1);
    }
    assert_eq!(get(&keeper, numbers, 1), Some(1));
}

/// Whoever has been admitted finishes while the keeper shuts down.
#[test]
fn during_the_shutdown_one_that_was_admitted_still_stores_its_answer() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let runs = Runs::default();
    assert_once(
        &keeper,
        numbers,
        runs.bump(numbers, 1).idempotent("earlier"),
    );
    let plug = Plug::hold(&keeper);
    let late = keeper
        .try_admit(runs.bump(numbers, 2).idempotent("late"))
        .unwrap();
    let stored = keeper
        .try_admit(runs.bump(numbers, 2).idempotent("earlier"))
        .unwrap();
    let stopping = std::thread::spawn({
        let keeper = keeper.clone();
        move || keeper.blocking_shutdown(SOON)
    });
    until("nothing new is let in", || {
        keeper.blocking_view(|_| Ok(())).is_err()
    });
    assert_eq!(keeper.blocking_run(stored).unwrap(), 1);
    let late = Sent::new(keeper.run(late)).in_thread();
    plug.release().unwrap();
    assert_eq!(late.join().unwrap().unwrap(), 1);
    stopping.join().unwrap().unwrap();
    drop(keeper);
    let (keeper, numbers) = open(dir.path());
    assert_eq!(
        keeper
            .blocking_run(runs.bump(numbers, 2).idempotent("late"))
            .unwrap(),
        1
    );
    assert_eq!(runs.count(), 2);
}
