//! I11: a fatal error of the environment, made by writes that really fail, and what comes after it.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lockkeeper::{
    DatabaseError, Durability, EnvError, EnvStatsQuery, ErrorClass, Keeper, OnFatal, PanicEvent,
    Recover, RunTxn, SetMapSize, Sync, TxnError,
};

use crate::stage::{Disk, Ended, Side, Stage, on_stage, read_elsewhere, side, write_elsewhere};
use crate::support::{Numbers, Plug, SOON, Sent, get, open_with, put, putting, stats, until};

type Events = Arc<Mutex<Vec<PanicEvent>>>;

fn collect(events: &Events) -> impl Fn(&PanicEvent) + Send + std::marker::Sync + 'static {
    let events = Arc::clone(events);
    move |event| events.lock().unwrap().push(event.clone())
}

const BEFORE: u64 = 10;
const CALLERS: u64 = 64;
/// A batch takes as many as it may, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);

/// What was answered "committed" before the disk broke.
fn fill(keeper: &Keeper, numbers: Numbers) -> BTreeMap<u64, u64> {
    (0..BEFORE)
        .map(|key| {
            put(keeper, numbers, key, key + 100).unwrap();
            (key, key + 100)
        })
        .collect()
}

/// Sends `CALLERS` updates that are all in flight when the first of their commits fails; answers what they were answered.
fn break_under_load(
    stage: &Stage,
    keeper: &Keeper,
    numbers: Numbers,
) -> Vec<(u64, Result<(), TxnError>)> {
    let plug = Plug::hold(keeper);
    let callers: Vec<_> = (0..CALLERS)
        .map(|nth| {
            let key = 1000 + nth;
            (key, Sent::new(keeper.run(putting(numbers, key, key))))
        })
        .collect();
    stage.tell(Disk::FailMeta);
    // Not only transactions are in flight.
    let others = Sent::new({
        let keeper = keeper.clone();
        async move {
            let database = keeper.database::<(), ()>("another");
            let (sync, size) = (keeper.send(Sync), keeper.send(SetMapSize(4 << 30)));
            tokio::join!(database, sync, size)
        }
    });
    // It wrote nothing, so its own commit writes nothing.
    plug.release().unwrap();
    let begun = Instant::now();
    let answers = callers
        .into_iter()
        .map(|(key, sent)| (key, sent.answer()))
        .collect();
    let (database, sync, size) = others.answer();
    let needed = |error: &TxnError| matches!(error, TxnError::RecoveryNeeded(_));
    assert!(
        matches!(&database, Err(DatabaseError::Txn(error)) if needed(error)),
        "{database:?}"
    );
    for answer in [sync, size.map(drop)] {
        assert!(
            matches!(&answer, Err(EnvError::Txn(error)) if needed(error)),
            "{answer:?}"
        );
    }
    assert!(
        begun.elapsed() < SOON,
        "answered at once, not at their deadlines: {:?}",
        begun.elapsed()
    );
    answers
}

