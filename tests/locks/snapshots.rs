//! The picture of the whole table.

use futures_util::future::{self, Either};

use super::*;

#[actix::test]
async fn a_snapshot_says_the_same_by_object_by_locker_and_as_edges() {
    for door in Door::both(without_detection()) {
        let (a, b) = (object("a"), object("b"));
        let (one, two) = (door.named("one").await, door.named("two").await);
        let child = door.child(&one).await;
        let idle = door.named("idle").await;
        let _held = [
            door.hold(&one, &a, Mode::Read).await,
            door.hold(&one, &a, Mode::Read).await,
            door.hold(&two, &a, Mode::Read).await,
            door.hold(&child, &b, Mode::Write).await,
            door.hold(&idle, &object("c"), Mode::Write).await,
        ];
        let range = Object::range("test", "b".."c").unwrap();
        let three = door.named("three").await;
        let _waiting = [
            door.waits(&two, &b, Mode::Read).await,
            door.waits(&three, &a, Mode::Write).await,
            door.waits(&three, &range, Mode::Write).await,
            door.waits(&one, &a, Mode::Write).await,
        ];
        let snapshot = door.snapshot().await;
        let stats = door.stats().await;
        assert_eq!(
            snapshot.held.len() + snapshot.waiting.len(),
            stats.locks.now
        );
        assert_eq!(snapshot.waiting.len(), stats.waiting);
        assert_eq!(snapshot.lockers.len(), stats.lockers.now);

        let by_object = snapshot.by_object();
        let (held, waiting) = &by_object[&a];
        let holders: Vec<_> = held
            .iter()
            .map(|held| (held.locker, held.mode, held.count))
            .collect();
        assert_eq!(
            holders,
            [(one.id(), Mode::Read, 2), (two.id(), Mode::Read, 1)]
        );
        // Who holds comes before who does not.
        let waiters: Vec<_> = waiting.iter().map(|one| one.locker).collect();
        assert_eq!(waiters, [one.id(), three.id()]);
        assert_eq!(by_object[&range].1.len(), 1);
        let objects: usize = by_object
            .values()
            .map(|(held, waiting)| held.len() + waiting.len())
            .sum();
        assert_eq!(objects, stats.locks.now);

        let by_locker = snapshot.by_locker();
        assert_eq!(by_locker.len(), 5);
        assert_eq!(by_locker[&one.id()].0.len(), 1);
        assert_eq!(by_locker[&one.id()].1.len(), 1);
        assert_eq!(by_locker[&three.id()].1.len(), 2);
        assert!(by_locker[&idle.id()].1.is_empty());

        // Who waits really is kept waiting by just these.
        let mut edges: Vec<_> = (snapshot.waits_for(100).into_iter())
            .map(|edge| (edge.waiter, edge.object, edge.blocker, edge.held))
            .collect();
        edges.sort();
        let mut expected = vec![
            (two.id(), b.clone(), child.id(), true),
            (three.id(), a.clone(), one.id(), true),
            (three.id(), a.clone(), two.id(), true),
            (three.id(), a.clone(), one.id(), false),
            (three.id(), range.clone(), child.id(), true),
            (three.id(), range.clone(), two.id(), false),
            (one.id(), a.clone(), two.id(), true),
        ];
        expected.sort();
        assert_eq!(edges, expected);
        assert_eq!(snapshot.waits_for(2).len(), 2);

        let json: serde_json::Value = serde_json::from_str(&snapshot.to_json()).unwrap();
        assert_eq!(json["held"].as_array().unwrap().len(), 4);
        assert_eq!(json["waiting"].as_array().unwrap().len(), 4);
        assert!(snapshot.to_json().contains("idle"));
        let graph = snapshot.to_graphviz(100);
        assert_eq!(graph.matches("->").count(), 7);
        for name in ["one", "two", "three", "idle", "test[a]", "tests/locks"] {
            assert!(graph.contains(name), "{name} is not in {graph}");
        }
    }
}

