//! A transaction that has lost a conflict is dead: it holds nothing, and each use of it names the conflict.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{Begun, ErrorClass, LockError, OpError, TxnError};

use crate::door::{How, PATIENCE, World, block_on, through_each, until};

/// One of two in a deadlock, after the other has won; a scan of it has begun before.
async fn victim(
    world: &World,
) -> (
    Begun,
    Begun,
    lockkeeper::Scan<
        lockkeeper::heed::types::U64<lockkeeper::heed::byteorder::BigEndian>,
        lockkeeper::heed::types::U64<lockkeeper::heed::byteorder::BigEndian>,
    >,
) {
    let numbers = world.numbers;
    let elder = world.keeper.begin().name("elder").await.unwrap();
    elder.put(numbers, &1, &1).await.unwrap();
    let younger = world.keeper.begin().name("younger").await.unwrap();
    let mut scan = younger.scan(numbers, &(10..));
    assert_eq!(scan.next().await.unwrap().unwrap().0.decode().unwrap(), 10);
    younger.put(numbers, &2, &2).await.unwrap();
    let (waits, other) = tokio::join!(younger.put(numbers, &1, &2), async {
        until(|| world.waiting() == 1).await;
        elder.put(numbers, &2, &1).await
    });
    other.unwrap();
    let error = waits.unwrap_err();
    assert!(
        matches!(error.error(), TxnError::Conflict(LockError::Deadlock(_))),
        "{error:?}"
    );
    assert!(error.is_retryable());
    (elder, younger, scan)
}

#[track_caller]
fn names_the_conflict<T>(answer: Result<T, OpError>) {
    let Err(error) = answer else {
        panic!("a dead transaction has answered");
    };
    let TxnError::Conflict(dead) = error.error() else {
        panic!("{error:?}");
    };
    let conflict = dead.conflict().unwrap();
    assert_eq!(conflict.asker.name.as_ref().unwrap().to_string(), "younger");
    assert!(!conflict.cycle.is_empty());
    assert_eq!(error.class(), ErrorClass::Conflict);
}

#[test]
fn each_use_of_a_dead_transaction_names_the_conflict() {
    let world = World::new();
    block_on(async {
        let numbers = world.numbers;
        world.fill((10..90).map(|n| (n, n))).await;
        let (elder, younger, mut scan) = victim(&world).await;
        let locks = world.locks();
        assert_eq!(locks.held.len(), 2, "only the elder's: {locks:?}");
        let txn = &*younger;
        names_the_conflict(txn.get(numbers, &2).await);
        names_the_conflict(txn.get_as(numbers, &50).await);
        names_the_conflict(txn.get_for_update(numbers, &2).await);
        names_the_conflict(txn.put(numbers, &2, &3).await);
        names_the_conflict(txn.put_if_absent(numbers, &3, &3).await);
        names_the_conflict(txn.delete(numbers, &2).await);
        names_the_conflict(txn.count(numbers, &..).await);
        names_the_conflict(txn.clear_range(numbers, &..).await);
        #[expect(clippy::reversed_empty_ranges, reason = "also without a lock to take")]
        let empty = txn.clear_range(numbers, &(5..1)).await;
        names_the_conflict(empty);
        names_the_conflict(txn.scan(numbers, &..).next().await);
        names_the_conflict(txn.savepoint());
        for _ in 0..3 {
            names_the_conflict(scan.next().await);
        }
        let child = txn.nested(|_| async { Ok(()) }).await;
        names_the_conflict(child.map_err(OpError::from));
        assert_eq!(world.locks().held.len(), 2, "it has taken nothing");
        let committed = younger.commit().await;
        names_the_conflict(committed.map_err(OpError::from));
        elder.commit().await.unwrap();
        assert_eq!(world.number(2).await, Some(1));
        world.is_idle().await;
    });
}

#[test]
fn a_closure_that_swallows_the_conflict_is_not_committed_but_run_again() {
    through_each(|door, world| async move {
        let numbers = world.numbers;
        let elder = world.keeper.begin().name("elder").await.unwrap();
        elder.put(numbers, &1, &1).await.unwrap();
        let count = Arc::new(AtomicU32::new(0));
        let attempts = Arc::clone(&count);
        let younger = door.spawn(&world.keeper, How::named("younger"), move |txn| {
            attempts.fetch_add(1, Ordering::SeqCst);
            async move {
                txn.put(numbers, &2, &2).await?;
                let _ = txn.put(numbers, &1, &2).await;
                let _ = txn.put(numbers, &3, &3).await;
                Ok(txn.attempt())
            }
        });
        until(|| world.waiting() == 1).await;
        elder.put(numbers, &2, &1).await.unwrap();
        elder.commit().await.unwrap();
        assert_eq!(younger.await.unwrap().unwrap(), 2);
        assert_eq!(count.load(Ordering::SeqCst), 2);
        assert_eq!(world.committed().await, [(1, 2), (2, 2), (3, 3)]);
    });
}

#[test]
fn a_closure_that_lets_out_another_error_after_the_conflict_is_answered_with_that() {
    through_each(|door, world| async move {
        let numbers = world.numbers;
        let holder = world.keeper.begin().await.unwrap();
        holder.put(numbers, &1, &1).await.unwrap();
        let how = How {
            lock_timeout: Some(Duration::from_millis(10)),
            ..How::default()
        };
        let answer = door.try_run(&world.keeper, how, move |txn| async move {
            match txn.put(numbers, &1, &2).await {
                Ok(()) => Ok(()),
                Err(_) => Err(lockkeeper::abort("busy")),
            }
        });
        assert!(matches!(answer.await, Err(TxnError::Abort("busy"))));
        drop(holder);
    });
}

