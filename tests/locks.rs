//! The lock table through both of its doors: in place, and by message.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use actix::{Actor, Addr};
use lockkeeper::{
    Acquire, ConflictKind, Detect, LimitKind, LockConfig, LockError, LockGuard, LockStatsQuery,
    LockTable, Locker, LockerSpec, Locks, Mode, NoSystem, Object, Release, Wait,
};

/// One way in.
#[derive(Clone)]
enum Door {
    InPlace(Locks),
    Message(Locks, Addr<LockTable>),
}

type Taking = Pin<Box<dyn Future<Output = Result<Option<LockGuard>, LockError>>>>;

impl Door {
    fn both(config: LockConfig) -> [Door; 2] {
        let locks = Locks::start(config);
        let (address, behind) = LockTable::start_alone(config).unwrap();
        [Door::InPlace(locks), Door::Message(behind, address)]
    }

    fn locks(&self) -> &Locks {
        match self {
            Door::InPlace(locks) | Door::Message(locks, _) => locks,
        }
    }

    fn locker(&self) -> Arc<Locker> {
        Arc::new(self.locks().locker(LockerSpec::new()).unwrap())
    }

    /// The lock stays with the locker, or with the guard if there is one.
    fn take(&self, locker: &Arc<Locker>, object: &Object, mode: Mode, wait: Wait) -> Taking {
        let (locker, object) = (Arc::clone(locker), object.clone());
        match self.clone() {
            Door::InPlace(_) => {
                Box::pin(async move { locker.lock(&object, mode, wait).await.map(|()| None) })
            }
            Door::Message(_, address) => Box::pin(async move {
                let acquire = Acquire::new(object, mode).wait(wait).locker(locker);
                address.send(acquire).await.unwrap().map(Some)
            }),
        }
    }

    /// Asks, and comes back when the request is queued.
    async fn queue(
        &self,
        locker: &Arc<Locker>,
        object: &Object,
        mode: Mode,
    ) -> tokio::task::JoinHandle<Taken> {
        let before = self.locks().stats().waits;
        let taking = self.take(locker, object, mode, Wait::Forever);
        let task = tokio::task::spawn_local(taking);
        until(|| self.locks().stats().waits > before).await;
        task
    }
}

type Taken = Result<Option<LockGuard>, LockError>;

fn object(name: &str) -> Object {
    Object::new("test", name)
}

/// Lets others run until this is so; far longer than anything here takes, and the test fails.
async fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "what was waited for has not come");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

fn without_detection() -> LockConfig {
    LockConfig {
        detect_on_block: false,
        detect_interval: Duration::ZERO,
        lock_timeout: Duration::ZERO,
        ..LockConfig::default()
    }
}

