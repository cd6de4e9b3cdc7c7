//! A first attempt does not wait among others with its locks in the wrong order: it ends, and takes them in order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockkeeper::{
    Begun, HandlerContext, Isolation, LockerInfo, Mode, OpError, Outcome, TxnError, Wait, abort,
};

use crate::door::{Door, How, World, block_on, through_each, until};

/// A transaction by hand that has written the key.
async fn holder(world: &World, key: u64) -> Begun {
    let txn = world.keeper.begin().name("holder").await.unwrap();
    txn.put(world.numbers, &key, &0).await.unwrap();
    txn
}

/// Whoever wants the keys in this order, with what its attempts came to.
fn wants(
    door: Door,
    world: &World,
    keys: [u64; 2],
    seen: &Arc<Mutex<Vec<String>>>,
) -> tokio::task::JoinHandle<Result<u32, TxnError>> {
    let (numbers, seen) = (world.numbers, Arc::clone(seen));
    door.spawn(&world.keeper, How::named("wants"), move |txn| {
        let seen = Arc::clone(&seen);
        async move {
            for key in keys {
                let got = txn.get_for_update_as(numbers, &key).await;
                if let Err(error) = &got {
                    seen.lock().unwrap().push(error.to_string());
                }
                let n = got?.unwrap_or(0);
                txn.put(numbers, &key, &(n + 1)).await?;
            }
            Ok(txn.attempt())
        }
    })
}

#[test]
fn a_first_attempt_out_of_order_among_others_gives_way_and_takes_its_locks_in_order() {
    through_each(|door, world| async move {
        world.fill([(1, 0), (2, 0)]).await;
        let numbers = world.numbers;
        let holder = holder(&world, 1).await;
        let other = world.keeper.begin().name("other").await.unwrap();
        let waits = tokio::spawn(async move {
            other.put(numbers, &1, &10).await?;
            other.commit().await
        });
        until(|| world.waiting() == 1).await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let wants = wants(door, &world, [2, 1], &seen);
        until(|| world.waiting() == 2 && !seen.lock().unwrap().is_empty()).await;
        // It waits for the first in the order, and holds nothing that anybody else may want meanwhile.
        let locker = world.keeper.locks().locker(Default::default()).unwrap();
        let two = world.keeper.object(numbers, &2).unwrap();
        locker.lock(&two, Mode::Write, Wait::No).await.unwrap();
        drop(locker);
        holder.commit().await.unwrap();
        waits.await.unwrap().unwrap();
        assert_eq!(wants.await.unwrap().unwrap(), 2);
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(seen[0].contains("gave way"), "{seen:?}");
        assert_eq!(world.committed().await, [(1, 11), (2, 1)]);
        let stats = world.stats().await;
        assert_eq!((stats.retries, stats.deadlocks_retried), (1, 0));
    });
}

#[test]
fn one_that_holds_what_others_wait_for_gives_way_too() {
    through_each(|door, world| async move {
        world.fill([(1, 0), (2, 0)]).await;
        let numbers = world.numbers;
        let holder = holder(&world, 1).await;
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let passes = Arc::clone(&gate);
        let wants = door.spawn(&world.keeper, How::named("wants"), move |txn| {
            let passes = Arc::clone(&passes);
            async move {
                txn.put(numbers, &2, &2).await?;
                if txn.attempt() == 1 {
                    passes.acquire().await.unwrap().forget();
                }
                txn.put(numbers, &1, &1).await?;
                Ok(txn.attempt())
            }
        });
        until(|| world.locks().held.len() == 2).await;
        let other = world.keeper.begin().name("other").await.unwrap();
        let waits = tokio::spawn(async move {
            other.put(numbers, &2, &20).await?;
            other.commit().await
        });
        until(|| world.waiting() == 1).await;
        gate.add_permits(1);
        // The other goes on, though the holder has not ended.
        waits.await.unwrap().unwrap();
        holder.commit().await.unwrap();
        assert_eq!(wants.await.unwrap().unwrap(), 2);
        assert_eq!(world.committed().await, [(1, 1), (2, 2)]);
    });
}

