//! How a keeper stops.

use std::process::Command;
use std::time::Duration;

use actix::System;
use lockkeeper::{
    DatabaseError, LockerSpec, Mode, Object, OpenError, RunTxn, SetMapSize, ShutdownError,
    TxnError, Wait,
};

use crate::rt::{
    Counters, aside, block_on, builder, bump, counters, hold_writer, in_flight, latch, open, read,
    until, until_closed,
};

const SOON: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(20);

fn refused<T: std::fmt::Debug>(outcome: Result<T, TxnError>) {
    assert!(
        matches!(outcome, Err(TxnError::ShuttingDown)),
        "{outcome:?}"
    );
}

#[test]
fn what_runs_finishes_and_nothing_new_begins() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    let held = hold_writer(&keeper);
    let queued = {
        let keeper = keeper.clone();
        aside(move || keeper.blocking_send(bump(counters, "n")))
    };
    until(|| in_flight(&keeper) == 2);
    let stops = aside({
        let keeper = keeper.clone();
        move || keeper.blocking_shutdown(LONG)
    });
    let nothing = || RunTxn::update(|_| Ok(()));
    until_closed(&keeper);
    refused(keeper.blocking_run(nothing()));
    refused(keeper.blocking_send(nothing()));
    refused(keeper.blocking_view(|_| Ok(())));
    refused(keeper.blocking_send(RunTxn::view(|_| Ok(()))));
    let opened = keeper.blocking_database::<(), ()>("late");
    assert!(matches!(
        opened,
        Err(DatabaseError::Txn(TxnError::ShuttingDown))
    ));
    assert!(keeper.blocking_send(SetMapSize(2 << 20)).is_err());
    assert!(!stops.is_finished(), "a body runs");

    held.release().unwrap();
    assert_eq!(queued.join().unwrap().unwrap(), 1);
    stops.join().unwrap().unwrap();
    refused(keeper.blocking_run(nothing()));

    // The folder is free at once, also while there are handles of the old keeper.
    let (again, counters) = open(folder.path());
    assert_eq!(read(&again, counters, "n"), Some(1));
}

#[test]
fn what_is_queued_beyond_the_deadline_is_answered_though_a_body_runs_on() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    let held = hold_writer(&keeper);
    let object = Object::new("n", b"n");
    let queued: Vec<_> = (0..6)
        .map(|n| {
            let (keeper, object) = (keeper.clone(), object.clone());
            aside(move || match n {
                0..=1 => keeper.blocking_run(bump(counters, "n")),
                2..=3 => keeper.blocking_send(bump(counters, "n")),
                // One of them waits for the lock of the other.
                _ => keeper.blocking_run(bump(counters, "n").write_lock(object)),
            })
        })
        .collect();
    until(|| in_flight(&keeper) == 7 && keeper.locks().stats().waiting == 1);
    let outcome = keeper.blocking_shutdown(SOON);
    let Err(ShutdownError::BodyRunsOn { name, since, .. }) = &outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(name.as_deref(), Some("holder"));
    assert!(*since >= SOON);
    for queued in queued {
        refused(queued.join().unwrap());
    }
    assert_eq!(keeper.locks().stats().locks.now, 0);
    let busy = builder(folder.path()).open();
    assert!(
        matches!(busy, Err(OpenError::AlreadyOpen { .. })),
        "the environment stays until the body returns: {busy:?}"
    );

    // It can be asked again, and is done when the body is.
    let again = aside({
        let keeper = keeper.clone();
        move || keeper.blocking_shutdown(LONG)
    });
    held.release().unwrap();
    again.join().unwrap().unwrap();
    let (again, counters) = open(folder.path());
    assert_eq!(read(&again, counters, "n"), None, "none of them ran");
}

