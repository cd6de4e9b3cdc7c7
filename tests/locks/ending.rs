//! Nothing is left behind: dropped futures, deadlines, limits, shutdown.

use super::*;

#[actix::test]
async fn i12_a_future_dropped_at_any_point_leaks_no_lock() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let holder = door.locker();
        let empty = |door: &Door| {
            let snapshot = door.locks().snapshot();
            snapshot.held.is_empty() && snapshot.waiting.is_empty()
        };
        // Before its first poll.
        drop(door.take(&door.locker(), &a, Mode::Write, Wait::Forever));
        until(|| empty(&door)).await;
        // While it waits; who waits behind it goes on.
        let held = door.take(&holder, &a, Mode::Read, Wait::No).await.unwrap();
        let asker = door.locker();
        let waiting = door.queue(&asker, &a, Mode::Write).await;
        let behind = door.locker();
        let reading = door.queue(&behind, &a, Mode::Read).await;
        waiting.abort();
        drop(reading.await.unwrap().unwrap());
        behind.release_all();
        // Granted, and nobody has looked.
        let before = door.locks().stats().waits;
        let mut taking = door.take(&asker, &a, Mode::Write, Wait::Forever);
        let mut context = Context::from_waker(Waker::noop());
        assert!(taking.as_mut().poll(&mut context).is_pending());
        until(|| door.locks().stats().waits > before).await;
        drop(held);
        holder.release_all();
        until(|| {
            door.locks()
                .snapshot()
                .held
                .iter()
                .any(|held| held.locker == asker.id())
        })
        .await;
        drop(taking);
        until(|| empty(&door)).await;
        assert_eq!(door.locks().stats().objects.now, 0);
    }
}

#[actix::test]
async fn i12_requests_abandoned_at_random_leave_nothing_behind() {
    for door in Door::both(LockConfig::default()) {
        for round in 0..300_usize {
            let lockers: Vec<_> = (0..4).map(|_| door.locker()).collect();
            let mut tasks = Vec::new();
            for (number, locker) in lockers.iter().enumerate() {
                let (door, locker) = (door.clone(), Arc::clone(locker));
                tasks.push(tokio::task::spawn_local(async move {
                    for step in 0..3 {
                        let object = object(&((number * 7 + step * 3 + round) % 3).to_string());
                        let Ok(guard) = door
                            .take(&locker, &object, Mode::Write, Wait::Forever)
                            .await
                        else {
                            return;
                        };
                        tokio::task::yield_now().await;
                        drop(guard);
                    }
                }));
            }
            drop(lockers);
            for yields in 0..round % 12 {
                tokio::task::yield_now().await;
                tasks[yields % 4].abort();
            }
            for task in tasks {
                task.abort();
                let _ = task.await;
            }
        }
        until(|| door.locks().stats().lockers.now == 0).await;
        let stats = door.locks().stats();
        assert_eq!(
            (stats.locks.now, stats.objects.now, stats.waiting),
            (0, 0, 0)
        );
    }
}

#[actix::test]
async fn i13_a_full_table_says_which_limit_and_keeps_what_is_held() {
    let config = LockConfig {
        max_lockers: 3,
        max_locks: 2,
        max_objects: 1,
        ..LockConfig::default()
    };
    for door in Door::both(config) {
        let lockers = [door.locker(), door.locker(), door.locker()];
        let error = door.locks().locker(LockerSpec::new()).unwrap_err();
        assert!(matches!(
            error,
            LockError::Limit {
                which: LimitKind::Lockers,
                value: 3
            }
        ));
        assert!(
            error.to_string().contains("max_lockers") && error.to_string().contains('3'),
            "{error}"
        );
        let held = door
            .take(&lockers[0], &object("a"), Mode::Read, Wait::No)
            .await
            .unwrap();
        let error = door
            .take(&lockers[0], &object("b"), Mode::Read, Wait::No)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                LockError::Limit {
                    which: LimitKind::Objects,
                    value: 1
                }
            ),
            "{error}"
        );
        // A waiter counts, so that its grant cannot fail.
        let waiting = door.queue(&lockers[1], &object("a"), Mode::Write).await;
        let error = door
            .take(&lockers[2], &object("a"), Mode::Read, Wait::Forever)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                LockError::Limit {
                    which: LimitKind::Locks,
                    value: 2
                }
            ),
            "{error}"
        );
        assert_eq!(door.locks().snapshot().held.len(), 1);
        drop(held);
        lockers[0].release_all();
        waiting.await.unwrap().unwrap();
        assert_eq!(door.locks().stats().limits_met, 3);
    }
}

