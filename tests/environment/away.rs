//! Callers that go away, or whose time runs out, before, while and after their bodies run.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use lockkeeper::{RunTxn, Stage, TxnError, TxnStatsQuery};

use super::{
    Begun, LONG, builder, folder, has, hold_writer, in_flight, open, stats, store, until, wait,
    with_time_enough,
};

#[test]
fn a_caller_that_went_away_before_its_body_began_never_has_it_run() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let runs = Arc::new(AtomicU64::new(0));
    let counted = || {
        let runs = Arc::clone(&runs);
        let mut put = store(blobs, 1, 10);
        RunTxn::update(move |txn| {
            runs.fetch_add(1, Ordering::Relaxed);
            put(txn)
        })
    };
    // Never polled.
    drop(keeper.run(counted()));

    let holder = hold_writer(&keeper);
    let here = Begun::new(keeper.update(store(blobs, 2, 10)));
    drop(Begun::new(keeper.run(counted())));
    holder.release().unwrap();
    here.answer().unwrap();
    until("everything is answered", || in_flight(&keeper) == 0);
    assert_eq!(runs.load(Ordering::Relaxed), 0);
}

#[test]
fn i12_a_message_whose_sender_went_away_before_its_body_began_is_not_run() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let holder = hold_writer(&keeper);
    let by_keeper = Begun::new(keeper.send(RunTxn::update(store(blobs, 1, 10))));
    let by_address = Begun::new(
        keeper
            .supervisor()
            .send(RunTxn::update(store(blobs, 1, 10))),
    );
    until("they wait in the writer's queue", || {
        stats(&keeper).queued == 2
    });
    drop((by_keeper, by_address));
    // The supervisor notices before it answers another message.
    for _ in 0..2 {
        wait(keeper.supervisor().send(TxnStatsQuery)).unwrap();
    }
    holder.release().unwrap();
    until("everything is answered", || in_flight(&keeper) == 0);
    assert!(!has(&keeper, blobs, 1, 10));
}

#[test]
fn a_caller_that_goes_away_while_its_body_runs_leaves_a_whole_transaction() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let (entered, is_inside) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    let mut put = store(blobs, 1, 10);
    let running = Begun::new(keeper.update(move |txn| {
        put(txn)?;
        entered.send(()).unwrap();
        may_leave.recv().unwrap();
        Ok(blobs.put(txn, &2, &super::value(2, 10))?)
    }));
    is_inside.recv_timeout(LONG).unwrap();
    drop(running);
    leave.send(()).unwrap();
    keeper.blocking_update(store(blobs, 3, 10)).unwrap();
    assert_eq!(has(&keeper, blobs, 1, 10), has(&keeper, blobs, 2, 10));
    until("its place is free again", || in_flight(&keeper) == 0);
}

#[test]
fn a_deadline_counts_from_the_send_and_ends_what_is_queued() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let holder = hold_writer(&keeper);
    let span = Duration::from_millis(80);
    let txn = RunTxn::update(store(blobs, 1, 10)).deadline(span);
    let begun = Instant::now();
    let late = keeper.run(txn);
    // What the caller does between the send and the first poll is on the clock, too.
    std::thread::sleep(span / 2);
    let error = wait(late).unwrap_err();
    let took = begun.elapsed();
    assert!(took >= span && took < LONG / 2, "{took:?}");
    // The holder has kept the writer all that time, so it is named.
    let TxnError::WriterStalled { name, site, since } = error else {
        panic!("{error}");
    };
    assert_eq!(name.as_deref(), Some("holder"));
    assert!(site.file().ends_with("main.rs"));
    assert!(since >= span / 2);

    holder.release().unwrap();
    keeper.blocking_update(store(blobs, 2, 10)).unwrap();
    assert!(!has(&keeper, blobs, 1, 10), "it was never run");
    until("its place is free again", || in_flight(&keeper) == 0);
}

#[test]
fn i03_a_body_beyond_its_deadline_is_undone_when_it_returns() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let (leave, error) = with_time_enough(|span| {
        let (leave, may_leave) = mpsc::channel::<()>();
        let mut put = store(blobs, 1, 10);
        let slow = RunTxn::update(move |txn| {
            put(txn)?;
            may_leave.recv().unwrap();
            Ok(())
        });
        let error = keeper.blocking_run(slow.deadline(span)).unwrap_err();
        let not_begun = matches!(
            error,
            TxnError::DeadlineExceeded { stage, .. } if stage != Stage::Ran
        );
        (!not_begun).then_some((leave, error))
    });
    let TxnError::DeadlineExceeded { stage, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(stage, Stage::Ran);
    // Views go on meanwhile.
    assert!(!has(&keeper, blobs, 1, 10));
    leave.send(()).unwrap();
    keeper.blocking_update(store(blobs, 2, 10)).unwrap();
    assert!(!has(&keeper, blobs, 1, 10));
}

#[test]
fn i12_futures_dropped_at_any_moment_leave_nothing_behind() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).queue(64).reader_queue(64));
    let mut seed = 3_u64;
    let mut waiting: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    for n in 0..3_000_u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let keeper = keeper.clone();
        let kind = (seed >> 33) % 4;
        waiting.push(Box::pin(async move {
            match kind {
                0 => drop(keeper.update(store(blobs, n % 100, 100)).await),
                1 => drop(
                    keeper
                        .run(RunTxn::view(move |txn| Ok(blobs.len(txn)?)))
                        .await,
                ),
                2 => drop(keeper.send(RunTxn::update(store(blobs, n % 100, 50))).await),
                _ => drop(keeper.view(move |txn| Ok(blobs.len(txn)?)).await),
            }
        }));
        let context = &mut Context::from_waker(Waker::noop());
        for at in waiting.len().saturating_sub(2)..waiting.len() {
            // What is dropped is a mixture: never polled, sent, and answered just now.
            if waiting[at].as_mut().poll(context).is_ready() {
                waiting[at] = Box::pin(std::future::pending());
            }
        }
        if waiting.len() > 50 {
            let drop_at = (seed >> 40) as usize % waiting.len();
            drop(waiting.swap_remove(drop_at));
        }
    }
    drop(waiting);
    until("every place is free again", || in_flight(&keeper) == 0);
    // All of them can be had at once.
    let holder = hold_writer(&keeper);
    let all: Vec<_> = (0..63)
        .map(|key| Begun::new(keeper.update(store(blobs, key, 10))))
        .collect();
    holder.release().unwrap();
    all.into_iter().for_each(|update| update.answer().unwrap());
    keeper.blocking_shutdown(LONG).unwrap();
}
