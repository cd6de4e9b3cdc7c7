//! What a transaction may read and write at most.

use lockkeeper::heed::types::{Bytes, Str};
use lockkeeper::{ErrorClass, Isolation, OpError, TxnError, WhichSet};

use crate::door::{Door, How, LEVELS, World, all, block_on};

#[track_caller]
fn too_much<T>(answer: Result<T, OpError>, which: WhichSet, limit: usize, setting: &str) {
    let Err(error) = answer else {
        panic!("more than it may");
    };
    assert!(
        matches!(error.error(), TxnError::TooMuch { which: of, limit: at } if (*of, *at) == (which, limit)),
        "{error:?}"
    );
    assert_eq!(error.class(), ErrorClass::Usage);
    assert!(!error.is_retryable());
    let text = error.to_string();
    assert!(
        text.contains(setting) && text.contains(&limit.to_string()),
        "{text}"
    );
}

#[test]
fn i13_a_read_set_that_is_full_names_its_setting_and_the_transaction_goes_on() {
    // A snapshot does not keep what it only reads.
    for (isolation, door) in LEVELS
        .into_iter()
        .filter(|level| *level != Isolation::Snapshot)
        .flat_map(|level| Door::ALL.map(|door| (level, door)))
    {
        let world = World::with(|builder| builder.max_read_set(10));
        block_on(async {
            world.fill((0..50).map(|n| (n, n))).await;
            let numbers = world.numbers;
            let ran = door.run(
                &world.keeper,
                How::level(isolation),
                move |txn| async move {
                    for n in 0..10 {
                        txn.get_for_update(numbers, &n).await?;
                    }
                    let full = |answer| too_much(answer, WhichSet::ReadSet, 10, "max_read_set");
                    full(txn.get_for_update(numbers, &10).await.map(drop));
                    if isolation.to_string() == "read-committed" {
                        // Its plain reads are not kept.
                        assert_eq!(txn.count(numbers, &..).await?, 50);
                    } else {
                        full(txn.get(numbers, &10).await.map(drop));
                        full(txn.count(numbers, &..).await.map(drop));
                        let mut scan = txn.scan(numbers, &..);
                        full(scan.next().await.map(drop));
                    }
                    full(txn.delete(numbers, &20).await.map(drop));
                    // What was read may be read again, and what is written blindly is not read.
                    assert_eq!(txn.get_as(numbers, &3).await?, Some(3));
                    txn.put(numbers, &30, &1).await?;
                    assert_eq!(txn.get_as(numbers, &30).await?, Some(1));
                    Ok(())
                },
            );
            ran.await.unwrap();
            assert_eq!(world.number(30).await, Some(1));
            assert_eq!(world.stats().await.retries, 0);
            world.is_idle().await;
        });
    }
}

#[test]
fn i13_a_write_set_that_is_full_names_its_setting_and_the_transaction_goes_on() {
    for (isolation, door) in LEVELS
        .into_iter()
        .flat_map(|level| Door::ALL.map(|door| (level, door)))
    {
        let world = World::with(|builder| builder.max_write_set(4 << 10));
        block_on(async {
            let large = world.keeper.records::<Str, Bytes>("large").await.unwrap();
            let numbers = world.numbers;
            let how = How::level(isolation);
            let ran = door.run(&world.keeper, how, move |txn| async move {
                txn.put(large, "a", &vec![1; 2 << 10]).await?;
                let full = |answer| too_much(answer, WhichSet::WriteSet, 4 << 10, "max_write_set");
                full(txn.put(large, "b", &vec![2; 3 << 10]).await);
                full(
                    txn.put_if_absent(large, "c", &vec![2; 3 << 10])
                        .await
                        .map(drop),
                );
                full(txn.put(large, "a", &vec![2; 5 << 10]).await);
                assert_eq!(txn.count(large, &..).await?, 1);
                assert_eq!(txn.get(large, "a").await?.unwrap().bytes(), [1; 2 << 10]);
                // In a child, too, and the bytes of an undone child are free again.
                for _ in 0..5 {
                    let child = txn.nested(|child| async move {
                        child.put(numbers, &1, &1).await?;
                        child.put(large, "d", &vec![3; 1 << 10]).await?;
                        Ok::<_, TxnError>(child.put(large, "e", &vec![3; 2 << 10]).await?)
                    });
                    full(child.await.map_err(OpError::from));
                }
                txn.put(large, "b", &vec![4; 1 << 10]).await?;
                txn.delete(large, "a").await?;
                txn.put(large, "c", &vec![5; 2 << 10]).await?;
                assert_eq!(all(txn.scan(numbers, &..)).await?, []);
                Ok(())
            });
            ran.await.unwrap();
            // Let out, it is the answer, once.
            let ran = door.run(&world.keeper, how, move |txn| async move {
                txn.put(numbers, &1, &1).await?;
                Ok(txn.put(large, "z", &vec![0; 1 << 20]).await?)
            });
            let error = ran.await.map_err(OpError::from);
            too_much(error, WhichSet::WriteSet, 4 << 10, "max_write_set");
            assert_eq!(world.committed().await, []);
            assert_eq!(world.stats().await.retries, 0);
            world.is_idle().await;
        });
    }
}