#[test]
fn whoever_waits_alone_or_in_order_runs_once() {
    through_each(|door, world| async move {
        world.fill([(1, 0), (2, 0)]).await;
        let numbers = world.numbers;
        let seen = Arc::new(Mutex::new(Vec::new()));
        // Alone.
        let first = holder(&world, 1).await;
        let alone = wants(door, &world, [2, 1], &seen);
        until(|| world.waiting() == 1).await;
        first.commit().await.unwrap();
        assert_eq!(alone.await.unwrap().unwrap(), 1);
        // In order, among others.
        let second = holder(&world, 2).await;
        let other = world.keeper.begin().name("other").await.unwrap();
        let waits = tokio::spawn(async move {
            other.put(numbers, &2, &10).await?;
            other.commit().await
        });
        until(|| world.waiting() == 1).await;
        let in_order = wants(door, &world, [1, 2], &seen);
        until(|| world.waiting() == 2).await;
        second.commit().await.unwrap();
        waits.await.unwrap().unwrap();
        assert_eq!(in_order.await.unwrap().unwrap(), 1);
        assert!(seen.lock().unwrap().is_empty());
    });
}

#[test]
fn a_transaction_that_nobody_runs_again_waits_in_any_order() {
    through_each(|_, world| async move {
        world.fill([(1, 0), (2, 0)]).await;
        let numbers = world.numbers;
        let holder = holder(&world, 1).await;
        let wait_for_one = |txn: Begun| {
            tokio::spawn(async move {
                txn.put(numbers, &1, &10).await?;
                txn.commit().await
            })
        };
        let other = world.keeper.begin().await.unwrap();
        let other = wait_for_one(other);
        until(|| world.waiting() == 1).await;
        let by_hand = world.keeper.begin().await.unwrap();
        by_hand.put(numbers, &2, &20).await.unwrap();
        let by_hand = wait_for_one(by_hand);
        until(|| world.waiting() == 2).await;
        holder.commit().await.unwrap();
        other.await.unwrap().unwrap();
        by_hand.await.unwrap().unwrap();
        assert_eq!(world.committed().await, [(1, 10), (2, 20)]);
    });
}

#[test]
fn the_victim_of_a_deadlock_begins_again_with_its_locks_in_order() {
    through_each(|door, world| async move {
        world.fill([(1, 0), (2, 0)]).await;
        let numbers = world.numbers;
        let elder = world.keeper.begin().name("elder").await.unwrap();
        elder.put(numbers, &1, &1).await.unwrap();
        let held = Arc::new(Mutex::new(Vec::new()));
        let (keeper, seen) = (world.keeper.clone(), Arc::clone(&held));
        let victim = door.spawn(&world.keeper, How::named("victim"), move |txn| {
            // What it holds before it has asked for anything.
            let locks = keeper.locks().snapshot();
            let is_victim = |of: &&LockerInfo| {
                let name = of.name.as_ref();
                name.is_some_and(|name| name.to_string() == "victim")
            };
            let victim = locks.lockers.iter().find(is_victim).unwrap().locker;
            let own = locks.held.iter().filter(|lock| lock.locker == victim);
            seen.lock().unwrap().push(own.count());
            async move {
                txn.put(numbers, &2, &2).await?;
                txn.put(numbers, &1, &2).await?;
                Ok(())
            }
        });
        until(|| world.waiting() == 1).await;
        elder.put(numbers, &2, &1).await.unwrap();
        elder.commit().await.unwrap();
        victim.await.unwrap().unwrap();
        assert_eq!(*held.lock().unwrap(), [0, 2]);
        assert_eq!(world.committed().await, [(1, 2), (2, 2)]);
    });
}

/// Two who hold and want record 1, and whoever has record 2 and asks for it: out of order, among others.
async fn among_others<T: Send + 'static>(
    door: Door,
    world: &World,
    how: How,
    told: impl Fn(OpError) -> Result<T, TxnError<String>> + Clone + Send + 'static,
    end: impl Fn(u32) -> T + Clone + Send + 'static,
) -> Result<T, TxnError<String>> {
    world.fill([(1, 0), (2, 0)]).await;
    let numbers = world.numbers;
    let holder = holder(world, 1).await;
    let other = world.keeper.begin().name("other").await.unwrap();
    let waits = tokio::spawn(async move {
        other.put(numbers, &1, &10).await?;
        other.commit().await
    });
    until(|| world.waiting() == 1).await;
    let keeper = world.keeper.clone();
    let wants = tokio::spawn(async move {
        let run = door.try_run(&keeper, how, move |txn| {
            let (told, end) = (told.clone(), end.clone());
            async move {
                txn.put(numbers, &2, &2).await?;
                match txn.put(numbers, &1, &2).await {
                    Ok(()) => Ok(end(txn.attempt())),
                    Err(error) => told(error),
                }
            }
        });
        run.await
    });
    until(|| world.waiting() == 2).await;
    holder.commit().await.unwrap();
    waits.await.unwrap().unwrap();
    wants.await.unwrap()
}

