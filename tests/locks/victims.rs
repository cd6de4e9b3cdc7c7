//! Who is aborted to break a cycle, and who never is.

use super::*;

use VictimPolicy::{
    Default as ByDefault, Expire, MaxLocks, MaxWrite, MinLocks, MinWrite, Oldest, Random, Youngest,
};

/// A ring of seven: the first is the oldest, then come most locks, fewest locks, most write locks, fewest
/// write locks, one whose transaction is past its time, and the youngest.
struct Seven {
    lockers: Vec<Arc<Locker>>,
    held: Vec<Held>,
    own: Vec<Object>,
}

const EXPIRED: usize = 5;

impl Seven {
    async fn hold(door: &Door, round: usize, priorities: [u32; 7], txn: Duration) -> Self {
        // How many locks for reading and for writing, the one of the ring not counted.
        let locks = [(2, 2), (6, 2), (0, 2), (0, 4), (4, 0), (2, 2), (2, 2)];
        let mut all = Self {
            lockers: Vec::new(),
            held: Vec::new(),
            own: (0..7).map(|n| object(&format!("{round} ring {n}"))).collect(),
        };
        for (number, (reads, writes)) in locks.into_iter().enumerate() {
            let mut spec = LockerSpec::new().priority(priorities[number]);
            if number == EXPIRED {
                spec = spec.txn_timeout(txn);
            }
            let locker = door.new_locker(spec, None).await.unwrap();
            all.held.push(door.hold(&locker, &all.own[number], Mode::Write).await);
            for extra in 0..reads + writes {
                let mode = if extra < reads { Mode::Read } else { Mode::Write };
                let other = object(&format!("{round} {number} {extra}"));
                all.held.push(door.hold(&locker, &other, mode).await);
            }
            all.lockers.push(locker);
        }
        all
    }

    /// Everybody asks for what the next one has; the sixth, past its time, asks last and closes the ring.
    async fn close(&self, door: &Door) -> Vec<(usize, Task<Holding>)> {
        let mut waiting = Vec::new();
        for number in [0, 1, 2, 3, 4, 6, EXPIRED] {
            let next = &self.own[(number + 1) % 7];
            waiting.push((number, door.waits(&self.lockers[number], next, Mode::Write).await));
        }
        waiting
    }

    fn number(&self, victim: LockerId) -> usize {
        let mut ids = self.lockers.iter().map(|locker| locker.id());
        ids.position(|id| id == victim).unwrap()
    }
}

const EQUAL: [u32; 7] = [100; 7];

#[actix::test]
async fn each_policy_picks_another_locker_when_a_request_blocks() {
    let config = LockConfig {
        detect_on_block: true,
        ..without_detection()
    };
    for door in Door::both(config) {
        for (round, (policy, expected)) in [
            (Oldest, 0),
            (MaxLocks, 1),
            (MinLocks, 2),
            (MaxWrite, 3),
            (MinWrite, 4),
            (Expire, EXPIRED),
            (Youngest, 6),
            (ByDefault, 6),
        ]
        .into_iter()
        .enumerate()
        {
            door.set_detect(SetDetect {
                policy: Some(policy),
                ..SetDetect::default()
            })
            .await;
            let txn = Duration::from_millis(2);
            let begun = Instant::now();
            let seven = Seven::hold(&door, round, EQUAL, txn).await;
            until(|| begun.elapsed() > 2 * txn).await;
            let waiting = seven.close(&door).await;
            let history = door.history().await;
            let past = history.last().unwrap();
            let choice = past.conflict.choice.unwrap();
            assert_eq!(history.len(), round + 1, "one victim");
            assert_eq!(seven.number(choice.victim), expected, "{policy}: {}", past.conflict);
            assert_eq!(choice.candidates, 7);
            let named = if policy == ByDefault { Youngest } else { policy };
            assert_eq!(choice.policy, named);
            drop(seven.held);
            for (number, task) in waiting {
                let error = task.await.unwrap().err();
                let is_deadlock = matches!(error, Some(LockError::Deadlock(_)));
                assert_eq!(is_deadlock, number == expected, "{policy}: {error:?}");
            }
        }
    }
}

