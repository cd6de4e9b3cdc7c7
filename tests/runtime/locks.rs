//! What the supervisor does with declared locks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockkeeper::{Keeper, LockError, Locker, LockerSpec, Mode, Object, RunTxn, TxnError, Wait};

use crate::doors::{Door, through_each};
use crate::rt::{
    Counters, Held, aside, block_on, builder, bump, counters, hold_writer, in_flight, latch, open,
    read, until,
};

fn object(name: &str) -> Object {
    Object::new("boats", name)
}

fn hold(keeper: &Keeper, name: &str) -> Locker {
    let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
    locker
        .blocking_lock(&object(name), Mode::Write, Wait::No)
        .unwrap();
    locker
}

fn is_free(keeper: &Keeper, name: &str) -> bool {
    let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
    match locker.blocking_lock(&object(name), Mode::Write, Wait::No) {
        Ok(()) => true,
        Err(LockError::NotAvailable(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn declared_locks_are_taken_sorted_unless_the_order_is_asked_for() {
    through_each(|door, keeper, counters| {
        let a = hold(&keeper, "a");
        let declared = || {
            bump(counters, "n")
                .write_lock(object("b"))
                .write_lock(object("a"))
        };
        std::thread::scope(|scope| {
            let sorted = scope.spawn(|| block_on(door.pass(&keeper, declared())));
            until(|| keeper.locks().stats().waiting == 1);
            assert!(is_free(&keeper, "b"), "a comes first");
            let in_order = scope.spawn(|| block_on(door.pass(&keeper, declared().in_order())));
            until(|| keeper.locks().stats().waiting == 2);
            assert!(!is_free(&keeper, "b"), "b comes first");
            // Sorted, nobody would ever meet a deadlock; one of these is in order, and is the victim.
            drop(a);
            sorted.join().unwrap().unwrap();
            in_order.join().unwrap().unwrap();
        });
        assert_eq!(read(&keeper, counters, "n"), Some(2));
        assert!(is_free(&keeper, "a") && is_free(&keeper, "b"));
    });
}

#[test]
fn one_object_declared_in_two_modes_is_locked_once_in_the_stronger() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let locks = keeper.locks().clone();
    let txn = RunTxn::update(move |_| Ok(locks.snapshot().held));
    let txn = txn
        .read_lock(object("a"))
        .write_lock(object("a"))
        .read_lock(object("a"))
        .read_lock(object("b"));
    let held: Vec<_> = keeper
        .blocking_run(txn)
        .unwrap()
        .into_iter()
        .map(|held| (held.object, held.mode))
        .collect();
    assert_eq!(
        held,
        [(object("a"), Mode::Write), (object("b"), Mode::Read)]
    );
}

/// Two transactions that take `a` and `b` in opposite orders and meet in the middle for certain. Answers their names in the
/// order in which they committed.
fn deadlock(door: Door, keeper: &Keeper, priorities: [u32; 2]) -> Vec<&'static str> {
    let gates = [hold(keeper, "gate 1"), hold(keeper, "gate 2")];
    let committed = Arc::new(Mutex::new(Vec::new()));
    let runs = [
        ("older", "a", "gate 1", "b"),
        ("younger", "b", "gate 2", "a"),
    ];
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (n, (name, first, gate, second)) in runs.into_iter().enumerate() {
            let log = Arc::clone(&committed);
            let txn = RunTxn::update(move |_| {
                log.lock().unwrap().push(name);
                Ok(())
            });
            let txn = txn
                .name(name)
                .write_lock(object(first))
                .write_lock(object(gate))
                .write_lock(object(second))
                .in_order()
                .priority(priorities[n]);
            threads.push(scope.spawn(move || block_on(door.pass(keeper, txn))));
            until(|| keeper.locks().stats().waiting == n + 1);
        }
        drop(gates);
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
    committed.lock().unwrap().clone()
}

#[test]
fn the_victim_of_a_deadlock_is_run_again_out_of_its_callers_sight() {
    through_each(|door, keeper, _| {
        let committed = deadlock(door, &keeper, [100, 100]);
        assert_eq!(committed, ["older", "younger"], "each ran once");
        let stats = block_on(keeper.stats());
        assert_eq!(stats.locks.deadlocks, 1);
        assert_eq!(stats.transactions.deadlocks_retried, 1);
        assert_eq!(stats.transactions.committed, 2);
    });
}

#[test]
fn of_two_priorities_the_lower_is_the_victim_though_it_is_older() {
    through_each(|door, keeper, _| {
        assert_eq!(deadlock(door, &keeper, [99, 100]), ["younger", "older"]);
        assert_eq!(block_on(keeper.stats()).transactions.deadlocks_retried, 1);
    });
}

#[test]
fn a_deadlock_is_retried_whatever_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = builder(folder.path()).retries(1).open().unwrap();
    assert_eq!(
        deadlock(Door::Method, &keeper, [100, 100]),
        ["older", "younger"]
    );
}

/// I4, with the commit held up after the body has run: its batch mate does not end.
#[test]
fn i04_locks_are_released_only_after_the_commit() {
    for door in Door::ALL {
        for gone in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let keeper = builder(folder.path())
                .batch_time(Duration::from_secs(60))
                .open()
                .unwrap();
            let counters = counters(&keeper);
            let (held, mate) = (hold_writer(&keeper), batch_mate(&keeper));
            let (ran, has_run) = std::sync::mpsc::channel();
            let txn = RunTxn::update(move |txn| {
                counters.put(txn, "n", &1)?;
                let _ = ran.send(());
                Ok(())
            });
            let txn = txn.write_lock(object("a"));
            let mut run = Box::pin(door.pass(&keeper, txn));
            crate::rt::begin(&mut run);
            until(|| block_on(keeper.stats()).environment.queued == 1);
            let (mut mate_latch, mate) = mate();
            until(|| block_on(keeper.stats()).environment.queued == 2);
            held.release().unwrap();
            has_run.recv_timeout(crate::rt::PATIENCE).unwrap();
            mate_latch.entered();

            // Its body has returned; its commit has not begun.
            assert!(!is_free(&keeper, "a"));
            assert_eq!(read(&keeper, counters, "n"), None);
            if gone {
                drop(run);
                assert!(
                    !is_free(&keeper, "a"),
                    "the caller went away, the commit comes"
                );
                mate_latch.open();
                until(|| is_free(&keeper, "a"));
                assert_eq!(read(&keeper, counters, "n"), Some(1));
            } else {
                crate::rt::begin(&mut run);
                mate_latch.open();
                // Whoever is answered finds the locks free, and what was written.
                block_on(run).unwrap();
                assert!(is_free(&keeper, "a"));
                assert_eq!(read(&keeper, counters, "n"), Some(1));
            }
            mate.join().unwrap().unwrap();
        }
    }
}

