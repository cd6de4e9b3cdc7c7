//! Deadlines count from the send, wherever the time is spent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lockkeeper::{
    ErrorClass, HandlerContext, Keeper, LockerSpec, Mode, Object, Outcome, RunTxn, Stage, TxnError,
    Wait,
};

use crate::doors::{Door, through_each};
use crate::rt::{aside, block_on, hold_writer, latch, open, until, with_time_enough};

const SHORT: Duration = Duration::from_millis(30);

/// A transaction that must not run.
fn never(ran: &Arc<AtomicBool>) -> RunTxn<()> {
    let ran = Arc::clone(ran);
    RunTxn::update(move |_| {
        ran.store(true, Ordering::Relaxed);
        Ok(())
    })
    .deadline(SHORT)
}

fn out_of_time(outcome: Result<(), TxnError>) -> Option<Stage> {
    out_of(SHORT, outcome)
}

fn out_of(time: Duration, outcome: Result<(), TxnError>) -> Option<Stage> {
    match outcome {
        Err(TxnError::DeadlineExceeded { deadline, stage }) => {
            assert_eq!(deadline, time);
            Some(stage)
        }
        Err(error) if error.class() == ErrorClass::WriterStalled => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_future_that_is_polled_too_late_is_out_of_time() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let ran = Arc::default();
    let (run, send) = (keeper.run(never(&ran)), keeper.send(never(&ran)));
    thread::sleep(SHORT);
    out_of_time(block_on(run));
    out_of_time(block_on(send));
    keeper.blocking_update(|_| Ok(())).unwrap();
    assert!(!ran.load(Ordering::Relaxed));
}

/// Keeps the supervisor's thread busy, so that messages stay in its mailbox.
fn busy_supervisor(keeper: &Keeper) -> (crate::rt::Latch, thread::JoinHandle<()>) {
    let (latch, latched) = latch();
    let latched = std::sync::Mutex::new(latched);
    let handler = move |_: &mut HandlerContext, outcome: Outcome| {
        latched.lock().unwrap().pass();
        outcome
    };
    let send = keeper.send(RunTxn::update(|_| Ok(())).handler(handler));
    let thread = aside(move || block_on(send).unwrap());
    latch.entered();
    (latch, thread)
}

#[test]
fn the_time_in_the_mailbox_counts() {
    for door in [Door::Message, Door::Address] {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, _) = open(folder.path());
        let ran = Arc::default();
        let (mut latch, busy) = busy_supervisor(&keeper);
        let sent = {
            let (keeper, txn) = (keeper.clone(), never(&ran));
            aside(move || block_on(door.pass(&keeper, txn)))
        };
        thread::sleep(2 * SHORT);
        latch.open();
        busy.join().unwrap();
        out_of_time(sent.join().unwrap());
        keeper.blocking_update(|_| Ok(())).unwrap();
        assert!(!ran.load(Ordering::Relaxed), "{door:?}");
    }
}

#[test]
fn the_wait_for_a_lock_and_for_the_writer_counts_and_the_error_says_which() {
    through_each(|door, keeper, _| {
        let ran = Arc::default();
        let object = Object::new("n", b"n");
        let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
        locker
            .blocking_lock(&object, Mode::Write, Wait::No)
            .unwrap();
        with_time_enough(|span| {
            let waits = never(&ran).write_lock(object.clone()).deadline(span);
            let stage = out_of(span, block_on(door.pass(&keeper, waits)));
            (stage == Some(Stage::WaitedForLocks)).then_some(())
        });
        drop(locker);

        let held = hold_writer(&keeper);
        let waits = never(&ran).write_lock(object);
        let outcome = block_on(door.pass(&keeper, waits));
        // Held for all of its time by one body, or a little less: either says so.
        if let Some(stage) = out_of_time(outcome) {
            assert_eq!(stage, Stage::WasQueued);
        }
        held.release().unwrap();
        keeper.blocking_update(|_| Ok(())).unwrap();
        assert!(!ran.load(Ordering::Relaxed));
        until(|| keeper.locks().stats().lockers.now == 0);
    });
}

#[test]
fn a_body_that_outgrows_its_deadline_is_undone_and_its_caller_answered_in_time() {
    through_each(|door, keeper, counters| {
        let mut latch = with_time_enough(|span| {
            let (latch, latched) = latch();
            let txn = RunTxn::update(move |txn| {
                counters.put(txn, "n", &1)?;
                latched.pass();
                Ok(())
            });
            let stage = out_of(span, block_on(door.pass(&keeper, txn.deadline(span))));
            (stage == Some(Stage::Ran)).then_some(latch)
        });
        latch.open();
        keeper.blocking_update(|_| Ok(())).unwrap();
        assert_eq!(crate::rt::read(&keeper, counters, "n"), None);
    });
}