#[test]
fn a_transaction_that_is_aborted_for_holding_too_long_is_told_so_at_its_next_use() {
    let world = World::with(|builder| {
        builder
            .max_hold(Duration::from_millis(20))
            .abort_on_max_hold(true)
    });
    block_on(async {
        let numbers = world.numbers;
        world.fill([(1, 1)]).await;
        for write in [false, true] {
            let txn = slow(&world, write).await;
            until(|| txn_is_aborted(&world)).await;
            // What it has locked it does not ask for again; whatever is new tells it, and from then on everything does.
            for key in [2, 1] {
                let error = txn.get(numbers, &key).await.unwrap_err();
                assert!(
                    matches!(
                        error.class(),
                        ErrorClass::HeldTooLong | ErrorClass::Conflict
                    ),
                    "{error:?}"
                );
            }
            assert!(world.locks().held.is_empty());
            assert!(txn.commit().await.is_err());
        }
        // Without another use before the commit.
        let txn = slow(&world, true).await;
        until(|| txn_is_aborted(&world)).await;
        assert!(txn.commit().await.is_err());
        assert_eq!(world.committed().await, [(1, 1)]);
        world.is_idle().await;
    });
}

/// One that has written or read something before it has held its first lock too long.
async fn slow(world: &World, write: bool) -> Begun {
    let end = Instant::now() + PATIENCE;
    loop {
        let txn = world.keeper.begin().name("slow").await.unwrap();
        let done = match write {
            true => txn.put(world.numbers, &1, &9).await,
            false => txn.get(world.numbers, &1).await.map(drop),
        };
        match done {
            Ok(()) => return txn,
            Err(error) => assert!(Instant::now() < end, "{error:?}"),
        }
    }
}

fn txn_is_aborted(world: &World) -> bool {
    let locks = world.locks();
    let slow = locks.lockers.iter().find(|of| {
        of.name
            .as_ref()
            .is_some_and(|name| name.to_string() == "slow")
    });
    slow.is_none_or(|of| of.dead)
}

/// As in JE: who does not wait for a lock goes on without it.
#[test]
fn a_transaction_that_did_not_want_to_wait_goes_on() {
    let world = World::with(|builder| builder.no_wait(true));
    block_on(async {
        let numbers = world.numbers;
        let holder = world.keeper.begin().name("holder").await.unwrap();
        holder.put(numbers, &1, &1).await.unwrap();
        let not_available = |answer: Result<(), OpError>| {
            let error = answer.unwrap_err();
            let TxnError::Conflict(LockError::NotAvailable(conflict)) = error.error() else {
                panic!("{error:?}");
            };
            let owner = conflict.owners[0].name.as_ref().unwrap();
            assert_eq!(owner.to_string(), "holder");
        };
        let txn = world.keeper.begin().await.unwrap();
        txn.put(numbers, &2, &2).await.unwrap();
        for _ in 0..2 {
            not_available(txn.get_as(numbers, &1).await.map(drop));
            not_available(txn.put(numbers, &1, &9).await);
            not_available(txn.delete(numbers, &1).await.map(drop));
            not_available(txn.count(numbers, &..).await.map(drop));
            let inner =
                txn.nested(
                    move |txn| async move { txn.put(numbers, &1, &9).await.map_err(Into::into) },
                );
            not_available(inner.await.map_err(|error: TxnError| OpError::from(error)));
        }
        assert_eq!(txn.get_as(numbers, &2).await.unwrap(), Some(2));
        txn.put(numbers, &3, &3).await.unwrap();
        txn.commit().await.unwrap();
        drop(holder);
        assert_eq!(world.committed().await, [(2, 2), (3, 3)]);
        world.is_idle().await;
    });
}

/// Through each door, by a closure: it is run once, and says what becomes of it.
#[test]
fn a_closure_that_does_without_a_lock_is_committed_and_one_that_does_not_is_answered() {
    for door in crate::door::Door::ALL {
        let world = World::with(|builder| builder.no_wait(true));
        block_on(async {
            let numbers = world.numbers;
            let holder = world.keeper.begin().await.unwrap();
            holder.put(numbers, &1, &1).await.unwrap();
            let count = Arc::new(AtomicU32::new(0));
            let attempts = Arc::clone(&count);
            let ran = door.run(&world.keeper, How::default(), move |txn| {
                attempts.fetch_add(1, Ordering::SeqCst);
                async move {
                    if txn.put(numbers, &1, &2).await.is_err() {
                        txn.put(numbers, &2, &2).await?;
                    }
                    Ok(())
                }
            });
            ran.await.unwrap();
            assert_eq!(count.load(Ordering::SeqCst), 1, "{door:?}");
            let ran = door.run(&world.keeper, How::default(), move |txn| async move {
                txn.put(numbers, &1, &2).await?;
                Ok(())
            });
            let answer = ran.await;
            assert!(
                matches!(&answer, Err(TxnError::Conflict(LockError::NotAvailable(_)))),
                "{door:?}: {answer:?}"
            );
            drop(holder);
            assert_eq!(world.committed().await, [(2, 2)]);
            world.is_idle().await;
        });
    }
}
