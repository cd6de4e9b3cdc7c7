//! The last 64 deadlocks.

use super::*;

#[actix::test]
async fn the_last_64_deadlocks_are_kept_with_why_each_victim_was_chosen() {
    for door in Door::both(without_detection()) {
        let policies = [
            VictimPolicy::Oldest,
            VictimPolicy::Youngest,
            VictimPolicy::MaxLocks,
        ];
        let mut victims = Vec::new();
        let mut events = door.locks().subscribe();
        let begun = std::time::SystemTime::now();
        assert!(door.history().await.is_empty());
        for number in 0..70 {
            let [a, b] = ["a", "b"].map(|name| object(&format!("{number} {name}")));
            let (one, two) = (door.named("one").await, door.named("two").await);
            let held = [
                door.hold(&one, &a, Mode::Write).await,
                door.hold(&two, &b, Mode::Write).await,
            ];
            let waiting = [
                door.waits(&one, &b, Mode::Read).await,
                door.waits(&two, &a, Mode::Read).await,
            ];
            let policy = policies[number % 3];
            let report = door.detect(policy).await;
            let conflict = Arc::clone(&report.victims[0]);
            let choice = conflict.choice.unwrap();
            let victim = if policy == VictimPolicy::Oldest {
                &one
            } else {
                &two
            };
            assert_eq!((choice.policy, choice.candidates), (policy, 2));
            assert_eq!(choice.victim, victim.id());
            let deadlock = |event| match event {
                LockEvent::Deadlock(conflict) => Some(conflict),
                _ => None,
            };
            assert!(Arc::ptr_eq(&event(&mut events, deadlock).await, &conflict));
            victims.push(conflict);
            drop(held);
            for task in waiting {
                let _ = task.await.unwrap();
            }
        }
        let history = door.history().await;
        assert_eq!(history.len(), 64);
        // The oldest first; after the fact they say all that they said then.
        for (past, conflict) in history.iter().zip(&victims[6..]) {
            assert_eq!(past.conflict, *conflict);
            assert_eq!(past.conflict.cycle.len(), 2);
            assert!(
                past.conflict
                    .to_string()
                    .contains(past.conflict.choice.unwrap().policy.name())
            );
        }
        assert!(history.is_sorted_by_key(|past| past.at));
        let slack = Duration::from_secs(1);
        assert!(
            history[0].at + slack >= begun
                && history[63].at <= std::time::SystemTime::now() + slack
        );
        // The statistics may be cleared, the history stays.
        door.stats_and(true).await;
        assert_eq!(door.history().await.len(), 64);
    }
}

/// However many there are in a second, and whatever else is refused meanwhile: what is kept is looked at long after.
#[actix::test]
async fn each_deadlock_that_is_kept_names_all_who_held_and_all_who_waited() {
    const OTHERS: usize = 3;
    for door in Door::both(without_detection()) {
        let holder = door.named("holder").await;
        let busy = door.hold(&holder, &object("busy"), Mode::Write).await;
        for _ in 0..30 {
            let impatient = door.named("impatient").await;
            door.refused(&impatient, &object("busy"), Mode::Read).await;
        }
        for number in 0..64 {
            let [a, b] = ["a", "b"].map(|name| object(&format!("{number} {name}")));
            let (one, two) = (door.named("one").await, door.named("two").await);
            let reader = door.named("reader").await;
            let held = [
                door.hold(&one, &a, Mode::Write).await,
                door.hold(&two, &b, Mode::Read).await,
                door.hold(&reader, &b, Mode::Read).await,
            ];
            let mut waiting = vec![
                door.waits(&one, &b, Mode::Write).await,
                door.waits(&two, &a, Mode::Read).await,
            ];
            for _ in 0..OTHERS {
                let other = door.named("other").await;
                waiting.push(door.waits(&other, &b, Mode::Write).await);
            }
            let report = door.detect(VictimPolicy::Oldest).await;
            assert_eq!(report.victims.len(), 1);
            drop(held);
            for task in waiting {
                let _ = task.await.unwrap();
            }
        }
        drop(busy);
        let history = door.history().await;
        assert_eq!(history.len(), 64);
        for past in history {
            let conflict = past.conflict;
            let (owners, waiters) = (conflict.owners.len(), conflict.waiters.len());
            assert_eq!((owners, conflict.owners_total), (2, 2), "{conflict:?}");
            assert_eq!((waiters, conflict.waiters_total), (OTHERS, OTHERS));
        }
    }
}
