//! A keeper that nobody shuts down: its last handle is dropped, its system goes away, main panics or returns.

use actix::System;
use lockkeeper::{Outcome, RunTxn, TxnError};

use crate::alone::{child, told};
use crate::begun::{LONG, until_free};
use crate::rt::{aside, block_on, builder, bump, counters, hold_writer, open, read, until};

#[test]
fn dropped_inside_an_executor_it_blocks_nobody() {
    let folder = tempfile::tempdir().unwrap();
    // The thread that drops it is the one that lets the body go on: if it were kept, it would be for good.
    let drops = async {
        let keeper = builder(folder.path()).open().unwrap();
        let counters = keeper.database("counters").await.unwrap();
        let guard = keeper.lease("job").acquire().await.unwrap();
        let held = hold_writer(&keeper);
        let waits = keeper.run(bump(counters, "n"));
        let waits = aside(move || block_on(waits));
        while block_on(keeper.stats()).transactions.in_flight < 2 {
            tokio::task::yield_now().await;
        }
        drop(keeper);
        let guard = (guard, held.release());
        guard.1.unwrap();
        waits.join().unwrap().unwrap();
        // A guard outlives its keeper, and holds nothing any more when that has ended.
        guard.0.lost().await;
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(drops);
    until_free(folder.path());
    let drops = async {
        let keeper = builder(folder.path()).in_current_system().open().unwrap();
        keeper.send(RunTxn::update(|_| Ok(()))).await.unwrap();
        let held = hold_writer(&keeper);
        drop(keeper);
        held.release().unwrap();
    };
    System::new().block_on(drops);
    until_free(folder.path());
}

#[test]
fn the_system_of_its_own_may_be_stopped_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = builder(folder.path())
        .handler(|_: &mut _, outcome: Outcome| {
            // By message, this is a thread of the keeper's.
            if let Some(system) = System::try_current() {
                system.stop();
            }
            outcome
        })
        .open()
        .unwrap();
    let counters = counters(&keeper);
    keeper.blocking_run(bump(counters, "n")).unwrap();
    // Its answer may come before the end or not at all.
    let _ = keeper.blocking_send(bump(counters, "n"));
    until(|| {
        let outcome = keeper.blocking_run(RunTxn::update(|_| Ok(())));
        matches!(outcome, Err(TxnError::ShuttingDown))
    });
    keeper.blocking_shutdown(LONG).unwrap();
    let (again, counters) = open(folder.path());
    let n = read(&again, counters, "n").unwrap();
    assert!((1..=2).contains(&n), "{n}");
}

#[test]
fn a_panic_that_unwinds_past_it_stops_it_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let panicked = aside(move || {
        let (keeper, counters) = open(&path);
        keeper.blocking_run(bump(counters, "n")).unwrap();
        let _lease = block_on(keeper.lease("job").acquire()).unwrap();
        let _begun = block_on(async { keeper.begin().await }).unwrap();
        panic!("as an application does");
    });
    panicked.join().unwrap_err();
    until_free(folder.path());
    let (again, counters) = open(folder.path());
    assert_eq!(read(&again, counters, "n"), Some(1));
    let lease = block_on(again.lease("job").try_acquire());
    assert!(lease.is_ok(), "it was given back: {lease:?}");
}

const RETURNS: &str =
    "unasked::a_process_that_returns_from_main_at_once_loses_nothing_that_was_answered";

#[test]
fn a_process_that_returns_from_main_at_once_loses_nothing_that_was_answered() {
    if let Some(how) = told().filter(|told| told.contains('/')) {
        let (how, path) = how.split_once(':').unwrap();
        let (keeper, counters) = open(std::path::Path::new(path));
        // In the middle of it all.
        for _ in 0..3 {
            let keeper = keeper.clone();
            aside(move || while keeper.blocking_run(bump(counters, "load")).is_ok() {});
        }
        for _ in 0..20 {
            let n = keeper.blocking_run(bump(counters, "n")).unwrap();
            println!("answered {n}");
        }
        match how {
            "exits" => std::process::exit(0),
            "drops" => {
                drop(keeper);
                std::process::exit(0)
            }
            _ => panic!("as an application does"),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    for (round, how) in ["exits", "drops", "panics"].into_iter().enumerate() {
        let told = format!("{how}:{}", folder.path().display());
        let output = child(RETURNS, &told);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains(&format!("answered {}", 20 * (round + 1))),
            "{text}"
        );
        assert_eq!(output.status.success(), how != "panics", "{text}");
        let (again, counters) = open(folder.path());
        let n = read(&again, counters, "n").unwrap();
        assert_eq!(n, 20 * (round as u64 + 1), "{how}");
        again.blocking_shutdown(LONG).unwrap();
    }
}