#[test]
fn bodies_that_are_slow_together_are_cut_off_at_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let held = hold_writer(&keeper);
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let keeper = keeper.clone();
            aside(move || {
                keeper.blocking_update(|_| {
                    std::thread::sleep(2 * SOON);
                    Ok(())
                })
            })
        })
        .collect();
    until(|| in_flight(&keeper) == 21);
    held.release().unwrap();
    until(|| slow.iter().any(|slow| slow.is_finished()));
    keeper.blocking_shutdown(10 * SOON).unwrap();
    let outcomes: Vec<_> = slow.into_iter().map(|slow| slow.join().unwrap()).collect();
    let committed = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!((1..20).contains(&committed), "{committed}");
    for outcome in outcomes {
        if outcome.is_err() {
            refused(outcome);
        }
    }
}

#[test]
fn who_waits_for_a_place_or_a_lock_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = builder(folder.path()).queue(1).open().unwrap();
    let counters = counters(&keeper);
    let object = Object::new("n", b"n");
    let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
    locker
        .blocking_lock(&object, Mode::Write, Wait::Default)
        .unwrap();
    let for_lock = aside({
        let keeper = keeper.clone();
        move || keeper.blocking_run(bump(counters, "n").write_lock(object))
    });
    until(|| keeper.locks().stats().waiting == 1);
    let for_place = aside({
        let keeper = keeper.clone();
        move || keeper.blocking_send(bump(counters, "n"))
    });
    until(|| block_on(keeper.stats()).transactions.waiting == 1);
    keeper.blocking_shutdown(10 * SOON).unwrap();
    refused(for_lock.join().unwrap());
    refused(for_place.join().unwrap());
}

#[test]
fn stopping_twice_is_stopping_once_and_both_wait_for_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let held = hold_writer(&keeper);
    let stop = || {
        let keeper = keeper.clone();
        aside(move || {
            let outcome = keeper.blocking_shutdown(LONG);
            (
                outcome,
                builder(keeper_folder(&keeper).as_path()).open().map(drop),
            )
        })
    };
    let first = stop();
    until_closed(&keeper);
    let second = {
        let keeper = keeper.clone();
        aside(move || block_on(keeper.shutdown(LONG)))
    };
    std::thread::sleep(SOON);
    assert!(!first.is_finished() && !second.is_finished());
    held.release().unwrap();
    second.join().unwrap().unwrap();
    let (outcome, reopened) = first.join().unwrap();
    outcome.unwrap();
    reopened.unwrap();
    keeper.blocking_shutdown(Duration::ZERO).unwrap();
}

fn keeper_folder(keeper: &lockkeeper::Keeper) -> std::path::PathBuf {
    block_on(keeper.stats()).environment.path
}

#[test]
fn a_view_that_runs_on_is_waited_for_and_then_named_as_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let (mut latch, latched) = latch();
    let view = aside({
        let keeper = keeper.clone();
        move || {
            keeper.blocking_view(move |_| {
                latched.pass();
                Ok(())
            })
        }
    });
    latch.entered();
    let outcome = keeper.blocking_shutdown(SOON);
    assert!(
        matches!(&outcome, Err(ShutdownError::ViewsRunOn { views }) if views.len() == 1),
        "{outcome:?}"
    );
    latch.open();
    view.join().unwrap().unwrap();
    keeper.blocking_shutdown(LONG).unwrap();
    open(folder.path());
}

#[test]
fn dropping_the_last_keeper_stops_it_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    let held = hold_writer(&keeper);
    // The future alone keeps nobody's handle.
    let future = keeper.run(bump(counters, "n"));
    let waits = aside(move || block_on(future));
    until(|| in_flight(&keeper) == 2);
    let crate::rt::Held { mut latch, answer } = held;
    drop(keeper.clone());
    assert!(
        keeper.blocking_view(|_| Ok(())).is_ok(),
        "it was not the last"
    );
    drop(keeper);
    latch.open();
    answer.join().unwrap().unwrap();
    assert_eq!(waits.join().unwrap().unwrap(), 1);
    until(|| match builder(folder.path()).open() {
        Ok(again) => {
            let counters = self::counters(&again);
            assert_eq!(read(&again, counters, "n"), Some(1));
            true
        }
        Err(OpenError::AlreadyOpen { .. }) => false,
        Err(error) => panic!("{error}"),
    });
}

