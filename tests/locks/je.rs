//! From the suites of Berkeley DB JE: its `LockTest` and `DeadlockTest`.

use super::*;

/// Every mode against every other, at once and after a wait.
#[actix::test]
async fn test_lock_conflicts() {
    let table = ConflictTable::standard();
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let (holder, asker) = (door.locker(), door.locker());
        for held_in in Mode::ALL {
            for wanted in Mode::ALL {
                let held = door.hold(&holder, &a, held_in).await;
                match door.ask(&asker, &a, wanted, Wait::No).await {
                    Ok(_) => assert!(!table.conflicts(held_in, wanted), "{held_in}, {wanted}"),
                    Err(error) => {
                        assert!(table.conflicts(held_in, wanted), "{error}");
                        let LockError::NotAvailable(conflict) = &error else {
                            panic!("{error}")
                        };
                        assert_eq!(conflict.kind, ConflictKind::NotAvailable);
                        assert_eq!((conflict.mode(), &conflict.object), (wanted, &a));
                        assert_eq!((conflict.owners_total, conflict.waiters_total), (1, 0));
                        let owner = &conflict.owners[0];
                        assert_eq!((owner.locker, owner.mode), (holder.id(), held_in));
                        let waiting = door.waits(&asker, &a, wanted).await;
                        drop(held);
                        waiting.await.unwrap().unwrap();
                        continue;
                    }
                }
                drop(held);
            }
        }
        // Nobody conflicts with himself, and who shares lets a third in but for who waits.
        let third = door.locker();
        let _reads = [
            door.hold(&holder, &a, Mode::Read).await,
            door.hold(&asker, &a, Mode::Read).await,
        ];
        let writing = door.waits(&third, &a, Mode::Write).await;
        let latecomer = door.locker();
        let error = door.refused(&latecomer, &a, Mode::Read).await;
        let conflict = error.conflict().unwrap();
        assert_eq!(conflict.waiters[0].locker, third.id(), "{error}");
        drop(door.hold(&holder, &a, Mode::Read).await);
        assert!(!writing.is_finished());
    }
}

/// Who waits is served in order: readers together, writers one by one, and none twice.
#[actix::test]
async fn test_waiters() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let first = door.locker();
        let held = door.hold(&first, &a, Mode::Write).await;
        let modes = [
            Mode::Read,
            Mode::Read,
            Mode::Write,
            Mode::Read,
            Mode::Write,
            Mode::Write,
        ];
        let lockers = door.lockers(modes.len());
        let mut waiting = Vec::new();
        for (locker, mode) in lockers.iter().zip(modes) {
            waiting.push(door.waits(locker, &a, mode).await);
        }
        let snapshot = door.snapshot().await;
        let queue: Vec<_> = snapshot
            .waiting
            .iter()
            .map(|one| (one.locker, one.mode))
            .collect();
        let expected: Vec<_> = lockers.iter().map(|one| one.id()).zip(modes).collect();
        assert_eq!(queue, expected);
        drop(held);
        let mut waiting = waiting.into_iter();
        for batch in [&[0, 1][..], &[2], &[3], &[4], &[5]] {
            let mut served = Vec::new();
            for _ in batch {
                served.push(waiting.next().unwrap().await.unwrap().unwrap());
            }
            let owners: Vec<_> = door.picture().await.iter().map(|one| one.1).collect();
            let expected: Vec<_> = batch.iter().map(|one| lockers[*one].id()).collect();
            assert_eq!(owners, expected);
            // A reader that goes does not let the writer in while another is there.
            while let Some(one) = served.pop() {
                assert!(waiting.as_slice().iter().all(|task| !task.is_finished()));
                drop(one);
            }
        }
        assert_eq!(door.stats().await.grants, 7);
    }
}

