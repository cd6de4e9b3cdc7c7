//! I12: whatever is dropped at whatever point leaves nothing behind.

use super::*;

/// Something that waits several times, once for each blocker.
struct Work {
    /// What the asker holds before, and afterwards again.
    before: &'static [(&'static str, Mode)],
    /// Who is in the way, in the order of the waits.
    blockers: &'static [(&'static str, Mode)],
    begin: Begin,
}

/// Begins it for this locker, which holds this; answers the work, and what of the held is left to the test.
type Begin = fn(&Door, &Arc<Locker>, Vec<Held>) -> (Doing<()>, Vec<Held>);

const fn wait() -> Wait {
    Wait::Forever
}

fn ops() -> LockOps {
    LockOps::new()
        .lock(object("free"), Mode::Write)
        .lock_wait(object("0"), Mode::Write, wait())
        .upgrade(object("x"), Mode::Read, Mode::Write, wait())
        .lock(object("also free"), Mode::Read)
        .lock_wait(object("2"), Mode::Read, wait())
}

fn works() -> [Work; 5] {
    let three: &[_] = &[("0", Mode::Write), ("x", Mode::Read), ("2", Mode::Write)];
    [
        Work {
            before: &[],
            blockers: &[("0", Mode::Write)],
            begin: |door, asker, held| {
                let asking = door.ask(asker, &object("0"), Mode::Read, wait());
                (Box::pin(async move { drop(asking.await) }), held)
            },
        },
        // The upgrade takes the lock with it.
        Work {
            before: &[],
            blockers: &[("x", Mode::Read)],
            begin: |door, asker, held| {
                let (door, asker) = (door.clone(), Arc::clone(asker));
                let doing = async move {
                    let read = door.hold(&asker, &object("x"), Mode::Read).await;
                    drop(door.upgrade(read, Mode::Write, wait()).await);
                };
                (Box::pin(doing), held)
            },
        },
        Work {
            before: &[("x", Mode::Read)],
            blockers: three,
            begin: |door, asker, held| {
                let running = door.run(asker, ops().unlock(object("0"), Mode::Write));
                (Box::pin(async move { drop(running.await) }), held)
            },
        },
        Work {
            before: &[("y", Mode::Read)],
            blockers: &[("0", Mode::Write), ("2", Mode::Write)],
            begin: |door, asker, held| {
                let ops = LockOps::new()
                    .lock(object("free"), Mode::Write)
                    .lock_wait(object("0"), Mode::Write, wait())
                    .unlock(object("0"), Mode::Write)
                    .lock_wait(object("2"), Mode::Read, wait())
                    .stop_at_first_error();
                let running = door.run(asker, ops);
                (Box::pin(async move { drop(running.await) }), held)
            },
        },
        // Of all or nothing also what was to be released is there again.
        Work {
            before: &[("x", Mode::Read), ("y", Mode::Write)],
            blockers: three,
            begin: |door, asker, held| {
                let ops = ops()
                    .downgrade(object("y"), Mode::Write, Mode::Read)
                    .release_all();
                let last = ops.lock_wait(object("2"), Mode::Write, wait());
                let running = door.run(asker, last);
                (Box::pin(async move { drop(running.await) }), held)
            },
        },
    ]
}

/// Whether the answers so far have all come.
fn poll_once(doing: &mut Doing<()>) -> bool {
    doing
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_ready()
}

#[actix::test]
async fn i12_whatever_waits_is_dropped_at_each_of_its_polls() {
    for door in Door::both(without_detection()) {
        for (number, work) in works().into_iter().enumerate() {
            // Dropped before the first poll, at the n-th wait, or when that has been granted unseen.
            for stage in 0..=2 * work.blockers.len() {
                let asker = door.locker();
                let mut before = Vec::new();
                for (name, mode) in work.before {
                    before.push(door.hold(&asker, &object(name), *mode).await);
                }
                let expected = door.picture().await;
                let blocker = door.locker();
                let mut in_the_way = Vec::new();
                for (name, mode) in work.blockers {
                    in_the_way.push(door.hold(&blocker, &object(name), *mode).await);
                }
                in_the_way.reverse();
                let (mut doing, kept) = (work.begin)(&door, &asker, before);
                let waits = door.locks().stats().waits;
                for step in 0..stage {
                    let is_waiting = || door.locks().stats().waits > waits + step as u64 / 2;
                    if step % 2 == 0 {
                        // A message needs polls only for its answers.
                        let end = Instant::now() + PATIENCE;
                        while !is_waiting() {
                            assert!(!poll_once(&mut doing), "{number}: it was to wait");
                            assert!(Instant::now() < end, "{number}: it does not wait");
                            tokio::task::yield_now().await;
                        }
                    } else {
                        let grants = door.locks().stats().grants;
                        drop(in_the_way.pop());
                        until(|| door.locks().stats().grants > grants).await;
                    }
                }
                drop(doing);
                // A message that has come to its end has done what it says, and only its guards are undone.
                let may_be_done =
                    stage == 2 * work.blockers.len() && matches!(door, Door::Message(..));
                // While the others hold what they hold: nobody else moves it on.
                let found = || {
                    let snapshot = door.locks().snapshot();
                    let own = (snapshot.held.iter()).filter(|held| held.locker == asker.id());
                    let own: Vec<_> = own
                        .map(|held| (held.object.to_string(), held.locker, held.mode, held.count))
                        .collect();
                    (own, snapshot.waiting.len())
                };
                let end = Instant::now() + PATIENCE;
                loop {
                    let found = found();
                    if found == (expected.clone(), 0) || may_be_done && found == (Vec::new(), 0) {
                        break;
                    }
                    assert!(
                        Instant::now() < end,
                        "work {number}, stage {stage}: {found:?} instead of {expected:?}",
                    );
                    tokio::task::yield_now().await;
                }
                drop(in_the_way);
                // The locker is usable, and its end leaves nothing.
                drop(door.hold(&asker, &object("z"), Mode::Write).await);
                drop((kept, asker, blocker));
                until(|| door.locks().stats().lockers.now == 0).await;
                door.is_empty().await;
            }
        }
    }
}

