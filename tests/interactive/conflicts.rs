//! Deadlocks and timeouts: whoever loses is run again, with its seniority, within its budget and its deadline.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lockkeeper::{Begun, ErrorClass, Isolation, LockError, Stage, TxnError};
use tokio::sync::Barrier;

use crate::door::{Door, Gate, How, PATIENCE, World, block_on, through_each, until};

/// Whoever takes `first`, meets the other at the barrier in the first attempt, and takes `second`.
fn crossing(
    door: Door,
    world: &World,
    how: How,
    [first, second]: [u64; 2],
    barrier: &Arc<Barrier>,
    attempts: &Arc<AtomicU32>,
) -> tokio::task::JoinHandle<Result<(), TxnError>> {
    let (numbers, barrier, attempts) = (world.numbers, Arc::clone(barrier), Arc::clone(attempts));
    door.spawn(&world.keeper, how, move |txn| {
        let barrier = Arc::clone(&barrier);
        attempts.fetch_add(1, Ordering::SeqCst);
        async move {
            let n = txn.get_for_update_as(numbers, &first).await?.unwrap();
            txn.put(numbers, &first, &(n + 1)).await?;
            if txn.attempt() == 1 {
                barrier.wait().await;
            }
            let n = txn.get_for_update_as(numbers, &second).await?.unwrap();
            txn.put(numbers, &second, &(n + 1)).await?;
            Ok(())
        }
    })
}

#[test]
fn two_that_deadlock_both_commit_and_one_of_them_ran_again() {
    through_each(|door, world| async move {
        world.fill([(1, 0), (2, 0)]).await;
        for round in 1..=20 {
            let barrier = Arc::new(Barrier::new(2));
            let attempts = Arc::new(AtomicU32::new(0));
            let how = How::named("crossing");
            let one = crossing(door, &world, how, [1, 2], &barrier, &attempts);
            let two = crossing(door, &world, how, [2, 1], &barrier, &attempts);
            one.await.unwrap().unwrap();
            two.await.unwrap().unwrap();
            assert_eq!(attempts.load(Ordering::SeqCst), 3);
            assert_eq!(world.committed().await, [(1, round * 2), (2, round * 2)]);
            let stats = world.stats().await;
            assert_eq!((stats.retries, stats.deadlocks_retried), (round, round));
        }
    });
}

#[test]
fn i08_the_locks_of_a_victim_are_gone_before_it_stands_back_and_it_keeps_its_age() {
    through_each(|door, world| async move {
        world.fill([(1, 0), (2, 0), (3, 0)]).await;
        let numbers = world.numbers;
        // The elder closes the cycle; the younger has to give way, and may not begin again before the elder has ended.
        let elder = world.keeper.begin().name("elder").await.unwrap();
        elder.put(numbers, &1, &1).await.unwrap();
        let ages = Arc::new(Mutex::new(Vec::new()));
        let (seen, keeper) = (Arc::clone(&ages), world.keeper.clone());
        let younger = door.spawn(&world.keeper, How::named("younger"), move |txn| {
            let locks = keeper.locks().snapshot();
            let age = locks.lockers.iter().filter(|of| {
                of.name
                    .as_ref()
                    .is_some_and(|name| name.to_string() == "younger")
            });
            seen.lock().unwrap().extend(age.map(|of| of.age));
            async move {
                txn.put(numbers, &2, &2).await?;
                txn.put(numbers, &3, &3).await?;
                txn.put(numbers, &1, &2).await?;
                Ok(txn.attempt())
            }
        });
        until(|| world.waiting() == 1).await;
        elder.put(numbers, &2, &1).await.unwrap();
        // The victim holds nothing, and has not begun again.
        let locks = world.locks();
        assert_eq!(locks.held.len(), 2, "{locks:?}");
        assert!(locks.waiting.is_empty());
        tokio::task::yield_now().await;
        assert_eq!(
            ages.lock().unwrap().len(),
            1,
            "it waits for the elder's end"
        );
        elder.commit().await.unwrap();
        assert_eq!(younger.await.unwrap().unwrap(), 2);
        let ages = ages.lock().unwrap().clone();
        assert_eq!(ages.len(), 2);
        assert_eq!(ages[0], ages[1]);
        assert_eq!(world.committed().await, [(1, 2), (2, 2), (3, 3)]);
    });
}

#[test]
fn two_that_read_before_they_write_deadlock_over_one_record_and_both_commit() {
    through_each(|door, world| async move {
        world.fill([(1, 0)]).await;
        let (barrier, numbers) = (Arc::new(Barrier::new(2)), world.numbers);
        let adds = [3, 5].map(|add| {
            let barrier = Arc::clone(&barrier);
            door.spawn(&world.keeper, How::default(), move |txn| {
                let barrier = Arc::clone(&barrier);
                async move {
                    let n = txn.get_as(numbers, &1).await?.unwrap();
                    if txn.attempt() == 1 {
                        barrier.wait().await;
                    }
                    Ok(txn.put(numbers, &1, &(n + add)).await?)
                }
            })
        });
        for add in adds {
            add.await.unwrap().unwrap();
        }
        assert_eq!(world.number(1).await, Some(8));
        assert_eq!(world.stats().await.deadlocks_retried, 1);
    });
}

