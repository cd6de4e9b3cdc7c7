//! Handles of databases: of another keeper, deleted, and of the kinds that are refused; and a closure that borrows.

use lockkeeper::heed::byteorder::NativeEndian;
use lockkeeper::heed::types::U64;
use lockkeeper::heed::{DatabaseFlags, IntegerComparator};
use lockkeeper::{
    DatabaseError, DbError, DeleteDatabase, ErrorClass, Isolation, NoRecords, TxnError,
};

use crate::door::{How, World, block_on, on_each_level, through_each};

#[test]
fn a_database_of_another_keeper_is_refused_and_nothing_is_lost() {
    through_each(|door, world| async move {
        let other = World::new();
        let (numbers, foreign) = (world.numbers, other.numbers);
        let ran = door.run(&world.keeper, How::default(), move |txn| async move {
            txn.put(numbers, &1, &1).await?;
            let refused = [
                txn.get(foreign, &1).await.map(drop),
                txn.get_for_update(foreign, &1).await.map(drop),
                txn.put(foreign, &1, &1).await,
                txn.put_if_absent(foreign, &1, &1).await.map(drop),
                txn.delete(foreign, &1).await.map(drop),
                txn.count(foreign, &..).await.map(drop),
                txn.clear_range(foreign, &..).await,
                txn.scan(foreign, &..).next().await.map(drop),
                txn.scan_prefix(foreign, &1).next().await.map(drop),
            ];
            for refused in refused {
                let error = refused.unwrap_err();
                assert!(
                    matches!(error.error(), TxnError::Database(DbError::Foreign)),
                    "{error:?}"
                );
                assert_eq!(error.class(), ErrorClass::Usage);
            }
            Ok(())
        });
        ran.await.unwrap();
        assert_eq!(world.committed().await, [(1, 1)]);
        assert!(matches!(
            world.keeper.records_of(*foreign),
            Err(DatabaseError::NotRecords {
                why: NoRecords::OtherKeeper,
                ..
            })
        ));
        other.is_idle().await;
    });
}

#[test]
fn a_database_that_is_deleted_meanwhile_is_an_error_and_nothing_is_written() {
    on_each_level(|door, how, world| async move {
        // A snapshot is ousted before a database is deleted, and begins anew.
        if how.isolation == Isolation::Snapshot {
            return;
        }
        let (numbers, words, keeper) = (world.numbers, world.words, world.keeper.clone());
        let ran = door.run(&world.keeper, how, move |txn| {
            let keeper = keeper.clone();
            async move {
                txn.put(numbers, &1, &1).await?;
                txn.put(words, "a", "b").await?;
                let mut scan = txn.scan(words, &..);
                let delete =
                    tokio::spawn(async move { keeper.send(DeleteDatabase("words".into())).await });
                delete.await.unwrap().unwrap();
                for answer in [
                    txn.get(words, "x").await.map(drop),
                    scan.next().await.map(drop),
                    txn.count(words, &..).await.map(drop),
                ] {
                    let error = answer.unwrap_err();
                    assert!(
                        matches!(error.error(), TxnError::Database(DbError::Deleted { .. })),
                        "{error:?}"
                    );
                }
                Ok(())
            }
        });
        let error = ran.await.unwrap_err();
        assert!(
            matches!(error, TxnError::Database(DbError::Deleted { .. })),
            "{error:?}"
        );
        assert_eq!(world.committed().await, []);
        assert!(matches!(
            world.keeper.records_of(*words),
            Err(DatabaseError::NotRecords {
                why: NoRecords::Deleted,
                ..
            })
        ));
    });
}

#[test]
fn databases_whose_records_cannot_be_locked_one_by_one_are_refused_when_the_handle_is_made() {
    let world = World::new();
    block_on(async {
        let keeper = &world.keeper;
        let flags = [
            ("dup", DatabaseFlags::DUP_SORT, NoRecords::Duplicates),
            (
                "fixed",
                DatabaseFlags::DUP_SORT | DatabaseFlags::DUP_FIXED,
                NoRecords::Duplicates,
            ),
            (
                "reverse",
                DatabaseFlags::REVERSE_KEY,
                NoRecords::ReversedKeys,
            ),
        ];
        for (name, flags, reason) in flags {
            let opened =
                keeper.database_with::<(), (), lockkeeper::heed::DefaultComparator>(name, flags);
            match keeper.records_of(opened.await.unwrap()) {
                Err(DatabaseError::NotRecords { name: of, why }) => {
                    assert_eq!((&*of, why), (name, reason));
                }
                other => panic!("{other:?}"),
            }
        }
        let integers = keeper.database_with::<U64<NativeEndian>, (), IntegerComparator>(
            "integers",
            DatabaseFlags::empty(),
        );
        assert!(matches!(
            keeper.records_of(integers.await.unwrap()),
            Err(DatabaseError::NotRecords {
                why: NoRecords::IntegerKeys,
                ..
            })
        ));
    });
}

/// The same closure spawned, with captures that are borrowed, on threads that it moves between.
#[test]
fn a_closure_that_borrows_can_be_spawned() {
    let world = World::new();
    block_on(async {
        world.fill((0..4).map(|n| (n, 0))).await;
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let world = world.clone();
                tokio::spawn(async move {
                    let label = format!("task {task}");
                    let keys = vec![task % 4, (task + 1) % 4];
                    let mut tried = 0;
                    for _ in 0..25 {
                        let (label, keys, tried) = (&label, &keys, &mut tried);
                        let (keeper, numbers) = (&world.keeper, world.numbers);
                        let done = keeper.transaction(label.as_str(), |txn| {
                            *tried += 1;
                            async move {
                                for key in keys {
                                    let n = txn.get_for_update_as(numbers, key).await?.unwrap();
                                    tokio::task::yield_now().await;
                                    txn.put(numbers, key, &(n + 1)).await?;
                                }
                                assert_eq!(txn.name(), Some(label.as_str()));
                                Ok(label.len())
                            }
                        });
                        let done: Result<usize, TxnError> = done.await;
                        assert_eq!(done.unwrap(), 6);
                    }
                    tried
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap() >= 25);
        }
        let sum: u64 = world.committed().await.iter().map(|entry| entry.1).sum();
        assert_eq!(sum, 8 * 25 * 2);
        world.is_idle().await;
    });
}

#[test]
fn a_handle_that_is_kept_keeps_nothing_else() {
    through_each(|door, world| async move {
        let numbers = world.numbers;
        for fails in [false, true] {
            let ran = door.run(&world.keeper, How::default(), move |txn| async move {
                txn.put(numbers, &1, &1).await?;
                match fails {
                    // Kept for ever.
                    false => {
                        std::mem::forget(txn.clone());
                        Ok(())
                    }
                    true => {
                        std::mem::forget(txn.clone());
                        Err(TxnError::ShuttingDown)
                    }
                }
            });
            assert_eq!(ran.await.is_err(), fails);
            world.is_idle().await;
        }
    });
}
