//! I4, I12, I14: interactive transactions that others write around, that end early, or whose handles are kept.

use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Str, U64};
use lockkeeper::{
    Begun, Db, Durability, Isolation, Keeper, LockerSpec, Mode, Records, RunTxn, Txn, TxnError,
    Wait, WhenFull, abort,
};

use crate::rt::{self, block_on};
use crate::support::folder;

type Stock = Records<Str, U64<BigEndian>>;

/// What a future answers at its first poll, if it does.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn open(builder: lockkeeper::KeeperBuilder) -> (Keeper, Stock) {
    let keeper = builder.open().unwrap();
    let stock = keeper.blocking_records("stock").unwrap();
    (keeper, stock)
}

fn plainly(keeper: &Keeper, stock: Stock, key: &'static str, value: u64) {
    let update = keeper.blocking_update(move |txn| Ok(stock.put(txn, key, &value)?));
    update.unwrap();
}

fn read(keeper: &Keeper, stock: Stock, key: &'static str) -> Option<u64> {
    let view = keeper.blocking_view(move |txn| Ok(stock.get(txn, key)?));
    view.unwrap()
}

fn begin(keeper: &Keeper, isolation: Isolation) -> Begun {
    block_on(keeper.begin().isolation(isolation).into_future()).unwrap()
}

/// Writes a record by a transaction that takes no locks.
fn optimistically(keeper: &Keeper, stock: Stock, key: &str, value: u64) {
    let txn = begin(keeper, Isolation::Optimistic);
    block_on(txn.put(stock, key, &value)).unwrap();
    block_on(txn.commit()).unwrap();
}

#[test]
fn what_an_optimistic_transaction_writes_no_lock_has_announced_to_the_others() {
    for isolation in [Isolation::Serializable, Isolation::RepeatableRead] {
        let dir = folder();
        let (keeper, stock) = open(Keeper::builder().path(dir.path()));
        let txn = begin(&keeper, isolation);
        block_on(txn.put(stock, "sum", &0)).unwrap();
        block_on(txn.commit()).unwrap();

        let txn = begin(&keeper, isolation);
        let sum = block_on(txn.get_as(stock, "sum")).unwrap().unwrap();
        optimistically(&keeper, stock, "sum", 5);
        block_on(txn.put(stock, "sum", &(sum + 3))).unwrap();
        let outcome = block_on(txn.commit());
        assert!(
            matches!(outcome, Err(TxnError::ReadChanged { .. })),
            "{isolation}: {outcome:?}"
        );
        assert_eq!(read(&keeper, stock, "sum"), Some(5), "{isolation}");

        // Nor to those who only read.
        let txn = begin(&keeper, isolation);
        block_on(txn.get_as(stock, "sum")).unwrap();
        optimistically(&keeper, stock, "sum", 6);
        block_on(txn.get_as(stock, "other")).unwrap();
        let outcome = block_on(txn.commit());
        assert!(
            matches!(outcome, Err(TxnError::ReadChanged { .. })),
            "{isolation}: {outcome:?}"
        );
    }
}

#[test]
fn i12_a_handle_that_is_kept_keeps_no_place_among_the_transactions_in_flight() {
    let dir = folder();
    let builder = Keeper::builder().path(dir.path()).queue(1usize);
    let (keeper, stock) = open(builder.when_full(WhenFull::Refuse));
    let mut kept: Vec<Txn> = Vec::new();
    for round in 0..3 {
        let answer = block_on(
            keeper
                .transaction("keeps", |txn| {
                    kept.push(txn.clone());
                    async move {
                        txn.put(stock, "pears", &round).await?;
                        Ok::<_, TxnError>(())
                    }
                })
                .into_future(),
        );
        answer.unwrap();
        let txn = begin(&keeper, Isolation::default());
        kept.push(txn.clone());
        txn.abort();
        let txn = begin(&keeper, Isolation::default());
        kept.push(txn.clone());
        block_on(txn.commit()).unwrap();
    }
}