/// An upgrade comes before all who do not hold the object, and keeps the old mode until it is granted.
#[actix::test]
async fn test_upgrade_lock() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let lockers = door.lockers(4);
        let mut reads = Vec::new();
        for locker in &lockers[..3] {
            reads.push(door.hold(locker, &a, Mode::Read).await);
        }
        let writing = door.waits(&lockers[3], &a, Mode::Write).await;
        let upgrading = door.upgrade(reads.remove(0), Mode::Write, Wait::Forever);
        let upgrading = door.until_queued(upgrading).await;
        let snapshot = door.snapshot().await;
        assert_eq!(snapshot.waiting[0].locker, lockers[0].id(), "it is first");
        assert!(
            snapshot
                .held
                .iter()
                .any(|held| held.locker == lockers[0].id())
        );
        drop(reads.pop());
        assert_eq!(door.stats().await.waiting, 2);
        drop(reads.pop());
        let upgraded = upgrading.await.unwrap().unwrap();
        let owner = (a.to_string(), lockers[0].id(), Mode::Write, 1);
        assert_eq!(door.picture().await, [owner], "the read lock is gone");
        assert!(!writing.is_finished());
        // Alone on the object it needs no wait, in both directions.
        let read = door.downgrade(upgraded, Mode::Read).await.unwrap();
        let (read, error) = *door.downgrade(read, Mode::Write).await.unwrap_err();
        let (from, to) = (Mode::Read, Mode::Write);
        assert!(
            matches!(error, LockError::NotWeaker { from: f, to: t } if (f, t) == (from, to)),
            "{error}"
        );
        let write = door.upgrade(read, Mode::Write, Wait::No).await.unwrap();
        assert!(!writing.is_finished());
        drop(write);
        writing.await.unwrap().unwrap();
        // What is not held is not upgraded.
        let locker = &lockers[0];
        let not_held = locker.upgrade(&a, Mode::Read, Mode::Write, Wait::No).await;
        assert!(matches!(not_held, Err(LockError::NotHeld)));
        let ops = LockOps::new().upgrade(a.clone(), Mode::Read, Mode::Write, Wait::No);
        let failed = door.run(locker, ops).await.unwrap_err().failed;
        assert!(matches!(failed.error, LockError::NotHeld));
    }
}

/// A ring: one dies, the others go on one by one.
async fn ring(size: usize) {
    for door in Door::both(LockConfig::default()) {
        let lockers = door.lockers(size);
        let objects: Vec<Object> = (0..size).map(|n| object(&n.to_string())).collect();
        let mut held = Vec::new();
        for (locker, object) in lockers.iter().zip(&objects) {
            held.push(door.hold(locker, object, Mode::Write).await);
        }
        let mut waiting = Vec::new();
        for (number, locker) in lockers.iter().enumerate() {
            let next = &objects[(number + 1) % size];
            waiting.push(door.waits(locker, next, Mode::Write).await);
        }
        let error = waiting.pop().unwrap().await.unwrap().unwrap_err();
        let LockError::Deadlock(conflict) = &error else {
            panic!("{error}")
        };
        // Each waits for the next one, and the last for the first.
        assert_eq!(conflict.cycle.len(), size);
        for (step, next) in conflict
            .cycle
            .iter()
            .zip(conflict.cycle.iter().cycle().skip(1))
        {
            assert_eq!(step.blocker.locker, next.waiter.locker, "{error}");
            assert!(step.held);
        }
        assert_eq!(conflict.cycle[0].waiter.locker, lockers[size - 1].id());
        drop(held.pop());
        lockers[size - 1].release_all();
        while let Some(next) = waiting.pop() {
            drop(next.await.unwrap().unwrap());
            drop(held.pop());
        }
        drop(lockers);
        door.is_empty().await;
    }
}

#[actix::test]
async fn test_deadlock_between_two_lockers() {
    ring(2).await;
}

#[actix::test]
async fn test_deadlock_among_three_lockers() {
    ring(3).await;
}

#[actix::test]
async fn test_deadlock_among_four_lockers() {
    ring(4).await;
}

/// Two rings of two with one locker in common, which waits for both of the others: with the youngest in the
/// middle its death ends both; with the oldest in the middle both of the others die.
#[actix::test]
async fn test_deadlock_intersection_with_one_common_locker() {
    for door in Door::both(without_detection()) {
        for (common, expected) in [(2, vec![2]), (0, vec![1, 2])] {
            let lockers = door.lockers(3);
            let others: Vec<usize> = (0..3).filter(|number| *number != common).collect();
            let (shared, read) = (object("shared"), object("read"));
            let mut held = vec![(
                common,
                door.hold(&lockers[common], &shared, Mode::Write).await,
            )];
            for &other in &others {
                held.push((other, door.hold(&lockers[other], &read, Mode::Read).await));
            }
            let mut waiting = vec![(
                common,
                door.waits(&lockers[common], &read, Mode::Write).await,
            )];
            for &other in &others {
                waiting.push((
                    other,
                    door.waits(&lockers[other], &shared, Mode::Read).await,
                ));
            }
            let report = door.detect(VictimPolicy::Youngest).await;
            let mut dead: Vec<usize> = (report.victims.iter())
                .map(|conflict| conflict.choice.unwrap().victim)
                .map(|victim| lockers.iter().position(|one| one.id() == victim).unwrap())
                .collect();
            dead.sort_unstable();
            assert_eq!(dead, expected);
            assert!(door.detect(VictimPolicy::Youngest).await.victims.is_empty());
            all_end(&door, &lockers, held, waiting, &dead).await;
        }
        door.is_empty().await;
    }
}

