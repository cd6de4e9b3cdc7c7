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
            own: (0..7)
                .map(|n| object(&format!("{round} ring {n}")))
                .collect(),
        };
        for (number, (reads, writes)) in locks.into_iter().enumerate() {
            let mut spec = LockerSpec::new().priority(priorities[number]);
            if number == EXPIRED {
                spec = spec.txn_timeout(txn);
            }
            let locker = door.new_locker(spec, None).await.unwrap();
            all.held
                .push(door.hold(&locker, &all.own[number], Mode::Write).await);
            for extra in 0..reads + writes {
                let mode = if extra < reads {
                    Mode::Read
                } else {
                    Mode::Write
                };
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
            waiting.push((
                number,
                door.waits(&self.lockers[number], next, Mode::Write).await,
            ));
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
            // Who asked last: by chance the one that is past its time, too.
            (ByDefault, EXPIRED),
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
            let seven = Seven::hold(&door, round, EQUAL, txn).await;
            let begun = Instant::now();
            until(|| begun.elapsed() > txn).await;
            let waiting = seven.close(&door).await;
            let history = door.history().await;
            let past = history.last().unwrap();
            let choice = past.conflict.choice.unwrap();
            assert_eq!(history.len(), round + 1, "one victim");
            assert_eq!(
                seven.number(choice.victim),
                expected,
                "{policy}: {}",
                past.conflict
            );
            assert_eq!(choice.candidates, 7);
            assert_eq!(choice.policy, policy);
            assert_eq!(choice.asked, expected == EXPIRED);
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
        assert_eq!(
            (stats.last_detection.waiting, stats.last_detection.victims),
            (7, 1)
        );
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
            assert_eq!(
                victims,
                by_chance(&message).await,
                "the same seed, the same victims"
            );
        }
        first_of_each_seed[victims[0]] += 1;
        victims.iter().for_each(|victim| all[*victim] += 1);
    }
    // 400 draws among seven: 57 each. Far out would be 20 or 110.
    assert!(all.iter().all(|count| (20..110).contains(count)), "{all:?}");
    let reached = first_of_each_seed
        .iter()
        .filter(|count| **count > 0)
        .count();
    assert!(reached >= 4, "seeds differ: {first_of_each_seed:?}");
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

#[actix::test]
async fn each_pass_says_what_it_found_and_what_it_cost() {
    for door in Door::both(without_detection()) {
        let idle = door.detect(ByDefault).await;
        assert_eq!((idle.waiting, idle.victims.len()), (0, 0));
        let seven = Seven::hold(&door, 0, EQUAL, Duration::ZERO).await;
        let _waiting = seven.close(&door).await;
        let report = door.detect(ByDefault).await;
        let stats = door.stats().await;
        assert!(!report.took.is_zero());
        assert_eq!(stats.last_detection.took, report.took);
        assert_eq!(stats.detection_time, idle.took + report.took);
        assert_eq!(stats.longest_detection, idle.took.max(report.took));
        assert_eq!((stats.detections, stats.victims_of_detections), (2, 1));
        // The victim has not released anything yet; that is no cycle any more.
        assert!(door.detect(ByDefault).await.victims.is_empty());
    }
}