#[test]
fn whatever_the_closure_makes_of_it_a_caller_never_sees_that_it_gave_way() {
    through_each(|door, world| async move {
        let say = |error: OpError| Err(abort(format!("mine: {error}")));
        let answer = among_others(door, &world, How::named("says"), say, |n| n).await;
        assert_eq!(answer.unwrap(), 2);
        let panic = |error: OpError| panic!("{error}");
        let answer = among_others(door, &world, How::named("panics"), panic, |n| n).await;
        assert_eq!(answer.unwrap(), 2);
        let swallow = |_: OpError| Ok(0);
        let answer = among_others(door, &world, How::named("swallows"), swallow, |n| n).await;
        assert_eq!(answer.unwrap(), 2);
    });
}

#[test]
fn without_a_second_attempt_or_out_of_a_snapshot_it_waits() {
    let once = How {
        retries: Some(1),
        ..How::named("once")
    };
    let snapshot = How {
        isolation: Isolation::Snapshot,
        retries: Some(1),
        ..How::named("snapshot")
    };
    through_each(|door, world| async move {
        let answer = among_others(door, &world, once, |error| Err(error.into()), |n| n).await;
        assert_eq!(answer.unwrap(), 1);
        // The others have written what it wants to write: the first to commit wins.
        let answer = among_others(door, &world, snapshot, |error| Err(error.into()), |n| n).await;
        let Err(TxnError::RetriesExhausted { attempts, .. }) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(attempts, 1);
    });
}

#[test]
fn a_handler_that_passes_everything_on_changes_nothing_about_what_is_run_again() {
    for door in Door::ALL {
        block_on(async {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let sees = Arc::clone(&seen);
            let world = World::with(|builder| {
                builder.handler(move |_: &mut HandlerContext, outcome: Outcome| {
                    sees.lock().unwrap().push(format!("{outcome:?}"));
                    outcome
                })
            });
            let how = How::named("wants");
            let answer = among_others(door, &world, how, |error| Err(error.into()), |n| n).await;
            assert_eq!(answer.unwrap(), 2);
            let seen = seen.lock().unwrap().join("\n");
            assert!(!seen.contains("GaveWay"), "{seen}");
            // A lost re-check is run again, too.
            let (numbers, keeper) = (world.numbers, world.keeper.clone());
            let answer = door.run(&world.keeper, How::named("rechecked"), move |txn| {
                let keeper = keeper.clone();
                async move {
                    let n = txn.get_as(numbers, &1).await?.unwrap_or(0);
                    if txn.attempt() == 1 {
                        let outside = async move {
                            keeper.update(move |t| Ok(numbers.put(t, &1, &70)?)).await
                        };
                        tokio::spawn(outside).await.unwrap().unwrap();
                    }
                    txn.put(numbers, &2, &(n + 1)).await?;
                    Ok(txn.attempt())
                }
            });
            assert_eq!(answer.await.unwrap(), 2);
            assert_eq!(world.committed().await, [(1, 70), (2, 71)]);
        });
    }
}

#[test]
fn a_lock_that_is_not_needed_any_more_is_not_waited_for_again_and_again() {
    through_each(|door, world| async move {
        world.fill([(1, 0), (2, 0), (3, 0)]).await;
        let numbers = world.numbers;
        let first = holder(&world, 1).await;
        let other = world.keeper.begin().name("other").await.unwrap();
        let waits = tokio::spawn(async move {
            other.put(numbers, &1, &10).await?;
            Ok::<_, OpError>(other)
        });
        until(|| world.waiting() == 1).await;
        let how = How {
            lock_timeout: Some(Duration::from_millis(30)),
            ..How::named("wants")
        };
        let wants = door.spawn(&world.keeper, how, move |txn| async move {
            txn.put(numbers, &2, &2).await?;
            // Only the first time.
            if txn.attempt() == 1 {
                txn.put(numbers, &1, &2).await?;
            }
            Ok(txn.attempt())
        });
        // Record 1 stays locked all the while.
        let attempts = wants.await.unwrap().unwrap();
        assert_eq!(attempts, 3, "one gave way, one waited in vain");
        first.commit().await.unwrap();
        waits.await.unwrap().unwrap().abort();
        world.is_idle().await;
    });
}
