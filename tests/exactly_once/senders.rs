//! Several senders of one key.

use std::path::PathBuf;
use std::thread;

use lockkeeper::{Keeper, Mode, Object, RunTxn};

use crate::stage::{self, role};
use crate::support::{Plug, Sent, assert_idle, folder, get, open, open_with, until};
use crate::{ANSWERS, Runs, add, assert_once};

#[test]
fn of_two_that_send_at_once_one_runs_and_the_other_gets_its_answer() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let runs = Runs::default();
    // Opens the database of the answers.
    keeper
        .blocking_run(runs.bump(numbers, 2).idempotent("other"))
        .unwrap();
    let plug = Plug::hold(&keeper);
    let first = Sent::new(keeper.run(runs.bump(numbers, 1).idempotent("key")));
    let second = Sent::new(keeper.run(runs.bump(numbers, 1).idempotent("key")));
    // The key is locked first, and before the body has run.
    let locks = keeper.locks().snapshot();
    let object = Object::new(ANSWERS, "key");
    assert_eq!((locks.held.len(), locks.waiting.len()), (1, 1), "{locks:?}");
    assert_eq!(locks.held[0].object, object);
    assert_eq!(locks.held[0].mode, Mode::Write);
    assert_eq!(runs.count(), 1);
    plug.release().unwrap();
    let (first, second) = (first.in_thread(), second.in_thread());
    assert_eq!(first.join().unwrap().unwrap(), 1);
    assert_eq!(second.join().unwrap().unwrap(), 1);
    assert_eq!(runs.count(), 2, "the other and this");
    assert_idle(&keeper);
}

#[test]
fn the_key_is_locked_before_the_declared_locks_whatever_their_names() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let runs = Runs::default();
    keeper
        .blocking_run(runs.bump(numbers, 2).idempotent("other"))
        .unwrap();
    let first = Object::new("A", "comes before any underscore");
    let locker = keeper.locks().locker(Default::default()).unwrap();
    locker
        .blocking_lock(&first, lockkeeper::Mode::Write, lockkeeper::Wait::Default)
        .unwrap();
    let txn = runs.bump(numbers, 1).write_lock(first.clone());
    let sent = Sent::new(keeper.run(txn.idempotent("key")));
    let locks = keeper.locks().snapshot();
    assert!(
        locks
            .held
            .iter()
            .any(|held| held.object == Object::new(ANSWERS, "key")),
        "{locks:?}"
    );
    assert_eq!(locks.waiting[0].object, first);
    drop(locker);
    assert_eq!(sent.answer().unwrap(), 1);
}

/// One that aborts lets the next one run.
#[test]
fn a_sender_that_waited_for_one_that_failed_runs() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let plug = Plug::hold(&keeper);
    let fails = RunTxn::try_update(move |txn| {
        add(txn, numbers, 1)?;
        Err::<u64, _>(lockkeeper::TxnError::Abort("no"))
    });
    let first = Sent::new(keeper.run(fails.idempotent("key"))).in_thread();
    let runs = Runs::default();
    let second = Sent::new(keeper.run(runs.bump(numbers, 1).idempotent("key"))).in_thread();
    plug.release().unwrap();
    drop(first.join().unwrap());
    assert_eq!(second.join().unwrap().unwrap(), 1);
    assert_eq!(get(&keeper, numbers, 1), Some(1));
}

#[test]
fn sixteen_threads_and_four_keys_with_failing_neighbours() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    thread::scope(|scope| {
        for sender in 0..16_u64 {
            let keeper = &keeper;
            scope.spawn(move || {
                for round in 0..25 {
                    let number = (sender + round) % 4 + 100 * (round / 5);
                    let txn = RunTxn::try_update(move |txn| {
                        let next = add(txn, numbers, number)?;
                        match (sender * 7 + round) % 3 {
                            0 => Err(lockkeeper::TxnError::Abort(next)),
                            _ => Ok(next),
                        }
                    });
                    match keeper.blocking_run(txn.idempotent(number.to_be_bytes())) {
                        Ok(1) | Err(lockkeeper::TxnError::Abort(1)) => {}
                        outcome => panic!("{outcome:?}"),
                    }
                }
            });
        }
    });
    for number in (0..5).flat_map(|round| (0..4).map(move |key| 100 * round + key)) {
        assert!(
            matches!(get(&keeper, numbers, number), None | Some(1)),
            "{number}"
        );
    }
    assert_idle(&keeper);
}

const OTHER: &str = "senders::role_of_another_process_that_sends_the_key";

#[test]
fn role_of_another_process_that_sends_the_key() {
    let Some(folder) = role(OTHER) else { return };
    let (keeper, numbers) = open_with(Keeper::builder().path(folder));
    assert_eq!(
        keeper
            .blocking_run(Runs::default().bump(numbers, 1).idempotent("key"))
            .unwrap(),
        1
    );
}

/// Has another process send the key, without a name, and add one to number 1.
pub fn elsewhere(folder: PathBuf) {
    let dir = crate::support::folder();
    let (status, output) = stage::run(stage::program(OTHER, &folder), dir.path());
    assert!(status.success(), "{status}\n{output}");
}

/// The locks of this process are unknown to the other: what counts is the look on the writer.
#[test]
fn at_the_commit_the_key_is_checked_again_on_the_writer() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let runs = Runs::default();
    keeper
        .blocking_run(runs.bump(numbers, 2).idempotent("other"))
        .unwrap();
    let x = Object::new("things", "x");
    let locker = keeper.locks().locker(Default::default()).unwrap();
    locker
        .blocking_lock(&x, lockkeeper::Mode::Write, lockkeeper::Wait::Default)
        .unwrap();
    // It has looked, found nothing, and waits.
    let txn = runs.bump(numbers, 1).write_lock(x).idempotent("key");
    let here = Sent::new(keeper.run(txn));
    until("it waits for its lock", || {
        keeper.locks().stats().waiting == 1
    });
    elsewhere(dir.path().to_owned());
    drop(locker);
    assert_eq!(here.answer().unwrap(), 1);
    assert_eq!(runs.count(), 1, "only the other key's");
    assert_once(&keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
    // And there the one that is stored here.
    elsewhere(dir.path().to_owned());
    assert_eq!(get(&keeper, numbers, 1), Some(1));
}
