//! The same transactions through both doors: in the caller's task, and as a message.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use lockkeeper::{
    HandlerContext, Keeper, LockerSpec, Mode, Object, Outcome, RunTxn, TxnError, Wait, WhenFull,
};

use crate::rt::{Counters, block_on, builder, bump, counters, hold_writer, in_flight, open, until};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Door {
    Method,
    Message,
    Address,
}

impl Door {
    pub const ALL: [Self; 3] = [Self::Method, Self::Message, Self::Address];

    pub async fn pass<T: Send + 'static, E: Send + 'static>(
        self,
        keeper: &Keeper,
        txn: RunTxn<T, E>,
    ) -> Result<T, TxnError<E>> {
        match self {
            Self::Method => keeper.run(txn).await,
            Self::Message => keeper.send(txn).await,
            Self::Address => keeper.supervisor().send(txn).await.unwrap(),
        }
    }
}

/// Runs a test through each door, on a keeper of its own.
pub fn through_each(test: impl Fn(Door, Keeper, Counters)) {
    for door in Door::ALL {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, counters) = open(folder.path());
        test(door, keeper, counters);
    }
}

#[test]
fn a_value_comes_back_once_it_is_committed_and_the_next_transaction_sees_it() {
    through_each(|door, keeper, counters| {
        block_on(async {
            for n in 1..=50 {
                let update = bump(counters, "n");
                assert_eq!(door.pass(&keeper, update).await.unwrap(), n);
                // Read-your-writes, whichever way one reads.
                let long = RunTxn::view(move |txn| Ok(counters.get(txn, "n")?));
                assert_eq!(door.pass(&keeper, long).await.unwrap(), Some(n));
                let short = keeper.view(move |txn| Ok(counters.get(txn, "n")?));
                assert_eq!(short.await.unwrap(), Some(n));
            }
        });
        let stats = block_on(keeper.stats()).transactions;
        assert_eq!((stats.committed, stats.failed), (100, 0));
        until(|| in_flight(&keeper) == 0);
    });
}

#[test]
fn transactions_in_flight_together_run_in_the_order_in_which_they_were_sent() {
    through_each(|door, keeper, _| {
        let held = hold_writer(&keeper);
        let order = Arc::new(Mutex::new(Vec::new()));
        let all = (0..64).map(|n| {
            let order = Arc::clone(&order);
            door.pass(
                &keeper,
                RunTxn::update(move |_| {
                    order.lock().unwrap().push(n);
                    Ok(())
                }),
            )
        });
        let all = join_all(all.collect::<Vec<_>>());
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| block_on(all));
            until(|| in_flight(&keeper) == 65);
            held.release().unwrap();
            for outcome in sent.join().unwrap() {
                outcome.unwrap();
            }
        });
        assert_eq!(*order.lock().unwrap(), (0..64).collect::<Vec<_>>());
    });
}

#[derive(Debug, PartialEq)]
struct NotEnough {
    missing: u64,
}

#[test]
fn a_body_that_says_no_undoes_its_writes_and_its_error_comes_back_typed() {
    through_each(|door, keeper, counters| {
        let txn = RunTxn::try_update(move |txn| {
            counters.put(txn, "n", &1)?;
            Err::<(), _>(TxnError::Abort(NotEnough { missing: 7 }))
        });
        let refused = block_on(door.pass(&keeper, txn));
        assert!(
            matches!(refused, Err(TxnError::Abort(NotEnough { missing: 7 }))),
            "{refused:?}"
        );
        let txn = RunTxn::try_view(|_| Err::<(), _>(TxnError::Abort(NotEnough { missing: 8 })));
        let refused = block_on(door.pass(&keeper, txn));
        assert!(matches!(
            refused,
            Err(TxnError::Abort(NotEnough { missing: 8 }))
        ));
        assert_eq!(crate::rt::read(&keeper, counters, "n"), None);
        let stats = block_on(keeper.stats()).transactions;
        assert_eq!((stats.aborted, stats.retries), (2, 0), "never retried");
    });
}

#[test]
fn a_body_that_panics_is_an_error_that_names_its_call_site() {
    through_each(|door, keeper, counters| {
        let line = line!() + 1;
        let txn = RunTxn::update(move |txn| {
            counters.put(txn, "n", &1)?;
            if txn.deadline().is_some() {
                panic!("on purpose");
            }
            Ok(())
        });
        let failed = block_on(door.pass(&keeper, txn));
        let Err(TxnError::BodyPanicked { message, site }) = failed else {
            panic!("{failed:?}");
        };
        assert_eq!(message, "on purpose");
        assert_eq!((site.file(), site.line()), (file!(), line));
        let next = block_on(door.pass(&keeper, bump(counters, "n")));
        assert_eq!(next.unwrap(), 1);
    });
}

