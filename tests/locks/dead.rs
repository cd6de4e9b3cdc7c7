//! After a refusal a locker goes on; after a deadlock or a timeout it has to release all first.

use super::*;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[actix::test]
async fn after_no_wait_a_locker_goes_on_and_after_a_timeout_or_a_deadlock_every_use_says_that_it_is_dead()
 {
    for door in Door::both(LockConfig::default()) {
        let (a, b, c) = (object("a"), object("b"), object("c"));
        let holder = door.locker();
        let theirs = door.hold(&holder, &a, Mode::Write).await;

        let locker = door.locker();
        let own = door.hold(&locker, &b, Mode::Write).await;
        let error = door.refused(&locker, &a, Mode::Read).await;
        assert!(matches!(error, LockError::NotAvailable(_)));
        drop(door.hold(&locker, &c, Mode::Read).await);
        assert_eq!(
            door.picture().await.len(),
            2,
            "what it holds it holds still"
        );

        let kinds = [
            ConflictKind::LockTimeout,
            ConflictKind::TransactionTimeout,
            ConflictKind::Deadlock,
        ];
        drop(own);
        for kind in kinds {
            let spec = match kind {
                ConflictKind::TransactionTimeout => LockerSpec::new().txn_timeout(ms(5)),
                _ => LockerSpec::new(),
            };
            let locker = door.new_locker(spec, None).await.unwrap();
            let child = door.child(&locker).await;
            let own = door.hold(&locker, &b, Mode::Write).await;
            let wait = match kind {
                ConflictKind::LockTimeout => Wait::For(ms(5)),
                _ => Wait::Forever,
            };
            let cycle = match kind {
                ConflictKind::Deadlock => Some(door.waits(&holder, &b, Mode::Read).await),
                _ => None,
            };
            let error = door.ask(&locker, &a, Mode::Read, wait).await.unwrap_err();
            assert_eq!(error.conflict().unwrap().kind, kind, "{error}");
            assert!(error.is_retryable());

            let dead = |error: LockError| match error {
                LockError::Dead(why) => assert_eq!(why.kind, kind, "{why}"),
                other => panic!("{kind:?}: {other}"),
            };
            dead(door.refused(&locker, &c, Mode::Read).await);
            dead(
                door.ask(&locker, &c, Mode::Read, Wait::Forever)
                    .await
                    .unwrap_err(),
            );
            dead(door.refused(&locker, &b, Mode::Write).await);
            dead(door.refused(&child, &c, Mode::Read).await);
            let (own, error) = *door.upgrade(own, Mode::Write, Wait::No).await.unwrap_err();
            dead(error);
            let (own, error) = *door.downgrade(own, Mode::Read).await.unwrap_err();
            dead(error);
            let orphan = door.new_locker(LockerSpec::new(), Some(&locker)).await;
            dead(orphan.unwrap_err());
            let ops = LockOps::new().lock(c.clone(), Mode::Read);
            dead(
                door.run(&locker, ops.clone())
                    .await
                    .unwrap_err()
                    .failed
                    .error,
            );
            let ops = ops.stop_at_first_error();
            dead(door.run(&locker, ops).await.unwrap_err().failed.error);
            dead(door.commit(child).await.unwrap_err());
            let snapshot = door.snapshot().await;
            let info = snapshot
                .lockers
                .iter()
                .find(|info| info.locker == locker.id());
            assert!(info.unwrap().dead);
            // What it holds keeps others out until it has released it.
            door.refused(&door.locker(), &b, Mode::Read).await;
            drop(own);
            if let Some(cycle) = cycle {
                drop(cycle.await.unwrap().unwrap());
            }
            assert_eq!(locker.release_all(), 0);
            drop(door.hold(&locker, &b, Mode::Write).await);
        }
        drop(theirs);
    }
}

/// Everything can be said by message, so the end of a victim's work too.
#[actix::test]
async fn a_victim_that_has_released_all_by_operations_may_ask_again() {
    for door in Door::both(LockConfig::default()) {
        let (a, b) = (object("a"), object("b"));
        let (holder, locker) = (door.locker(), door.locker());
        let _theirs = door.hold(&holder, &a, Mode::Write).await;
        let own = door.hold(&locker, &b, Mode::Write).await;
        let error = door
            .ask(&locker, &a, Mode::Read, Wait::For(ms(2)))
            .await
            .unwrap_err();
        assert!(matches!(error, LockError::LockTimeout(_)));
        let ran = door
            .run(&locker, LockOps::new().release_all())
            .await
            .unwrap();
        assert!(
            matches!(ran.outcomes[..], [LockOutcome::Released(1)]),
            "{ran:?}"
        );
        let again = door.ask(&locker, &b, Mode::Write, Wait::No).await;
        assert!(again.is_ok(), "it has released all of its locks: {again:?}");
        drop(own);
    }
}