/// Sends a body that shares a commit with the one before it, and waits.
fn batch_mate(
    keeper: &Keeper,
) -> impl FnOnce() -> (
    crate::rt::Latch,
    std::thread::JoinHandle<Result<(), TxnError>>,
) {
    let keeper = keeper.clone();
    || {
        let (latch, latched) = latch();
        let txn = RunTxn::update(move |_| {
            latched.pass();
            Ok(())
        });
        (latch, aside(move || keeper.blocking_run(txn)))
    }
}

#[test]
fn locks_are_free_when_a_body_has_said_no() {
    through_each(|door, keeper, _| {
        let txn = RunTxn::try_update(|_| Err::<(), _>(TxnError::Abort("no")));
        let outcome = block_on(door.pass(&keeper, txn.write_lock(object("a"))));
        assert!(matches!(outcome, Err(TxnError::Abort("no"))));
        assert!(is_free(&keeper, "a"));
    });
}

fn impatient(folder: &tempfile::TempDir) -> (Keeper, Counters) {
    let keeper = builder(folder.path())
        .lock_timeout(Duration::from_millis(5))
        .open()
        .unwrap();
    let counters = counters(&keeper);
    (keeper, counters)
}

#[test]
fn a_lock_timeout_is_retried_within_the_budget() {
    for door in Door::ALL {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, counters) = impatient(&folder);
        let holder = hold(&keeper, "a");
        let txn = bump(counters, "n").write_lock(object("a")).retries(1000);
        std::thread::scope(|scope| {
            let run = scope.spawn(|| block_on(door.pass(&keeper, txn)));
            until(|| block_on(keeper.stats()).transactions.retries >= 2);
            drop(holder);
            assert_eq!(run.join().unwrap().unwrap(), 1);
        });
        assert_eq!(block_on(keeper.stats()).transactions.deadlocks_retried, 0);
    }
}

