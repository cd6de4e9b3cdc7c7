//! Children: transactions inside transactions, each with a fate of its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use lockkeeper::{Isolation, LockError, TxnError};
use tokio::sync::Barrier;

use crate::door::{Door, How, World, all, block_on, on_each_level, through_each, until};

#[derive(Debug, PartialEq)]
struct No;

#[test]
fn a_childs_writes_are_its_parents_when_it_succeeds_and_gone_when_it_fails() {
    on_each_level(|door, how, world| async move {
        world.fill((0..5).map(|n| (n, n))).await;
        let numbers = world.numbers;
        let ran = door.run(&world.keeper, how, move |txn| async move {
            txn.put(numbers, &0, &100).await?;
            let answer = txn.nested(|child| async move {
                assert_eq!(child.get_as(numbers, &0).await?, Some(100), "its parent's");
                child.put(numbers, &1, &101).await?;
                child.delete(numbers, &2).await?;
                Ok::<_, TxnError>(7)
            });
            assert_eq!(answer.await?, 7);
            assert_eq!(txn.get_as(numbers, &1).await?, Some(101));
            let refused = txn.nested(|child| async move {
                child.put(numbers, &0, &999).await?;
                child.clear_range(numbers, &..).await?;
                child.put(numbers, &50, &50).await?;
                assert_eq!(all(child.scan(numbers, &..)).await?, [(50, 50)]);
                Err::<(), _>(TxnError::Abort(No))
            });
            assert!(matches!(refused.await, Err(TxnError::Abort(No))));
            let seen = [(0, 100), (1, 101), (3, 3), (4, 4)];
            assert_eq!(all(txn.scan(numbers, &..)).await?, seen);
            // Dropped before it has begun, and in the middle.
            drop(txn.nested(|_| async { Ok::<_, TxnError>(()) }));
            let mut half = Box::pin(txn.nested(|child| async move {
                child.put(numbers, &3, &999).await?;
                std::future::pending::<Result<(), TxnError>>().await
            }));
            assert!(half.as_mut().now_or_never().is_none());
            drop(half);
            assert_eq!(all(txn.scan(numbers, &..)).await?, seen);
            // A panic that its parent catches.
            let panics = txn.nested(|child| async move {
                child.put(numbers, &4, &999).await?;
                if child.attempt() == 1 {
                    panic!("in a child");
                }
                Ok::<_, TxnError>(())
            });
            assert!(AssertUnwindSafe(panics).catch_unwind().await.is_err());
            assert_eq!(all(txn.scan(numbers, &..)).await?, seen);
            txn.put(numbers, &9, &9).await?;
            Ok(())
        });
        ran.await.unwrap();
        assert_eq!(
            world.committed().await,
            [(0, 100), (1, 101), (3, 3), (4, 4), (9, 9)]
        );
    });
}

#[test]
fn three_levels_end_each_for_themselves() {
    on_each_level(|door, how, world| async move {
        let numbers = world.numbers;
        for (fails, left) in [
            (0, vec![0, 1, 2, 3]),
            (3, vec![0, 1, 2]),
            (2, vec![0, 1]),
            (1, vec![0]),
        ] {
            let ran = door.run(&world.keeper, how, move |txn| async move {
                let fate = move |level| match level == fails {
                    true => Err(TxnError::Abort(No)),
                    false => Ok(()),
                };
                txn.clear_range(numbers, &..).await?;
                txn.put(numbers, &0, &0).await?;
                let _ = txn
                    .nested(|one| async move {
                        one.put(numbers, &1, &1).await?;
                        let _ = one
                            .nested(|two| async move {
                                two.put(numbers, &2, &2).await?;
                                let _ = two
                                    .nested(|three| async move {
                                        three.put(numbers, &3, &3).await?;
                                        assert_eq!(three.count(numbers, &..).await?, 4);
                                        fate(3)
                                    })
                                    .await;
                                fate(2)
                            })
                            .await;
                        fate(1)
                    })
                    .await;
                Ok(())
            });
            ran.await.unwrap();
            let keys: Vec<_> = world
                .committed()
                .await
                .iter()
                .map(|entry| entry.0)
                .collect();
            assert_eq!(keys, left, "{how}", how = fails);
        }
    });
}

#[test]
fn a_childs_locks_pass_up_whether_it_succeeds_or_fails() {
    let world = World::new();
    block_on(async {
        let numbers = world.numbers;
        let txn = world.keeper.begin().name("parent").await.unwrap();
        for (key, fails) in [(1, false), (2, true)] {
            let child = txn.nested(|child| async move {
                child.put(numbers, &key, &key).await?;
                child.get(numbers, &(key + 10)).await?;
                match fails {
                    true => Err(TxnError::Abort(No)),
                    false => Ok(()),
                }
            });
            assert_eq!(child.await.is_err(), fails);
        }
        let locks = world.locks();
        assert_eq!(locks.held.len(), 4);
        assert_eq!(locks.lockers.len(), 1, "the children's are gone");
        assert!(
            locks
                .held
                .iter()
                .all(|held| held.locker == locks.lockers[0].locker)
        );
        // A child may lock what its parent has.
        let child = txn.nested(|child| async move {
            assert_eq!(child.get_for_update_as(numbers, &2).await?, None);
            assert_eq!(child.get_for_update_as(numbers, &1).await?, Some(1));
            Ok::<_, TxnError>(child.put(numbers, &1, &11).await?)
        });
        child.await.unwrap();
        txn.commit().await.unwrap();
        assert_eq!(world.committed().await, [(1, 11)]);
        world.is_idle().await;
    });
}