#[test]
fn a_lower_priority_gives_way_whoever_closes_the_cycle() {
    through_each(|door, world| async move {
        world.fill([(1, 0), (2, 0)]).await;
        for [low, high] in [[1, 2], [2, 1]] {
            let barrier = Arc::new(Barrier::new(2));
            let attempts = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
            let how = |priority| How {
                priority: Some(priority),
                ..How::default()
            };
            let one = crossing(door, &world, how(1), [low, high], &barrier, &attempts[0]);
            let two = crossing(door, &world, how(500), [high, low], &barrier, &attempts[1]);
            one.await.unwrap().unwrap();
            two.await.unwrap().unwrap();
            let ran = attempts.map(|attempts| attempts.load(Ordering::SeqCst));
            assert_eq!(ran, [2, 1]);
        }
    });
}

async fn holding(world: &World, key: u64) -> Begun {
    let holder = world.keeper.begin().name("holder").await.unwrap();
    holder.put(world.numbers, &key, &0).await.unwrap();
    holder
}

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_lock_timeout_is_retried_and_given_up_within_the_budget() {
    through_each(|door, world| async move {
        let (holder, numbers) = (holding(&world, 1).await, world.numbers);
        let attempts = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&attempts);
        let how = How {
            lock_timeout: Some(SHORT),
            retries: Some(3),
            ..How::default()
        };
        let given_up = door.run(&world.keeper, how, move |txn| {
            count.fetch_add(1, Ordering::SeqCst);
            async move { Ok(txn.get(numbers, &1).await?.is_some()) }
        });
        match given_up.await {
            Err(TxnError::RetriesExhausted {
                attempts: 3, last, ..
            }) => {
                let TxnError::Conflict(LockError::LockTimeout(conflict)) = *last else {
                    panic!("{last:?}");
                };
                assert_eq!(conflict.timeout, Some(SHORT));
                assert_eq!(
                    conflict.owners[0].name.as_ref().unwrap().to_string(),
                    "holder"
                );
                assert!(conflict.asker.site.file().ends_with("conflicts.rs"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(attempts.load(Ordering::SeqCst), 3);
        drop(holder);
    });
}

#[test]
fn a_timeout_that_is_not_to_be_retried_is_the_answer() {
    through_each(|door, world| async move {
        let (holder, numbers) = (holding(&world, 1).await, world.numbers);
        for of_txn in [false, true] {
            let how = How {
                lock_timeout: (!of_txn).then_some(SHORT),
                txn_timeout: of_txn.then_some(SHORT),
                retry_timeouts: Some(false),
                ..How::default()
            };
            let answer = door.run(&world.keeper, how, move |txn| async move {
                txn.put(numbers, &7, &7).await?;
                txn.put(numbers, &1, &1).await?;
                Ok(())
            });
            let error = answer.await.unwrap_err();
            match (&error, of_txn) {
                (TxnError::Conflict(LockError::LockTimeout(_)), false)
                | (TxnError::Conflict(LockError::TransactionTimeout(_)), true) => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(error.class(), ErrorClass::Conflict);
        }
        assert_eq!(world.stats().await.retries, 0);
        drop(holder);
        assert_eq!(world.number(7).await, None);
    });
}

#[test]
fn a_child_waits_no_longer_for_a_lock_than_its_transaction_does() {
    through_each(|door, world| async move {
        let (holder, numbers) = (holding(&world, 1).await, world.numbers);
        for of_txn in [false, true] {
            let how = How {
                lock_timeout: (!of_txn).then_some(SHORT),
                txn_timeout: of_txn.then_some(SHORT),
                retry_timeouts: Some(false),
                deadline: Some(Duration::from_secs(3)),
                ..How::default()
            };
            let answer = door.run(&world.keeper, how, move |txn| async move {
                txn.nested(|child| async move { Ok(child.put(numbers, &1, &1).await?) })
                    .await
            });
            let error = answer.await.unwrap_err();
            match (&error, of_txn) {
                (TxnError::Conflict(LockError::LockTimeout(conflict)), false)
                | (TxnError::Conflict(LockError::TransactionTimeout(conflict)), true) => {
                    assert_eq!(conflict.timeout, Some(SHORT));
                }
                other => panic!("{other:?}"),
            }
        }
        drop(holder);
    });
}

#[test]
fn at_the_deadline_it_is_answered_wherever_it_is() {
    through_each(|door, world| async move {
        let (holder, numbers) = (holding(&world, 1).await, world.numbers);
        let span = Duration::from_secs(1);
        let how = How {
            deadline: Some(span),
            ..How::default()
        };
        let began = Instant::now();
        let late = door.run(&world.keeper, how, move |txn| async move {
            txn.put(numbers, &5, &5).await?;
            txn.put(numbers, &1, &1).await?;
            Ok(())
        });
        let stage = |answer| match answer {
            Err(TxnError::DeadlineExceeded { deadline, stage }) => {
                assert_eq!(deadline, span);
                stage
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(stage(late.await), Stage::WaitedForLocks);
        // In something else that it waits for.
        let late = door.run(&world.keeper, how, move |txn| async move {
            txn.put(numbers, &5, &5).await?;
            std::future::pending::<()>().await;
            Ok(())
        });
        assert_eq!(stage(late.await), Stage::Ran);
        // Between two attempts: the elder of its cycle does not end.
        holder.put(numbers, &2, &2).await.unwrap();
        let victim = door.spawn(&world.keeper, how, move |txn| async move {
            txn.put(numbers, &5, &5).await?;
            txn.put(numbers, &1, &1).await?;
            Ok(())
        });
        until(|| world.waiting() == 1 || victim.is_finished()).await;
        if holder.put(numbers, &5, &1).await.is_ok() {
            assert!(matches!(
                stage(victim.await.unwrap()),
                Stage::BackedOff | Stage::WaitedForLocks
            ));
        }
        assert!(began.elapsed() < PATIENCE);
        drop(holder);
        assert_eq!(world.committed().await, []);
    });
}

#[test]
fn a_lost_comparison_is_run_again_and_given_up_within_the_budget() {
    through_each(|door, world| async move {
        world.fill([(1, 0)]).await;
        let (numbers, other) = (world.numbers, world.clone());
        let add = move |rounds: u32| {
            let other = other.clone();
            move |txn: lockkeeper::Txn| {
                let other = other.clone();
                async move {
                    let n = txn.get_as(numbers, &1).await?.unwrap();
                    if txn.attempt() <= rounds {
                        let keeper = other.keeper.clone();
                        // Another task: a transaction inside of this one would be refused.
                        let outside = Door::Method.spawn(
                            &keeper,
                            How::level(Isolation::Optimistic),
                            move |txn| async move {
                                let n = txn.get_as(numbers, &1).await?.unwrap();
                                Ok(txn.put(numbers, &1, &(n + 100)).await?)
                            },
                        );
                        outside.await.unwrap()?;
                    }
                    txn.put(numbers, &1, &(n + 1)).await?;
                    Ok(txn.attempt())
                }
            }
        };
        let how = How {
            retries: Some(5),
            ..How::level(Isolation::Optimistic)
        };
        assert_eq!(door.run(&world.keeper, how, add(4)).await.unwrap(), 5);
        assert_eq!(world.number(1).await, Some(401));
        match door.run(&world.keeper, how, add(9)).await {
            Err(TxnError::RetriesExhausted {
                attempts: 5, last, ..
            }) => {
                assert!(matches!(*last, TxnError::ReadChanged { .. }), "{last:?}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(world.number(1).await, Some(901));
    });
}

#[test]
fn a_domain_error_is_never_retried_and_undoes_everything() {
    #[derive(Debug, PartialEq)]
    struct SoldOut(u64);
    through_each(|door, world| async move {
        world.fill([(1, 0)]).await;
        let numbers = world.numbers;
        let refused = door.try_run(&world.keeper, How::default(), move |txn| async move {
            let left = txn.get_for_update_as(numbers, &1).await?.unwrap();
            txn.put(numbers, &2, &2).await?;
            Err::<(), _>(lockkeeper::abort(SoldOut(left)))
        });
        match refused.await {
            Err(TxnError::Abort(SoldOut(0))) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(world.committed().await, [(1, 0)]);
        let stats = world.stats().await;
        assert_eq!((stats.aborted, stats.retries), (1, 0));
    });
}

#[test]
fn operations_of_one_transaction_may_be_under_way_together() {
    let world = World::new();
    block_on(async {
        world.fill([(1, 10), (2, 20), (3, 30)]).await;
        let (numbers, gate) = (world.numbers, Gate::new());
        let (one, two) = (holding(&world, 1).await, holding(&world, 2).await);
        let inside = gate.clone();
        let both = Door::Method.spawn(&world.keeper, How::default(), move |txn| {
            let inside = inside.clone();
            async move {
                inside.pass().await;
                let (one, two, three) = tokio::join!(
                    txn.get_as(numbers, &1),
                    txn.get_as(numbers, &2),
                    txn.get_as(numbers, &3),
                );
                Ok((one?, two?, three?))
            }
        });
        gate.open();
        until(|| world.waiting() >= 1).await;
        one.abort();
        two.abort();
        assert_eq!(both.await.unwrap().unwrap(), (Some(10), Some(20), Some(30)));
        world.is_idle().await;
    });
}
