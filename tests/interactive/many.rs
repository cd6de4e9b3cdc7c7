//! Ten thousand at once, and what is bounded.

use futures_util::future::join_all;
use lockkeeper::{TxnError, WhenFull};

use crate::door::{Door, Gate, How, World, block_on, until};

const MANY: u64 = 10_000;

#[test]
fn i13_ten_thousand_at_once_are_let_in_one_after_the_other() {
    for door in [Door::Method, Door::Message] {
        let world =
            World::with(|builder| builder.queue(64).durability(lockkeeper::Durability::NoSync));
        block_on(async {
            world.fill((0..16).map(|n| (n, 0))).await;
            let numbers = world.numbers;
            let tasks = (0..MANY).map(|n| {
                let how = How {
                    deadline: Some(crate::door::PATIENCE * 3),
                    ..How::default()
                };
                door.spawn(&world.keeper, how, move |txn| async move {
                    let (one, two) = (n % 16, (n * 7 + 3) % 16);
                    let value = txn.get_for_update_as(numbers, &one).await?.unwrap();
                    txn.put(numbers, &one, &(value + 1)).await?;
                    let value = txn.get_for_update_as(numbers, &two).await?.unwrap();
                    Ok(txn.put(numbers, &two, &(value + 1)).await?)
                })
            });
            for task in join_all(tasks.collect::<Vec<_>>()).await {
                task.unwrap().unwrap();
            }
            let sum: u64 = world.committed().await.iter().map(|entry| entry.1).sum();
            assert_eq!(sum, 2 * MANY);
            world.is_idle().await;
        });
    }
}

#[test]
fn i13_a_full_queue_refuses_those_who_do_not_want_to_wait() {
    for door in Door::ALL {
        let world = World::with(|builder| builder.queue(8));
        block_on(async {
            let (gate, numbers) = (Gate::new(), world.numbers);
            let how = How {
                when_full: Some(WhenFull::Refuse),
                ..How::default()
            };
            let inside: Vec<_> = (0..8)
                .map(|n| {
                    let gate = gate.clone();
                    door.spawn(&world.keeper, how, move |txn| {
                        let gate = gate.clone();
                        async move {
                            txn.put(numbers, &n, &n).await?;
                            gate.pass().await;
                            Ok(())
                        }
                    })
                })
                .collect();
            for _ in &inside {
                gate.reached().await;
            }
            let refused = (0..MANY).map(|n| {
                door.spawn(&world.keeper, how, move |txn| async move {
                    Ok(txn.put(numbers, &n, &n).await?)
                })
            });
            for refused in join_all(refused.collect::<Vec<_>>()).await {
                let refused = refused.unwrap();
                assert!(
                    matches!(refused, Err(TxnError::Overloaded { limit: 8 })),
                    "{refused:?}"
                );
            }
            assert_eq!(world.stats().await.overloaded, MANY);
            let waits = door.spawn(&world.keeper, How::default(), move |txn| async move {
                Ok(txn.put(numbers, &9, &9).await?)
            });
            while world.stats().await.waiting == 0 {
                tokio::task::yield_now().await;
            }
            gate.open();
            for one in inside {
                one.await.unwrap().unwrap();
            }
            waits.await.unwrap().unwrap();
            assert_eq!(world.committed().await.len(), 9);
            until(|| world.locks().held.is_empty()).await;
            world.is_idle().await;
        });
    }
}