/// Two rings of three that have two lockers in common.
#[actix::test]
async fn test_deadlock_intersection_with_two_common_lockers() {
    for door in Door::both(without_detection()) {
        for policy in [VictimPolicy::Youngest, VictimPolicy::Oldest] {
            // 0 waits for 1; 1 waits for 2 and for 3; both of them wait for 0.
            let lockers = door.lockers(4);
            let (first, second, third) = (object("first"), object("second"), object("third"));
            let held = vec![
                (0, door.hold(&lockers[0], &first, Mode::Write).await),
                (1, door.hold(&lockers[1], &second, Mode::Write).await),
                (2, door.hold(&lockers[2], &third, Mode::Read).await),
                (3, door.hold(&lockers[3], &third, Mode::Read).await),
            ];
            let waiting = vec![
                (0, door.waits(&lockers[0], &second, Mode::Write).await),
                (1, door.waits(&lockers[1], &third, Mode::Write).await),
                (2, door.waits(&lockers[2], &first, Mode::Read).await),
                (3, door.waits(&lockers[3], &first, Mode::Read).await),
            ];
            let report = door.detect(policy).await;
            let dead: Vec<usize> = (report.victims.iter())
                .map(|conflict| conflict.choice.unwrap().victim)
                .map(|victim| lockers.iter().position(|one| one.id() == victim).unwrap())
                .collect();
            // The oldest is on both; the youngest only on one, so that the next one dies too.
            let expected: &[usize] = match policy {
                VictimPolicy::Oldest => &[0],
                _ => &[3, 2],
            };
            assert_eq!(dead, expected, "{policy}");
            all_end(&door, &lockers, held, waiting, &dead).await;
        }
        door.is_empty().await;
    }
}

/// The dead are told that they are, release, and everybody else gets what he waits for.
async fn all_end(
    door: &Door,
    lockers: &[Arc<Locker>],
    mut held: Vec<(usize, Held)>,
    waiting: Vec<(usize, Task<Holding>)>,
    dead: &[usize],
) {
    held.retain(|(number, _)| !dead.contains(number));
    dead.iter().for_each(|number| {
        lockers[*number].release_all();
    });
    let mut tasks = Vec::new();
    for (number, task) in waiting {
        let own: Vec<Held> = held
            .extract_if(.., |(other, _)| *other == number)
            .map(|(_, held)| held)
            .collect();
        let is_dead = dead.contains(&number);
        tasks.push(tokio::task::spawn_local(async move {
            match task.await.unwrap() {
                Err(LockError::Deadlock(_)) => assert!(is_dead),
                answer => assert!(answer.is_ok() && !is_dead, "{answer:?}"),
            }
            drop(own);
        }));
    }
    for task in tasks {
        tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
    }
    assert_eq!(door.stats().await.waiting, 0);
}

/// Each way to lose has its own error, also where several could be told.
#[actix::test]
async fn test_throw_correct_exception() {
    let (short, long) = (Duration::from_millis(20), Duration::from_secs(60));
    for door in Door::both(LockConfig::default()) {
        let (a, b) = (object("a"), object("b"));
        let holder = door.locker();
        let held = door.hold(&holder, &a, Mode::Write).await;
        let with = |lock, txn| {
            let spec = LockerSpec::new().lock_timeout(lock).txn_timeout(txn);
            door.new_locker(spec, None)
        };
        // Whichever of the two times is over first is named.
        let asker = with(short, long).await.unwrap();
        let error = door
            .ask(&asker, &a, Mode::Read, Wait::Default)
            .await
            .unwrap_err();
        assert!(matches!(&error, LockError::LockTimeout(_)), "{error}");
        assert_eq!(error.conflict().unwrap().timeout, Some(short));
        let asker = with(long, short).await.unwrap();
        let error = door
            .ask(&asker, &a, Mode::Read, Wait::Default)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, LockError::TransactionTimeout(_)),
            "{error}"
        );
        assert_eq!(error.conflict().unwrap().timeout, Some(short));
        // No wait: not available, however short the times are.
        let asker = with(short, long).await.unwrap();
        let error = door.refused(&asker, &a, Mode::Read).await;
        assert!(matches!(&error, LockError::NotAvailable(_)), "{error}");
        assert!(!error.is_retryable());
        // A cycle is a deadlock at once, and not a timeout later.
        let own = door.hold(&asker, &b, Mode::Write).await;
        let waiting = door.waits(&holder, &b, Mode::Write).await;
        let error = door
            .ask(&asker, &a, Mode::Read, Wait::Default)
            .await
            .unwrap_err();
        assert!(matches!(&error, LockError::Deadlock(_)), "{error}");
        assert_eq!(error.conflict().unwrap().timeout, None);
        // And afterwards everything says that it is dead, and why.
        let error = door.refused(&asker, &b, Mode::Read).await;
        let LockError::Dead(why) = &error else {
            panic!("{error}")
        };
        assert_eq!(why.kind, ConflictKind::Deadlock);
        drop(own);
        waiting.await.unwrap().unwrap();
        drop(held);
    }
}
