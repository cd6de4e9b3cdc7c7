//! What cannot work is an error that says so, and loses nothing.

use std::sync::{Arc, Mutex};

use lockkeeper::{ErrorClass, Isolation, OpError, RunTxn, Txn, TxnError};

use crate::door::{Door, Gate, How, World, all, block_on, on_each_level, through_each, until};

#[track_caller]
fn ended<T>(answer: Result<T, OpError>) {
    let Err(error) = answer else {
        panic!("a transaction that has ended has answered");
    };
    assert!(
        matches!(error.error(), TxnError::TransactionEnded),
        "{error:?}"
    );
    assert_eq!(error.class(), ErrorClass::Usage);
}

async fn is_ended(world: &World, txn: &Txn) {
    let numbers = world.numbers;
    ended(txn.get(numbers, &1).await);
    ended(txn.get_for_update(numbers, &2).await);
    ended(txn.put(numbers, &3, &3).await);
    ended(txn.put_if_absent(numbers, &4, &4).await);
    ended(txn.delete(numbers, &1).await);
    ended(txn.count(numbers, &..).await);
    ended(txn.clear_range(numbers, &..).await);
    ended(txn.scan(numbers, &..).next().await);
    ended(txn.savepoint());
    let child: Result<(), TxnError> = txn.nested(|_| async { Ok(()) }).await;
    ended(child.map_err(OpError::from));
}

#[test]
fn a_handle_that_is_used_after_the_end_says_so() {
    on_each_level(|door, how, world| async move {
        world.fill([(1, 1), (5, 5)]).await;
        let numbers = world.numbers;
        for fails in [false, true] {
            let kept = Arc::new(Mutex::new(None));
            let keep = Arc::clone(&kept);
            let ran = door.run(&world.keeper, how, move |txn| {
                let keep = Arc::clone(&keep);
                async move {
                    let mut scan = txn.scan(numbers, &..);
                    scan.next().await?;
                    txn.put(numbers, &7, &7).await?;
                    *keep.lock().unwrap() = Some((txn, scan));
                    match fails {
                        true => Err(TxnError::ShuttingDown),
                        false => Ok(()),
                    }
                }
            });
            assert_eq!(ran.await.is_err(), fails);
            let (txn, mut scan) = kept.lock().unwrap().take().unwrap();
            ended(scan.next().await);
            is_ended(&world, &txn).await;
            assert!(world.locks().held.is_empty());
        }
        assert_eq!(world.committed().await.len(), 3);
    });
}

#[test]
fn an_operation_that_waits_when_its_transaction_ends_says_that_it_has_ended() {
    through_each(|door, world| async move {
        let numbers = world.numbers;
        let holder = world.keeper.begin().await.unwrap();
        holder.put(numbers, &1, &1).await.unwrap();
        for commits in [false, true] {
            let task = Arc::new(Mutex::new(None));
            let (keep, keeper) = (Arc::clone(&task), world.keeper.clone());
            let ran = door.run(&world.keeper, How::default(), move |txn| {
                let (keep, keeper) = (Arc::clone(&keep), keeper.clone());
                async move {
                    txn.put(numbers, &7, &7).await?;
                    let other = txn.clone();
                    let waits = std::thread::spawn(move || {
                        block_on(async move { other.put(numbers, &1, &2).await })
                    });
                    *keep.lock().unwrap() = Some(waits);
                    until(|| keeper.locks().stats().waiting == 1).await;
                    match commits {
                        true => Ok(()),
                        false => Err(TxnError::ShuttingDown),
                    }
                }
            });
            assert_eq!(ran.await.is_ok(), commits);
            let waits = task.lock().unwrap().take().unwrap();
            ended(waits.join().unwrap());
            until(|| world.waiting() == 0).await;
        }
        holder.abort();
        assert_eq!(world.committed().await, [(7, 7)]);
    });
}