#[test]
fn i12_a_handle_that_is_kept_keeps_no_snapshot() {
    let dir = folder();
    let (keeper, stock) = open(Keeper::builder().path(dir.path()).snapshots(1usize));
    let mut kept: Vec<Txn> = Vec::new();
    for round in 0..3 {
        let answer = block_on(
            keeper
                .transaction("keeps", |txn| {
                    kept.push(txn.clone());
                    async move {
                        txn.put(stock, "pears", &round).await?;
                        Ok::<_, TxnError>(())
                    }
                })
                .isolation(Isolation::Snapshot)
                .deadline(Duration::from_secs(5))
                .into_future(),
        );
        answer.unwrap();
    }
}

/// Has the transaction become the victim of a deadlock, and nobody look at the request that was refused.
fn doomed_unseen(keeper: &Keeper, stock: Stock, txn: &Txn, own: &'static str) {
    let locker = keeper
        .locks()
        .locker(LockerSpec::new().priority(1_000))
        .unwrap();
    let theirs = keeper.object(stock, "theirs").unwrap();
    let own = keeper.object(stock, own).unwrap();
    block_on(locker.lock(&theirs, Mode::Write, Wait::Default)).unwrap();
    let mut waits = Box::pin(txn.get_for_update(stock, "theirs"));
    assert!(poll(waits.as_mut()).is_pending());
    let mut closes = pin!(locker.lock(&own, Mode::Write, Wait::Default));
    // The victim has still to release its locks.
    let _ = poll(closes.as_mut());
    drop(waits);
}

#[test]
fn a_victim_that_was_not_told_is_run_again_all_the_same() {
    let dir = folder();
    let (keeper, stock) = open(Keeper::builder().path(dir.path()));
    for writes in [false, true] {
        for looks in [false, true] {
            let runs = AtomicU32::new(0);
            let answer = block_on(
                keeper
                    .transaction("victim", |txn| {
                        let (keeper, runs) = (&keeper, &runs);
                        async move {
                            let run = runs.fetch_add(1, Ordering::Relaxed) + 1;
                            txn.get_as(stock, "mine").await?;
                            if writes {
                                txn.put(stock, "mine", &1).await?;
                            }
                            if run == 1 {
                                doomed_unseen(keeper, stock, &txn, "mine");
                            }
                            if looks {
                                txn.get_as(stock, "another").await?;
                            }
                            Ok::<_, TxnError>(run)
                        }
                    })
                    .into_future(),
            );
            // Who only reads, and is not told, has its locks to the end all the same.
            let expected = if writes || looks { 2 } else { 1 };
            assert_eq!(
                answer.unwrap(),
                expected,
                "writes: {writes}, looks: {looks}"
            );
        }
    }
}

#[test]
fn an_interactive_transaction_takes_the_locks_that_it_declares() {
    let dir = folder();
    let (keeper, stock) = open(Keeper::builder().path(dir.path()));
    let object = keeper.object(stock, "pears").unwrap();
    for isolation in Isolation::ALL {
        let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
        block_on(locker.lock(&object, Mode::Write, Wait::Default)).unwrap();
        let sent = || {
            RunTxn::interactive(move |txn: Txn| async move {
                txn.put(stock, "pears", &1).await?;
                Ok(())
            })
            .isolation(isolation)
            .write_lock(object.clone())
        };
        let late = block_on(keeper.send(sent().deadline(Duration::from_millis(30))));
        assert!(late.is_err(), "{isolation}: {late:?}");
        drop(locker);
        block_on(keeper.run(sent())).unwrap();
        let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
        block_on(locker.lock(&object, Mode::Write, Wait::No)).unwrap();
    }
}

