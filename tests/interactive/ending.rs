//! The keeper goes down while transactions run; what was counted, and what spans tell.

use std::time::Duration;

use lockkeeper::{ErrorClass, Isolation, TxnError};

use crate::door::{Door, Gate, How, PATIENCE, World, block_on, through_each};
use crate::layer::{the_span, watch};

#[test]
fn a_keeper_that_shuts_down_lets_those_end_that_have_begun() {
    for door in Door::ALL {
        let world = World::new();
        block_on(async {
            let (gate, numbers) = (Gate::new(), world.numbers);
            let inside = gate.clone();
            let running = door.spawn(&world.keeper, How::default(), move |txn| {
                let inside = inside.clone();
                async move {
                    txn.put(numbers, &1, &1).await?;
                    inside.pass().await;
                    txn.get(numbers, &5).await?;
                    txn.put(numbers, &2, &2).await?;
                    Ok(())
                }
            });
            gate.reached().await;
            let keeper = world.keeper.clone();
            let down = tokio::spawn(async move { keeper.shutdown(PATIENCE).await });
            // Nobody else is let in.
            loop {
                let late = door
                    .run(&world.keeper, How::default(), |_| async { Ok(()) })
                    .await;
                let begun = world.keeper.begin().await;
                match (late, begun) {
                    (Err(late), Err(begun)) => {
                        assert!(matches!(late, TxnError::ShuttingDown), "{late:?}");
                        assert!(matches!(begun, TxnError::ShuttingDown), "{begun:?}");
                        assert_eq!(late.class(), ErrorClass::ShuttingDown);
                        break;
                    }
                    _ => tokio::task::yield_now().await,
                }
            }
            assert!(!down.is_finished());
            gate.open();
            running.await.unwrap().unwrap();
            down.await.unwrap().unwrap();
        });
        let again = World::with(|builder| builder.path(world.folder.path()));
        block_on(async { assert_eq!(again.committed().await, [(1, 1), (2, 2)]) });
    }
}

#[test]
fn one_that_does_not_end_in_time_is_ended_and_nothing_of_it_is_written() {
    for door in Door::ALL {
        let world = World::new();
        block_on(async {
            let (gate, numbers) = (Gate::new(), world.numbers);
            let inside = gate.clone();
            let running = door.spawn(&world.keeper, How::default(), move |txn| {
                let inside = inside.clone();
                async move {
                    txn.put(numbers, &1, &1).await?;
                    inside.pass().await;
                    Ok(())
                }
            });
            let begun = world.keeper.begin().await.unwrap();
            begun.put(numbers, &2, &2).await.unwrap();
            gate.reached().await;
            let down = world.keeper.shutdown(Duration::from_millis(500));
            down.await.unwrap();
            gate.open();
            let answer = running.await.unwrap();
            assert!(answer.is_err(), "{answer:?}");
            let error = begun.put(numbers, &3, &3).await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::ShuttingDown, "{error:?}");
            let error = begun.commit().await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::ShuttingDown, "{error:?}");
        });
        let folder = std::sync::Arc::clone(&world.folder);
        drop(world);
        let again = World::with(|builder| builder.path(folder.path()));
        block_on(async { assert_eq!(again.committed().await, []) });
    }
}

#[test]
fn a_transaction_by_hand_outlives_the_handle_of_its_keeper_or_says_that_it_is_gone() {
    let World {
        keeper,
        numbers,
        folder,
        ..
    } = World::new();
    block_on(async {
        let begun = keeper.begin().await.unwrap();
        begun.put(numbers, &1, &1).await.unwrap();
        tokio::task::spawn_blocking(move || drop(keeper))
            .await
            .unwrap();
        match begun.commit().await {
            Ok(()) => {}
            Err(error) => assert_eq!(error.class(), ErrorClass::ShuttingDown, "{error:?}"),
        }
    });
    drop(folder);
}

#[test]
fn statistics_and_spans_count_attempts() {
    watch();
    through_each(|door, world| async move {
        world.fill([(1, 0)]).await;
        let before = world.stats().await;
        let (numbers, other) = (world.numbers, world.clone());
        let name: &'static str = format!("attempts {door:?}").leak();
        let how = How {
            name,
            ..How::level(Isolation::Optimistic)
        };
        let ran = door.run(&world.keeper, how, move |txn| {
            let other = other.clone();
            async move {
                let n = txn.get_as(numbers, &1).await?.unwrap();
                if txn.attempt() < 4 {
                    let keeper = other.keeper.clone();
                    let change =
                        Door::Method.spawn(&keeper, How::default(), move |txn| async move {
                            let n = txn.get_for_update_as(numbers, &1).await?.unwrap();
                            Ok(txn.put(numbers, &1, &(n + 10)).await?)
                        });
                    change.await.unwrap()?;
                }
                Ok(txn.put(numbers, &1, &(n + 1)).await?)
            }
        });
        ran.await.unwrap();
        assert_eq!(world.number(1).await, Some(31));
        let stats = world.stats().await;
        assert_eq!(stats.committed - before.committed, 4);
        assert_eq!(
            (stats.retries, stats.deadlocks_retried, stats.failed),
            (3, 0, 0)
        );
        let (_, seen) = the_span(|seen| seen.fields.get("name").is_some_and(|of| of == name));
        assert_eq!(seen.fields["attempt"], "4");
        assert!(seen.fields.contains_key("commit_us"), "{seen:#?}");
        assert!(seen.fields["site"].contains("door.rs"), "{seen:#?}");
    });
}
