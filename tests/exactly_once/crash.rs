//! Sent again after a crash, after "maybe committed", and by somebody whose future was dropped.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use lockkeeper::{HandlerContext, Outcome, TxnError};

use crate::stage::{Disk, Side, on_stage, side};
use crate::support::{Sent, assert_idle, get, open, until};
use crate::{Runs, assert_once, with_keeper};

const KILL: i32 = 9;

fn die() -> ! {
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
    unreachable!("killed");
}

#[test]
fn killed_between_the_commit_and_the_answer_it_has_happened_once() {
    let name = "crash::killed_between_the_commit_and_the_answer_it_has_happened_once";
    match side(name) {
        Side::Inside(stage) => {
            let (keeper, numbers) = open(&stage.folder);
            // The handlers run when the commit has returned, and before the caller is answered.
            let killer = |_: &mut HandlerContext, outcome: Outcome| match outcome {
                Outcome::Committed => die(),
                outcome => outcome,
            };
            let txn = Runs::default().bump(numbers, 1).handler(killer);
            keeper.blocking_run(txn.idempotent("key")).unwrap();
        }
        Side::Outside(ended) => {
            assert_eq!(ended.status.signal(), Some(KILL), "{}", ended.output);
            let runs = Runs::default();
            with_keeper(&ended.folder(), |keeper, numbers| {
                assert_eq!(get(keeper, numbers, 1), Some(1), "it was committed");
                assert_once(keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
            });
            assert_eq!(runs.count(), 0);
        }
    }
}

/// Nobody knows which it was; sent again it has happened once in any case.
#[test]
fn killed_during_the_commit_it_happens_once() {
    let name = "crash::killed_during_the_commit_it_happens_once";
    match side(name) {
        Side::Inside(stage) => {
            let (keeper, numbers) = open(&stage.folder);
            keeper
                .blocking_run(Runs::default().bump(numbers, 2).idempotent("other"))
                .unwrap();
            stage.tell(Disk::HoldFlush);
            let txn = Runs::default().bump(numbers, 1).idempotent("key");
            let _sent = Sent::new(keeper.run(txn));
            stage.until_held();
            die();
        }
        Side::Outside(ended) => {
            assert_eq!(ended.status.signal(), Some(KILL), "{}", ended.output);
            with_keeper(&ended.folder(), |keeper, numbers| {
                let runs = Runs::default();
                let happened = get(keeper, numbers, 1);
                assert_once(keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
                assert_eq!(runs.count(), usize::from(happened.is_none()));
            });
        }
    }
}

#[test]
fn after_maybe_committed_the_stored_answer_comes_back() {
    let name = "crash::after_maybe_committed_the_stored_answer_comes_back";
    let Some(stage) = on_stage(name) else { return };
    let (keeper, numbers) = open(&stage.folder);
    let runs = Runs::default();
    keeper
        .blocking_run(runs.bump(numbers, 2).idempotent("other"))
        .unwrap();
    stage.tell(Disk::HoldFlush);
    let keyed = || runs.bump(numbers, 1).idempotent("key");
    let first = Sent::new(keeper.run(keyed().deadline(Duration::from_secs(1))));
    stage.until_held();
    let error = first.answer().unwrap_err();
    assert!(
        matches!(error, TxnError::MaybeCommitted { cause: None }),
        "{error:?}"
    );
    // Its commit is still under way, and has the key's lock: sent again, it waits for it.
    let second = Sent::new(keeper.run(keyed()));
    until("it waits for the key", || {
        keeper.locks().stats().waiting == 1
    });
    assert!(stage.is_held());
    stage.heal(Disk::HoldFlush);
    assert_eq!(second.answer().unwrap(), 1);
    assert_eq!(runs.count(), 2);
    assert_once(&keeper, numbers, keyed());
    assert_idle(&keeper);
}

#[test]
fn after_a_commit_that_failed_it_happens_once() {
    let name = "crash::after_a_commit_that_failed_it_happens_once";
    let Some(stage) = on_stage(name) else { return };
    let (keeper, numbers) = open(&stage.folder);
    let runs = Runs::default();
    keeper
        .blocking_run(runs.bump(numbers, 2).idempotent("other"))
        .unwrap();
    for disk in [Disk::FailFlush, Disk::FailMeta] {
        stage.tell(disk);
        let sent = keeper.blocking_run(runs.bump(numbers, 1).idempotent("key"));
        stage.heal(disk);
        assert!(sent.is_err() || sent.is_ok_and(|value| value == 1));
        until("it has recovered", || {
            keeper.blocking_view(|_| Ok(())).is_ok()
        });
    }
    assert_once(&keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
    assert_once(&keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
}

#[test]
fn one_whose_caller_went_away_during_the_commit_has_stored_its_answer() {
    let name = "crash::one_whose_caller_went_away_during_the_commit_has_stored_its_answer";
    let Some(stage) = on_stage(name) else { return };
    let (keeper, numbers) = open(&stage.folder);
    let runs = Runs::default();
    keeper
        .blocking_run(runs.bump(numbers, 2).idempotent("other"))
        .unwrap();
    stage.tell(Disk::HoldFlush);
    let keyed = || runs.bump(numbers, 1).idempotent("key");
    let first = Sent::new(keeper.run(keyed()));
    stage.until_held();
    drop(first);
    let second = Sent::new(keeper.run(keyed()));
    stage.heal(Disk::HoldFlush);
    assert_eq!(second.answer().unwrap(), 1);
    assert_eq!(runs.count(), 2);
    assert_idle(&keeper);
}
