//! Who is aborted to break a cycle, and who never is.

use super::*;

use VictimPolicy::{
    Default as ByDefault, Expire, MaxLocks, MaxWrite, MinLocks, MinWrite, Oldest, Random, Youngest,
};

const COUNT: usize = 8;

/// A ring of eight: the first is the oldest, then come most locks, fewest locks, most write locks, fewest
/// write locks, one whose transaction is past its time, one who stands out in nothing, and the youngest.
struct Eight {
    lockers: Vec<Arc<Locker>>,
    held: Vec<Held>,
    own: Vec<Object>,
}

const EXPIRED: usize = 5;
const ORDINARY: usize = 6;
const YOUNGEST: usize = 7;

impl Eight {
    async fn hold(door: &Door, round: usize, priorities: [u32; COUNT], txn: Duration) -> Self {
        // How many locks for reading and for writing, the one of the ring not counted.
        let locks = [
            (2, 2),
            (6, 2),
            (0, 2),
            (0, 4),
            (4, 0),
            (2, 2),
            (2, 2),
            (2, 2),
        ];
        let mut all = Self {
            lockers: Vec::new(),
            held: Vec::new(),
            own: (0..COUNT)
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

    /// Everybody asks for what the next one has. The last to ask, who closes the ring, is the one who stands out in
    /// nothing.
    async fn close(&self, door: &Door) -> Vec<(usize, Task<Holding>)> {
        self.close_by(door, ORDINARY).await
    }

    /// The same with another who closes the ring.
    async fn close_by(&self, door: &Door, last: usize) -> Vec<(usize, Task<Holding>)> {
        let mut waiting = Vec::new();
        let others = (0..COUNT).filter(|number| *number != last);
        for number in others.chain([last]) {
            let next = &self.own[(number + 1) % COUNT];
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

const EQUAL: [u32; COUNT] = [100; COUNT];

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
            (Youngest, YOUNGEST),
            // Who asked last.
            (ByDefault, ORDINARY),
        ]
        .into_iter()
        .enumerate()
        {
            door.set_detect(SetDetect {
                policy: Some(policy),
                ..SetDetect::default()
            })
            .await;
            // Who is past its time and waits has its answer already, so it has to be the one that asks last.
            let (txn, last) = match policy {
                Expire => (Duration::from_millis(2), EXPIRED),
                _ => (Duration::ZERO, ORDINARY),
            };
            let eight = Eight::hold(&door, round, EQUAL, txn).await;
            let begun = Instant::now();
            until(|| begun.elapsed() > txn).await;
            let waiting = eight.close_by(&door, last).await;
            let history = door.history().await;
            let past = history.last().unwrap();
            let choice = past.conflict.choice.unwrap();
            assert_eq!(history.len(), round + 1, "one victim");
            assert_eq!(
                eight.number(choice.victim),
                expected,
                "{policy}: {}",
                past.conflict
            );
            assert_eq!(choice.candidates, COUNT);
            assert_eq!(choice.policy, policy);
            assert_eq!(choice.asked, expected == last);
            drop(eight.held);
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
            (Youngest, YOUNGEST),
            // Nobody has asked just now.
            (ByDefault, YOUNGEST),
            // Nobody is past his time.
            (Expire, YOUNGEST),
        ]
        .into_iter()
        .enumerate()
        {
            let eight = Eight::hold(&door, round, EQUAL, Duration::ZERO).await;
            let _waiting = eight.close(&door).await;
            let report = door.detect(policy).await;
            assert_eq!(
                (report.waiting, report.victims.len()),
                (COUNT, 1),
                "{policy}"
            );
            let victim = report.victims[0].choice.unwrap().victim;
            assert_eq!(eight.number(victim), expected, "{policy}");
            assert_eq!(report.victims[0].cycle.len(), COUNT);
        }
        // The table's own policy is what a request without one means.
        door.set_detect(SetDetect {
            policy: Some(MaxWrite),
            ..SetDetect::default()
        })
        .await;
        let eight = Eight::hold(&door, 99, EQUAL, Duration::ZERO).await;
        let _waiting = eight.close(&door).await;
        let report = door.detect(ByDefault).await;
        assert_eq!(eight.number(report.victims[0].choice.unwrap().victim), 3);
        let stats = door.stats().await;
        assert_eq!((stats.detections, stats.victims_of_detections), (9, 9));
        assert_eq!(
            (stats.last_detection.waiting, stats.last_detection.victims),
            (COUNT, 1)
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
                let eight = Eight::hold(&door, round, priorities, Duration::ZERO).await;
                let _waiting = eight.close(&door).await;
                let report = door.detect(policy).await;
                let victim = report.victims[0].choice.unwrap().victim;
                assert_eq!(eight.number(victim), lowest, "{policy}");
            }
        }
    }
}

/// The victims of twenty rings, by chance.
async fn by_chance(door: &Door) -> Vec<usize> {
    let mut victims = Vec::new();
    for round in 0..20 {
        let eight = Eight::hold(door, round, EQUAL, Duration::ZERO).await;
        let _waiting = eight.close(door).await;
        let report = door.detect(Random).await;
        victims.push(eight.number(report.victims[0].choice.unwrap().victim));
    }
    victims
}

#[actix::test]
async fn random_reaches_everyone_and_follows_from_the_seed() {
    let mut first_of_each_seed = [0; COUNT];
    let mut all = [0; COUNT];
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
    // 400 draws among eight: 50 each. Far out would be 20 or 110.
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
            let eight = Eight::hold(&door, round, EQUAL, Duration::ZERO).await;
            let mut waiting = eight.close(&door).await;
            assert!(waiting.iter().all(|(_, task)| !task.is_finished()));
            door.set_detect(change).await;
            let at = waiting.iter().position(|(number, _)| *number == YOUNGEST);
            let (_, youngest) = waiting.remove(at.unwrap());
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
        let eight = Eight::hold(&door, 0, EQUAL, Duration::ZERO).await;
        let _waiting = eight.close(&door).await;
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
