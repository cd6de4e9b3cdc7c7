//! The example of Berkeley DB's guide: one task adds 3 to a record, another adds 5, a thousand times each.

use lockkeeper::{Isolation, TxnError};

use crate::door::{Door, How, World, block_on};

/// Who waits for a flush 2,000 times waits for long, and what is tested is who sees what.
fn quick() -> World {
    World::with(|builder| builder.durability(lockkeeper::Durability::NoSync))
}

fn the_sum_is_right(isolation: Isolation, for_update: bool) {
    for door in Door::ALL {
        // The address as the message; one of them is enough for the slow levels.
        let world = quick();
        block_on(async {
            world.fill([(1, 0)]).await;
            let numbers = world.numbers;
            let tasks = [3, 5].map(|add| {
                let world = world.clone();
                tokio::spawn(async move {
                    for _ in 0..1000 {
                        let how = How {
                            retries: Some(1_000_000),
                            ..How::level(isolation)
                        };
                        let added = door.run(&world.keeper, how, move |txn| async move {
                            let n = match for_update {
                                true => txn.get_for_update_as(numbers, &1).await?,
                                false => txn.get_as(numbers, &1).await?,
                            };
                            tokio::task::yield_now().await;
                            Ok::<_, TxnError>(txn.put(numbers, &1, &(n.unwrap() + add)).await?)
                        });
                        added.await.unwrap();
                    }
                })
            });
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(world.number(1).await, Some(8000));
            world.is_idle().await;
        });
    }
}

#[test]
fn the_sum_is_right_serializable() {
    the_sum_is_right(Isolation::Serializable, true);
    the_sum_is_right(Isolation::Serializable, false);
}

#[test]
fn the_sum_is_right_with_repeatable_reads() {
    the_sum_is_right(Isolation::RepeatableRead, true);
    the_sum_is_right(Isolation::RepeatableRead, false);
}

#[test]
fn the_sum_is_right_with_committed_reads_for_update() {
    the_sum_is_right(Isolation::ReadCommitted, true);
}

#[test]
fn the_sum_is_right_without_locks() {
    the_sum_is_right(Isolation::Optimistic, true);
    the_sum_is_right(Isolation::Optimistic, false);
}
