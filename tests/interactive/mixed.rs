//! Transactions that take no locks beside those that do.

use lockkeeper::{Isolation, TxnError};

use crate::door::{Door, How, World, block_on};

/// What it has read under a read lock is overwritten by one that asks for no locks, together with what it reads next.
#[test]
fn who_takes_locks_does_not_see_half_of_what_one_without_locks_has_written() {
    for isolation in [Isolation::Serializable, Isolation::RepeatableRead] {
        for writes in [false, true] {
            let world = World::new();
            block_on(async {
                world.fill([(1, 0), (2, 0)]).await;
                let numbers = world.numbers;
                // The keeper's own record is there from here on.
                let warm = Door::Method.run(&world.keeper, How::default(), move |txn| async move {
                    Ok(txn.put(numbers, &9, &9).await?)
                });
                warm.await.unwrap();
                let txn = world.keeper.begin().isolation(isolation).await.unwrap();
                assert_eq!(txn.get_as(numbers, &1).await.unwrap(), Some(0));
                let how = How::level(Isolation::Optimistic);
                let both = Door::Method.run(&world.keeper, how, move |txn| async move {
                    txn.put(numbers, &1, &1).await?;
                    Ok(txn.put(numbers, &2, &1).await?)
                });
                both.await.unwrap();
                assert_eq!(txn.get_as(numbers, &2).await.unwrap(), Some(1));
                if writes {
                    txn.put(numbers, &3, &0).await.unwrap();
                }
                let committed = txn.commit().await;
                assert!(
                    matches!(committed, Err(TxnError::ReadChanged { .. })),
                    "{committed:?}"
                );
                world.is_idle().await;
            });
        }
    }
}
