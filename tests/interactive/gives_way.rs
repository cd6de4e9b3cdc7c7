//! A first attempt does not wait among others with its locks in the wrong order: it ends, and takes them in order.

use std::sync::{Arc, Mutex};

use lockkeeper::{Begun, LockerInfo, Mode, TxnError, Wait};

use crate::door::{Door, How, World, through_each, until};

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