#[test]
fn i05_no_two_families_hold_conflicting_locks() {
    let locks = Locks::start(LockConfig::default());
    // For each object: readers inside, or -1 for a writer; kept outside the table.
    let inside: Arc<Vec<AtomicI64>> = Arc::new((0..6).map(|_| AtomicI64::new(0)).collect());
    let threads: Vec<_> = (0..8_u64)
        .map(|seed| {
            let (locks, inside) = (locks.clone(), Arc::clone(&inside));
            thread::spawn(move || {
                let mut random = seed + 1;
                let mut next = move |below: u64| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random % below
                };
                for _ in 0..1500 {
                    let locker = locks.locker(LockerSpec::new()).unwrap();
                    let mut entered: Vec<(usize, Mode)> = Vec::new();
                    for _ in 0..=next(3) {
                        let at = next(6) as usize;
                        if entered.iter().any(|(other, _)| *other == at) {
                            continue;
                        }
                        let mode = if next(3) == 0 {
                            Mode::Write
                        } else {
                            Mode::Read
                        };
                        match locker.blocking_lock(&object(&at.to_string()), mode, Wait::Default) {
                            Ok(()) => {}
                            Err(LockError::Deadlock(_)) => break,
                            Err(error) => panic!("{error}"),
                        }
                        match mode {
                            Mode::Write => assert_eq!(
                                inside[at].swap(-1, Ordering::SeqCst),
                                0,
                                "a writer is alone"
                            ),
                            _ => assert!(
                                inside[at].fetch_add(1, Ordering::SeqCst) >= 0,
                                "no writer beside a reader"
                            ),
                        }
                        entered.push((at, mode));
                    }
                    thread::yield_now();
                    for (at, mode) in entered {
                        match mode {
                            Mode::Write => assert_eq!(inside[at].swap(0, Ordering::SeqCst), -1),
                            _ => assert!(inside[at].fetch_sub(1, Ordering::SeqCst) > 0),
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let stats = locks.stats();
    assert!(stats.waits > 0 && stats.deadlocks > 0, "{stats:?}");
    assert_eq!(
        (stats.locks.now, stats.objects.now, stats.lockers.now),
        (0, 0, 0)
    );
}

#[actix::test]
async fn i06_waiters_are_served_in_the_order_in_which_they_came() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let first = door.locker();
        let held = door.take(&first, &a, Mode::Write, Wait::No).await.unwrap();
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..10 {
            let before = door.locks().stats().waits;
            let (order, locker) = (Arc::clone(&order), door.locker());
            let taking = door.take(&locker, &a, Mode::Write, Wait::Forever);
            tasks.push(tokio::task::spawn_local(async move {
                let guard = taking.await.unwrap();
                order.lock().push(number);
                drop((guard, locker));
            }));
            until(|| door.locks().stats().waits > before).await;
        }
        drop((held, first));
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), (0..10).collect::<Vec<_>>());
    }
}

#[actix::test]
async fn i06_a_reader_does_not_overtake_a_waiting_writer_and_an_upgrade_overtakes_both() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let [holder, other, writer, reader] =
            [door.locker(), door.locker(), door.locker(), door.locker()];
        let _held = door.take(&holder, &a, Mode::Read, Wait::No).await.unwrap();
        let beside = door.take(&other, &a, Mode::Read, Wait::No).await.unwrap();
        let writing = door.queue(&writer, &a, Mode::Write).await;
        let refused = door
            .take(&reader, &a, Mode::Read, Wait::No)
            .await
            .unwrap_err();
        let conflict = refused.conflict().unwrap();
        assert_eq!(conflict.kind, ConflictKind::NotAvailable);
        assert_eq!(
            (conflict.owners_total, conflict.waiters_total),
            (0, 1),
            "{refused}"
        );
        let reading = door.queue(&reader, &a, Mode::Read).await;
        let upgrading = door.queue(&holder, &a, Mode::Write).await;

        drop(beside);
        other.release_all();
        let upgraded = upgrading.await.unwrap().unwrap();
        assert!(!writing.is_finished() && !reading.is_finished());
        drop(upgraded);
        holder.release_all();
        let written = writing.await.unwrap().unwrap();
        assert!(!reading.is_finished());
        drop(written);
        writer.release_all();
        reading.await.unwrap().unwrap();
    }
}

#[actix::test]
async fn i07_every_cycle_is_broken() {
    for door in Door::both(LockConfig::default()) {
        for size in [2, 3, 4, 10] {
            let lockers: Vec<_> = (0..size).map(|_| door.locker()).collect();
            let mut guards = Vec::new();
            for (number, locker) in lockers.iter().enumerate() {
                guards.push(
                    door.take(locker, &object(&number.to_string()), Mode::Write, Wait::No)
                        .await
                        .unwrap(),
                );
            }
            let deadlocks = door.locks().stats().deadlocks;
            let mut waiting = Vec::new();
            for (number, locker) in lockers.iter().enumerate() {
                let next = object(&((number + 1) % size).to_string());
                waiting.push(door.queue(locker, &next, Mode::Write).await);
            }
            // The youngest is the victim, whoever closed the cycle, and the others go on one by one.
            let victim = waiting.pop().unwrap().await.unwrap().unwrap_err();
            let LockError::Deadlock(conflict) = &victim else {
                panic!("{victim}")
            };
            assert_eq!(conflict.cycle.len(), size, "{victim}");
            assert_eq!(conflict.asker.locker, lockers[size - 1].id());
            assert_eq!(victim.older().len(), size - 1);
            assert!(victim.is_retryable());
            assert_eq!(door.locks().stats().deadlocks, deadlocks + 1);
            drop(guards.pop());
            lockers[size - 1].release_all();
            while let Some(waits) = waiting.pop() {
                let guard = waits.await.unwrap().unwrap();
                drop((guard, guards.pop()));
                lockers[waiting.len()].release_all();
            }
        }
        assert_eq!(door.locks().stats().locks.now, 0);
    }
}