#[test]
fn who_waits_for_a_place_for_a_snapshot_holds_no_lock_that_a_place_waits_for() {
    let dir = folder();
    let (keeper, stock) = open(Keeper::builder().path(dir.path()).snapshots(1usize));
    let begin = keeper.begin().isolation(Isolation::Snapshot);
    // Long enough for what is free, and short enough that a deadlock is not waited out.
    let begin = begin.lock_timeout(Duration::from_millis(500));
    let first = block_on(begin.into_future()).unwrap();
    let pears = keeper.object(stock, "pears").unwrap();
    let second = RunTxn::interactive(move |txn: Txn| async move {
        txn.put(stock, "pears", &2).await?;
        Ok(())
    });
    let second = second
        .isolation(Isolation::Snapshot)
        .write_lock(pears.clone());
    let mut second = pin!(keeper.run(second));
    assert!(poll(second.as_mut()).is_pending());
    let other = keeper.locks().locker(LockerSpec::new()).unwrap();
    assert!(
        block_on(other.lock(&pears, Mode::Write, Wait::No)).is_ok(),
        "it has a lock and no place"
    );
    drop(other);
    // Has the place, and needs the lock.
    block_on(first.put(stock, "pears", &1)).unwrap();
    block_on(first.commit()).unwrap();
    block_on(second).unwrap();
    assert_eq!(read(&keeper, stock, "pears"), Some(2));
    // Nothing is left of the place and the locks of one who goes away.
    let first = self::begin(&keeper, Isolation::Snapshot);
    let gone = RunTxn::interactive(|_: Txn| async { Ok(()) });
    let gone = gone
        .isolation(Isolation::Snapshot)
        .write_lock(pears.clone());
    let mut gone = Box::pin(keeper.run(gone));
    assert!(poll(gone.as_mut()).is_pending());
    drop(gone);
    drop(first);
    let last = self::begin(&keeper, Isolation::Snapshot);
    block_on(last.put(stock, "pears", &3)).unwrap();
    block_on(last.commit()).unwrap();
    assert_eq!(read(&keeper, stock, "pears"), Some(3));
}

#[test]
fn a_savepoint_of_another_transaction_is_refused() {
    let dir = folder();
    let (keeper, stock) = open(Keeper::builder().path(dir.path()));
    let (one, other) = (
        begin(&keeper, Isolation::default()),
        begin(&keeper, Isolation::default()),
    );
    let foreign = one.savepoint().unwrap();
    let own = other.savepoint().unwrap();
    block_on(other.put(stock, "pears", &1)).unwrap();
    let refused = other.rollback_to(&foreign).unwrap_err().into_inner();
    assert!(matches!(refused, TxnError::TransactionEnded), "{refused:?}");
    assert!(other.release(foreign).is_err());
    other.rollback_to(&own).unwrap();
}

#[test]
fn of_two_operations_that_are_polled_together_one_is_before_the_other() {
    for isolation in Isolation::ALL {
        let dir = folder();
        let (keeper, stock) = open(Keeper::builder().path(dir.path()));
        let txn = begin(&keeper, isolation);
        let both = async {
            futures_util::future::join(
                txn.put_if_absent(stock, "pears", &1),
                txn.put_if_absent(stock, "pears", &2),
            )
            .await
        };
        let (one, other) = block_on(both);
        assert!(one.unwrap() != other.unwrap(), "{isolation}");
        let both = async {
            futures_util::future::join(txn.delete(stock, "pears"), txn.delete(stock, "pears")).await
        };
        let (one, other) = block_on(both);
        assert!(one.unwrap() != other.unwrap(), "{isolation}");
    }
}

#[derive(Debug, PartialEq)]
struct No;

#[test]
fn a_no_that_was_said_of_one_moment_is_the_last_word() {
    for isolation in Isolation::ALL {
        let dir = folder();
        let (keeper, stock) = open(Keeper::builder().path(dir.path()));
        plainly(&keeper, stock, "pears", 1);
        let runs = AtomicU32::new(0);
        let answer: Result<(), _> = block_on(
            keeper
                .transaction("no", |txn| {
                    let (keeper, runs) = (&keeper, &runs);
                    async move {
                        runs.fetch_add(1, Ordering::Relaxed);
                        let pears = txn.get_for_update_as(stock, "pears").await?;
                        txn.put(stock, "pears", &0).await?;
                        // Not asked from here, where it would be refused.
                        std::thread::scope(|scope| {
                            scope.spawn(|| plainly(keeper, stock, "pears", pears.unwrap() + 1));
                        });
                        Err(abort(No))
                    }
                })
                .isolation(isolation)
                .into_future(),
        );
        assert!(matches!(answer, Err(TxnError::Abort(No))), "{answer:?}");
        assert_eq!(runs.into_inner(), 1, "{isolation}");
    }
}