#[actix::test]
async fn each_policy_picks_another_locker_on_demand() {
    for door in Door::both(without_detection()) {
        for (round, (policy, expected)) in [
            (Oldest, 0),
            (MaxLocks, 1),
            (MinLocks, 2),
            (MaxWrite, 3),
            (MinWrite, 4),
            (Youngest, 6),
            (ByDefault, 6),
            // Nobody is past his time.
            (Expire, 6),
        ]
        .into_iter()
        .enumerate()
        {
            let seven = Seven::hold(&door, round, EQUAL, Duration::ZERO).await;
            let _waiting = seven.close(&door).await;
            let report = door.detect(policy).await;
            assert_eq!((report.waiting, report.victims.len()), (7, 1), "{policy}");
            let victim = report.victims[0].choice.unwrap().victim;
            assert_eq!(seven.number(victim), expected, "{policy}");
            assert_eq!(report.victims[0].cycle.len(), 7);
        }
        // The table's own policy is what a request without one means.
        door.set_detect(SetDetect {
            policy: Some(MaxWrite),
            ..SetDetect::default()
        })
        .await;
        let seven = Seven::hold(&door, 99, EQUAL, Duration::ZERO).await;
        let _waiting = seven.close(&door).await;
        let report = door.detect(ByDefault).await;
        assert_eq!(seven.number(report.victims[0].choice.unwrap().victim), 3);
        let stats = door.stats().await;
        assert_eq!((stats.detections, stats.victims_of_detections), (9, 9));
        assert_eq!((stats.last_detection.waiting, stats.last_detection.victims), (7, 1));
    }
}

#[actix::test]
async fn the_lowest_priority_comes_before_every_policy() {
    for door in Door::both(without_detection()) {
        for (round, policy) in VictimPolicy::ALL.into_iter().enumerate() {
            for lowest in [2, 3] {
                let mut priorities = EQUAL;
                priorities[lowest] = 99;
                priorities[4] = 1000;
                let round = 10 * round + lowest;
                let seven = Seven::hold(&door, round, priorities, Duration::ZERO).await;
                let _waiting = seven.close(&door).await;
                let report = door.detect(policy).await;
                let victim = report.victims[0].choice.unwrap().victim;
                assert_eq!(seven.number(victim), lowest, "{policy}");
            }
        }
    }
}

/// The victims of twenty rings, by chance.
async fn by_chance(door: &Door) -> Vec<usize> {
    let mut victims = Vec::new();
    for round in 0..20 {
        let seven = Seven::hold(door, round, EQUAL, Duration::ZERO).await;
        let _waiting = seven.close(door).await;
        let report = door.detect(Random).await;
        victims.push(seven.number(report.victims[0].choice.unwrap().victim));
    }
    victims
}

#[actix::test]
async fn random_reaches_everyone_and_follows_from_the_seed() {
    let mut first_of_each_seed = [0; 7];
    let mut all = [0; 7];
    for seed in 0..20 {
        let config = LockConfig {
            seed,
            ..without_detection()
        };
        let [in_place, message] = Door::both(config);
        let victims = by_chance(&in_place).await;
        if seed < 3 {
            assert_eq!(victims, by_chance(&message).await, "the same seed, the same victims");
        }
        first_of_each_seed[victims[0]] += 1;
        victims.iter().for_each(|victim| all[*victim] += 1);
    }
    // 400 draws among seven: 57 each. Far out would be 20 or 110.
    assert!(all.iter().all(|count| (20..110).contains(count)), "{all:?}");
    let reached = first_of_each_seed.iter().filter(|count| **count > 0).count();
    assert!(reached >= 4, "seeds differ: {first_of_each_seed:?}");
}

