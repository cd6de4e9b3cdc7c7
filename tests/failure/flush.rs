//! I2 and I4: nothing is answered, seen or unlocked before the flush has returned. The flush is held, not slept through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{ErrorClass, Keeper, Object, RunTxn, TxnError};

use crate::stage::{Disk, Stage, on_stage};
use crate::support::{Numbers, SOON, Sent, assert_idle, get, open, putting, stats, until};

fn account() -> Object {
    Object::new("accounts", b"1")
}

/// An update under the lock; its body says when it runs.
fn locked(numbers: Numbers, key: u64) -> (RunTxn<()>, Arc<AtomicBool>) {
    let ran = Arc::new(AtomicBool::new(false));
    let runs = Arc::clone(&ran);
    let txn = RunTxn::update(move |txn| {
        runs.store(true, Ordering::SeqCst);
        Ok(numbers.put(txn, &key, &key)?)
    });
    (txn.write_lock(account()), ran)
}

/// While `first` is held in its flush: the lock is held, its writes are not seen, and `second` waits.
fn assert_nothing_shows(stage: &Stage, keeper: &Keeper, numbers: Numbers, ran: &AtomicBool) {
    assert!(stage.is_held());
    let locks = keeper.locks().snapshot();
    assert_eq!((locks.held.len(), locks.waiting.len()), (1, 1), "{locks:?}");
    assert_eq!(locks.held[0].object, account());
    assert!(!ran.load(Ordering::SeqCst));
    assert_eq!(get(keeper, numbers, 1), None);
    assert!(stage.is_held());
}

#[test]
fn i02_i04_nothing_is_answered_or_unlocked_before_the_flush_has_returned() {
    let Some(stage) =
        on_stage("flush::i02_i04_nothing_is_answered_or_unlocked_before_the_flush_has_returned")
    else {
        return;
    };
    let (keeper, numbers) = open(&stage.folder);
    stage.tell(Disk::HoldFlush);
    let (first, _) = locked(numbers, 1);
    let mut first = Sent::new(keeper.run(first));
    stage.until_held();
    let (second, ran) = locked(numbers, 2);
    let mut second = Sent::new(keeper.run(second));
    until("the second waits for the lock", || {
        keeper.locks().stats().waiting == 1
    });
    // Long enough for an answer that comes too early to be seen.
    for _ in 0..50 {
        assert!(first.poll().is_none());
        assert!(second.poll().is_none());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_nothing_shows(&stage, &keeper, numbers, &ran);
    stage.heal(Disk::HoldFlush);
    first.answer().unwrap();
    assert_eq!(get(&keeper, numbers, 1), Some(1));
    second.answer().unwrap();
    assert_eq!(get(&keeper, numbers, 2), Some(2));
    assert_idle(&keeper);
}

#[test]
fn i04_the_locks_of_a_commit_stay_with_it_when_its_caller_goes_away() {
    let Some(stage) =
        on_stage("flush::i04_the_locks_of_a_commit_stay_with_it_when_its_caller_goes_away")
    else {
        return;
    };
    let (keeper, numbers) = open(&stage.folder);
    stage.tell(Disk::HoldFlush);
    let (first, _) = locked(numbers, 1);
    let first = Sent::new(keeper.run(first));
    stage.until_held();
    let (second, ran) = locked(numbers, 2);
    let second = Sent::new(keeper.run(second));
    drop(first);
    until("the second waits for the lock", || {
        keeper.locks().stats().waiting == 1
    });
    assert_nothing_shows(&stage, &keeper, numbers, &ran);
    assert_eq!(
        stats(&keeper).transactions.in_flight,
        2,
        "it keeps its place too"
    );
    stage.heal(Disk::HoldFlush);
    second.answer().unwrap();
    // It had begun: it was committed all the same.
    assert_eq!(get(&keeper, numbers, 1), Some(1));
    assert_idle(&keeper);
}

#[test]
fn i03_a_deadline_that_passes_during_the_commit_is_maybe_committed() {
    let Some(stage) =
        on_stage("flush::i03_a_deadline_that_passes_during_the_commit_is_maybe_committed")
    else {
        return;
    };
    let deadline = Duration::from_secs(1);
    let (keeper, numbers) = open(&stage.folder);
    stage.tell(Disk::HoldFlush);
    let (first, _) = locked(numbers, 1);
    let sent = Instant::now();
    let first = Sent::new(keeper.run(first.deadline(deadline)));
    stage.until_held();
    let (second, ran) = locked(numbers, 2);
    let second = Sent::new(keeper.run(second));
    until("the second waits for the lock", || {
        keeper.locks().stats().waiting == 1
    });
    // Queued behind the commit: at its deadline nothing of it has run.
    let queued = Sent::new(keeper.run(putting(numbers, 3, 3).deadline(deadline)));
    let error = first.answer().unwrap_err();
    assert!(
        matches!(error, TxnError::MaybeCommitted { cause: None }),
        "{error:?}"
    );
    assert_eq!(error.class(), ErrorClass::MaybeCommitted);
    assert!(!error.is_retryable(), "look first");
    assert!(sent.elapsed() >= deadline && sent.elapsed() < SOON);
    let error = queued.answer().unwrap_err();
    assert!(
        matches!(error, TxnError::DeadlineExceeded { .. }),
        "{error:?}"
    );
    // It has been answered, and it still commits: its locks are not free yet.
    assert_nothing_shows(&stage, &keeper, numbers, &ran);
    stage.heal(Disk::HoldFlush);
    second.answer().unwrap();
    assert_eq!(get(&keeper, numbers, 1), Some(1), "it was committed");
    assert_eq!(get(&keeper, numbers, 3), None);
    assert_idle(&keeper);
}