/// Many change the table while it is looked at: no picture shows what cannot be.
#[actix::test]
async fn i05_every_snapshot_under_load_is_of_one_moment() {
    for door in Door::both(LockConfig::default()) {
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..2_usize)
            .map(|seed| {
                let (locks, stop) = (door.locks().clone(), Arc::clone(&stop));
                thread::spawn(move || {
                    let mut round = seed;
                    while !stop.load(Ordering::Relaxed) {
                        round += 1;
                        let locker = locks.locker(LockerSpec::new()).unwrap();
                        for step in 0..3 {
                            let name = object(&((round * 5 + step * 3) % 4).to_string());
                            let mode = Mode::ALL[(round + step * 5) % Mode::COUNT];
                            if locker.blocking_lock(&name, mode, Wait::Default).is_err() {
                                break;
                            }
                        }
                    }
                })
            })
            .collect();
        let table = ConflictTable::standard();
        for _ in 0..300 {
            let snapshot = door.snapshot().await;
            for (_, (held, waiting)) in snapshot.by_object() {
                for (at, one) in held.iter().enumerate() {
                    for other in &held[at + 1..] {
                        assert!(
                            one.locker == other.locker || !table.conflicts(one.mode, other.mode)
                        );
                    }
                }
                // Each takes an object once, and waits for none that it has.
                assert!(held.iter().all(|one| one.count == 1), "{held:?}");
                for one in waiting {
                    let has_it = held.iter().any(|held| held.locker == one.locker);
                    assert!(!has_it, "{one:?} in {held:?}");
                }
            }
            assert!(snapshot.lockers.len() <= threads.len());
            for (locker, (_, waiting)) in snapshot.by_locker() {
                assert!(waiting.len() <= 1, "{locker} waits for {waiting:?}");
            }
            let ids: Vec<_> = snapshot.lockers.iter().map(|info| info.locker).collect();
            assert!(snapshot.held.iter().all(|held| ids.contains(&held.locker)));
            // Nobody waits without a reason; what a victim is about to release makes no edge.
            let edges = snapshot.waits_for(1000);
            let dead = |locker| {
                snapshot
                    .lockers
                    .iter()
                    .any(|one| one.locker == locker && one.dead)
            };
            for waiting in &snapshot.waiting {
                let (held, _) = &snapshot.by_object()[&waiting.object];
                let is_kept = edges.iter().any(|edge| edge.waiter == waiting.locker)
                    || held.iter().any(|held| dead(held.locker));
                assert!(is_kept, "{waiting:?}");
            }
            for info in &snapshot.lockers {
                let own = snapshot
                    .held
                    .iter()
                    .filter(|held| held.locker == info.locker);
                assert_eq!(own.count(), info.locks);
            }
        }
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
        door.is_empty().await;
    }
}

/// A large table takes long to be put in order.
#[actix::test]
async fn a_snapshot_by_message_holds_up_no_other_message_and_is_of_its_turn() {
    let (address, locks) = LockTable::start_alone(without_detection()).unwrap();
    let locker = Arc::new(locks.locker(LockerSpec::new()).unwrap());
    const MANY: u32 = 50_000;
    let point = |number: u32| Object::new("test", number.to_be_bytes());
    for number in (0..MANY).rev() {
        let taken = locker.blocking_lock(&point(number), Mode::Write, Wait::No);
        taken.unwrap();
    }
    for round in 0..3 {
        let snapshot = Box::pin(address.send(LockSnapshotQuery));
        let release = Box::pin(address.send(Release::Lock {
            locker: Arc::clone(&locker),
            object: point(round),
            mode: Mode::Write,
        }));
        let Either::Left((released, snapshot)) = future::select(release, snapshot).await else {
            panic!("the snapshot was answered first");
        };
        assert!(released.unwrap());
        let held = snapshot.await.unwrap().held;
        assert_eq!(held.len(), (MANY - round) as usize);
        assert!(held.is_sorted_by(|one, next| one.object < next.object));
    }
}