#[test]
fn i11_every_caller_is_answered_and_the_environment_recovers_by_itself() {
    let Some(stage) =
        on_stage("poison::i11_every_caller_is_answered_and_the_environment_recovers_by_itself")
    else {
        return;
    };
    let (early, late) = (Events::default(), Events::default());
    let worse = stage.teller(Disk::FailFlush);
    let broken = Arc::new(AtomicBool::new(false));
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(&stage.folder)
            // So that one commit fails, and others are still queued then.
            .batch(32)
            .batch_time(LONG)
            .on_panic(collect(&early))
            // The flush that checks a recovery fails too, from before the first try.
            .on_panic(move |_| {
                if !broken.swap(true, Ordering::SeqCst) {
                    worse();
                }
            }),
    );
    keeper.on_panic(collect(&late));
    let mut committed = fill(&keeper, numbers);

    let answers = break_under_load(&stage, &keeper, numbers);
    let maybe = answers
        .iter()
        .filter(|(_, answer)| matches!(answer, Err(TxnError::MaybeCommitted { cause: Some(cause) }) if cause.errno() == Some(libc::EIO)))
        .count();
    let refused = answers
        .iter()
        .filter(|(_, answer)| matches!(answer, Err(TxnError::RecoveryNeeded(_))))
        .count();
    assert_eq!((maybe, refused), (32, 32), "{answers:?}");

    // Each subscriber was told once, and of everybody who was in flight.
    until("both are told", || {
        !early.lock().unwrap().is_empty() && !late.lock().unwrap().is_empty()
    });
    for (who, events) in [("builder", &early), ("keeper", &late)] {
        let events = events.lock().unwrap();
        let [event] = &events[..] else {
            panic!("{who}: told {} times", events.len());
        };
        assert_eq!(event.path, stage.folder.canonicalize().unwrap(), "{who}");
        assert_eq!(event.errno, Some(libc::EIO), "{who}");
        assert_eq!(event.source.errno(), Some(libc::EIO), "{who}");
        assert_eq!(event.source.doing(), "commit", "{who}");
        assert_eq!(event.in_flight as u64, CALLERS, "{who}");
        assert!(event.since.elapsed().unwrap() < SOON, "{who}");
    }

    // Whatever is asked meanwhile, the answer is the same and comes at once.
    let begun = Instant::now();
    let needed = |error: &TxnError| {
        assert!(matches!(error, TxnError::RecoveryNeeded(_)), "{error:?}");
        assert_eq!(error.class(), ErrorClass::RecoveryNeeded);
        assert!(error.is_retryable());
    };
    needed(&put(&keeper, numbers, 1, 1).unwrap_err());
    needed(&keeper.blocking_view(|_| Ok(())).unwrap_err());
    needed(
        &keeper
            .blocking_send(RunTxn::update(|_| Ok(())))
            .unwrap_err(),
    );
    needed(&keeper.blocking_send(RunTxn::view(|_| Ok(()))).unwrap_err());
    match keeper.blocking_database::<(), ()>("another") {
        Err(DatabaseError::Txn(error)) => needed(&error),
        other => panic!("{other:?}"),
    }
    for answer in [
        keeper.blocking_send(Sync),
        keeper.blocking_send(SetMapSize(4 << 30)).map(drop),
    ] {
        match answer {
            Err(EnvError::Txn(error)) => needed(&error),
            other => panic!("{other:?}"),
        }
    }
    needed(&keeper.blocking_send(EnvStatsQuery).unwrap_err());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let during = stats(&keeper);
    assert!(during.environment.unreadable.is_some());
    assert_eq!(during.environment.poisonings, 1);
    assert_eq!(during.environment.recoveries, 0);

    // A second process sees the last commit that succeeded, whole, and nothing of the one that failed: LMDB has taken the
    // meta page back. It is not poisoned itself, and may even write; a disk that fails for one fails for all, of course.
    assert_eq!(read_elsewhere(&stage.folder), committed);
    write_elsewhere(&stage.folder, 5000, 5001);
    committed.insert(5000, 5001);

    // The disk is well again, and nobody does anything about it.
    stage.heal(Disk::FailMeta);
    stage.heal(Disk::FailFlush);
    until("recovered by itself", || {
        keeper.blocking_view(|_| Ok(())).is_ok()
    });
    assert_eq!(stats(&keeper).environment.recoveries, 1);
    // Handles from before work on.
    for (&key, &value) in &committed {
        assert_eq!(get(&keeper, numbers, key), Some(value));
    }
    put(&keeper, numbers, 6000, 6001).unwrap();
    committed.insert(6000, 6001);
    assert_eq!(read_elsewhere(&stage.folder), committed);

    // Once for each poisoning: another one is told again. This time it is the flush of the data that fails.
    stage.tell(Disk::FailFlush);
    let error = put(&keeper, numbers, 7000, 7001).unwrap_err();
    assert!(
        matches!(error, TxnError::MaybeCommitted { .. }),
        "{error:?}"
    );
    stage.heal(Disk::FailFlush);
    until("recovered again", || {
        keeper.blocking_view(|_| Ok(())).is_ok()
    });
    assert_eq!(early.lock().unwrap().len(), 2);
    assert_eq!(late.lock().unwrap().len(), 2);
    put(&keeper, numbers, 8000, 8001).unwrap();
    let found = read_elsewhere(&stage.folder);
    assert_eq!(found.get(&8000), Some(&8001));
    assert!(committed.iter().all(|entry| found.contains_key(entry.0)));
    keeper.blocking_shutdown(SOON).unwrap();
}

