//! Shutdowns that are asked for twice, at once, in a hurry, for ever, and by nobody who waits.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use lockkeeper::{RunTxn, ShutdownError, TxnError};

use crate::begun::{LONG, counts, stopping, until_free, waits_outside};
use crate::rt::{aside, begin, block_on, builder, hold_writer, open, until, until_closed};

#[test]
fn many_at_once_are_one_stop_and_each_is_answered_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let held = hold_writer(&keeper);
    let together = Arc::new(Barrier::new(9));
    let stops: Vec<_> = (0..8)
        .map(|n| {
            let (keeper, together) = (keeper.clone(), Arc::clone(&together));
            aside(move || {
                together.wait();
                match n % 2 {
                    0 => keeper.blocking_shutdown(LONG),
                    _ => block_on(keeper.shutdown(Duration::MAX)),
                }
            })
        })
        .collect();
    together.wait();
    until_closed(&keeper);
    assert!(stops.iter().all(|stops| !stops.is_finished()));
    held.release().unwrap();
    for stops in stops {
        stops.join().unwrap().unwrap();
        let again = builder(folder.path()).open();
        // Only an earlier round of this loop can have it.
        again.unwrap().blocking_shutdown(LONG).unwrap();
    }
    for deadline in [Duration::ZERO, LONG, Duration::MAX] {
        keeper.blocking_shutdown(deadline).unwrap();
        block_on(keeper.shutdown(deadline)).unwrap();
    }
}

#[test]
fn one_in_a_hurry_cuts_short_one_with_patience() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let waits = waits_outside(&keeper, counts(&keeper), "n");
    let patient = stopping(&keeper, Duration::MAX);
    assert!(!patient.is_finished());
    let begun = Instant::now();
    keeper.blocking_shutdown(Duration::ZERO).unwrap();
    assert!(begun.elapsed() < LONG);
    patient.join().unwrap().unwrap();
    assert!(matches!(block_on(waits), Err(TxnError::ShuttingDown)));
}

#[test]
fn nothing_begins_before_the_first_poll_and_nothing_ends_with_the_future() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    drop(keeper.shutdown(Duration::ZERO));
    keeper.blocking_update(|_| Ok(())).unwrap();

    let held = hold_writer(&keeper);
    let mut stops = Box::pin(keeper.shutdown(LONG));
    begin(&mut stops);
    let refused = keeper.blocking_update(|_| Ok(()));
    assert!(matches!(refused, Err(TxnError::ShuttingDown)));
    drop(stops);
    held.release().unwrap();
    until_free(folder.path());
    keeper.blocking_shutdown(LONG).unwrap();
}

#[test]
fn in_a_hurry_under_load_it_ends_at_once_and_every_answer_is_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let (keeper, counters) = open(folder.path());
        let before = crate::rt::read(&keeper, counters, "n").unwrap_or(0);
        let load: Vec<_> = (0..4)
            .map(|n| {
                let keeper = keeper.clone();
                aside(move || {
                    let (mut committed, mut unknown) = (0, 0);
                    loop {
                        let bump = crate::rt::bump(counters, "n");
                        let outcome = match n % 2 {
                            0 => keeper.blocking_run(bump),
                            _ => keeper.blocking_send(bump),
                        };
                        match outcome {
                            Ok(_) => committed += 1,
                            Err(TxnError::MaybeCommitted { .. }) => unknown += 1,
                            Err(TxnError::ShuttingDown) => return (committed, unknown),
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        until(|| block_on(keeper.stats()).transactions.committed > 20);
        keeper.blocking_shutdown(Duration::ZERO).unwrap();
        let answers = load.into_iter().map(|load| load.join().unwrap());
        let (committed, unknown) = answers.fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
        let (again, counters) = open(folder.path());
        let after = crate::rt::read(&again, counters, "n").unwrap();
        assert!(
            (committed..=committed + unknown).contains(&(after - before)),
            "{before} + {committed} (+ {unknown}) is not {after}"
        );
        again.blocking_shutdown(LONG).unwrap();
    }
}

#[test]
fn each_of_several_is_answered_at_its_own_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let held = hold_writer(&keeper);
    let patient = stopping(&keeper, LONG);
    for _ in 0..2 {
        let outcome = keeper.blocking_shutdown(Duration::ZERO);
        assert!(
            matches!(&outcome, Err(ShutdownError::BodyRunsOn { name, .. }) if name.as_deref() == Some("holder")),
            "{outcome:?}"
        );
    }
    assert!(!patient.is_finished());
    held.release().unwrap();
    patient.join().unwrap().unwrap();
    let late = keeper.blocking_run(RunTxn::update(|_| Ok(())));
    assert!(matches!(late, Err(TxnError::ShuttingDown)));
}
