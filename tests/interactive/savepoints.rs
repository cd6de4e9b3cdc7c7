//! Savepoints: writes are rolled back, locks stay.

use lockkeeper::{OpError, TxnError};

use crate::door::{How, World, all, block_on, on_each_level, through_each};

#[track_caller]
fn gone(answer: Result<(), OpError>) {
    let error = answer.unwrap_err();
    assert!(
        matches!(error.error(), TxnError::TransactionEnded),
        "{error:?}"
    );
}

#[test]
fn rolling_back_takes_back_what_was_written_since_and_nothing_else() {
    on_each_level(|door, how, world| async move {
        world.fill((0..5).map(|n| (n, n))).await;
        let numbers = world.numbers;
        let ran = door.run(&world.keeper, how, move |txn| async move {
            txn.put(numbers, &0, &100).await?;
            let one = txn.savepoint()?;
            txn.put(numbers, &0, &200).await?;
            txn.delete(numbers, &1).await?;
            let two = txn.savepoint()?;
            txn.clear_range(numbers, &..).await?;
            txn.put(numbers, &9, &9).await?;
            assert_eq!(all(txn.scan(numbers, &..)).await?, [(9, 9)]);
            txn.rollback_to(&two)?;
            txn.rollback_to(&two)?;
            assert_eq!(
                all(txn.scan(numbers, &..)).await?,
                [(0, 200), (2, 2), (3, 3), (4, 4)]
            );
            let three = txn.savepoint()?;
            txn.put(numbers, &3, &33).await?;
            txn.release(three.clone())?;
            gone(txn.rollback_to(&three));
            gone(txn.release(three));
            assert_eq!(txn.get_as(numbers, &3).await?, Some(33));
            txn.rollback_to(&one)?;
            gone(txn.rollback_to(&two));
            gone(txn.release(two));
            assert_eq!(txn.get_as(numbers, &0).await?, Some(100));
            assert_eq!(txn.count(numbers, &..).await?, 5);
            txn.put(numbers, &4, &44).await?;
            txn.release(one)?;
            Ok(())
        });
        ran.await.unwrap();
        assert_eq!(
            world.committed().await,
            [(0, 100), (1, 1), (2, 2), (3, 3), (4, 44)]
        );
    });
}

#[test]
fn locks_stay_when_writes_are_rolled_back() {
    let world = World::new();
    block_on(async {
        let numbers = world.numbers;
        let txn = world.keeper.begin().await.unwrap();
        let point = txn.savepoint().unwrap();
        txn.put(numbers, &1, &1).await.unwrap();
        txn.get(numbers, &2).await.unwrap();
        assert_eq!(world.locks().held.len(), 2);
        txn.rollback_to(&point).unwrap();
        assert_eq!(world.locks().held.len(), 2);
        txn.release(point).unwrap();
        assert_eq!(world.locks().held.len(), 2);
        txn.commit().await.unwrap();
        assert_eq!(world.committed().await, []);
        world.is_idle().await;
    });
}

#[test]
fn a_savepoint_of_another_transaction_is_not_taken_for_an_own_one() {
    through_each(|door, world| async move {
        let numbers = world.numbers;
        let other = world.keeper.begin().await.unwrap();
        other.put(numbers, &50, &1).await.unwrap();
        let foreign = other.savepoint().unwrap();
        let ran = door.run(&world.keeper, How::default(), move |txn| {
            let foreign = foreign.clone();
            async move {
                txn.put(numbers, &1, &1).await?;
                // Of the same number as the foreign one, if they are numbered.
                let own = txn.savepoint()?;
                txn.put(numbers, &2, &2).await?;
                gone(txn.rollback_to(&foreign));
                gone(txn.release(foreign.clone()));
                assert_eq!(txn.count(numbers, &(..10)).await?, 2);
                // Nor is a parent's savepoint a child's, or a child's its parent's.
                let point = txn.nested(|child| {
                    let own = own.clone();
                    async move {
                        child.put(numbers, &3, &3).await?;
                        gone(child.rollback_to(&own));
                        gone(child.release(own));
                        Ok::<_, TxnError>(child.savepoint()?)
                    }
                });
                let point = point.await?;
                gone(txn.rollback_to(&point));
                gone(txn.release(point));
                assert_eq!(txn.count(numbers, &(..10)).await?, 3);
                Ok(())
            }
        });
        ran.await.unwrap();
        other.abort();
        assert_eq!(world.committed().await, [(1, 1), (2, 2), (3, 3)]);
    });
}