#[test]
fn a_no_is_a_no_also_while_a_child_is_open() {
    let dir = folder();
    let (keeper, stock) = open(Keeper::builder().path(dir.path()));
    let answer: Result<(), _> = block_on(
        keeper
            .transaction("no", |txn| async move {
                let mut child = Box::pin(txn.nested(move |child| async move {
                    child.put(stock, "pears", &1).await?;
                    std::future::pending::<Result<(), TxnError>>().await
                }));
                assert!(poll(child.as_mut()).is_pending());
                std::mem::forget(child);
                Err(abort(No))
            })
            .into_future(),
    );
    assert!(matches!(answer, Err(TxnError::Abort(No))), "{answer:?}");
    let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
    let pears = keeper.object(stock, "pears").unwrap();
    block_on(locker.lock(&pears, Mode::Write, Wait::No)).unwrap();
}

#[test]
fn i14_the_closure_is_inside_before_its_future_is_polled() {
    let dir = folder();
    let (keeper, stock) = open(Keeper::builder().path(dir.path()));
    let numbers: Db<Str, U64<BigEndian>> = *stock;
    let mut refused = Vec::new();
    let answer = block_on(
        keeper
            .transaction("outer", |_| {
                let update = move |txn: &mut lockkeeper::WriteTxn<'_>| {
                    numbers.put(txn, "pears", &1)?;
                    Ok(())
                };
                refused.push(keeper.blocking_update(update));
                async { Ok::<_, TxnError>(()) }
            })
            .into_future(),
    );
    answer.unwrap();
    assert!(
        matches!(refused[..], [Err(TxnError::InsideTransaction { .. })]),
        "{refused:?}"
    );
}

#[test]
fn a_scan_shows_what_was_written_ahead_of_it_and_not_what_was_taken_away() {
    for isolation in Isolation::ALL {
        for reverse in [false, true] {
            let dir = folder();
            let (keeper, stock) = open(Keeper::builder().path(dir.path()));
            for key in ["b", "d", "f"] {
                plainly(&keeper, stock, key, 1);
            }
            let txn = begin(&keeper, isolation);
            let mut scan = txn.scan(stock, &..);
            if reverse {
                scan = scan.rev();
            }
            let mut met = Vec::new();
            while let Some((key, value)) = block_on(scan.next()).unwrap() {
                if met.is_empty() {
                    for (key, value) in [("a", 2), ("c", 2), ("e", 2), ("g", 2)] {
                        block_on(txn.put(stock, key, &value)).unwrap();
                    }
                    block_on(txn.delete(stock, "d")).unwrap();
                }
                met.push((key.decode().unwrap().to_owned(), value.decode().unwrap()));
            }
            let met: Vec<_> = met.iter().map(|(key, value)| (&**key, *value)).collect();
            let expected = match reverse {
                false => [("b", 1), ("c", 2), ("e", 2), ("f", 1), ("g", 2)],
                true => [("f", 1), ("e", 2), ("c", 2), ("b", 1), ("a", 2)],
            };
            assert_eq!(met, expected, "{isolation}");
            block_on(txn.commit()).unwrap();
        }
    }
}

#[test]
fn who_was_let_in_goes_on_reading_while_the_keeper_shuts_down() {
    for isolation in Isolation::ALL {
        let dir = folder();
        let (keeper, stock) = open(Keeper::builder().path(dir.path()));
        let txn = begin(&keeper, isolation);
        let stopping = keeper.clone();
        let stop = rt::aside(move || block_on(stopping.shutdown(rt::PATIENCE)));
        rt::until_closed(&keeper);
        let read = block_on(txn.get_as(stock, "pears"));
        assert_eq!(read.unwrap(), None, "{isolation}");
        block_on(txn.put(stock, "pears", &1)).unwrap();
        block_on(txn.commit()).unwrap();
        stop.join().unwrap().unwrap();
    }
}

