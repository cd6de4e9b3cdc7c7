//! Berkeley DB's `lock001` to `lock006`.

use super::*;

const STANDARD: ConflictTable = ConflictTable::standard();

/// One locker takes every mode of several objects, in every order: nothing conflicts with itself.
#[actix::test]
async fn lock001() {
    for door in Door::both(LockConfig::default()) {
        let locker = door.locker();
        let mut held = Vec::new();
        for (number, first) in Mode::ALL.into_iter().enumerate() {
            let one = object(&number.to_string());
            held.push(door.hold(&locker, &one, first).await);
            for mode in Mode::ALL {
                held.push(door.hold(&locker, &one, mode).await);
            }
        }
        let stats = door.stats().await;
        assert_eq!(
            (stats.locks.now, stats.objects.now, stats.waits),
            (36, 6, 0)
        );
        // What was taken twice is held until it has been released twice.
        let picture = door.picture().await;
        assert_eq!(picture.iter().filter(|(.., count)| *count == 2).count(), 6);
        while let Some(one) = held.pop() {
            drop(one);
        }
        assert_eq!(door.picture().await, []);
        assert!(!door.release(&locker, &object("0"), Mode::Write).await);
        drop(locker);
        door.is_empty().await;
    }
}

/// One blocks and gets the lock when the other releases it, and the other way round.
#[actix::test]
async fn lock002() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let pair = [door.locker(), door.locker()];
        for (held_in, wanted) in [
            (Mode::Write, Mode::Write),
            (Mode::Write, Mode::Read),
            (Mode::Read, Mode::Write),
        ] {
            for (first, second) in [(0, 1), (1, 0)] {
                let held = door.hold(&pair[first], &a, held_in).await;
                let waiting = door.waits(&pair[second], &a, wanted).await;
                tokio::task::yield_now().await;
                assert!(!waiting.is_finished());
                drop(held);
                let handed = waiting.await.unwrap().unwrap();
                let owner = (a.to_string(), pair[second].id(), wanted, 1);
                assert_eq!(door.picture().await, [owner]);
                // And back again.
                let back = door.waits(&pair[first], &a, Mode::Write).await;
                drop(handed);
                drop(back.await.unwrap().unwrap());
            }
        }
        drop(pair);
        door.is_empty().await;
    }
}

/// Five lockers, 500 rounds, 75 objects, 65 % reads, 1 to 5 locks in ascending order; outside of the
/// table it is counted who is inside. In tasks that take turns, and on threads that do not.
#[actix::test]
async fn lock003() {
    for door in Door::both(LockConfig::default()) {
        let inside = nobody();
        let workers: Vec<_> = (1..=5)
            .map(|seed| tokio::task::spawn_local(works(door.clone(), Arc::clone(&inside), seed)))
            .collect();
        for worker in workers {
            worker.await.unwrap();
        }
        they_met(&door).await;

        let threads: Vec<_> = (1..=5)
            .map(|seed| {
                let (door, inside) = (door.clone(), Arc::clone(&inside));
                thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build();
                    runtime.unwrap().block_on(works(door, inside, seed));
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        they_met(&door).await;
    }
}

const OBJECTS: usize = 75;

/// Of each object the readers inside, or -1 for a writer.
type Inside = Arc<Vec<AtomicI64>>;

fn nobody() -> Inside {
    Arc::new((0..OBJECTS).map(|_| AtomicI64::new(0)).collect())
}

async fn works(door: Door, inside: Inside, seed: u64) {
    let mut next = numbers(seed);
    let locker = door.locker();
    for _ in 0..500 {
        let mut objects: Vec<usize> = (0..=next(5)).map(|_| next(OBJECTS)).collect();
        objects.sort_unstable();
        objects.dedup();
        let mut entered = Vec::new();
        for at in objects {
            let reads = next(100) < 65;
            let mode = if reads { Mode::Read } else { Mode::Write };
            let name = object(&format!("{at:02}"));
            let held = door.ask(&locker, &name, mode, Wait::Forever).await;
            enter(&inside[at], reads);
            entered.push((at, reads, held.unwrap()));
            thread::yield_now();
            tokio::task::yield_now().await;
        }
        for (at, reads, held) in entered {
            leave(&inside[at], reads);
            drop(held);
        }
    }
}

async fn they_met(door: &Door) {
    let stats = door.stats_and(true).await;
    assert!(stats.waits > 0, "they met");
    let sorted = "in ascending order there is no deadlock";
    assert_eq!(stats.deadlocks, 0, "{sorted}");
    door.is_empty().await;
}

fn enter(inside: &AtomicI64, reads: bool) {
    if reads {
        assert!(
            inside.fetch_add(1, Ordering::SeqCst) >= 0,
            "a reader beside a writer"
        );
    } else {
        assert_eq!(inside.swap(-1, Ordering::SeqCst), 0, "a writer is alone");
    }
}

fn leave(inside: &AtomicI64, reads: bool) {
    if reads {
        assert!(inside.fetch_sub(1, Ordering::SeqCst) > 0);
    } else {
        assert_eq!(inside.swap(0, Ordering::SeqCst), -1);
    }
}

/// Xorshift, below a bound.
fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut random = seed;
    move |below| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    }
}

