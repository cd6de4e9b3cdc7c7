use std::future::Future;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Waker};

use super::*;
use crate::clock::block_on;
use crate::env::outside::Kind;
use crate::env::outside::tests::{Answer, LONG, World, answer};
use crate::error::{StorageError, TxnError};

const INTERACTIVE: Kind = Kind::Interactive {
    first: false,
    announced: true,
};

/// Has the attempt hold updates back until it is dropped, however slow the machine is.
fn for_long(world: &World) -> GoesFirst {
    let attempt = block_on(world.core.shared.go_first());
    world.core.shared.first.under_way.lock()[0].1 = Instant::now() + LONG;
    attempt
}

/// A plain update that is held back.
fn held(world: &World) -> Answer<Option<u64>> {
    let plain = world.writing(Kind::Plain);
    let begun = Instant::now();
    while world.core.shared.first.held.lock().is_empty() {
        assert!(begun.elapsed() < LONG, "it is not held back");
        std::thread::yield_now();
    }
    // Not for its own patience: for the test's.
    for (since, _) in world.core.shared.first.held.lock().iter_mut() {
        *since = Instant::now() + LONG;
    }
    plain
}

#[test]
fn i08_plain_updates_wait_for_an_attempt_that_goes_first() {
    let world = World::new();
    let attempt = for_long(&world);
    let mark = world.core.shared.outside();
    let mut plain = held(&world);
    // Those of interactive transactions do not wait.
    let first = Kind::Interactive {
        first: true,
        announced: true,
    };
    answer(world.writing(INTERACTIVE));
    answer(world.writing(first));
    assert!(plain.try_recv().is_err());
    assert!(world.core.shared.outside() <= mark + 1);
    let begun = Instant::now();
    drop(attempt);
    answer(plain);
    assert!(begun.elapsed() < LONG, "its end was not told");
}

#[test]
fn i08_an_update_is_held_back_no_longer_than_patience_lasts() {
    let world = World::new();
    // One attempt that never ends, and others that follow each other without end.
    let _attempt = for_long(&world);
    let shared = Arc::clone(&world.core.shared);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let attempts = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            drop(block_on(shared.go_first()));
        }
    });
    for _ in 0..5 {
        let begun = Instant::now();
        let plain: Vec<_> = (0..20).map(|_| world.writing(Kind::Plain)).collect();
        plain.into_iter().for_each(|plain| {
            answer(plain);
        });
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
    stop.store(true, Ordering::SeqCst);
    attempts.join().unwrap();
    assert!(world.core.shared.first.held.lock().is_empty());
}

#[test]
fn i08_an_attempt_that_does_not_end_holds_nothing_back_after_a_while() {
    let world = World::new();
    let attempt = block_on(world.core.shared.go_first());
    std::thread::sleep(PATIENCE);
    assert!(!world.core.shared.first.holds(usize::MAX));
    answer(world.writing(Kind::Plain));
    drop(attempt);
}

#[test]
fn an_attempt_that_goes_first_begins_after_the_batch_that_is_running() {
    let world = World::new();
    let (entered, is_inside) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    let table = world.table.clone();
    let plain = world.send(Kind::Plain, move |txn| {
        table.put(txn, b"a", b"b")?;
        let _ = entered.send(());
        let _ = may_leave.recv();
        Ok(())
    });
    is_inside.recv_timeout(LONG).unwrap();
    let mark = world.core.shared.outside();
    let shared = &world.core.shared;
    let begun = Instant::now();
    let mut attempt = pin!(shared.go_first());
    let mut context = Context::from_waker(Waker::noop());
    assert!(attempt.as_mut().poll(&mut context).is_pending());
    drop(leave);
    let attempt = block_on(attempt);
    // On a machine that was away for longer the wait has ended by itself.
    assert!(shared.outside() > mark || begun.elapsed() >= PATIENCE);
    drop(attempt);
    answer(plain);
}

#[test]
fn what_is_held_back_is_answered_at_the_end() {
    let world = World::new();
    let _attempt = for_long(&world);
    let plain = held(&world);
    world.core.stop(|| ());
    assert!(matches!(block_on(plain), Ok(Err(TxnError::ShuttingDown))));
}

#[test]
fn what_is_held_back_is_answered_after_a_fatal_error() {
    let world = World::new();
    let _attempt = for_long(&world);
    let plain = held(&world);
    let error = heed::Error::Io(std::io::Error::from_raw_os_error(5));
    let generation = world.core.shared.generation.load(Ordering::Acquire);
    let error = StorageError::new("testing", error);
    world.core.shared.report_fatal(error, generation);
    assert!(matches!(
        block_on(plain),
        Ok(Err(TxnError::RecoveryNeeded(_)))
    ));
    assert_eq!(world.core.shared.counters.queued.load(Ordering::SeqCst), 0);
}

#[test]
fn what_is_held_back_is_not_overtaken_by_the_clearing_of_its_database() {
    let world = World::new();
    let _attempt = for_long(&world);
    let plain = held(&world);
    assert_eq!(block_on(world.core.clear("t".into())).unwrap(), 1);
    answer(plain);
    // What overtakes it does so: a flush.
    let mut plain = held(&world);
    block_on(world.core.sync()).unwrap();
    assert!(plain.try_recv().is_err());
}

#[test]
fn an_attempt_that_is_given_up_before_it_begins_leaves_nothing() {
    let world = World::new();
    let leave = world.hold_writer(Kind::Plain);
    {
        let mut attempt = Box::pin(world.core.shared.go_first());
        let mut context = Context::from_waker(Waker::noop());
        assert!(attempt.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(world.core.shared.first.count.load(Ordering::SeqCst), 0);
    assert!(world.core.shared.first.under_way.lock().is_empty());
    drop(leave);
    answer(world.writing(Kind::Plain));
}

#[test]
fn i08_a_plain_writer_that_never_stops_does_not_undo_who_goes_first() {
    let world = World::new();
    let stop = AtomicBool::new(false);
    let count = |txn: &mut crate::env::WriteTxn<'_>, table: &crate::env::RawTable| {
        let next = match table.get(txn, b"count")? {
            Some(bytes) => bytes.len() + 1,
            None => 1,
        };
        table.put(txn, b"count", &vec![0; next % 1000])?;
        Ok::<_, TxnError>(())
    };
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let table = world.table.clone();
                    answer(world.send(Kind::Plain, move |txn| count(txn, &table)));
                }
            });
        }
        // One is enough, unless the machine is away for longer than the patience lasts.
        let done = (0..20).any(|_| {
            let _attempt = block_on(world.core.shared.go_first());
            let mark = world.core.shared.outside();
            let table = world.table.clone();
            let site = std::panic::Location::caller();
            let read = world
                .core
                .view_now(site, crate::env::gate::Entry::New, |txn| {
                    Ok::<_, TxnError>(table.get(txn, b"count")?.map(<[u8]>::to_vec))
                });
            let Ok(Ok(read)) = read else { return false };
            let first = Kind::Interactive {
                first: true,
                announced: true,
            };
            answer(world.send(first, move |txn| {
                let unchanged = table.get(txn, b"count")? == read.as_deref();
                assert!(unchanged || txn.outside() != Some(mark));
                Ok(unchanged)
            }))
        });
        stop.store(true, Ordering::SeqCst);
        assert!(done);
    });
}
