//! Closures that panic: a typed error for their caller, and nothing for anybody else.

use lockkeeper::{ErrorClass, TxnError};

use crate::door::{How, on_each_level, through_each};

#[track_caller]
fn is_panic<T: std::fmt::Debug>(answer: Result<T, TxnError>, text: &str) {
    match answer {
        Err(error @ TxnError::BodyPanicked { .. }) => {
            assert_eq!(error.class(), ErrorClass::Panic);
            assert!(!error.is_retryable());
            let TxnError::BodyPanicked { message, site } = error else {
                unreachable!();
            };
            assert_eq!(message, text);
            assert!(site.file().ends_with("door.rs"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_is_an_error_wherever_it_comes_and_nothing_is_left() {
    on_each_level(|door, how, world| async move {
        let numbers = world.numbers;
        let before = door.run(&world.keeper, how, move |txn| {
            if txn.attempt() == 1 {
                panic!("before there is a future");
            }
            async move { Ok(()) }
        });
        is_panic(before.await, "before there is a future");
        for at in 0..4 {
            let ran = door.run(&world.keeper, how, move |txn| async move {
                let here = |place| {
                    if place == at {
                        panic!("at {place}");
                    }
                };
                here(0);
                txn.put(numbers, &1, &1).await?;
                here(1);
                tokio::task::yield_now().await;
                let child = txn.nested(|child| async move {
                    child.put(numbers, &2, &2).await?;
                    here(2);
                    let grandchild = child.nested(|child| async move {
                        child.get(numbers, &3).await?;
                        here(3);
                        Ok::<_, TxnError>(())
                    });
                    grandchild.await
                });
                child.await?;
                Ok(())
            });
            is_panic(ran.await, &format!("at {at}"));
            world.is_idle().await;
            assert_eq!(world.committed().await, []);
        }
        // Others go on, also on the same objects.
        let next = door.run(&world.keeper, how, move |txn| async move {
            txn.put(numbers, &1, &1).await?;
            Ok(txn.put(numbers, &2, &2).await?)
        });
        next.await.unwrap();
        let stats = world.stats().await;
        assert_eq!((stats.failed, stats.retries), (5, 0));
    });
}

#[test]
fn what_panics_when_it_is_dropped_is_kept_from_the_others() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("dropped");
            }
        }
    }
    through_each(|door, world| async move {
        let numbers = world.numbers;
        let ran = door.run(&world.keeper, How::default(), move |txn| async move {
            let _bomb = Bomb;
            txn.put(numbers, &1, &1).await?;
            Ok(())
        });
        is_panic(ran.await, "dropped");
        assert_eq!(world.committed().await, []);
    });
}