#[test]
fn a_budget_that_is_used_up_is_an_error_with_its_cause() {
    for door in Door::ALL {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, counters) = impatient(&folder);
        let _holder = hold(&keeper, "a");
        let txn = bump(counters, "n").write_lock(object("a")).retries(3);
        let outcome = block_on(door.pass(&keeper, txn));
        let Err(TxnError::RetriesExhausted {
            attempts,
            waited,
            last,
        }) = outcome
        else {
            panic!("{outcome:?}");
        };
        assert_eq!(attempts, 3);
        assert!(waited >= Duration::from_millis(15), "{waited:?}");
        assert!(
            matches!(*last, TxnError::Conflict(LockError::LockTimeout(_))),
            "{last:?}"
        );
        assert_eq!(read(&keeper, counters, "n"), None);
    }
}

#[test]
fn a_lock_timeout_reaches_the_caller_if_it_is_not_to_be_retried() {
    for door in Door::ALL {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, counters) = impatient(&folder);
        let _holder = hold(&keeper, "a");
        let txn = bump(counters, "n")
            .write_lock(object("a"))
            .retry_timeouts(false);
        let outcome = block_on(door.pass(&keeper, txn));
        assert!(
            matches!(outcome, Err(TxnError::Conflict(LockError::LockTimeout(_)))),
            "{outcome:?}"
        );
        let stats = block_on(keeper.stats()).transactions;
        assert_eq!((stats.retries, stats.failed), (0, 1));
        until(|| in_flight(&keeper) == 0);
    }
}

/// The time of the transaction comes before that of the keeper, in both directions; its whole time caps both.
#[test]
fn a_transaction_has_its_own_times_for_its_locks() {
    let (short, long) = (Duration::from_millis(7), Duration::from_secs(60));
    for door in Door::ALL {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, counters) = impatient(&folder);
        let holder = hold(&keeper, "a");
        let ask = |lock, txn| {
            let asked = bump(counters, "n").write_lock(object("a"));
            asked
                .retry_timeouts(false)
                .lock_timeout(lock)
                .txn_timeout(txn)
        };
        for (lock, txn) in [(short, long), (long, short), (Duration::ZERO, short)] {
            let outcome = block_on(door.pass(&keeper, ask(lock, txn)));
            let Err(TxnError::Conflict(error)) = outcome else {
                panic!("{outcome:?}");
            };
            let is_lock = matches!(error, LockError::LockTimeout(_));
            assert_eq!(is_lock, lock == short, "{error}");
            assert_eq!(error.conflict().unwrap().timeout, Some(short), "{error}");
        }
        // Zero is none, though the keeper's time is 5 ms.
        std::thread::scope(|scope| {
            let txn = ask(Duration::ZERO, Duration::ZERO);
            let run = scope.spawn(|| block_on(door.pass(&keeper, txn)));
            until(|| keeper.locks().stats().waiting == 1);
            for _ in 0..3 {
                let other = bump(counters, "n").write_lock(object("a"));
                let outcome = block_on(door.pass(&keeper, other.retry_timeouts(false)));
                assert!(outcome.is_err());
            }
            assert!(!run.is_finished());
            drop(holder);
            assert_eq!(run.join().unwrap().unwrap(), 1);
        });
    }
}

#[test]
fn a_held_writer_holds_no_lock_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let held: Held = hold_writer(&keeper);
    assert!(is_free(&keeper, "a"));
    held.release().unwrap();
}
