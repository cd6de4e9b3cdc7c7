//! Berkeley DB's `dead001` to `dead006`: rings, where each waits for the next, and clumps, where all have
//! read what all want to write.

use super::*;

/// Who holds what, and waits for what.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Knot {
    Ring,
    Clump,
}

impl Knot {
    /// How many have to die so that the others can go on.
    fn victims(self, size: usize) -> usize {
        match self {
            Knot::Ring => 1,
            Knot::Clump => size - 1,
        }
    }

    fn first(self, number: usize) -> (Object, Mode) {
        match self {
            Knot::Ring => (object(&number.to_string()), Mode::Write),
            Knot::Clump => (object("all"), Mode::Read),
        }
    }

    fn second(self, number: usize, size: usize) -> Object {
        match self {
            Knot::Ring => object(&((number + 1) % size).to_string()),
            Knot::Clump => object("all"),
        }
    }

    /// Everybody takes the first lock; the work that is left is to ask for the second one. Who gets it and
    /// who dies releases everything.
    async fn begin(self, door: &Door, lockers: &[Arc<Locker>], wait: Wait) -> Vec<Doing<Answer>> {
        let mut held = Vec::new();
        for (number, locker) in lockers.iter().enumerate() {
            let (object, mode) = self.first(number);
            held.push(door.hold(locker, &object, mode).await);
        }
        let each = lockers.iter().enumerate().zip(held);
        each.map(|((number, locker), held)| {
            let next = self.second(number, lockers.len());
            let asking = door.ask(locker, &next, Mode::Write, wait);
            let locker = Arc::clone(locker);
            Box::pin(async move {
                let answer = asking.await.map(drop);
                drop(held);
                locker.release_all();
                answer
            }) as Doing<Answer>
        })
        .collect()
    }

    /// The same, and one after the other begins to wait.
    async fn tie(self, door: &Door, lockers: &[Arc<Locker>]) -> Vec<Task<Answer>> {
        let mut waiting = Vec::new();
        for work in self.begin(door, lockers, Wait::Forever).await {
            waiting.push(door.until_queued(work).await);
        }
        waiting
    }
}

type Answer = Result<(), LockError>;

/// Each knot in each size.
fn knots() -> impl Iterator<Item = (Knot, usize)> {
    let all = [Knot::Ring, Knot::Clump].into_iter();
    all.flat_map(|knot| [2, 4, 10].map(|size| (knot, size)))
}

/// Numbers of those that failed, and the error of each, which has to be a deadlock.
async fn victims(waiting: Vec<Task<Answer>>) -> Vec<usize> {
    let mut victims = Vec::new();
    for (number, task) in waiting.into_iter().enumerate() {
        match task.await.unwrap() {
            Ok(()) => {}
            Err(LockError::Deadlock(conflict)) => {
                assert!(conflict.cycle.len() >= 2, "{conflict}");
                victims.push(number);
            }
            Err(error) => panic!("{error}"),
        }
    }
    victims
}

/// Detection on demand, and by the clock.
#[actix::test]
async fn dead001() {
    let periodic = LockConfig {
        detect_interval: Duration::from_millis(5),
        ..without_detection()
    };
    for (config, on_demand) in [(without_detection(), true), (periodic, false)] {
        for door in Door::both(config) {
            for (knot, size) in knots() {
                let lockers = door.lockers(size);
                let waiting = knot.tie(&door, &lockers).await;
                if on_demand {
                    assert_eq!(door.stats().await.waiting, size, "nobody else looks");
                    let report = door.detect(VictimPolicy::Default).await;
                    assert_eq!(report.waiting, size);
                    assert_eq!(
                        report.victims.len(),
                        knot.victims(size),
                        "{knot:?} of {size}"
                    );
                }
                let dead = victims(waiting).await;
                assert_eq!(dead.len(), knot.victims(size), "{knot:?} of {size}");
            }
            assert!(door.stats().await.detections > 0);
            door.is_empty().await;
        }
    }
}