/// A lock that was taken n times is held until it has been released n times, in each mode.
#[actix::test]
async fn lock004() {
    for door in Door::both(LockConfig::default()) {
        let (locker, other) = (door.locker(), door.locker());
        for mode in Mode::ALL {
            let a = object(mode.name());
            let against = Mode::ALL
                .into_iter()
                .find(|one| STANDARD.conflicts(mode, *one));
            let against = against.unwrap();
            let mut held = Vec::new();
            for count in 1..=10 {
                held.push(door.hold(&locker, &a, mode).await);
                assert_eq!(
                    door.picture().await,
                    [(a.to_string(), locker.id(), mode, count)]
                );
            }
            assert_eq!(door.stats().await.locks.now, 1, "one lock, counted");
            let waiting = door.waits(&other, &a, against).await;
            while held.len() > 1 {
                drop(held.pop());
                assert_eq!(door.picture().await[0].3, held.len() as u64);
                assert_eq!(door.stats().await.waiting, 1, "not before the last");
            }
            drop(held.pop());
            drop(waiting.await.unwrap().unwrap());
            assert!(
                !door.release(&locker, &a, mode).await,
                "one release too many"
            );
        }
    }
}

/// Lock coupling over ten objects in each mode: the next one is taken before the last one is let go.
#[actix::test]
async fn lock005() {
    for door in Door::both(LockConfig::default()) {
        for mode in Mode::ALL {
            let objects: Vec<Object> = (0..10).map(|n| object(&format!("{mode} {n}"))).collect();
            let walker = door.locker();
            let mut here = door.hold(&walker, &objects[0], mode).await;
            // Whoever comes behind in a mode that conflicts does not overtake.
            let behind = door.locker();
            let excludes_itself = STANDARD.conflicts(mode, mode);
            for step in 1..10 {
                let next = door.hold(&walker, &objects[step], mode).await;
                let both = door.picture().await;
                assert_eq!(both.iter().filter(|held| held.1 == walker.id()).count(), 2);
                drop(std::mem::replace(&mut here, next));
                drop(door.hold(&behind, &objects[step - 1], mode).await);
                match door.ask(&behind, &objects[step], mode, Wait::No).await {
                    Ok(_) => assert!(!excludes_itself),
                    Err(error) => assert!(excludes_itself, "{error}"),
                }
            }
            drop(here);
            // The same with both operations in one message.
            let mut guards = door
                .run(&walker, LockOps::new().lock(objects[0].clone(), mode))
                .await;
            for step in 1..10 {
                let (last, next) = (objects[step - 1].clone(), objects[step].clone());
                let ops = LockOps::new().lock(next.clone(), mode).unlock(last, mode);
                let ran = door.run(&walker, ops).await.unwrap();
                assert!(matches!(
                    ran.outcomes[..],
                    [LockOutcome::Granted, LockOutcome::Released(1)]
                ));
                assert_eq!(
                    door.picture().await,
                    [(next.to_string(), walker.id(), mode, 1)]
                );
                guards = Ok(ran);
            }
            drop((guards, walker, behind));
            door.is_empty().await;
        }
    }
}

/// All locks on an object are released at once, and nothing of them is left behind.
#[actix::test]
async fn lock006() {
    for door in Door::both(LockConfig::default()) {
        let (a, b) = (object("a"), object("b"));
        let (locker, other, writer) = (door.locker(), door.locker(), door.locker());
        for by_ops in [false, true] {
            let mut held = Vec::new();
            for mode in Mode::ALL {
                for _ in 0..3 {
                    held.push(door.hold(&locker, &a, mode).await);
                }
            }
            held.push(door.hold(&locker, &b, Mode::Write).await);
            let waiting = door.waits(&writer, &a, Mode::Write).await;
            if by_ops {
                let ops = LockOps::new().unlock_object(a.clone());
                let ran = door.run(&locker, ops).await.unwrap();
                assert!(
                    matches!(ran.outcomes[..], [LockOutcome::Released(6)]),
                    "{ran:?}"
                );
            } else {
                assert_eq!(locker.unlock_object(&a), 6);
            }
            let handed = waiting.await.unwrap().unwrap();
            let left = [
                (a.to_string(), writer.id(), Mode::Write, 1),
                (b.to_string(), locker.id(), Mode::Write, 1),
            ];
            assert_eq!(door.picture().await, left);
            drop(handed);
            assert_eq!(locker.unlock_object(&a), 0);
            let stats = door.stats().await;
            assert_eq!(
                (stats.locks.now, stats.objects.now),
                (1, 1),
                "the counts are right"
            );
            drop(door.hold(&other, &a, Mode::Write).await);
            // Guards of what is gone release nothing.
            drop(held);
            assert_eq!(door.picture().await, []);
        }
        drop((locker, other, writer));
        door.is_empty().await;
    }
}

/// A guard whose lock was released by object, or with everything else, is not the guard of a later one.
#[actix::test]
async fn a_stale_guard_does_not_release_a_later_lock() {
    let (address, locks) = LockTable::start_alone(LockConfig::default()).unwrap();
    let door = Door::Message(locks, address);
    let a = object("a");
    let locker = door.locker();
    let stale = door.hold(&locker, &a, Mode::Write).await;
    assert_eq!(locker.release_all(), 1);
    let later = door.hold(&locker, &a, Mode::Write).await;
    drop(stale);
    assert_eq!(door.picture().await.len(), 1, "{later:?} is still there");
}