/// Two transactions whose children take what the other's parent holds, or what the other's child holds.
#[test]
fn a_child_that_loses_a_deadlock_is_undone_and_both_families_end() {
    through_each(|door, world| async move {
        world.fill([(1, 0), (2, 0), (3, 0), (4, 0)]).await;
        let numbers = world.numbers;
        for in_child in [false, true] {
            let barrier = Arc::new(Barrier::new(2));
            let both = [[1, 2], [2, 1]].map(|[first, second]| {
                let barrier = Arc::clone(&barrier);
                door.spawn(&world.keeper, How::default(), move |txn| {
                    let barrier = Arc::clone(&barrier);
                    async move {
                        txn.put(numbers, &(first + 2), &0).await?;
                        if !in_child {
                            txn.put(numbers, &first, &7).await?;
                        }
                        let mut met = txn.attempt() > 1;
                        loop {
                            let (barrier, pass) = (Arc::clone(&barrier), met);
                            met = true;
                            let child = txn.nested(|child| async move {
                                if in_child {
                                    child.put(numbers, &first, &7).await?;
                                }
                                if !pass {
                                    barrier.wait().await;
                                }
                                child.put(numbers, &second, &8).await?;
                                Ok(())
                            });
                            match child.await {
                                Ok(()) => return Ok(child_is_over(&txn, numbers, first).await?),
                                // Only the child may have lost: then it is run again by itself.
                                Err(TxnError::Conflict(LockError::Deadlock(_)))
                                    if txn.savepoint().is_ok() =>
                                {
                                    assert_eq!(txn.get_as(numbers, &(first + 2)).await?, Some(0));
                                }
                                Err(error) => return Err(error),
                            }
                        }
                    }
                })
            });
            for one in both {
                one.await.unwrap().unwrap();
            }
            let there = world.committed().await;
            // The last to commit has written both.
            assert!(
                there[0..2] == [(1, 7), (2, 8)] || there[0..2] == [(1, 8), (2, 7)],
                "{there:?}"
            );
            world.is_idle().await;
        }
    });
}

async fn child_is_over(
    txn: &lockkeeper::Txn,
    numbers: crate::door::Numbers,
    key: u64,
) -> Result<(), lockkeeper::OpError> {
    assert_eq!(txn.get_as(numbers, &key).await?, Some(7));
    Ok(())
}

#[test]
fn a_conflict_of_a_child_that_is_let_out_runs_the_whole_again() {
    through_each(|door, world| async move {
        let numbers = world.numbers;
        let elder = world.keeper.begin().await.unwrap();
        elder.put(numbers, &1, &1).await.unwrap();
        let younger = door.spawn(&world.keeper, How::default(), move |txn| async move {
            txn.put(numbers, &2, &2).await?;
            let child = txn.nested(|child| async move {
                child.put(numbers, &3, &3).await?;
                Ok(child.put(numbers, &1, &2).await?)
            });
            child.await?;
            Ok(txn.attempt())
        });
        until(|| world.waiting() == 1).await;
        elder.put(numbers, &2, &1).await.unwrap();
        elder.commit().await.unwrap();
        assert_eq!(younger.await.unwrap().unwrap(), 2);
        assert_eq!(world.committed().await, [(1, 2), (2, 2), (3, 3)]);
    });
}

#[test]
fn what_a_failed_child_has_read_is_still_compared() {
    let world = World::new();
    block_on(async {
        world.fill([(1, 1)]).await;
        let numbers = world.numbers;
        let txn = world
            .keeper
            .begin()
            .isolation(Isolation::Optimistic)
            .await
            .unwrap();
        let child = txn.nested(|child| async move {
            child.get(numbers, &1).await?;
            Err::<(), _>(TxnError::Abort(No))
        });
        assert!(child.await.is_err());
        txn.put(numbers, &2, &2).await.unwrap();
        let change = Door::Method.run(&world.keeper, How::default(), move |txn| async move {
            Ok(txn.put(numbers, &1, &7).await?)
        });
        change.await.unwrap();
        let committed = txn.commit().await;
        assert!(
            matches!(committed, Err(TxnError::ReadChanged { .. })),
            "{committed:?}"
        );
        assert_eq!(world.committed().await, [(1, 7)]);
        world.is_idle().await;
    });
}
