//! Cycles are found and broken, and their victims come to an end.

use super::*;

#[actix::test]
async fn i07_every_cycle_is_broken() {
    for door in Door::both(LockConfig::default()) {
        for size in [2, 3, 4, 10] {
            let lockers: Vec<_> = (0..size).map(|_| door.locker()).collect();
            let mut guards = Vec::new();
            for (number, locker) in lockers.iter().enumerate() {
                guards.push(
                    door.take(locker, &object(&number.to_string()), Mode::Write, Wait::No)
                        .await
                        .unwrap(),
                );
            }
            let deadlocks = door.locks().stats().deadlocks;
            let mut waiting = Vec::new();
            for (number, locker) in lockers.iter().enumerate() {
                let next = object(&((number + 1) % size).to_string());
                waiting.push(door.queue(locker, &next, Mode::Write).await);
            }
            // The youngest is the victim, whoever closed the cycle, and the others go on one by one.
            let victim = waiting.pop().unwrap().await.unwrap().unwrap_err();
            let LockError::Deadlock(conflict) = &victim else {
                panic!("{victim}")
            };
            assert_eq!(conflict.cycle.len(), size, "{victim}");
            assert_eq!(conflict.asker.locker, lockers[size - 1].id());
            assert_eq!(victim.older().len(), size - 1);
            assert!(victim.is_retryable());
            assert_eq!(door.locks().stats().deadlocks, deadlocks + 1);
            drop(guards.pop());
            lockers[size - 1].release_all();
            while let Some(waits) = waiting.pop() {
                let guard = waits.await.unwrap().unwrap();
                drop((guard, guards.pop()));
                lockers[waiting.len()].release_all();
            }
        }
        assert_eq!(door.locks().stats().locks.now, 0);
    }
}

#[actix::test]
async fn i07_two_upgraders_are_a_deadlock_and_its_report_names_them() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let named = |name| Arc::new(door.locks().locker(LockerSpec::new().name(name)).unwrap());
        let (older, younger) = (named("older"), named("younger"));
        let _held = [
            door.take(&older, &a, Mode::Read, Wait::No).await.unwrap(),
            door.take(&younger, &a, Mode::Read, Wait::No).await.unwrap(),
        ];
        let waiting = door.queue(&older, &a, Mode::Write).await;
        let error = door
            .take(&younger, &a, Mode::Write, Wait::Forever)
            .await
            .unwrap_err();
        let text = error.to_string();
        for part in [
            "deadlock",
            "test[a]",
            "older (locker",
            "younger (locker",
            "write",
            "read",
            "tests/locks",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(!waiting.is_finished());
        let again = door
            .take(&younger, &object("b"), Mode::Read, Wait::Forever)
            .await;
        assert!(
            matches!(again, Err(LockError::Dead(_))),
            "a victim releases first"
        );
        younger.release_all();
        waiting.await.unwrap().unwrap();
        door.take(&younger, &object("b"), Mode::Read, Wait::Forever)
            .await
            .unwrap();
    }
}