/// A cycle waits for a bystander, and another waits behind the cycle: both are as good victims as can be by
/// priority and age, and neither is on the cycle.
#[actix::test]
async fn a_bystander_that_a_cycle_waits_for_is_never_the_victim() {
    for on_block in [false, true] {
        let config = LockConfig {
            detect_on_block: on_block,
            ..without_detection()
        };
        for door in Door::both(config) {
            for (round, policy) in VictimPolicy::ALL.into_iter().enumerate() {
                door.set_detect(SetDetect {
                    policy: Some(policy),
                    ..SetDetect::default()
                })
                .await;
                let [a, b] = ["a", "b"].map(|name| object(&format!("{round} {name}")));
                let low = || door.new_locker(LockerSpec::new().priority(1), None);
                let oldest = low().await.unwrap();
                let (one, two) = (door.locker(), door.locker());
                let (youngest, behind) = (low().await.unwrap(), low().await.unwrap());
                let shared = [
                    door.hold(&oldest, &b, Mode::Read).await,
                    door.hold(&youngest, &b, Mode::Read).await,
                ];
                let first = door.hold(&one, &a, Mode::Write).await;
                let second = door.hold(&two, &b, Mode::Read).await;
                // It waits for the cycle that is going to be.
                let behind_it = door.waits(&behind, &a, Mode::Read).await;
                let one_waits = door.waits(&one, &b, Mode::Write).await;
                let two_waits = door.waits(&two, &a, Mode::Read).await;
                if !on_block {
                    door.detect(policy).await;
                }
                let past = door.history().await.pop().unwrap();
                let victim = past.conflict.choice.unwrap().victim;
                assert!([one.id(), two.id()].contains(&victim), "{policy}: {}", past.conflict);
                assert_eq!(past.conflict.choice.unwrap().candidates, 2);
                // Its abort really breaks the cycle.
                assert!(door.detect(policy).await.victims.is_empty());
                assert!(!behind_it.is_finished());
                drop((shared, first, second));
                let (one, two) = (one_waits.await.unwrap(), two_waits.await.unwrap());
                assert_eq!(one.is_ok() as usize + two.is_ok() as usize, 1);
                drop((one, two));
                behind_it.await.unwrap().unwrap();
            }
        }
    }
}

#[actix::test]
async fn child_waits_while_parent_holds() {
    for door in Door::both(LockConfig::default()) {
        let (a, b) = (object("a"), object("b"));
        let other = door.locker();
        let parent = door.locker();
        let child = door.child(&parent).await;
        let theirs = door.hold(&other, &b, Mode::Write).await;
        let held = door.hold(&parent, &a, Mode::Write).await;
        let waiting = door.waits(&other, &a, Mode::Write).await;
        let error = door.ask(&child, &b, Mode::Write, Wait::Forever).await.unwrap_err();
        let LockError::Deadlock(conflict) = &error else {
            panic!("{error}")
        };
        // The parent has to go too: what it holds is on the cycle.
        assert_eq!(conflict.choice.unwrap().victim, parent.id());
        assert_eq!(conflict.asker.locker, child.id());
        assert_eq!(error.older(), [other.id()]);
        for dead in [&parent, &child] {
            let error = door.refused(dead, &object("c"), Mode::Read).await;
            assert!(matches!(error, LockError::Dead(_)), "{error}");
        }
        assert!(!waiting.is_finished(), "locks go when their owner releases them");
        drop(held);
        drop(waiting.await.unwrap().unwrap());
        drop(theirs);
    }
}