#[test]
fn i08_a_snapshot_that_goes_first_is_taken_when_no_plain_update_runs() {
    let dir = folder();
    let (keeper, stock) = open(never_waiting_for_the_disk(dir.path()));
    let going_on = Arc::new(());
    let writers: Vec<_> = (0..2)
        .map(|_| {
            let (keeper, going_on) = (keeper.clone(), Arc::downgrade(&going_on));
            rt::aside(move || {
                while going_on.strong_count() > 0 {
                    let bump = keeper.blocking_update(move |txn| {
                        let next = stock.get(txn, "pears")?.unwrap_or(0) + 1;
                        // Long enough that most attempts begin while one runs.
                        let until = std::time::Instant::now() + Duration::from_millis(2);
                        while std::time::Instant::now() < until {
                            std::thread::yield_now();
                        }
                        Ok(stock.put(txn, "pears", &next)?)
                    });
                    bump.unwrap();
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for _ in 0..10 {
        let attempts = block_on(
            keeper
                .transaction("beside", |txn| async move {
                    let pears = txn.get_for_update_as(stock, "pears").await?.unwrap_or(0);
                    txn.put(stock, "pears", &(pears + 1)).await?;
                    Ok::<_, TxnError>(txn.attempt())
                })
                .isolation(Isolation::Snapshot)
                .into_future(),
        );
        all.push(attempts.unwrap());
    }
    drop(going_on);
    for writer in writers {
        writer.join().unwrap();
    }
    most_went_first(all);
}

/// Who goes first is waited for only so long, and a commit may take longer on a slow disk.
fn never_waiting_for_the_disk(folder: &std::path::Path) -> lockkeeper::KeeperBuilder {
    Keeper::builder()
        .path(folder)
        .durability(Durability::NoSync)
}

/// Three attempts are lost before one goes first. That one is the last, unless the machine is away while it runs.
#[track_caller]
fn most_went_first(mut attempts: Vec<u32>) {
    attempts.sort_unstable();
    let most = attempts.len() * 8 / 10;
    assert!(attempts[most] <= 4, "attempts: {attempts:?}");
}

#[test]
fn who_waits_when_the_transaction_ends_is_told_that_it_has_ended() {
    let dir = folder();
    let (keeper, stock) = open(Keeper::builder().path(dir.path()));
    let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
    let pears = keeper.object(stock, "pears").unwrap();
    block_on(locker.lock(&pears, Mode::Write, Wait::Default)).unwrap();
    let txn = begin(&keeper, Isolation::default());
    let mut waits = Box::pin(txn.get(stock, "pears"));
    assert!(poll(waits.as_mut()).is_pending());
    txn.abort();
    let Poll::Ready(Err(error)) = poll(waits.as_mut()) else {
        panic!("it still waits");
    };
    assert!(
        matches!(error.error(), TxnError::TransactionEnded),
        "{error:?}"
    );
}

#[test]
fn i12_a_commit_that_was_given_up_in_the_queue_holds_no_lock() {
    for gone in [false, true] {
        let dir = folder();
        let (keeper, stock) = open(Keeper::builder().path(dir.path()));
        let held = rt::hold_writer(&keeper);
        let begun = keeper.begin().deadline(match gone {
            true => rt::PATIENCE,
            false => Duration::from_secs(1),
        });
        let txn = block_on(begun.into_future()).unwrap();
        block_on(txn.put(stock, "pears", &1)).unwrap();
        let mut commit = Box::pin(txn.commit());
        if gone {
            assert!(poll(commit.as_mut()).is_pending());
        } else {
            assert!(block_on(commit.as_mut()).is_err());
        }
        drop(commit);
        let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
        let pears = keeper.object(stock, "pears").unwrap();
        block_on(locker.lock(&pears, Mode::Write, Wait::No)).unwrap();
        held.release().unwrap();
        assert_eq!(read(&keeper, stock, "pears"), None);
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb");
    }
}

#[test]
fn a_future_that_panics_when_it_is_dropped_does_not_hide_how_the_transaction_ended() {
    let dir = folder();
    let (keeper, stock) = open(Keeper::builder().path(dir.path()));
    for by_message in [false, true] {
        let txn = RunTxn::<()>::interactive(move |txn: Txn| async move {
            txn.put(stock, "pears", &1).await?;
            let _bomb = Bomb;
            std::future::pending().await
        });
        let txn = txn.deadline(Duration::from_millis(30));
        let answer = match by_message {
            true => block_on(keeper.send(txn)),
            false => block_on(keeper.run(txn)),
        };
        assert!(
            matches!(answer, Err(TxnError::DeadlineExceeded { .. })),
            "{answer:?}"
        );
        assert_eq!(rt::in_flight(&keeper), 0);
    }
    let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
    let pears = keeper.object(stock, "pears").unwrap();
    block_on(locker.lock(&pears, Mode::Write, Wait::No)).unwrap();
}

#[test]
fn a_conflict_of_a_child_that_is_told_late_is_retried() {
    let dir = folder();
    let (keeper, stock) = open(Keeper::builder().path(dir.path()));
    let theirs = keeper.object(stock, "theirs").unwrap();
    let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
    block_on(locker.lock(&theirs, Mode::Write, Wait::Default)).unwrap();
    let mut locker = Some(locker);
    let runs = AtomicU32::new(0);
    let answer = block_on(
        keeper
            .transaction("child", |txn| {
                if runs.fetch_add(1, Ordering::Relaxed) == 1 {
                    locker = None;
                }
                async move {
                    txn.nested(move |child| async move {
                        let _swallowed = child.get(stock, "theirs").await;
                        Ok::<_, TxnError>(())
                    })
                    .await
                }
            })
            .lock_timeout(Duration::from_millis(20))
            .into_future(),
    );
    answer.unwrap();
    assert_eq!(runs.into_inner(), 2);
}

#[test]
fn a_key_that_is_sent_again_does_not_wait_for_one_that_was_given_up_in_the_queue() {
    let dir = folder();
    let (keeper, stock) = open(Keeper::builder().path(dir.path()));
    let sent = move || {
        RunTxn::<()>::interactive(move |txn: Txn| async move {
            txn.put(stock, "pears", &1).await?;
            Ok(())
        })
        .name("once")
        .idempotent("key")
    };
    // The database of the answers is there.
    block_on(keeper.run(sent().idempotent("other"))).unwrap();
    let held = rt::hold_writer(&keeper);
    let late = block_on(keeper.run(sent().deadline(Duration::from_millis(30))));
    assert!(late.is_err(), "{late:?}");
    let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
    let key = lockkeeper::Object::new("__lockkeeper.answers", "key");
    block_on(locker.lock(&key, Mode::Write, Wait::No)).unwrap();
    drop(locker);
    held.release().unwrap();
    block_on(keeper.run(sent())).unwrap();
}

#[test]
fn a_scan_that_has_ended_does_not_begin_anew() {
    let dir = folder();
    let (keeper, stock) = open(Keeper::builder().path(dir.path()));
    let txn = begin(&keeper, Isolation::default());
    block_on(txn.put(stock, "a", &1)).unwrap();
    let mut scan = txn.scan(stock, &..);
    assert!(block_on(scan.next()).unwrap().is_some());
    assert!(block_on(scan.next()).unwrap().is_none());
    block_on(txn.put(stock, "b", &1)).unwrap();
    assert!(block_on(scan.next()).unwrap().is_none());
    assert_eq!(block_on(txn.count(stock, &..)).unwrap(), 2);
}

#[test]
fn a_writer_without_locks_that_never_stops_does_not_starve_one_with_locks() {
    let dir = folder();
    let (keeper, stock) = open(never_waiting_for_the_disk(dir.path()));
    let going_on = Arc::new(());
    let mut all = Vec::new();
    let writer = {
        let (keeper, going_on) = (keeper.clone(), Arc::downgrade(&going_on));
        rt::aside(move || {
            for value in 0.. {
                if going_on.strong_count() == 0 {
                    return;
                }
                optimistically(&keeper, stock, "pears", value);
            }
        })
    };
    for _ in 0..10 {
        let attempts = block_on(
            keeper
                .transaction("beside", |txn| {
                    let keeper = &keeper;
                    async move {
                        txn.get_as(stock, "pears").await?;
                        // The writer has gone on, unless it is held back.
                        let before = block_on(keeper.stats()).environment.commits;
                        let begun = std::time::Instant::now();
                        while txn.attempt() <= 3
                            && block_on(keeper.stats()).environment.commits < before + 2
                            && begun.elapsed() < rt::PATIENCE
                        {
                            std::thread::yield_now();
                        }
                        txn.put(stock, "apples", &1).await?;
                        Ok::<_, TxnError>(txn.attempt())
                    }
                })
                .into_future(),
        );
        all.push(attempts.unwrap());
    }
    drop(going_on);
    writer.join().unwrap();
    most_went_first(all);
}