#[test]
fn a_parent_says_that_its_child_is_open_and_loses_nothing() {
    on_each_level(|door, how, world| async move {
        world.fill((0..40).map(|n| (n, n))).await;
        let numbers = world.numbers;
        let ran = door.run(&world.keeper, how, move |txn| async move {
            txn.put(numbers, &1, &11).await?;
            let point = txn.savepoint()?;
            let mut scan = txn.scan(numbers, &..);
            scan.next().await?;
            let parent = &txn;
            let (point_inside, scan_inside) = (&point, &mut scan);
            let child: Result<(), TxnError> = txn
                .nested(|child| async move {
                    child.put(numbers, &2, &22).await?;
                    let answers = [
                        parent.get(numbers, &1).await.map(drop),
                        parent.put(numbers, &3, &3).await,
                        parent.delete(numbers, &1).await.map(drop),
                        parent.count(numbers, &..).await.map(drop),
                        parent.clear_range(numbers, &..).await,
                        parent.scan(numbers, &..).next().await.map(drop),
                        parent.savepoint().map(drop),
                        parent.rollback_to(point_inside),
                        parent.release(point_inside.clone()),
                        scan_inside.next().await.map(drop),
                        parent
                            .nested(|_| async { Ok(()) })
                            .await
                            .map_err(OpError::from),
                    ];
                    for answer in answers {
                        let error = answer.unwrap_err();
                        assert!(matches!(error.error(), TxnError::ChildOpen), "{error:?}");
                        assert_eq!(error.class(), ErrorClass::Usage);
                    }
                    Ok(())
                })
                .await;
            child?;
            // Everything is as it was, with the child's write.
            let mut rest = crate::door::rest(&mut scan).await?;
            assert_eq!(rest.remove(0), (1, 11));
            assert_eq!(rest.remove(0), (2, 22));
            assert_eq!(rest.len(), 37);
            assert_eq!(
                all(txn.scan(numbers, &(..3))).await?,
                [(0, 0), (1, 11), (2, 22)]
            );
            txn.rollback_to(&point)?;
            assert_eq!(
                txn.get_as(numbers, &2).await?,
                Some(2),
                "the child's write too"
            );
            Ok(())
        });
        ran.await.unwrap();
        assert_eq!(world.committed().await[..3], [(0, 0), (1, 11), (2, 2)]);
    });
}

#[test]
fn i14_what_would_wait_for_the_transaction_itself_is_refused_inside_of_it() {
    through_each(|door, world| async move {
        let (numbers, inner) = (world.numbers, world.keeper.clone());
        let line = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&line);
        let ran = door.run(&world.keeper, How::default(), move |txn| {
            let (inner, seen) = (inner.clone(), Arc::clone(&seen));
            async move {
                txn.put(numbers, &1, &1).await?;
                let put = || RunTxn::update(move |txn| Ok(numbers.put(txn, &1, &2)?));
                let interactive = || {
                    RunTxn::interactive(move |txn: Txn| async move {
                        Ok(txn.put(numbers, &1, &2).await?)
                    })
                };
                let answers: [Result<(), TxnError>; 8] = [
                    inner.update(move |txn| Ok(numbers.put(txn, &1, &2)?)).await,
                    inner.run(put()).await,
                    inner.send(put()).await,
                    inner.run(interactive()).await,
                    inner.send(interactive()).await,
                    inner
                        .transaction(
                            "inner",
                            |txn| async move { Ok(txn.put(numbers, &1, &2).await?) },
                        )
                        .await,
                    inner.begin().await.map(drop),
                    inner.blocking_update(move |txn| Ok(numbers.put(txn, &1, &2)?)),
                ];
                for (nth, answer) in answers.into_iter().enumerate() {
                    match answer {
                        Err(TxnError::InsideTransaction { outer_site }) => {
                            *seen.lock().unwrap() = Some(outer_site);
                        }
                        other => panic!("{nth}: {other:?}"),
                    }
                }
                // Views are fine, and see what is committed.
                assert_eq!(
                    inner.view(move |txn| Ok(numbers.get(txn, &1)?)).await?,
                    None
                );
                let long = RunTxn::view(move |txn| Ok(numbers.get(txn, &1)?));
                assert_eq!(inner.send(long).await?, None);
                Ok(())
            }
        });
        ran.await.unwrap();
        assert!(line.lock().unwrap().unwrap().file().ends_with("door.rs"));
        assert_eq!(world.committed().await, [(1, 1)]);
        // What is refused inside is no matter for another keeper, or outside.
        let other = World::new();
        let (theirs, keeper) = (other.numbers, other.keeper.clone());
        let ran = door.run(&world.keeper, How::default(), move |_| {
            let keeper = keeper.clone();
            async move { keeper.update(move |txn| Ok(theirs.put(txn, &1, &2)?)).await }
        });
        ran.await.unwrap();
        assert_eq!(other.number(1).await, Some(2));
    });
}

#[test]
fn a_task_that_a_closure_has_spawned_may_update() {
    let world = World::new();
    block_on(async {
        let (numbers, gate) = (world.numbers, Gate::new());
        let (inner, inside) = (world.keeper.clone(), gate.clone());
        let ran = Door::Method.spawn(
            &world.keeper,
            How::level(Isolation::ReadCommitted),
            move |txn| {
                let (inner, inside) = (inner.clone(), inside.clone());
                async move {
                    txn.put(numbers, &1, &1).await?;
                    let update = tokio::spawn(async move {
                        inner.update(move |txn| Ok(numbers.put(txn, &2, &2)?)).await
                    });
                    update.await.unwrap()?;
                    inside.pass().await;
                    Ok(())
                }
            },
        );
        gate.reached().await;
        // Nor is a thread that has polled a closure inside of it afterwards.
        world.fill([(3, 3)]).await;
        gate.open();
        ran.await.unwrap().unwrap();
        assert_eq!(world.committed().await, [(1, 1), (2, 2), (3, 3)]);
        world.is_idle().await;
    });
}