#[test]
fn a_transaction_inside_a_body_is_refused_rather_than_waited_for() {
    for door in [Door::Method, Door::Message] {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, counters) = open(folder.path());
        let inner = keeper.clone();
        let txn = RunTxn::update(move |_| {
            let nested = bump(counters, "n");
            Ok(match block_on(door.pass(&inner, nested)) {
                Err(TxnError::NestedTransaction { .. }) => true,
                other => panic!("{other:?}"),
            })
        });
        assert!(block_on(door.pass(&keeper, txn)).unwrap());
        assert_eq!(
            block_on(door.pass(&keeper, bump(counters, "n"))).unwrap(),
            1
        );
    }
}

#[test]
fn handlers_see_each_outcome_once_and_may_ask_for_another_attempt() {
    through_each(|door, keeper, _| {
        let seen = Arc::new(AtomicU32::new(0));
        let handler = {
            let seen = Arc::clone(&seen);
            move |context: &mut HandlerContext, outcome: Outcome| {
                let nth = seen.fetch_add(1, Ordering::Relaxed) + 1;
                assert_eq!(context.attempt(), nth);
                assert_eq!(context.name(), Some("handled"));
                match outcome {
                    Outcome::Failed(TxnError::BodyPanicked { .. }) if nth < 3 => Outcome::Retry,
                    outcome => outcome,
                }
            }
        };
        let mut left = 2;
        let txn = RunTxn::update(move |txn| {
            if left > 0 {
                left -= 1;
                panic!("not yet");
            }
            Ok(txn.attempt())
        });
        let txn = txn.name("handled").handler(handler);
        assert_eq!(block_on(door.pass(&keeper, txn)).unwrap(), 3);
        assert_eq!(seen.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn a_place_in_flight_is_waited_for_or_refused_as_asked() {
    for door in Door::ALL {
        let folder = tempfile::tempdir().unwrap();
        let keeper = builder(folder.path()).queue(2).open().unwrap();
        let counters = counters(&keeper);
        let held = hold_writer(&keeper);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| block_on(door.pass(&keeper, bump(counters, "n"))));
            until(|| in_flight(&keeper) == 2);
            let refused = bump(counters, "n").when_full(WhenFull::Refuse);
            let refused = block_on(door.pass(&keeper, refused));
            assert!(
                matches!(refused, Err(TxnError::Overloaded { limit: 2 })),
                "{refused:?}"
            );
            assert!(refused.unwrap_err().is_retryable());
            let late = bump(counters, "n").deadline(std::time::Duration::from_millis(20));
            let late = block_on(door.pass(&keeper, late));
            assert!(
                // It waited for a place, and the places wait for the body that has the writer.
                matches!(&late, Err(TxnError::WriterStalled { name, .. }) if name.as_deref() == Some("holder")),
                "{late:?}"
            );
            let third = scope.spawn(|| block_on(door.pass(&keeper, bump(counters, "n"))));
            until(|| block_on(keeper.stats()).transactions.waiting == 1);
            held.release().unwrap();
            assert_eq!(second.join().unwrap().unwrap(), 1);
            assert_eq!(third.join().unwrap().unwrap(), 2);
        });
        let stats = block_on(keeper.stats()).transactions;
        assert_eq!((stats.overloaded, stats.limit), (1, 2));
    }
}

/// I12: wherever a future is dropped, nothing stays behind.
#[test]
fn i12_a_future_that_is_dropped_leaves_no_lock_and_no_place_behind() {
    through_each(|door, keeper, counters| {
        let object = Object::new("n", b"n");
        let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
        let lock = |object| locker.blocking_lock(object, Mode::Write, Wait::Default);

        // While it waits for its second lock.
        lock(&object).unwrap();
        let first = Object::new("n", b"first");
        let txn = bump(counters, "n")
            .write_lock(first.clone())
            .write_lock(object.clone())
            .in_order();
        let mut waits = Box::pin(door.pass(&keeper, txn));
        crate::rt::begin(&mut waits);
        until(|| keeper.locks().stats().waiting == 1);
        drop(waits);
        until(|| in_flight(&keeper) == 0 && keeper.locks().stats().lockers.now == 1);
        lock(&first).unwrap();
        locker.release_all();

        // While it is queued, its lock in hand.
        let held = hold_writer(&keeper);
        let txn = bump(counters, "n").write_lock(object.clone());
        let mut queued = Box::pin(door.pass(&keeper, txn));
        crate::rt::begin(&mut queued);
        until(|| block_on(keeper.stats()).environment.queued == 1);
        drop(queued);
        if door != Door::Method {
            // The actor sees to it, when it gets to know.
            let gone = || block_on(keeper.stats()).transactions.waiting == 0;
            until(gone);
            barrier(&keeper);
        }
        held.release().unwrap();
        assert_eq!(
            block_on(door.pass(&keeper, bump(counters, "n"))).unwrap(),
            1,
            "{door:?}: what was dropped never ran"
        );
        until(|| in_flight(&keeper) == 0 && keeper.locks().stats().lockers.now == 1);
        lock(&object).unwrap();
    });
}

/// Comes back when the supervisor has dealt with everything that it was woken for before.
fn barrier(keeper: &Keeper) {
    for _ in 0..3 {
        block_on(keeper.supervisor().send(lockkeeper::TxnStatsQuery)).unwrap();
    }
}
