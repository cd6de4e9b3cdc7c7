//! What waits while its locker changes under it, ends, or the table shuts down.

use super::*;

#[actix::test]
async fn an_upgrade_whose_old_lock_is_released_meanwhile_gets_the_new_one_alone() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let (locker, other, third) = (door.locker(), door.locker(), door.locker());
        let held = door.hold(&locker, &a, Mode::Read).await;
        let theirs = door.hold(&other, &a, Mode::Read).await;
        let before = door.waits(&third, &a, Mode::Write).await;
        let upgrading = door
            .until_queued(door.upgrade(held, Mode::Write, Wait::Forever))
            .await;
        assert_eq!(door.snapshot().await.waiting[0].locker, locker.id());
        // It holds the object no more, so it waits in the order in which it came.
        assert!(door.release(&locker, &a, Mode::Read).await);
        assert_eq!(door.snapshot().await.waiting[0].locker, third.id());
        drop(theirs);
        drop(before.await.unwrap().unwrap());
        let upgraded = upgrading.await.unwrap().unwrap();
        let left = (a.to_string(), locker.id(), Mode::Write, 1);
        assert_eq!(door.picture().await, [left]);
        drop(upgraded);
        assert_eq!(door.picture().await, []);
    }
}

#[actix::test]
async fn one_locker_may_wait_twice_for_the_same() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let (locker, other) = (door.locker(), door.locker());
        let theirs = door.hold(&other, &a, Mode::Write).await;
        let first = door.waits(&locker, &a, Mode::Write).await;
        let second = door.waits(&locker, &a, Mode::Write).await;
        let third = door.waits(&locker, &a, Mode::Read).await;
        drop(theirs);
        let first = first.await.unwrap().unwrap();
        let second = second.await.unwrap().unwrap();
        let third = third.await.unwrap().unwrap();
        let id = locker.id();
        let a = a.to_string();
        let both = [(a.clone(), id, Mode::Read, 1), (a, id, Mode::Write, 2)];
        assert_eq!(door.picture().await, both);
        drop((first, second, third));
        assert_eq!(door.picture().await, []);
    }
}

#[actix::test]
async fn operations_that_wait_end_with_their_locker() {
    for door in Door::both(LockConfig::default()) {
        let (locker, other) = (door.locker(), door.locker());
        let _theirs = door.hold(&other, &object("theirs"), Mode::Write).await;
        let ops = LockOps::new()
            .lock(object("free"), Mode::Write)
            .lock_wait(object("theirs"), Mode::Write, Wait::Forever)
            .lock(object("never"), Mode::Write);
        let running = door.until_queued(door.run(&locker, ops.clone())).await;
        assert!(door.end(&locker).await);
        let failed = running.await.unwrap().unwrap_err().failed;
        assert!(matches!(failed.error, LockError::Ended), "{failed}");
        assert_eq!(failed.at, 1);
        assert_eq!(door.picture().await.len(), 1);
        let failed = door.run(&locker, ops).await.unwrap_err().failed;
        assert!(matches!(failed.error, LockError::Ended), "{failed}");
        assert_eq!(failed.at, 0);
    }
}

#[actix::test]
async fn a_shutdown_answers_operations_and_upgrades_and_undoes_what_they_took() {
    for door in Door::both(LockConfig::default()) {
        let (locker, other) = (door.locker(), door.locker());
        let a = object("a");
        let _theirs = door.hold(&other, &a, Mode::Read).await;
        let read = door.hold(&locker, &a, Mode::Read).await;
        let before = door.picture().await;
        let ops = LockOps::new().lock(object("free"), Mode::Write).lock_wait(
            a.clone(),
            Mode::Write,
            Wait::Forever,
        );
        let running = door.until_queued(door.run(&locker, ops.clone())).await;
        let upgrading = door
            .until_queued(door.upgrade(read, Mode::Write, Wait::Forever))
            .await;
        door.locks().shutdown();
        let failed = running.await.unwrap().unwrap_err().failed;
        assert!(matches!(failed.error, LockError::ShuttingDown), "{failed}");
        let (read, error) = *upgrading.await.unwrap().unwrap_err();
        assert!(matches!(error, LockError::ShuttingDown), "{error}");
        assert_eq!(door.picture().await, before);
        let failed = door.run(&locker, ops).await.unwrap_err().failed;
        assert!(matches!(failed.error, LockError::ShuttingDown), "{failed}");
        let new = door.new_locker(LockerSpec::new(), Some(&locker)).await;
        assert!(matches!(new, Err(LockError::ShuttingDown)));
        drop(read);
        assert_eq!(door.picture().await.len(), 1);
    }
}

#[actix::test]
async fn a_wait_that_is_refused_lets_those_behind_it_go_on() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let [holder, writer, reader] = [door.locker(), door.locker(), door.locker()];
        let held = door.hold(&holder, &a, Mode::Read).await;
        // By a timeout, by its end, and by being dropped.
        for way in 0..3 {
            let wait = match way {
                0 => Wait::For(Duration::from_millis(5)),
                _ => Wait::Forever,
            };
            let passing = door.child(&writer).await;
            let asking = door.ask(&passing, &a, Mode::Write, wait);
            let writing = door.until_queued(asking).await;
            let reading = door.ask(&reader, &a, Mode::Read, Wait::Forever);
            let reading = tokio::task::spawn_local(reading);
            match way {
                0 => {}
                1 => assert!(door.end(&passing).await),
                _ => writing.abort(),
            }
            drop(reading.await.unwrap().unwrap());
            assert!(!matches!(writing.await, Ok(Ok(_))));
        }
        drop(held);
    }
}