#[actix::test]
async fn i07_two_upgraders_are_a_deadlock_and_its_report_names_them() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let named = |name| Arc::new(door.locks().locker(LockerSpec::new().name(name)).unwrap());
        let (older, younger) = (named("older"), named("younger"));
        let _held = [
            door.take(&older, &a, Mode::Read, Wait::No).await.unwrap(),
            door.take(&younger, &a, Mode::Read, Wait::No).await.unwrap(),
        ];
        let waiting = door.queue(&older, &a, Mode::Write).await;
        let error = door
            .take(&younger, &a, Mode::Write, Wait::Forever)
            .await
            .unwrap_err();
        let text = error.to_string();
        for part in [
            "deadlock",
            "test[a]",
            "older (locker",
            "younger (locker",
            "write",
            "read",
            file!(),
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(!waiting.is_finished());
        let again = door
            .take(&younger, &object("b"), Mode::Read, Wait::Forever)
            .await;
        assert!(
            matches!(again, Err(LockError::Ended)),
            "a victim releases first"
        );
        younger.release_all();
        waiting.await.unwrap().unwrap();
        door.take(&younger, &object("b"), Mode::Read, Wait::Forever)
            .await
            .unwrap();
    }
}

#[actix::test]
async fn i07_periodic_detection_breaks_100_cycles_under_a_flood() {
    let interval = Duration::from_millis(300);
    let config = LockConfig {
        detect_on_block: false,
        detect_interval: interval,
        ..LockConfig::default()
    };
    let (address, locks) = LockTable::start_alone(config).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let flood: Vec<_> = (0..64_u32)
        .map(|number| {
            let (address, stop, sent) = (address.clone(), Arc::clone(&stop), Arc::clone(&sent));
            tokio::task::spawn_local(async move {
                while !stop.load(Ordering::Relaxed) {
                    let free = Object::new("flood", number.to_be_bytes());
                    address
                        .send(Acquire::new(free, Mode::Write))
                        .await
                        .unwrap()
                        .unwrap();
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut cycles = Vec::new();
    for number in 0..100 {
        let locks = locks.clone();
        cycles.push(tokio::task::spawn_local(async move {
            let pair = [
                locks.locker(LockerSpec::new()).unwrap(),
                locks.locker(LockerSpec::new()).unwrap(),
            ];
            let objects = [
                object(&format!("{number} left")),
                object(&format!("{number} right")),
            ];
            for (locker, object) in pair.iter().zip(&objects) {
                locker.lock(object, Mode::Write, Wait::No).await.unwrap();
            }
            let [one, two] = &pair;
            let mut first = Box::pin(one.lock(&objects[1], Mode::Write, Wait::Forever));
            let mut second = Box::pin(two.lock(&objects[0], Mode::Write, Wait::Forever));
            poll_fn(|context| {
                assert!(first.as_mut().poll(context).is_pending());
                assert!(second.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            // From here the cycle is closed. The time is taken by a thread of its own, not by this busy one.
            let closed = Instant::now();
            let waker = Arc::new(Stamp::default());
            let stamp = Waker::from(Arc::clone(&waker));
            assert!(
                second
                    .as_mut()
                    .poll(&mut Context::from_waker(&stamp))
                    .is_pending()
            );
            let error = second.await.unwrap_err();
            assert!(matches!(error, LockError::Deadlock(_)));
            two.release_all();
            first.await.unwrap();
            waker.0.lock().map_or(closed.elapsed(), |at| at - closed)
        }));
    }
    for cycle in cycles {
        let took = cycle.await.unwrap();
        assert!(
            took <= interval + Duration::from_millis(100),
            "broken after {took:?}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    for sender in flood {
        sender.await.unwrap();
    }
    assert_eq!(locks.stats().deadlocks, 100);
    assert!(sent.load(Ordering::Relaxed) > 1000, "there was a flood");
}

/// Notes when it is woken.
#[derive(Default)]
struct Stamp(parking_lot::Mutex<Option<Instant>>);

impl std::task::Wake for Stamp {
    fn wake(self: Arc<Self>) {
        *self.0.lock() = Some(Instant::now());
    }
}

#[actix::test]
async fn i08_a_victim_that_waits_for_the_older_ones_and_keeps_its_age_is_never_starved() {
    let locks = Locks::start(LockConfig::default());
    let threads: Vec<_> = (0..16)
        .map(|number| {
            let locks = locks.clone();
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let mut most = 0;
                for round in 0..100 {
                    let mut age = None;
                    let mut attempts = 0;
                    loop {
                        attempts += 1;
                        let locker = locks.locker(LockerSpec::new().age(age)).unwrap();
                        age = Some(locker.age());
                        let order = if (number + round) % 2 == 0 {
                            ["a", "b"]
                        } else {
                            ["b", "a"]
                        };
                        let error = order.iter().find_map(|name| {
                            let result =
                                locker.blocking_lock(&object(name), Mode::Write, Wait::Default);
                            thread::yield_now();
                            result.err()
                        });
                        drop(locker);
                        match error {
                            None => break,
                            Some(error @ LockError::Deadlock(_)) => {
                                runtime.block_on(locks.ended(error.older()))
                            }
                            Some(error) => panic!("{error}"),
                        }
                    }
                    most = most.max(attempts);
                }
                most
            })
        })
        .collect();
    for thread in threads {
        // At worst each of the 15 others is older once.
        assert!(thread.join().unwrap() <= 32);
    }
    assert_eq!(locks.stats().lockers.now, 0);
}

#[actix::test]
async fn i08_ended_waits_for_all_and_leaves_nothing_when_dropped() {
    let locks = Locks::start(LockConfig::default());
    let [one, two] = [(); 2].map(|()| locks.locker(LockerSpec::new()).unwrap());
    let ids = [one.id(), two.id(), one.id()];
    drop(Box::pin(locks.ended(&ids)));
    let mut ended = Box::pin(locks.ended(&ids));
    let mut dropped = Box::pin(locks.ended(&ids));
    let mut context = Context::from_waker(Waker::noop());
    assert!(ended.as_mut().poll(&mut context).is_pending());
    assert!(dropped.as_mut().poll(&mut context).is_pending());
    drop(dropped);
    drop(one);
    assert!(ended.as_mut().poll(&mut context).is_pending());
    thread::spawn(move || drop(two));
    ended.await;
    locks.ended(&ids).await;
    locks.ended(&[]).await;
}

#[actix::test]
async fn i12_a_future_dropped_at_any_point_leaks_no_lock() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let holder = door.locker();
        let empty = |door: &Door| {
            let snapshot = door.locks().snapshot();
            snapshot.held.is_empty() && snapshot.waiting.is_empty()
        };
        // Before its first poll.
        drop(door.take(&door.locker(), &a, Mode::Write, Wait::Forever));
        until(|| empty(&door)).await;
        // While it waits; who waits behind it goes on.
        let held = door.take(&holder, &a, Mode::Read, Wait::No).await.unwrap();
        let asker = door.locker();
        let waiting = door.queue(&asker, &a, Mode::Write).await;
        let behind = door.locker();
        let reading = door.queue(&behind, &a, Mode::Read).await;
        waiting.abort();
        drop(reading.await.unwrap().unwrap());
        behind.release_all();
        // Granted, and nobody has looked.
        let before = door.locks().stats().waits;
        let mut taking = door.take(&asker, &a, Mode::Write, Wait::Forever);
        let mut context = Context::from_waker(Waker::noop());
        assert!(taking.as_mut().poll(&mut context).is_pending());
        until(|| door.locks().stats().waits > before).await;
        drop(held);
        holder.release_all();
        until(|| {
            door.locks()
                .snapshot()
                .held
                .iter()
                .any(|held| held.locker == asker.id())
        })
        .await;
        drop(taking);
        until(|| empty(&door)).await;
        assert_eq!(door.locks().stats().objects.now, 0);
    }
}

#[actix::test]
async fn i12_requests_abandoned_at_random_leave_nothing_behind() {
    for door in Door::both(LockConfig::default()) {
        for round in 0..300_usize {
            let lockers: Vec<_> = (0..4).map(|_| door.locker()).collect();
            let mut tasks = Vec::new();
            for (number, locker) in lockers.iter().enumerate() {
                let (door, locker) = (door.clone(), Arc::clone(locker));
                tasks.push(tokio::task::spawn_local(async move {
                    for step in 0..3 {
                        let object = object(&((number * 7 + step * 3 + round) % 3).to_string());
                        let Ok(guard) = door
                            .take(&locker, &object, Mode::Write, Wait::Forever)
                            .await
                        else {
                            return;
                        };
                        tokio::task::yield_now().await;
                        drop(guard);
                    }
                }));
            }
            drop(lockers);
            for yields in 0..round % 12 {
                tokio::task::yield_now().await;
                tasks[yields % 4].abort();
            }
            for task in tasks {
                task.abort();
                let _ = task.await;
            }
        }
        until(|| door.locks().stats().lockers.now == 0).await;
        let stats = door.locks().stats();
        assert_eq!(
            (stats.locks.now, stats.objects.now, stats.waiting),
            (0, 0, 0)
        );
    }
}

#[actix::test]
async fn i13_a_full_table_says_which_limit_and_keeps_what_is_held() {
    let config = LockConfig {
        max_lockers: 3,
        max_locks: 2,
        max_objects: 1,
        ..LockConfig::default()
    };
    for door in Door::both(config) {
        let lockers = [door.locker(), door.locker(), door.locker()];
        let error = door.locks().locker(LockerSpec::new()).unwrap_err();
        assert!(matches!(
            error,
            LockError::Limit {
                which: LimitKind::Lockers,
                value: 3
            }
        ));
        assert!(
            error.to_string().contains("max_lockers") && error.to_string().contains('3'),
            "{error}"
        );
        let held = door
            .take(&lockers[0], &object("a"), Mode::Read, Wait::No)
            .await
            .unwrap();
        let error = door
            .take(&lockers[0], &object("b"), Mode::Read, Wait::No)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                LockError::Limit {
                    which: LimitKind::Objects,
                    value: 1
                }
            ),
            "{error}"
        );
        // A waiter counts, so that its grant cannot fail.
        let waiting = door.queue(&lockers[1], &object("a"), Mode::Write).await;
        let error = door
            .take(&lockers[2], &object("a"), Mode::Read, Wait::Forever)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                LockError::Limit {
                    which: LimitKind::Locks,
                    value: 2
                }
            ),
            "{error}"
        );
        assert_eq!(door.locks().snapshot().held.len(), 1);
        drop(held);
        lockers[0].release_all();
        waiting.await.unwrap().unwrap();
        assert_eq!(door.locks().stats().limits_met, 3);
    }
}

#[actix::test]
async fn a_wait_ends_at_its_deadline_and_says_who_was_in_the_way() {
    let timeout = Duration::from_millis(60);
    for door in Door::both(LockConfig {
        lock_timeout: timeout,
        ..LockConfig::default()
    }) {
        let a = object("a");
        let (holder, asker) = (door.locker(), door.locker());
        let _held = door.take(&holder, &a, Mode::Write, Wait::No).await.unwrap();
        for wait in [
            Wait::Default,
            Wait::For(timeout),
            Wait::Until(Instant::now() + 3 * timeout),
        ] {
            let begun = Instant::now();
            let error = door.take(&asker, &a, Mode::Read, wait).await.unwrap_err();
            let LockError::Timeout(conflict) = &error else {
                panic!("{error}")
            };
            if !matches!(wait, Wait::Until(_)) {
                assert!(begun.elapsed() >= timeout, "not early");
                assert_eq!(conflict.timeout, Some(timeout));
            }
            assert_eq!(conflict.owners[0].locker, holder.id());
            assert!(error.is_retryable());
        }
        let past = Instant::now().checked_sub(timeout).unwrap();
        assert!(matches!(
            door.take(&asker, &a, Mode::Read, Wait::Until(past)).await,
            Err(LockError::Timeout(_))
        ));
        assert_eq!(door.locks().stats().timeouts, 4);
        holder.release_all();
        door.take(&asker, &a, Mode::Read, Wait::No).await.unwrap();
    }
}

#[actix::test]
async fn a_shutdown_refuses_who_waits_and_who_comes() {
    for door in Door::both(LockConfig::default()) {
        let a = object("a");
        let (holder, asker) = (door.locker(), door.locker());
        let held = door.take(&holder, &a, Mode::Write, Wait::No).await.unwrap();
        let waiting = door.queue(&asker, &a, Mode::Write).await;
        door.locks().shutdown();
        door.locks().shutdown();
        assert!(matches!(
            waiting.await.unwrap(),
            Err(LockError::ShuttingDown)
        ));
        let error = door
            .take(&asker, &object("b"), Mode::Read, Wait::No)
            .await
            .unwrap_err();
        assert!(matches!(error, LockError::ShuttingDown));
        assert!(matches!(
            door.locks().locker(LockerSpec::new()),
            Err(LockError::ShuttingDown)
        ));
        drop(held);
        drop(holder);
        assert_eq!(door.locks().stats().locks.now, 0);
    }
}

#[actix::test]
async fn a_lock_taken_twice_is_released_twice_and_a_guard_by_message_releases_its_own() {
    let (address, locks) = LockTable::start_alone(LockConfig::default()).unwrap();
    let a = object("a");
    let locker = Arc::new(locks.locker(LockerSpec::new()).unwrap());
    let take = || address.send(Acquire::new(object("a"), Mode::Write).locker(Arc::clone(&locker)));
    let guard = take().await.unwrap().unwrap();
    drop(take().await.unwrap().unwrap());
    assert_eq!(locks.snapshot().held[0].count, 1);
    assert!(address.send(Release::Guard(guard)).await.unwrap());
    let release = || Release::Lock {
        locker: Arc::clone(&locker),
        object: a.clone(),
        mode: Mode::Write,
    };
    assert!(!address.send(release()).await.unwrap());
    locker.lock(&a, Mode::Write, Wait::No).await.unwrap();
    assert!(address.send(release()).await.unwrap());
    assert!(address.send(Detect).await.unwrap().victims.is_empty());
    assert_eq!(address.send(LockStatsQuery).await.unwrap().grants, 3);
}

#[actix::test]
async fn detection_on_demand_breaks_what_nothing_else_does() {
    let (address, locks) = LockTable::start_alone(without_detection()).unwrap();
    let door = Door::Message(locks, address.clone());
    let (one, two) = (door.locker(), door.locker());
    let _held = [
        door.take(&one, &object("a"), Mode::Write, Wait::No)
            .await
            .unwrap(),
        door.take(&two, &object("b"), Mode::Write, Wait::No)
            .await
            .unwrap(),
    ];
    let _waiting = door.queue(&one, &object("b"), Mode::Write).await;
    let victim = door.queue(&two, &object("a"), Mode::Write).await;
    let report = address.send(Detect).await.unwrap();
    assert_eq!((report.waiting, report.victims.len()), (2, 1));
    assert!(matches!(victim.await.unwrap(), Err(LockError::Deadlock(_))));
}

#[test]
fn without_an_actix_system_the_actor_is_an_error_and_the_table_works_in_place() {
    assert_eq!(
        LockTable::start_alone(LockConfig::default()).unwrap_err(),
        NoSystem
    );
    let locks = Locks::start(LockConfig::default());
    let one = locks.locker(LockerSpec::new()).unwrap();
    one.blocking_lock(&object("a"), Mode::Write, Wait::No)
        .unwrap();
    let other = locks.clone();
    let waiting = thread::spawn(move || {
        let two = other.locker(LockerSpec::new()).unwrap();
        two.blocking_lock(&object("a"), Mode::Write, Wait::Forever)
    });
    while locks.stats().waiting == 0 {
        thread::yield_now();
    }
    // A locker dropped on any thread wakes who waits on any other.
    thread::spawn(move || drop(one)).join().unwrap();
    waiting.join().unwrap().unwrap();
}

#[test]
fn an_actor_that_stops_shuts_its_own_table_down_but_not_one_it_was_given() {
    let system = actix::System::new();
    system.block_on(async {
        let given = Locks::start(LockConfig::default());
        let address = LockTable::new(given.clone()).start();
        drop(
            address
                .send(Acquire::new(object("a"), Mode::Read))
                .await
                .unwrap()
                .unwrap(),
        );
        drop(address);
        let (address, own) = LockTable::start_alone(LockConfig::default()).unwrap();
        drop(address);
        until(|| own.locker(LockerSpec::new()).is_err()).await;
        given.locker(LockerSpec::new()).unwrap();
    });
}