/// Detection when a request blocks.
#[actix::test]
async fn dead002() {
    let config = LockConfig {
        detect_on_block: true,
        ..without_detection()
    };
    for door in Door::both(config) {
        for (knot, size) in knots() {
            let before = door.stats().await.deadlocks;
            let lockers = door.lockers(size);
            let waiting = knot.tie(&door, &lockers).await;
            let dead = victims(waiting).await;
            // The youngest: of a clump everybody but the first.
            let expected: Vec<usize> = (size - knot.victims(size)..size).collect();
            assert_eq!(dead, expected, "{knot:?} of {size}");
            let deadlocks = door.stats().await.deadlocks - before;
            assert_eq!(deadlocks, knot.victims(size) as u64);
        }
        assert_eq!(door.stats().await.detections, 0, "the clock does not look");
        door.is_empty().await;
    }
}

/// The oldest and the youngest, by age and not by id.
#[actix::test]
async fn dead003() {
    for door in Door::both(without_detection()) {
        for (knot, size) in knots() {
            for policy in [VictimPolicy::Oldest, VictimPolicy::Youngest] {
                // The ages run against the ids: the last one made is an attempt of the first work.
                let ages: Vec<_> = door.lockers(size).iter().map(|one| one.age()).collect();
                let mut lockers = Vec::new();
                for age in ages.into_iter().rev() {
                    let spec = LockerSpec::new().age(Some(age));
                    lockers.push(door.new_locker(spec, None).await.unwrap());
                }
                let waiting = knot.tie(&door, &lockers).await;
                door.detect(policy).await;
                let dead = victims(waiting).await;
                let count = knot.victims(size);
                let expected: Vec<usize> = match policy {
                    VictimPolicy::Youngest => (0..count).collect(),
                    _ => (size - count..size).collect(),
                };
                assert_eq!(dead, expected, "{policy}, {knot:?} of {size}");
            }
        }
        door.is_empty().await;
    }
}

/// The most and the fewest locks, and write locks.
#[actix::test]
async fn dead005() {
    for door in Door::both(without_detection()) {
        for (knot, size) in knots() {
            for policy in [
                VictimPolicy::MaxLocks,
                VictimPolicy::MinLocks,
                VictimPolicy::MaxWrite,
                VictimPolicy::MinWrite,
            ] {
                let lockers = door.lockers(size);
                // Each has more locks than the one before it, and fewer write locks.
                let mut others = Vec::new();
                for (number, locker) in lockers.iter().enumerate() {
                    for extra in 0..2 * size {
                        let mode = match extra {
                            _ if extra < size - number => Mode::Write,
                            _ if extra < size + number => Mode::Read,
                            _ => break,
                        };
                        let own = object(&format!("{number} {extra}"));
                        others.push(door.hold(locker, &own, mode).await);
                    }
                }
                let waiting = knot.tie(&door, &lockers).await;
                door.detect(policy).await;
                let dead = victims(waiting).await;
                let count = knot.victims(size);
                let expected: Vec<usize> = match policy {
                    VictimPolicy::MinLocks | VictimPolicy::MaxWrite => (0..count).collect(),
                    _ => (size - count..size).collect(),
                };
                assert_eq!(dead, expected, "{policy}, {knot:?} of {size}");
            }
        }
        door.is_empty().await;
    }
}

/// Nobody looks for deadlocks; a lock timeout of 1 ms ends them.
#[actix::test]
async fn dead006() {
    let timeout = Duration::from_millis(1);
    let config = LockConfig {
        lock_timeout: timeout,
        ..without_detection()
    };
    for door in Door::both(config) {
        for (knot, size) in knots() {
            let before = door.stats().await.lock_timeouts;
            let lockers = door.lockers(size);
            let mut failed = 0;
            let work = knot.begin(&door, &lockers, Wait::Default).await;
            let waiting: Vec<_> = work.into_iter().map(tokio::task::spawn_local).collect();
            for task in waiting {
                match task.await.unwrap() {
                    Ok(()) => {}
                    Err(LockError::LockTimeout(conflict)) => {
                        assert_eq!(conflict.timeout, Some(timeout));
                        assert!(conflict.waited.unwrap() >= timeout, "{conflict}");
                        failed += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            let stats = door.stats().await;
            assert!(
                (knot.victims(size)..=size).contains(&failed),
                "{knot:?} of {size}: {failed}"
            );
            assert_eq!(stats.lock_timeouts - before, failed as u64);
            assert_eq!((stats.deadlocks, stats.waiting), (0, 0));
        }
        door.is_empty().await;
    }
}
