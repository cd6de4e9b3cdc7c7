//! I12 and I4: wherever a future is dropped nothing is left, and locks go only when the commit has returned.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use lockkeeper::{SetMapSize, Txn, TxnError};

use crate::door::{Door, How, LEVELS, Numbers, World, block_on, until};
use crate::stage::{Disk, on_stage};

/// Polls it when it is woken, at most `most` times, and drops it then.
async fn polled<F: Future>(future: F, most: u32) -> Option<F::Output> {
    let (mut future, mut polls) = (Box::pin(future), 0);
    poll_fn(|context| {
        if polls == most {
            return Poll::Ready(None);
        }
        polls += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == most => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Some of everything, with awaits in between.
async fn body(txn: &Txn, numbers: Numbers, value: u64) -> Result<(), TxnError> {
    let pause = tokio::task::yield_now;
    txn.get(numbers, &1).await?;
    pause().await;
    txn.put(numbers, &1, &value).await?;
    txn.get_for_update(numbers, &2).await?;
    pause().await;
    txn.put(numbers, &2, &value).await?;
    let mut scan = txn.scan(numbers, &(1..100));
    while scan.next().await?.is_some() {
        pause().await;
    }
    let child = txn.nested(|child| async move {
        child.put(numbers, &3, &value).await?;
        pause().await;
        let grandchild = child.nested(|child| async move {
            pause().await;
            child.put(numbers, &4, &value).await?;
            Ok::<_, TxnError>(())
        });
        grandchild.await?;
        pause().await;
        Ok::<_, TxnError>(())
    });
    child.await?;
    pause().await;
    txn.clear_range(numbers, &(50..60)).await?;
    Ok(())
}

/// All of one value, or nothing at all.
async fn all_or_nothing(world: &World) -> Option<u64> {
    let there = world.committed().await;
    let value = there.first().map(|entry| entry.1);
    match value {
        Some(value) => assert_eq!(there, [(1, value), (2, value), (3, value), (4, value)]),
        None => assert_eq!(there, []),
    }
    value
}

fn run(
    world: &World,
    door: Door,
    how: How,
    value: u64,
) -> impl Future<Output = Result<(), TxnError>> + use<> {
    let (world, numbers) = (world.clone(), world.numbers);
    async move {
        let run = door.run(&world.keeper, how, move |txn| async move {
            body(&txn, numbers, value).await
        });
        run.await
    }
}

fn by_hand(
    world: &World,
    how: How,
    value: u64,
) -> impl Future<Output = Result<(), TxnError>> + use<> {
    let (world, numbers) = (world.clone(), world.numbers);
    async move {
        let txn = world.keeper.begin().isolation(how.isolation).await?;
        body(&txn, numbers, value).await?;
        txn.commit().await
    }
}

/// Everything is there for those who come now.
async fn is_whole(world: &World) {
    world.is_idle().await;
    let stats = world.keeper.stats().await;
    assert!(
        stats.environment.readers <= 8,
        "{} slots",
        stats.environment.readers
    );
    world.keeper.send(SetMapSize(128 << 20)).await.unwrap();
}

#[test]
fn i12_dropped_at_each_await_it_leaves_nothing_and_is_applied_as_a_whole_or_not_at_all() {
    for isolation in LEVELS {
        let how = How::level(isolation);
        for door in Door::ALL {
            let world = World::with(|builder| builder.queue(4));
            block_on(async {
                let mut done = None;
                for polls in 0..1000 {
                    let value = u64::from(polls);
                    done = polled(run(&world, door, how, value), polls).await;
                    world.is_idle().await;
                    all_or_nothing(&world).await;
                    if done.is_some() {
                        assert_eq!(all_or_nothing(&world).await, Some(value));
                        break;
                    }
                }
                done.expect("it ends some time").unwrap();
                is_whole(&world).await;
            });
        }
        let world = World::with(|builder| builder.queue(4));
        block_on(async {
            for polls in 0.. {
                let done = polled(by_hand(&world, how, 7), polls).await;
                world.is_idle().await;
                let there = all_or_nothing(&world).await;
                if let Some(done) = done {
                    done.unwrap();
                    assert_eq!(there, Some(7));
                    break;
                }
            }
            is_whole(&world).await;
        });
    }
}

#[test]
fn i12_dropped_while_others_are_in_its_way_it_leaves_nothing() {
    for door in Door::ALL {
        let world = World::with(|builder| builder.queue(4));
        block_on(async {
            let stop = Arc::new(AtomicBool::new(false));
            let others = [5, 6].map(|value| {
                let (world, stop) = (world.clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        run(&world, Door::Method, How::default(), value)
                            .await
                            .unwrap();
                    }
                })
            });
            for polls in 0..60 {
                let _ = polled(run(&world, door, How::default(), 7), polls).await;
                let _ = polled(by_hand(&world, How::default(), 8), polls).await;
                all_or_nothing(&world).await;
            }
            stop.store(true, Ordering::Relaxed);
            for other in others {
                other.await.unwrap();
            }
            is_whole(&world).await;
        });
    }
}

#[test]
fn i12_dropped_while_it_waits_for_a_lock_a_place_or_its_next_attempt_it_leaves_nothing() {
    for door in Door::ALL {
        let world = World::with(|builder| builder.queue(2));
        block_on(async {
            let numbers = world.numbers;
            let holder = world.keeper.begin().await.unwrap();
            holder.put(numbers, &2, &2).await.unwrap();
            let waits = tokio::spawn(run(&world, door, How::default(), 1));
            until(|| world.waiting() == 1).await;
            let queued = tokio::spawn(run(&world, door, How::default(), 1));
            until_waiting(&world, 1).await;
            queued.abort();
            until_waiting(&world, 0).await;
            waits.abort();
            // First its wait ends, and then what it holds is released.
            until(|| world.waiting() == 0 && world.locks().held.len() == 1).await;
            // A victim that waits until the elder has ended.
            let victim = door.spawn(&world.keeper, How::default(), move |txn| async move {
                txn.put(numbers, &1, &1).await?;
                txn.put(numbers, &2, &1).await?;
                Ok(())
            });
            until(|| world.waiting() == 1).await;
            holder.put(numbers, &1, &2).await.unwrap();
            assert!(!victim.is_finished());
            victim.abort();
            holder.abort();
            assert!(victim.await.unwrap_err().is_cancelled());
            is_whole(&world).await;
            assert_eq!(all_or_nothing(&world).await, None);
        });
    }
}

async fn until_waiting(world: &World, count: usize) {
    while world.stats().await.waiting != count {
        tokio::task::yield_now().await;
    }
}

#[test]
fn i04_its_locks_stay_until_the_flush_has_returned_whoever_still_waits() {
    let name = "dropped::i04_its_locks_stay_until_the_flush_has_returned_whoever_still_waits";
    let Some(stage) = on_stage(name) else { return };
    // Message and address are the same from here on.
    for (nth, door) in [Some(Door::Method), Some(Door::Message), None]
        .into_iter()
        .enumerate()
    {
        let folder = stage.folder.join(nth.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let world = World::with(|builder| builder.path(folder));
        block_on(async {
            // The keeper makes its own database at the first commit, in a commit of its own.
            let first = run(&world, Door::Method, How::default(), 1);
            first.await.unwrap();
            world.is_idle().await;
            let numbers = world.numbers;
            for drops in [true, false] {
                let value = 70 + u64::from(drops);
                stage.tell(Disk::HoldFlush);
                let running = match door {
                    Some(door) => tokio::spawn(run(&world, door, How::default(), value)),
                    None => tokio::spawn(by_hand(&world, How::default(), value)),
                };
                until(|| stage.is_held()).await;
                let held = world.locks().held.len();
                assert!(held >= 4, "{held}");
                if drops {
                    running.abort();
                }
                let waits =
                    Door::Method.spawn(&world.keeper, How::default(), move |txn| async move {
                        Ok(txn.get_for_update_as(numbers, &1).await?)
                    });
                until(|| world.waiting() == 1).await;
                // Who drops a task drops its future a moment later.
                for _ in 0..50 {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                    assert_eq!(world.locks().held.len(), held);
                    assert!(!waits.is_finished());
                    assert!(drops || !running.is_finished());
                }
                assert_ne!(
                    world.number(1).await,
                    Some(value),
                    "nothing is seen before the flush"
                );
                stage.heal(Disk::HoldFlush);
                assert_eq!(waits.await.unwrap().unwrap(), Some(value));
                match running.await {
                    Ok(done) => done.unwrap(),
                    Err(error) => assert!(drops && error.is_cancelled()),
                }
                world.is_idle().await;
                assert_eq!(all_or_nothing(&world).await, Some(value));
            }
        });
    }
}

#[test]
fn i12_dropped_at_each_await_with_a_slow_flush_it_leaves_nothing() {
    let name = "dropped::i12_dropped_at_each_await_with_a_slow_flush_it_leaves_nothing";
    let Some(stage) = on_stage(name) else { return };
    for (nth, door) in [Some(Door::Method), Some(Door::Message), None]
        .into_iter()
        .enumerate()
    {
        let folder = stage.folder.join(nth.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let world = World::with(|builder| builder.path(folder));
        block_on(async {
            // The keeper makes its own database at the first commit, in a commit of its own.
            let first = run(&world, Door::Method, How::default(), 1);
            first.await.unwrap();
            world.is_idle().await;
            for polls in 1..1000 {
                let value = u64::from(polls) + 1;
                stage.tell(Disk::HoldFlush);
                let running = async {
                    match door {
                        Some(door) => polled(run(&world, door, How::default(), value), polls).await,
                        None => polled(by_hand(&world, How::default(), value), polls).await,
                    }
                };
                // Dropped in the flush, if it comes so far.
                let in_flush = tokio::select! {
                    _ = running => false,
                    () = until(|| stage.is_held()) => true,
                };
                if in_flush {
                    assert!(world.locks().held.len() >= 4);
                }
                stage.heal(Disk::HoldFlush);
                world.is_idle().await;
                let there = all_or_nothing(&world).await;
                if in_flush {
                    assert_eq!(there, Some(value));
                    return;
                }
            }
            panic!("it never comes to its flush");
        });
    }
}