#[actix::test]
async fn a_wait_ends_at_its_deadline_and_says_who_was_in_the_way() {
    let timeout = Duration::from_millis(60);
    for door in Door::both(LockConfig {
        lock_timeout: timeout,
        ..LockConfig::default()
    }) {
        let a = object("a");
        let (holder, asker) = (door.locker(), door.locker());
        let _held = door.take(&holder, &a, Mode::Write, Wait::No).await.unwrap();
        for wait in [
            Wait::Default,
            Wait::For(timeout),
            Wait::Until(Instant::now() + 3 * timeout),
        ] {
            let begun = Instant::now();
            let error = door.take(&asker, &a, Mode::Read, wait).await.unwrap_err();
            let LockError::LockTimeout(conflict) = &error else {
                panic!("{error}")
            };
            if !matches!(wait, Wait::Until(_)) {
                assert!(begun.elapsed() >= timeout, "not early");
                assert_eq!(conflict.timeout, Some(timeout));
            }
            assert_eq!(conflict.owners[0].locker, holder.id());
            assert!(error.is_retryable());
            // As in Berkeley DB JE, a timeout ends the transaction: first everything is released.
            let dead = door.take(&asker, &object("b"), Mode::Read, Wait::No).await;
            assert!(matches!(dead, Err(LockError::Dead(_))), "{dead:?}");
            asker.release_all();
        }
        let past = Instant::now().checked_sub(timeout).unwrap();
        assert!(matches!(
            door.take(&asker, &a, Mode::Read, Wait::Until(past)).await,
            Err(LockError::LockTimeout(_))
        ));
        assert_eq!(door.locks().stats().lock_timeouts, 4);
        holder.release_all();
        asker.release_all();
        door.take(&asker, &a, Mode::Read, Wait::No).await.unwrap();
    }
}

#[actix::test]
async fn a_shutdown_refuses_who_waits_and_who_comes() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let (holder, asker) = (door.locker(), door.locker());
        let held = door.take(&holder, &a, Mode::Write, Wait::No).await.unwrap();
        let waiting = door.queue(&asker, &a, Mode::Write).await;
        door.locks().shutdown();
        door.locks().shutdown();
        assert!(matches!(
            waiting.await.unwrap(),
            Err(LockError::ShuttingDown)
        ));
        let error = door
            .take(&asker, &object("b"), Mode::Read, Wait::No)
            .await
            .unwrap_err();
        assert!(matches!(error, LockError::ShuttingDown));
        assert!(matches!(
            door.locks().locker(LockerSpec::new()),
            Err(LockError::ShuttingDown)
        ));
        drop(held);
        drop(holder);
        assert_eq!(door.locks().stats().locks.now, 0);
    }
}

#[actix::test]
async fn a_lock_taken_twice_is_released_twice_and_a_guard_by_message_releases_its_own() {
    let (address, locks) = LockTable::start_alone(LockConfig::default()).unwrap();
    let a = object("a");
    let locker = Arc::new(locks.locker(LockerSpec::new()).unwrap());
    let take = || address.send(Acquire::new(object("a"), Mode::Write).locker(Arc::clone(&locker)));
    let guard = take().await.unwrap().unwrap();
    drop(take().await.unwrap().unwrap());
    assert_eq!(locks.snapshot().held[0].count, 1);
    assert!(address.send(Release::Guard(guard)).await.unwrap());
    let release = || Release::Lock {
        locker: Arc::clone(&locker),
        object: a.clone(),
        mode: Mode::Write,
    };
    assert!(!address.send(release()).await.unwrap());
    locker.lock(&a, Mode::Write, Wait::No).await.unwrap();
    assert!(address.send(release()).await.unwrap());
    assert!(
        address
            .send(Detect::default())
            .await
            .unwrap()
            .victims
            .is_empty()
    );
    assert_eq!(
        address
            .send(LockStatsQuery::default())
            .await
            .unwrap()
            .grants,
        3
    );
}

#[test]
fn without_an_actix_system_the_actor_is_an_error_and_the_table_works_in_place() {
    assert_eq!(
        LockTable::start_alone(LockConfig::default()).unwrap_err(),
        NoSystem
    );
    let locks = Locks::start(LockConfig::default());
    let one = locks.locker(LockerSpec::new()).unwrap();
    one.blocking_lock(&object("a"), Mode::Write, Wait::No)
        .unwrap();
    let other = locks.clone();
    let waiting = thread::spawn(move || {
        let two = other.locker(LockerSpec::new()).unwrap();
        two.blocking_lock(&object("a"), Mode::Write, Wait::Forever)
    });
    while locks.stats().waiting == 0 {
        thread::yield_now();
    }
    // A locker dropped on any thread wakes who waits on any other.
    thread::spawn(move || drop(one)).join().unwrap();
    waiting.join().unwrap().unwrap();
}

#[test]
fn an_actor_that_stops_shuts_its_own_table_down_but_not_one_it_was_given() {
    let system = actix::System::new();
    system.block_on(async {
        let given = Locks::start(LockConfig::default());
        let address = LockTable::new(given.clone()).start();
        drop(
            address
                .send(Acquire::new(object("a"), Mode::Read))
                .await
                .unwrap()
                .unwrap(),
        );
        drop(address);
        let (address, own) = LockTable::start_alone(LockConfig::default()).unwrap();
        drop(address);
        until(|| own.locker(LockerSpec::new()).is_err()).await;
        given.locker(LockerSpec::new()).unwrap();
    });
}