#[actix::test]
async fn only_the_subtree_that_is_in_the_way_is_aborted() {
    for door in Door::both(LockConfig::default()) {
        let (a, b, c) = (object("a"), object("b"), object("c"));
        let other = door.locker();
        let parent = door.locker();
        let (holds, waits) = (door.child(&parent).await, door.child(&parent).await);
        let theirs = door.hold(&other, &b, Mode::Write).await;
        let kept = door.hold(&parent, &c, Mode::Write).await;
        let held = door.hold(&holds, &a, Mode::Write).await;
        let waiting = door.waits(&other, &a, Mode::Write).await;
        // The sibling waits; what has to go is the lock of the other child.
        let sibling = door.waits(&waits, &b, Mode::Write).await;
        let past = door.history().await.pop().unwrap();
        assert_eq!(past.conflict.choice.unwrap().victim, holds.id());
        let error = door.refused(&holds, &c, Mode::Read).await;
        assert!(matches!(error, LockError::Dead(_)), "{error}");
        drop(door.hold(&parent, &object("d"), Mode::Write).await);
        assert!(!sibling.is_finished() && !waiting.is_finished());
        drop(held);
        drop(waiting.await.unwrap().unwrap());
        drop(theirs);
        drop(sibling.await.unwrap().unwrap());
        drop(kept);
        // Its end leaves the parent as it was.
        assert!(door.end(&holds).await);
        drop(door.hold(&parent, &a, Mode::Write).await);
    }
}

#[actix::test]
async fn two_cycles_that_share_a_locker_both_end() {
    // Every policy, found on block and on demand: whoever is chosen, everybody's wait ends.
    for on_block in [true, false] {
        let config = LockConfig {
            detect_on_block: on_block,
            ..without_detection()
        };
        for door in Door::both(config) {
            for (round, policy) in VictimPolicy::ALL.into_iter().enumerate() {
                door.set_detect(SetDetect {
                    policy: Some(policy),
                    ..SetDetect::default()
                })
                .await;
                let [s, x] = ["s", "x"].map(|name| object(&format!("{round} {name}")));
                let lockers = door.lockers(3);
                let held = [
                    door.hold(&lockers[0], &x, Mode::Read).await,
                    door.hold(&lockers[1], &s, Mode::Write).await,
                    door.hold(&lockers[2], &x, Mode::Read).await,
                ];
                let mut tasks = Vec::new();
                let mut held = held.map(Some);
                // The one in the middle comes last, and closes both.
                for number in [0, 2, 1] {
                    let (locker, held) = (&lockers[number], held[number].take());
                    let wanted = if number == 1 { &x } else { &s };
                    let asking = door.ask(locker, wanted, Mode::Write, Wait::Forever);
                    let locker = Arc::clone(locker);
                    let work: Doing<bool> = Box::pin(async move {
                        let dies = asking.await.is_err();
                        drop(held);
                        locker.release_all();
                        dies
                    });
                    tasks.push(door.until_queued(work).await);
                }
                if !on_block {
                    door.detect(policy).await;
                }
                let mut dead = 0;
                for task in tasks {
                    let ended = tokio::time::timeout(PATIENCE, task).await;
                    dead += usize::from(ended.unwrap().unwrap());
                }
                assert!((1..=2).contains(&dead), "{policy}: {dead} died");
            }
            let stats = door.stats().await;
            assert_eq!((stats.locks.now, stats.waiting), (0, 0));
        }
    }
}

#[actix::test]
async fn turning_detection_on_breaks_the_cycles_that_are_there() {
    for door in Door::both(without_detection()) {
        let changes = [
            SetDetect {
                on_block: Some(true),
                ..SetDetect::default()
            },
            SetDetect {
                interval: Some(Duration::from_millis(1)),
                ..SetDetect::default()
            },
        ];
        for (round, change) in changes.into_iter().enumerate() {
            let seven = Seven::hold(&door, round, EQUAL, Duration::ZERO).await;
            let mut waiting = seven.close(&door).await;
            assert!(waiting.iter().all(|(_, task)| !task.is_finished()));
            door.set_detect(change).await;
            let (_, youngest) = waiting.remove(5);
            let error = youngest.await.unwrap().unwrap_err();
            assert!(matches!(error, LockError::Deadlock(_)), "{error}");
            door.set_detect(SetDetect {
                on_block: Some(false),
                interval: Some(Duration::ZERO),
                policy: None,
            })
            .await;
        }
    }
}
