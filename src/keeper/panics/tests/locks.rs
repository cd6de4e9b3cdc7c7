//! Inside the lock table, where a panic may leave it half changed.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::error::LockError;
use crate::{
    Acquire, LockEvent, LockGuard, LockOps, Locker, LockerSpec, Mode, Object, RunTxn, SetTimeouts,
    Wait,
};

const STEP: &str = "a step of the table";

fn object() -> Object {
    Object::new("x", b"1")
}

fn locker(keeper: &Keeper) -> Locker {
    keeper.locks().locker(LockerSpec::new()).expect("a locker")
}

fn waits(keeper: &Keeper, many: usize) {
    until("they wait", || keeper.locks().stats().waiting == many);
}

#[test]
fn a_panic_inside_the_lock_table_answers_all_who_wait_and_it_begins_anew_without_them() {
    let (_folder, keeper) = keeper();
    let holder = locker(&keeper);
    holder
        .blocking_lock(&object(), Mode::Write, Wait::No)
        .expect("free");
    let waiter = locker(&keeper);
    let by_message = {
        let keeper = keeper.clone();
        std::thread::spawn(move || run(keeper.send(Acquire::new(object(), Mode::Write))))
    };
    let of_several = {
        let keeper = keeper.clone();
        std::thread::spawn(move || {
            let ops = LockOps::new().lock(object(), Mode::Read);
            run(locker(&keeper).run(ops))
        })
    };
    let watched = {
        let (keeper, id) = (keeper.clone(), holder.id());
        std::thread::spawn(move || run(keeper.locks().ended(&[id])))
    };
    let in_place = std::thread::spawn(move || {
        let answer = waiter.blocking_lock(&object(), Mode::Write, Wait::Forever);
        (waiter, answer)
    });
    waits(&keeper, 3);
    keeper.bombs(Part::LockTable).set(STEP);
    // Whoever took the step is answered, not unwound.
    let error = keeper
        .locks()
        .locker(LockerSpec::new())
        .expect_err("it panicked");
    assert!(
        matches!(error, LockError::Broken(_)) && error.is_retryable(),
        "{error}"
    );
    let (waiter, answer) = in_place.join().expect("no panic");
    assert!(matches!(answer, Err(LockError::Broken(_))));
    let answer = by_message.join().expect("no panic");
    assert!(matches!(answer, Err(LockError::Broken(_))));
    let answer = of_several.join().expect("no panic");
    assert!(matches!(
        answer.expect_err("it panicked").error,
        LockError::Broken(_)
    ));
    watched.join().expect("answered");

    // i05: what is held stays held, so nobody gets anything, until all have let go.
    drop(waiter);
    let refused = keeper
        .locks()
        .locker(LockerSpec::new())
        .expect_err("broken");
    assert!(matches!(refused, LockError::Broken(_)));
    let refused = run(keeper.send(Acquire::new(object(), Mode::Write)));
    assert!(matches!(refused, Err(LockError::Broken(_))));
    let id = holder.id();
    drop(holder);
    let again = locker(&keeper);
    assert!(again.id() > id, "numbers are not used twice");
    again
        .blocking_lock(&object(), Mode::Write, Wait::No)
        .expect("it has begun anew");
    let stats = run(keeper.stats());
    assert_eq!((stats.panics.lock_table, stats.locks.lockers.now), (1, 1));
    assert_eq!(stats.locks.waiting, 0);
}

#[test]
fn a_transaction_whose_locks_are_in_a_broken_table_is_not_committed() {
    let (_folder, keeper) = keeper();
    let db = numbers(&keeper);
    let locks = keeper.locks().clone();
    let inner = keeper.clone();
    let txn = RunTxn::update(move |txn| {
        inner.bombs(Part::LockTable).set(STEP);
        locks.locker(LockerSpec::new()).expect_err("it panicked");
        Ok(db.put(txn, "x", &1)?)
    });
    let error = run(keeper.run(txn.write_lock(object()))).expect_err("refused");
    assert!(
        matches!(error, TxnError::Conflict(LockError::Broken(_))),
        "{error}"
    );
    assert_eq!(get(&keeper, db, "x"), None);
    // Its locker is gone.
    let txn = RunTxn::update(move |txn| Ok(db.put(txn, "x", &2)?));
    run(keeper.run(txn.write_lock(object()))).expect("committed");
}

#[test]
fn the_lock_tables_clock_goes_on_after_a_panic() {
    let (_folder, keeper) = keeper();
    let bombs = keeper.bombs(Part::LockTable);
    let holder = locker(&keeper);
    holder
        .blocking_lock(&object(), Mode::Write, Wait::No)
        .expect("free");
    bombs.set("a pass of the clock");
    // Wakes it.
    keeper.locks().set_timeouts(SetTimeouts::default());
    until("it has panicked", || bombs.are_spent());
    let brief = Wait::For(Duration::from_millis(5));
    let waited = locker(&keeper).blocking_lock(&object(), Mode::Write, brief);
    assert!(matches!(waited, Err(LockError::LockTimeout(_))));
    assert_eq!(run(keeper.stats()).panics.lock_table, 1);
}

struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_waiting() {
    let (_folder, keeper) = keeper();
    let holder = locker(&keeper);
    holder
        .blocking_lock(&object(), Mode::Write, Wait::No)
        .expect("free");
    let (first, object) = (locker(&keeper), object());
    let mut lock = Box::pin(first.lock(&object, Mode::Read, Wait::Forever));
    let bomb = Waker::from(Arc::new(Bomb));
    assert!(
        lock.as_mut()
            .poll(&mut Context::from_waker(&bomb))
            .is_pending()
    );
    let second = {
        let keeper = keeper.clone();
        std::thread::spawn(move || -> LockGuard {
            run(keeper.send(Acquire::new(Object::new("x", b"1"), Mode::Read))).expect("granted")
        })
    };
    waits(&keeper, 2);
    drop(holder);
    drop(second.join().expect("granted"));
    let woken = lock.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(woken, Poll::Ready(Ok(()))));
}

#[test]
fn a_subscriber_of_the_lock_table_outlives_a_panic_in_it() {
    let (_folder, keeper) = keeper();
    let mut events = keeper.locks().subscribe();
    keeper.bombs(Part::LockTable).set(STEP);
    keeper
        .locks()
        .locker(LockerSpec::new())
        .expect_err("it panicked");
    match events.try_recv() {
        Ok(LockEvent::Broken(panicked)) => assert_eq!(panicked.part, Part::LockTable),
        other => panic!("{other:?}"),
    }
    drop(locker(&keeper));
}
