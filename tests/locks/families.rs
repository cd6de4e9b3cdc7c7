//! Children share with their family; a commit passes locks up, an abort releases them.

use super::*;

#[actix::test]
async fn nothing_conflicts_inside_a_family() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let parent = door.locker();
        let (one, two) = (door.child(&parent).await, door.child(&parent).await);
        let grandchild = door.child(&one).await;
        let stranger = door.locker();
        let _held = [
            door.hold(&parent, &a, Mode::Write).await,
            door.hold(&grandchild, &a, Mode::Write).await,
            door.hold(&two, &a, Mode::Read).await,
            door.hold(&one, &Object::whole("test"), Mode::Write).await,
        ];
        let error = door.refused(&stranger, &a, Mode::IntentRead).await;
        assert_eq!(error.conflict().unwrap().owners_total, 3, "{error}");
        assert_eq!(one.age(), parent.age());
        let snapshot = door.snapshot().await;
        let infos = snapshot
            .lockers
            .iter()
            .filter(|info| info.family == parent.id());
        assert_eq!(infos.count(), 4);
        let parents: Vec<_> = snapshot.lockers.iter().map(|info| info.parent).collect();
        let id = Some(parent.id());
        assert_eq!(parents, [None, id, id, Some(one.id()), None]);
    }
}

#[actix::test]
async fn a_commit_passes_locks_up_with_their_counts() {
    for door in Door::both(LockConfig::default()) {
        let (a, b) = (object("a"), object("b"));
        let stranger = door.locker();
        let parent = door.locker();
        let child = door.child(&parent).await;
        let grandchild = door.child(&child).await;
        let own = door.hold(&parent, &a, Mode::Read).await;
        for (locker, object, mode) in [
            (&child, &a, Mode::Read),
            (&child, &a, Mode::Read),
            (&child, &a, Mode::Write),
            (&grandchild, &a, Mode::Read),
            (&grandchild, &b, Mode::Write),
        ] {
            locker.lock(object, mode, Wait::No).await.unwrap();
        }
        let waiting = door.waits(&stranger, &a, Mode::Read).await;
        drop(grandchild);
        let grandchild = door.child(&child).await;
        grandchild.lock(&a, Mode::Read, Wait::No).await.unwrap();
        grandchild.lock(&b, Mode::Write, Wait::No).await.unwrap();
        let id = child.id();
        door.commit(child).await.unwrap();
        let expected = [
            (a.to_string(), parent.id(), Mode::Read, 4),
            (a.to_string(), parent.id(), Mode::Write, 1),
            (b.to_string(), parent.id(), Mode::Write, 1),
        ];
        assert_eq!(door.picture().await, expected);
        let snapshot = door.snapshot().await;
        assert!(
            snapshot.lockers.iter().all(|info| info.locker != id),
            "it has ended"
        );
        assert!(!waiting.is_finished(), "the family holds it all the time");
        let gone = door.ask(&grandchild, &a, Mode::Read, Wait::No).await;
        assert!(
            matches!(gone, Err(LockError::Ended)),
            "children end with it"
        );
        assert!(door.release(&parent, &a, Mode::Write).await);
        drop(waiting.await.unwrap().unwrap());
        drop(own);
        assert_eq!(door.picture().await[0].3, 3);
        door.commit(parent).await.unwrap();
        assert_eq!(door.picture().await, []);
        assert!(!door.end(&grandchild).await);
    }
}

