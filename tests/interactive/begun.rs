//! Transactions in the hands of whoever began them.

use std::time::Duration;

use futures_util::FutureExt;
use lockkeeper::{ErrorClass, Isolation, LockError, OpError, Stage, TxnError, WhenFull};

use crate::door::{Door, How, LEVELS, PATIENCE, World, all, block_on, until};

#[test]
fn it_is_applied_by_commit_and_undone_by_abort_and_by_dropping_it() {
    let world = World::new();
    block_on(async {
        let numbers = world.numbers;
        for isolation in LEVELS {
            let begin = || world.keeper.begin().name("by hand").isolation(isolation);
            let txn = begin().await.unwrap();
            assert_eq!(
                (txn.name(), txn.attempt(), txn.isolation()),
                (Some("by hand"), 1, isolation)
            );
            txn.put(numbers, &1, &1).await.unwrap();
            assert_eq!(all(txn.scan(numbers, &..)).await.unwrap(), [(1, 1)]);
            assert_eq!(world.committed().await, []);
            txn.abort();
            assert!(world.locks().held.is_empty());
            let txn = begin().await.unwrap();
            txn.put(numbers, &2, &2).await.unwrap();
            let kept = txn.clone();
            drop(txn);
            assert!(world.locks().held.is_empty());
            let error = kept.get(numbers, &2).await.unwrap_err();
            assert!(matches!(error.error(), TxnError::TransactionEnded));
            let txn = begin().await.unwrap();
            txn.put(numbers, &3, &3).await.unwrap();
            let kept = txn.clone();
            txn.commit().await.unwrap();
            let error = kept.put(numbers, &3, &4).await.unwrap_err();
            assert!(matches!(error.error(), TxnError::TransactionEnded));
            assert_eq!(world.committed().await, [(3, 3)]);
            // Nothing was done, and only read.
            begin().await.unwrap().commit().await.unwrap();
            let txn = begin().await.unwrap();
            assert_eq!(txn.get_as(numbers, &3).await.unwrap(), Some(3));
            assert!(txn.delete(numbers, &3).await.unwrap());
            txn.commit().await.unwrap();
            assert_eq!(world.committed().await, []);
            world.is_idle().await;
        }
        let stats = world.stats().await;
        assert_eq!((stats.committed, stats.aborted, stats.failed), (15, 10, 0));
    });
}

#[test]
fn nobody_runs_it_again_after_a_conflict() {
    let world = World::new();
    block_on(async {
        let numbers = world.numbers;
        let holder = world.keeper.begin().await.unwrap();
        holder.put(numbers, &1, &1).await.unwrap();
        let txn = world
            .keeper
            .begin()
            .lock_timeout(Duration::from_millis(10))
            .await
            .unwrap();
        txn.put(numbers, &2, &2).await.unwrap();
        let error = txn.put(numbers, &1, &2).await.unwrap_err();
        assert!(matches!(
            error.error(),
            TxnError::Conflict(LockError::LockTimeout(_))
        ));
        assert_eq!(world.locks().held.len(), 1);
        let error = txn.commit().await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Conflict);
        assert!(matches!(
            error,
            TxnError::Conflict(LockError::LockTimeout(_) | LockError::Dead(_))
        ));
        holder.commit().await.unwrap();
        assert_eq!(world.committed().await, [(1, 1)]);
        // Lost at the commit itself.
        let txn = world
            .keeper
            .begin()
            .isolation(Isolation::Optimistic)
            .await
            .unwrap();
        let n = txn.get_as(numbers, &1).await.unwrap().unwrap();
        world.fill([(1, 5)]).await;
        txn.put(numbers, &1, &(n + 1)).await.unwrap();
        let error = txn.commit().await.unwrap_err();
        assert!(matches!(error, TxnError::ReadChanged { .. }), "{error:?}");
        assert_eq!(world.committed().await, [(1, 5)]);
        world.is_idle().await;
        assert_eq!(world.stats().await.retries, 0);
    });
}