#[test]
fn i11_recovery_waits_for_the_message_if_it_is_told_to() {
    let Some(stage) = on_stage("poison::i11_recovery_waits_for_the_message_if_it_is_told_to")
    else {
        return;
    };
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(&stage.folder)
            .batch_time(LONG)
            .on_fatal(OnFatal::Wait),
    );
    // Nothing is wrong: nothing is done.
    keeper.blocking_send(Recover).unwrap();
    assert_eq!(stats(&keeper).environment.recoveries, 0);
    let mut committed = fill(&keeper, numbers);
    for (key, answer) in break_under_load(&stage, &keeper, numbers) {
        assert!(
            matches!(answer, Err(TxnError::MaybeCommitted { .. })),
            "{key}: {answer:?}"
        );
    }
    // A view that comes by message, and a second poisoning that is none.
    let needed = || {
        let error = put(&keeper, numbers, 1, 1).unwrap_err();
        assert!(matches!(error, TxnError::RecoveryNeeded(_)), "{error:?}");
    };
    needed();
    stage.tell(Disk::FailFlush);
    stage.heal(Disk::FailMeta);
    // Still broken: the message says so.
    let error = keeper.blocking_send(Recover).unwrap_err();
    assert!(
        matches!(&error, EnvError::Txn(TxnError::Storage(error)) if error.errno() == Some(libc::EIO)),
        "{error:?}"
    );
    needed();
    stage.heal(Disk::FailFlush);
    // Longer than the policy that recovers by itself waits between two tries.
    std::thread::sleep(Duration::from_millis(700));
    needed();
    assert_eq!(stats(&keeper).environment.recoveries, 0);

    let askers: Vec<_> = (0..8)
        .map(|_| Sent::new(keeper.send(Recover)).in_thread())
        .collect();
    for asker in askers {
        asker.join().unwrap().unwrap();
    }
    assert_eq!(stats(&keeper).environment.recoveries, 1);
    assert_eq!(stats(&keeper).environment.poisonings, 1);
    put(&keeper, numbers, 6000, 6001).unwrap();
    committed.insert(6000, 6001);
    assert_eq!(read_elsewhere(&stage.folder), committed);
}

#[test]
fn i11_a_view_that_runs_on_keeps_nobody_waiting_for_the_recovery() {
    let Some(stage) =
        on_stage("poison::i11_a_view_that_runs_on_keeps_nobody_waiting_for_the_recovery")
    else {
        return;
    };
    let (keeper, numbers) = open_with(Keeper::builder().path(&stage.folder));
    let committed = fill(&keeper, numbers);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (running, runs) = std::sync::mpsc::channel();
    let view = Sent::new(keeper.run(RunTxn::view(move |txn| {
        running.send(()).unwrap();
        let _ = released.recv();
        Ok(numbers.len(txn)?)
    })))
    .in_thread();
    runs.recv_timeout(SOON).unwrap();
    for (key, answer) in break_under_load(&stage, &keeper, numbers) {
        assert!(answer.is_err(), "{key}");
    }
    stage.heal(Disk::FailMeta);
    // The snapshot is on the old map, which cannot be closed under it; the others are answered.
    let begun = Instant::now();
    let error = put(&keeper, numbers, 1, 1).unwrap_err();
    assert!(matches!(error, TxnError::RecoveryNeeded(_)), "{error:?}");
    let error = keeper.blocking_view(|_| Ok(())).unwrap_err();
    assert!(matches!(error, TxnError::RecoveryNeeded(_)), "{error:?}");
    assert!(begun.elapsed() < SOON);
    assert_eq!(stats(&keeper).environment.recoveries, 0);
    drop(release);
    // Its snapshot was from before, and whole.
    assert_eq!(view.join().unwrap().unwrap(), committed.len() as u64);
    until("recovered", || keeper.blocking_view(|_| Ok(())).is_ok());
    put(&keeper, numbers, 6000, 6001).unwrap();
}

#[test]
fn i11_the_process_exits_if_it_is_told_to() {
    let name = "poison::i11_the_process_exits_if_it_is_told_to";
    let ended = match side(name) {
        Side::Outside(ended) => ended,
        Side::Inside(stage) => return end_by_policy(&stage, OnFatal::Exit, Durability::Full),
    };
    // EX_IOERR.
    assert_eq!(ended.status.code(), Some(74), "{}", ended.output);
    assert_nothing_lost(&ended);
}