#[actix::test]
async fn i12_messages_that_do_not_wait_leave_nothing_when_they_are_dropped() {
    let [_, door] = Door::both(LockConfig::default());
    let Door::Message(_, address) = &door else {
        unreachable!()
    };
    for polls in 0..2 {
        let parent = door.locker();
        let child = Arc::new(parent.child(LockerSpec::new()).unwrap());
        let read = door.hold(&child, &object("a"), Mode::Write).await;
        let begin = |future: Doing<()>| {
            let mut future = future;
            for _ in 0..polls {
                let _ = poll_once(&mut future);
            }
        };
        let new = door.new_locker(LockerSpec::new(), None);
        begin(Box::pin(async move { drop(new.await) }));
        let new = door.new_locker(LockerSpec::new(), Some(&parent));
        begin(Box::pin(async move { drop(new.await) }));
        let taking = door.take(&child, &object("b"), Mode::Write, Wait::No);
        begin(Box::pin(async move { drop(taking.await) }));
        let weaker = door.clone();
        begin(Box::pin(async move {
            drop(weaker.downgrade(read, Mode::Read).await)
        }));
        let commit = address.send(CommitLocker {
            locker: Arc::clone(&child),
        });
        begin(Box::pin(async move { drop(commit.await) }));
        until(|| door.locks().stats().locks.now == 0).await;
        drop((parent, child));
        until(|| door.locks().stats().lockers.now == 0).await;
        door.is_empty().await;
    }
}

/// An upgrade that was granted and not seen keeps the new mode if others have taken the place of the old one;
/// its guard releases it all the same.
#[actix::test]
async fn i12_a_guard_whose_upgrade_cannot_be_taken_back_still_releases_its_lock() {
    let [_, door] = Door::both(LockConfig::default());
    let a = object("a");
    let (locker, other, third) = (door.locker(), door.locker(), door.locker());
    let taken = door.take(&locker, &a, Mode::Read, Wait::No).await;
    let mut guard = taken.unwrap().unwrap();
    let theirs = door.hold(&other, &a, Mode::Read).await;
    let mut upgrading = Box::pin(guard.upgrade(Mode::IntentWrite, Wait::Forever));
    let mut context = Context::from_waker(Waker::noop());
    assert!(upgrading.as_mut().poll(&mut context).is_pending());
    let beside = door.waits(&third, &a, Mode::IntentWrite).await;
    drop(theirs);
    let beside = beside.await.unwrap().unwrap();
    drop(upgrading);
    drop(guard);
    let left = (a.to_string(), third.id(), Mode::IntentWrite, 1);
    assert_eq!(
        door.picture().await,
        [left],
        "the guard is gone, and its lock with it"
    );
    drop(beside);
}

/// What a locker held before, in whatever mode, it has not lost because operations on it were dropped.
#[actix::test]
async fn i12_dropped_operations_release_only_what_they_took() {
    for door in Door::both(without_detection()) {
        for stop in [false, true] {
            let (asker, blocker) = (door.locker(), door.locker());
            let _before = [
                door.hold(&asker, &object("x"), Mode::Read).await,
                door.hold(&asker, &object("y"), Mode::Write).await,
            ];
            let _in_the_way = door.hold(&blocker, &object("0"), Mode::Write).await;
            let ops = LockOps::new()
                .upgrade(object("x"), Mode::Read, Mode::Write, wait())
                .downgrade(object("y"), Mode::Write, Mode::Read)
                .lock(object("free"), Mode::Write)
                .lock_wait(object("0"), Mode::Read, wait());
            let ops = if stop { ops.stop_at_first_error() } else { ops };
            let running = door.until_queued(door.run(&asker, ops)).await;
            running.abort();
            until(|| door.locks().stats().waiting == 0).await;
            let own: Vec<_> = (door.picture().await.into_iter())
                .filter(|held| held.1 == asker.id())
                .map(|held| held.0)
                .collect();
            assert_eq!(
                own,
                ["test[x]", "test[y]"],
                "stop at the first error: {stop}"
            );
        }
    }
}
