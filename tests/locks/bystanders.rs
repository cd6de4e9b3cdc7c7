//! Who never is a victim, and which part of a family is.

use super::*;

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
                assert!(
                    [one.id(), two.id()].contains(&victim),
                    "{policy}: {}",
                    past.conflict
                );
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
        let error = door
            .ask(&child, &b, Mode::Write, Wait::Forever)
            .await
            .unwrap_err();
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
        assert!(
            !waiting.is_finished(),
            "locks go when their owner releases them"
        );
        drop(held);
        drop(waiting.await.unwrap().unwrap());
        drop(theirs);
    }
}

#[actix::test]
async fn only_the_subtree_that_is_in_the_way_is_aborted() {
    for door in Door::both(LockConfig::default()) {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(object);
        let (other, stranger) = (door.locker(), door.locker());
        let parent = door.locker();
        let (child, sibling) = (door.child(&parent).await, door.child(&parent).await);
        let theirs = door.hold(&other, &b, Mode::Write).await;
        let strange = door.hold(&stranger, &d, Mode::Write).await;
        let kept = door.hold(&parent, &c, Mode::Write).await;
        let held = door.hold(&child, &a, Mode::Write).await;
        let waiting = door.waits(&other, &a, Mode::Write).await;
        // The sibling waits for somebody who is on no cycle.
        let sibling = door.waits(&sibling, &d, Mode::Write).await;
        let error = door.ask(&child, &b, Mode::Write, Wait::Forever).await;
        let LockError::Deadlock(conflict) = error.unwrap_err() else {
            panic!("it is a deadlock")
        };
        assert_eq!(conflict.choice.unwrap().victim, child.id());
        let error = door.refused(&child, &c, Mode::Read).await;
        assert!(matches!(error, LockError::Dead(_)), "{error}");
        drop(door.hold(&parent, &object("e"), Mode::Write).await);
        assert!(!sibling.is_finished() && !waiting.is_finished());
        drop(held);
        drop(waiting.await.unwrap().unwrap());
        drop((theirs, strange));
        drop(sibling.await.unwrap().unwrap());
        drop(kept);
        // Its end leaves the parent as it was.
        assert!(door.end(&child).await);
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

/// A child holds what others wait for, and its parent, or another child, waits: whoever is aborted, somebody
/// whose wait is on the cycle has to be told, or nobody ever releases anything.
#[actix::test]
async fn i07_a_deadlock_is_told_to_somebody_who_waits() {
    for door in Door::both(LockConfig::default()) {
        for sibling_waits in [false, true] {
            // Those of the round before may still be on their way out.
            let [a, b] = ["a", "b"].map(|name| object(&format!("{name} {sibling_waits}")));
            let other = door.locker();
            let parent = door.locker();
            let (holds, sibling) = (door.child(&parent).await, door.child(&parent).await);
            let waiter = if sibling_waits { &sibling } else { &parent };
            let _theirs = door.hold(&other, &b, Mode::Write).await;
            let _held = door.hold(&holds, &a, Mode::Write).await;
            let theirs = door.waits(&other, &a, Mode::Write).await;
            let ours = door.waits(waiter, &b, Mode::Write).await;
            assert!(door.stats().await.deadlocks > 0, "it is seen");
            // Both are given the time to see what became of them.
            door.detect(VictimPolicy::Default).await;
            tokio::task::yield_now().await;
            let waiting = door.stats().await.waiting;
            assert!(
                waiting < 2,
                "sibling {sibling_waits}: the cycle was broken, and both wait on"
            );
            drop((theirs, ours));
        }
    }
}