#[test]
fn i11_the_process_aborts_if_it_is_told_to() {
    let name = "poison::i11_the_process_aborts_if_it_is_told_to";
    let ended = match side(name) {
        Side::Outside(ended) => ended,
        Side::Inside(stage) => return end_by_policy(&stage, OnFatal::Abort, Durability::Full),
    };
    assert_eq!(
        ended.status.signal(),
        Some(libc::SIGABRT),
        "{}",
        ended.output
    );
    assert_nothing_lost(&ended);
}

#[test]
fn i11_the_process_exits_also_when_nobody_asks_for_anything() {
    let name = "poison::i11_the_process_exits_also_when_nobody_asks_for_anything";
    let ended = match side(name) {
        Side::Outside(ended) => ended,
        Side::Inside(stage) => return end_by_policy(&stage, OnFatal::Exit, Durability::NoSync),
    };
    assert_eq!(ended.status.code(), Some(74), "{}", ended.output);
    assert_nothing_lost(&ended);
}

fn end_by_policy(stage: &Stage, policy: OnFatal, durability: Durability) {
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(&stage.folder)
            .on_fatal(policy)
            .durability(durability)
            .flush_interval(Duration::from_millis(20))
            .on_panic(|event| println!("\ntold of {:?}", event.errno)),
    );
    fill(&keeper, numbers);
    if durability == Durability::NoSync {
        // The periodic flush fails: nobody asks anything, and nobody is answered.
        stage.tell(Disk::FailFlush);
        put(&keeper, numbers, 9, 109).unwrap();
        return std::thread::sleep(SOON);
    }
    stage.tell(Disk::FailMeta);
    let _ = put(&keeper, numbers, 1000, 1000);
    // The answer may come before the end.
    std::thread::sleep(SOON);
}

fn assert_nothing_lost(ended: &Ended) {
    // Whoever subscribed was told before the end.
    let told = format!("told of {:?}", Some(libc::EIO));
    assert_eq!(ended.output.matches(&told).count(), 1, "{}", ended.output);
    let found = read_elsewhere(&ended.folder());
    let committed: BTreeMap<_, _> = (0..BEFORE).map(|key| (key, key + 100)).collect();
    assert_eq!(found, committed);
}

#[test]
fn i11_recovery_after_a_failed_flush_is_refused_under_no_sync() {
    let Some(stage) =
        on_stage("poison::i11_recovery_after_a_failed_flush_is_refused_under_no_sync")
    else {
        return;
    };
    for by_itself in [false, true] {
        let events = Events::default();
        let interval = if by_itself { 20 } else { 3_600_000 };
        let (keeper, numbers) = open_with(
            Keeper::builder()
                .path(stage.folder.join(by_itself.to_string()))
                .durability(Durability::NoSync)
                .flush_interval(Duration::from_millis(interval))
                .on_panic(collect(&events)),
        );
        keeper.blocking_send(Sync).unwrap();
        stage.tell(Disk::FailFlush);
        put(&keeper, numbers, 1, 2).unwrap();
        if by_itself {
            until("the periodic flush has failed", || {
                !events.lock().unwrap().is_empty()
            });
        } else {
            let error = keeper.blocking_send(Sync).unwrap_err();
            assert!(
                matches!(error, EnvError::Txn(TxnError::RecoveryNeeded(_))),
                "{error:?}"
            );
        }
        stage.heal(Disk::FailFlush);
        // The kernel has marked the pages clean: a flush that works now proves nothing.
        let error = keeper.blocking_send(Recover).unwrap_err();
        assert!(
            matches!(&error, EnvError::RecoveryRefused(why) if why.contains("no-sync")),
            "{error:?}"
        );
        let error = put(&keeper, numbers, 3, 4).unwrap_err();
        assert!(matches!(error, TxnError::RecoveryNeeded(_)), "{error:?}");
        until("told", || !events.lock().unwrap().is_empty());
        let events = events.lock().unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].errno, Some(libc::EIO));
        assert_eq!(stats(&keeper).environment.recoveries, 0);
        keeper.blocking_shutdown(SOON).unwrap();
    }
}