#[actix::test]
async fn an_abort_releases_what_the_child_took_and_nothing_else() {
    for door in Door::both(LockConfig::default()) {
        let (a, b) = (object("a"), object("b"));
        let (stranger, parent) = (door.locker(), door.locker());
        let own = door.hold(&parent, &a, Mode::Read).await;
        for by_message in [true, false] {
            let child = door.child(&parent).await;
            let grandchild = door.child(&child).await;
            child.lock(&a, Mode::Write, Wait::No).await.unwrap();
            grandchild.lock(&b, Mode::Write, Wait::No).await.unwrap();
            let reading = door.waits(&stranger, &a, Mode::Read).await;
            let writing = door.waits(&stranger, &b, Mode::Write).await;
            if by_message {
                assert!(door.end(&child).await);
                assert!(!door.end(&child).await);
            } else {
                drop((child, grandchild));
            }
            let _theirs = (
                reading.await.unwrap().unwrap(),
                writing.await.unwrap().unwrap(),
            );
            let holders: Vec<_> = door.picture().await.iter().map(|held| held.1).collect();
            assert_eq!(holders, [stranger.id(), parent.id(), stranger.id()]);
        }
        drop(own);
    }
}

#[actix::test]
async fn the_end_of_a_parent_ends_its_children_and_their_waits() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let (stranger, parent) = (door.locker(), door.locker());
        let child = door.child(&parent).await;
        let _held = door.hold(&stranger, &a, Mode::Write).await;
        let waiting = door.waits(&child, &a, Mode::Write).await;
        assert!(door.end(&parent).await);
        assert!(matches!(waiting.await.unwrap(), Err(LockError::Ended)));
        assert!(matches!(
            door.refused(&child, &a, Mode::Read).await,
            LockError::Ended
        ));
        let orphan = door.new_locker(LockerSpec::new(), Some(&parent)).await;
        assert!(matches!(orphan, Err(LockError::Ended)));
        assert!(matches!(door.commit(child).await, Err(LockError::Ended)));
        assert_eq!(door.stats().await.lockers.now, 1);
    }
}

#[actix::test]
async fn a_commit_of_a_child_that_waits_refuses_its_wait() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let (stranger, parent) = (door.locker(), door.locker());
        let child = door.child(&parent).await;
        let grandchild = door.child(&child).await;
        let _held = door.hold(&stranger, &a, Mode::Write).await;
        let waiting = door.waits(&grandchild, &a, Mode::Write).await;
        door.commit(child).await.unwrap();
        assert!(matches!(waiting.await.unwrap(), Err(LockError::Ended)));
        assert_eq!(door.stats().await.waiting, 0);
    }
}

#[actix::test]
async fn nothing_is_passed_up_while_a_child_is_dead() {
    for door in Door::both(LockConfig::default()) {
        let (a, b) = (object("a"), object("b"));
        let (stranger, parent) = (door.locker(), door.locker());
        let child = door.child(&parent).await;
        let grandchild = door.child(&child).await;
        let _theirs = door.hold(&stranger, &a, Mode::Write).await;
        child.lock(&b, Mode::Write, Wait::No).await.unwrap();
        let short = Wait::For(Duration::from_millis(2));
        let error = door.ask(&grandchild, &a, Mode::Read, short).await;
        assert!(matches!(error, Err(LockError::LockTimeout(_))));
        // The child itself goes on, and cannot commit what is half done.
        drop(door.hold(&child, &object("c"), Mode::Read).await);
        // It ends all the same, and its locks are released.
        let error = door.commit(child).await;
        assert!(matches!(error, Err(LockError::Dead(_))), "{error:?}");
        assert_eq!(door.picture().await.len(), 1);
    }
}

#[actix::test]
async fn a_child_has_the_age_and_the_priority_of_its_family() {
    for door in Door::both(LockConfig::default()) {
        let old = door.locker();
        let spec = LockerSpec::new().priority(7);
        let parent = door.new_locker(spec, None).await.unwrap();
        let spec = LockerSpec::new().priority(1).age(Some(old.age()));
        let child = door.new_locker(spec, Some(&parent)).await.unwrap();
        assert_eq!(child.age(), parent.age());
        let snapshot = door.snapshot().await;
        let priorities: Vec<_> = snapshot.lockers.iter().map(|info| info.priority).collect();
        assert_eq!(priorities, [100, 7, 7]);
    }
}