#[actix::test]
async fn i07_periodic_detection_breaks_100_cycles_under_a_flood() {
    let interval = Duration::from_millis(300);
    let config = LockConfig {
        detect_on_block: false,
        detect_interval: interval,
        ..LockConfig::default()
    };
    let (address, locks) = LockTable::start_alone(config).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let flood: Vec<_> = (0..64_u32)
        .map(|number| {
            let (address, stop, sent) = (address.clone(), Arc::clone(&stop), Arc::clone(&sent));
            tokio::task::spawn_local(async move {
                while !stop.load(Ordering::Relaxed) {
                    let free = Object::new("flood", number.to_be_bytes());
                    address
                        .send(Acquire::new(free, Mode::Write))
                        .await
                        .unwrap()
                        .unwrap();
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut cycles = Vec::new();
    for number in 0..100 {
        let locks = locks.clone();
        cycles.push(tokio::task::spawn_local(async move {
            let pair = [
                locks.locker(LockerSpec::new()).unwrap(),
                locks.locker(LockerSpec::new()).unwrap(),
            ];
            let objects = [
                object(&format!("{number} left")),
                object(&format!("{number} right")),
            ];
            for (locker, object) in pair.iter().zip(&objects) {
                locker.lock(object, Mode::Write, Wait::No).await.unwrap();
            }
            let [one, two] = pair;
            let [left, right] = objects;
            let mut first = Box::pin(one.lock(&right, Mode::Write, Wait::Forever));
            let pending = poll_fn(|context| Poll::Ready(first.as_mut().poll(context).is_pending()));
            assert!(pending.await);
            // A thread of its own takes the time, from just before the cycle closes: this one is busy.
            let younger = thread::spawn(move || {
                let begun = Instant::now();
                let error = two
                    .blocking_lock(&left, Mode::Write, Wait::Forever)
                    .unwrap_err();
                assert!(matches!(error, LockError::Deadlock(_)), "{error}");
                begun.elapsed()
            });
            first.await.unwrap();
            younger.join().unwrap()
        }));
    }
    for cycle in cycles {
        let took = cycle.await.unwrap();
        assert!(
            took <= interval + Duration::from_secs(1),
            "broken after {took:?}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    for sender in flood {
        sender.await.unwrap();
    }
    assert_eq!(locks.stats().deadlocks, 100);
    assert!(sent.load(Ordering::Relaxed) > 1000, "there was a flood");
}

#[actix::test]
async fn i08_a_victim_that_waits_for_the_older_ones_and_keeps_its_age_is_never_starved() {
    for policy in [VictimPolicy::Default, VictimPolicy::Youngest] {
        let config = LockConfig {
            detect_policy: policy,
            ..LockConfig::default()
        };
        for door in Door::both(config) {
            sixteen_at_two_objects(&door, policy);
            assert!(door.stats().await.deadlocks > 0, "{policy}");
            door.is_empty().await;
        }
    }
}

/// Sixteen threads lock two objects a hundred times each, in one order or the other.
fn sixteen_at_two_objects(door: &Door, policy: VictimPolicy) {
    let threads: Vec<_> = (0..16)
        .map(|number| {
            let door = door.clone();
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let mut most = 0;
                for round in 0..100 {
                    let mut age = None;
                    let mut attempts = 0;
                    loop {
                        attempts += 1;
                        let spec = LockerSpec::new().age(age);
                        let locker = Arc::new(door.locks().locker(spec).unwrap());
                        age = Some(locker.age());
                        let mut guards = Vec::new();
                        let order = if (number + round) % 2 == 0 {
                            ["a", "b"]
                        } else {
                            ["b", "a"]
                        };
                        let error = order.iter().find_map(|name| {
                            let asked =
                                door.take(&locker, &object(name), Mode::Write, Wait::Default);
                            let answer = runtime.block_on(asked);
                            thread::yield_now();
                            answer.map(|guard| guards.push(guard)).err()
                        });
                        drop((guards, locker));
                        match error {
                            None => break,
                            Some(error @ LockError::Deadlock(_)) => {
                                runtime.block_on(door.locks().ended(error.older()))
                            }
                            Some(error) => panic!("{error}"),
                        }
                    }
                    most = most.max(attempts);
                }
                most
            })
        })
        .collect();
    for thread in threads {
        // Each of the 15 others is older once at most, but can be met again after it was aborted itself, by
        // one that is older still: about twice each in practice. Who starves goes on for thousands.
        let most = thread.join().unwrap();
        assert!(most <= 15 * 16 / 2, "{policy}: {most} attempts");
    }
}

#[actix::test]
async fn i08_ended_waits_for_all_and_leaves_nothing_when_dropped() {
    let locks = Locks::start(LockConfig::default());
    let [one, two] = [(); 2].map(|()| locks.locker(LockerSpec::new()).unwrap());
    let ids = [one.id(), two.id(), one.id()];
    drop(Box::pin(locks.ended(&ids)));
    let mut ended = Box::pin(locks.ended(&ids));
    let mut dropped = Box::pin(locks.ended(&ids));
    let mut context = Context::from_waker(Waker::noop());
    assert!(ended.as_mut().poll(&mut context).is_pending());
    assert!(dropped.as_mut().poll(&mut context).is_pending());
    drop(dropped);
    drop(one);
    assert!(ended.as_mut().poll(&mut context).is_pending());
    thread::spawn(move || drop(two));
    ended.await;
    locks.ended(&ids).await;
    locks.ended(&[]).await;
}

#[actix::test]
async fn detection_on_demand_breaks_what_nothing_else_does() {
    let (address, locks) = LockTable::start_alone(without_detection()).unwrap();
    let door = Door::Message(locks, address.clone());
    let (one, two) = (door.locker(), door.locker());
    let _held = [
        door.take(&one, &object("a"), Mode::Write, Wait::No)
            .await
            .unwrap(),
        door.take(&two, &object("b"), Mode::Write, Wait::No)
            .await
            .unwrap(),
    ];
    let _waiting = door.queue(&one, &object("b"), Mode::Write).await;
    let victim = door.queue(&two, &object("a"), Mode::Write).await;
    let report = address.send(Detect::default()).await.unwrap();
    assert_eq!((report.waiting, report.victims.len()), (2, 1));
    assert!(matches!(victim.await.unwrap(), Err(LockError::Deadlock(_))));
}

/// On block, every so often and on demand at once: what one has found is nothing for the others.
#[actix::test]
async fn i07_with_all_three_detections_each_cycle_is_broken_exactly_once() {
    const RINGS: usize = 150;
    let config = LockConfig {
        detect_on_block: true,
        detect_interval: Duration::from_millis(1),
        lock_timeout: Duration::ZERO,
        ..LockConfig::default()
    };
    for door in Door::both(config) {
        let stop = Arc::new(AtomicBool::new(false));
        let (asker, stopped) = (door.clone(), Arc::clone(&stop));
        let asking = tokio::task::spawn_local(async move {
            while !stopped.load(Ordering::Relaxed) {
                asker.detect(VictimPolicy::Default).await;
                tokio::task::yield_now().await;
            }
        });
        let (locks, stopped) = (door.locks().clone(), Arc::clone(&stop));
        let another = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                locks.detect_by(VictimPolicy::Youngest);
                thread::yield_now();
            }
        });
        let mut rings = Vec::new();
        for ring in 0..RINGS {
            let size = 2 + ring % 3;
            let lockers = door.lockers(size);
            let own: Vec<_> = (0..size)
                .map(|number| object(&format!("{ring} {number}")))
                .collect();
            let mut held = Vec::new();
            for (locker, own) in lockers.iter().zip(&own) {
                held.push(door.hold(locker, own, Mode::Write).await);
            }
            let members = lockers.into_iter().zip(held).enumerate();
            let tasks: Vec<_> = members
                .map(|(number, (locker, held))| {
                    let next = &own[(number + 1) % size];
                    let asking = door.ask(&locker, next, Mode::Write, Wait::Forever);
                    tokio::task::spawn_local(async move {
                        let answer = asking.await;
                        drop((held, locker));
                        answer.map(drop)
                    })
                })
                .collect();
            rings.push(tasks);
        }
        for ring in rings {
            let mut victims = 0;
            for member in ring {
                let answer = tokio::time::timeout(PATIENCE, member).await;
                match answer.expect("a cycle is left").unwrap() {
                    Ok(()) => {}
                    Err(LockError::Deadlock(_)) => victims += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(victims, 1, "of one ring");
        }
        stop.store(true, Ordering::Relaxed);
        asking.await.unwrap();
        another.join().unwrap();
        let stats = door.stats().await;
        assert_eq!(stats.deadlocks, RINGS as u64);
        assert!(stats.detections > 0 && stats.victims_of_detections <= stats.deadlocks);
        door.is_empty().await;
    }
}
