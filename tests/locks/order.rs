//! Who gets a lock, and in which order.

use super::*;

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