#[test]
fn its_deadline_ends_its_waits_and_its_commit() {
    let world = World::new();
    block_on(async {
        let numbers = world.numbers;
        // A put, in time.
        let mut span = Duration::from_millis(30);
        let txn = loop {
            let begun = world.keeper.begin().deadline(span).await;
            match begun {
                Ok(txn) if txn.put(numbers, &1, &1).await.is_ok() => break txn,
                _ => span *= 2,
            }
            assert!(span < PATIENCE);
        };
        until(|| std::time::Instant::now() > txn.deadline()).await;
        let error = txn.commit().await.unwrap_err();
        assert!(
            matches!(error, TxnError::DeadlineExceeded { .. }),
            "{error:?}"
        );
        let holder = world.keeper.begin().await.unwrap();
        holder.put(numbers, &1, &1).await.unwrap();
        let txn = loop {
            match world.keeper.begin().deadline(span).await {
                Ok(txn) => break txn,
                Err(_) => span *= 2,
            }
            assert!(span < PATIENCE);
        };
        let error = txn.get(numbers, &1).await.unwrap_err();
        let out_of_time = |error: &TxnError| {
            matches!(
                error,
                TxnError::DeadlineExceeded {
                    stage: Stage::WaitedForLocks,
                    ..
                }
            )
        };
        assert!(out_of_time(error.error()), "{error:?}");
        let error = txn.put(numbers, &2, &2).await.unwrap_err();
        assert!(out_of_time(error.error()), "{error:?}");
        drop((txn, holder));
        assert_eq!(world.committed().await, []);
        world.is_idle().await;
    });
}

#[test]
fn it_has_a_place_in_flight_until_it_ends() {
    let world = World::with(|builder| builder.queue(2));
    block_on(async {
        let one = world.keeper.begin().await.unwrap();
        let two = world.keeper.begin().await.unwrap();
        let three = world.keeper.begin().when_full(WhenFull::Refuse).await;
        assert!(
            matches!(three, Err(TxnError::Overloaded { limit: 2 })),
            "{three:?}"
        );
        for door in Door::ALL {
            let how = How {
                when_full: Some(WhenFull::Refuse),
                ..How::default()
            };
            let refused = door.run(&world.keeper, how, |_| async { Ok(()) }).await;
            assert!(
                matches!(refused, Err(TxnError::Overloaded { limit: 2 })),
                "{refused:?}"
            );
        }
        let late = world
            .keeper
            .begin()
            .deadline(Duration::from_millis(10))
            .await
            .unwrap_err();
        let waited = matches!(
            late,
            TxnError::DeadlineExceeded {
                stage: Stage::WaitedForAdmission,
                ..
            }
        );
        assert!(waited, "{late:?}");
        // Its own commit needs no second place.
        one.put(world.numbers, &1, &1).await.unwrap();
        one.commit().await.unwrap();
        world.keeper.begin().await.unwrap().abort();
        two.abort();
        world.is_idle().await;
    });
}

#[test]
fn a_commit_while_a_child_is_open_is_refused_and_undoes_the_transaction() {
    let world = World::new();
    block_on(async {
        let numbers = world.numbers;
        let txn = world.keeper.begin().await.unwrap();
        txn.put(numbers, &1, &1).await.unwrap();
        let mut child = Box::pin(txn.nested(|child| async move {
            child.put(numbers, &2, &2).await?;
            tokio::task::yield_now().await;
            Ok::<_, TxnError>(child.put(numbers, &3, &3).await?)
        }));
        assert!(child.as_mut().now_or_never().is_none());
        let error = txn.commit().await.unwrap_err();
        assert!(matches!(error, TxnError::ChildOpen), "{error:?}");
        assert!(world.locks().held.is_empty());
        let error = OpError::from(child.await.unwrap_err());
        assert!(
            matches!(error.error(), TxnError::TransactionEnded),
            "{error:?}"
        );
        assert_eq!(world.committed().await, []);
        world.is_idle().await;
    });
}