#[test]
fn in_the_applications_system_stopping_leaves_the_system_alone() {
    let folder = tempfile::tempdir().unwrap();
    System::new().block_on(async {
        let keeper = builder(folder.path()).in_current_system().open().unwrap();
        let counters: Counters = keeper.database("counters").await.unwrap();
        let (mut latch, latched) = latch();
        let running = tokio::task::spawn_local(keeper.send(RunTxn::update(move |txn| {
            latched.pass();
            Ok(counters.put(txn, "n", &1)?)
        })));
        while block_on(keeper.stats()).environment.writer_busy.is_none() {
            tokio::task::yield_now().await;
        }
        latch.entered();
        let stops = tokio::task::spawn_local(keeper.shutdown(LONG));
        while keeper.view(|_| Ok(())).await.is_ok() {
            tokio::task::yield_now().await;
        }
        latch.open();
        running.await.unwrap().unwrap();
        stops.await.unwrap().unwrap();
        let again = builder(folder.path()).in_current_system().open().unwrap();
        let counters: Counters = again.database("counters").await.unwrap();
        let seen = again.view(move |txn| Ok(counters.get(txn, "n")?)).await;
        assert_eq!(seen.unwrap(), Some(1));
        again.shutdown(LONG).await.unwrap();
    });
}

const CHILD: &str = "LOCKKEEPER_TEST_CHILD";

/// Whether this process is for this test alone. If not, it runs it in one that is.
fn alone(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{errors}", output.status);
    assert!(text.contains("1 passed"), "{text}");
    false
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// LMDB frees a thread's reader slot when the thread ends, in memory that is unmapped when the environment is closed.
#[test]
fn threads_that_have_read_may_end_while_the_environment_is_closed() {
    if !alone("shutdown::threads_that_have_read_may_end_while_the_environment_is_closed") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for round in 0..400_u64 {
        let keeper = builder(folder.path()).open().unwrap();
        let start = std::sync::Barrier::new(9);
        let outcome = std::thread::scope(|scope| {
            for n in 0..8 {
                let (keeper, start) = (&keeper, &start);
                // Not joined: the end of the scope does not wait for the very end of the thread.
                scope.spawn(move || {
                    keeper.blocking_view(|_| Ok(())).unwrap();
                    start.wait();
                    // Ends somewhere around the moment of the closing.
                    let until = Duration::from_micros((round * 37 + n * 131) % 1200);
                    let begun = std::time::Instant::now();
                    while begun.elapsed() < until {
                        std::hint::spin_loop();
                    }
                });
            }
            start.wait();
            keeper.blocking_shutdown(LONG)
        });
        outcome.unwrap();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn every_thread_is_joined() {
    if !alone("shutdown::every_thread_is_joined") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let before = threads();
    for round in 0..20 {
        let (keeper, counters) = open(folder.path());
        assert!(threads() > before);
        assert_eq!(
            keeper.blocking_send(bump(counters, "n")).unwrap(),
            round + 1
        );
        keeper.blocking_shutdown(LONG).unwrap();
        drop(keeper);
        // A thread that has been joined may be listed for a moment more.
        until(|| threads() == before);
    }
    System::new().block_on(async {
        let before = threads();
        for round in 0..5 {
            let keeper = builder(folder.path()).in_current_system().open().unwrap();
            keeper.send(RunTxn::update(|_| Ok(()))).await.unwrap();
            keeper.shutdown(LONG).await.unwrap();
            drop(keeper);
            // The thread that answered has only its own end left to see to.
            until(|| threads() == before);
            assert_eq!(threads(), before, "round {round}");
        }
    });
    // Nothing is left behind by handles that are only dropped, either.
    drop(open(folder.path()));
    until(|| threads() == before);
}
