//! Snapshots that are held over awaits: what they show, how many there are, and that they keep nothing from changing.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::{
    DeleteDatabase, EnvError, ErrorClass, Keeper, RunTxn, SetMapSize, Snapshot, Stage, Sync,
    TxnError,
};

use super::peer::Peer;
use super::{
    Begun, Blobs, KIB, LONG, MIB, builder, folder, gate_is_open, has, hold_view, open, stats,
    store, until, value, wait,
};

/// Far below the time that whoever waits for something here has, and enough for any machine.
const SOON: Duration = Duration::from_secs(20);

#[track_caller]
fn hold(keeper: &Keeper, name: &str) -> Snapshot {
    wait(keeper.hold_snapshot(name, LONG)).unwrap()
}

fn read(snapshot: &Snapshot, blobs: Blobs, key: u64) -> Result<Option<Vec<u8>>, TxnError> {
    wait(snapshot.ask(move |txn| blobs.get(txn, &key).unwrap().map(<[u8]>::to_vec)))
}

#[track_caller]
fn too_old<T: std::fmt::Debug>(answer: Result<T, TxnError>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, TxnError::SnapshotTooOld), "{error}");
    assert_eq!(error.class(), ErrorClass::Conflict);
    assert!(error.is_retryable());
}

/// A request that runs until it is let go.
struct Busy {
    leave: mpsc::Sender<()>,
    answer: Begun<Result<u64, TxnError>>,
}

impl Busy {
    fn new(snapshot: &Snapshot, blobs: Blobs) -> Self {
        let (entered, runs) = mpsc::channel();
        let (leave, left) = mpsc::channel::<()>();
        let answer = Begun::new(snapshot.ask(move |txn| {
            entered.send(()).unwrap();
            // Also when the sender is dropped.
            let _ = left.recv();
            blobs.len(txn).unwrap()
        }));
        runs.recv_timeout(LONG).unwrap();
        Self { leave, answer }
    }

    fn release(self) -> Result<u64, TxnError> {
        drop(self.leave);
        self.answer.answer()
    }
}

#[test]
fn a_held_snapshot_shows_one_state_whatever_is_committed() {
    let folder = folder();
    // Its pages are not used again meanwhile.
    let (keeper, blobs) = open(builder(folder.path()).map_size(32 * MIB));
    keeper.blocking_update(store(blobs, 1, 100)).unwrap();
    let old = hold(&keeper, "old");
    let other = old.clone();
    for key in 2..50 {
        keeper.blocking_update(store(blobs, key, 100)).unwrap();
        keeper
            .blocking_update(move |txn| Ok(blobs.put(txn, &1, &value(key, 200))?))
            .unwrap();
        assert_eq!(read(&old, blobs, 1).unwrap(), Some(value(1, 100)));
        assert_eq!(read(&other, blobs, key).unwrap(), None);
    }
    let new = hold(&keeper, "new");
    assert!(new.id() > old.id());
    assert_eq!(other.id(), old.id());
    assert_eq!(read(&new, blobs, 1).unwrap(), Some(value(49, 200)));
    assert_eq!(
        wait(new.ask(move |txn| blobs.len(txn).unwrap())).unwrap(),
        49
    );
    // Its pages are used again once the last handle is gone.
    drop(old);
    assert_eq!(read(&other, blobs, 1).unwrap(), Some(value(1, 100)));
    drop((other, new));
    until("they have ended", || stats(&keeper).views.is_empty());
    assert_eq!(stats(&keeper).snapshots_held, 0);
    let used = stats(&keeper).used_bytes;
    for n in 0..200 {
        keeper
            .blocking_update(store(blobs, 1, 200 + n % 2))
            .unwrap();
    }
    assert!(stats(&keeper).used_bytes <= used + 64 * KIB);
    assert_eq!(stats(&keeper).snapshots_ousted, 0);
}

#[test]
fn i01_a_map_that_has_to_grow_ousts_the_idle_ones_at_once() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    keeper.blocking_update(store(blobs, 1, 100)).unwrap();
    let held: Vec<_> = (0..8).map(|_| hold(&keeper, "report")).collect();
    assert_eq!(stats(&keeper).snapshots_held, 8);
    let begun = Instant::now();
    keeper.blocking_update(store(blobs, 2, 3 * MIB)).unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    for snapshot in &held {
        too_old(read(snapshot, blobs, 1));
        too_old(read(snapshot, blobs, 1));
    }
    let now = stats(&keeper);
    assert_eq!((now.snapshots_held, now.snapshots_ousted), (0, 8));
    assert_eq!(now.map_resizes, 2);
    // Their places are free, also while somebody still has the handles.
    let again: Vec<_> = (0..8).map(|_| hold(&keeper, "report")).collect();
    assert!(read(&again[7], blobs, 2).unwrap() == Some(value(2, 3 * MIB)));
}

#[test]
fn every_change_behind_the_gate_ousts_them() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let other: Blobs = keeper.blocking_database("other").unwrap();
    keeper.blocking_update(store(blobs, 1, 100)).unwrap();
    let mut ousted = 0;
    let mut check = |what: &str, change: &mut dyn FnMut()| {
        let snapshot = hold(&keeper, "report");
        assert!(read(&snapshot, blobs, 1).unwrap().is_some(), "{what}");
        let begun = Instant::now();
        change();
        assert!(begun.elapsed() < SOON, "{what}: {:?}", begun.elapsed());
        too_old(read(&snapshot, blobs, 1));
        ousted += 1;
        assert_eq!(stats(&keeper).snapshots_ousted, ousted, "{what}");
    };
    check("a size that is set", &mut || {
        keeper.blocking_send(SetMapSize(2 * MIB)).unwrap();
    });
    check("a database that is deleted", &mut || {
        keeper
            .blocking_send(DeleteDatabase("other".into()))
            .unwrap();
    });
    let mut peer = Peer::heed(folder.path(), MIB);
    check("a size of another process", &mut || {
        let len = 2 * MIB + KIB;
        peer.ask(&format!("begin {} {len}", 8 * MIB));
        peer.ask("commit");
        keeper.blocking_update(store(blobs, 3, 100)).unwrap();
    });
    assert_eq!(stats(&keeper).resizes_adopted, 1);
    let _ = other;

    // Whoever begins one after such a growth has the size adopted, too.
    let snapshot = hold(&keeper, "before");
    peer.ask(&format!("begin {} {}", 32 * MIB, 9 * MIB));
    peer.ask("commit");
    let after = hold(&keeper, "after");
    assert_eq!(stats(&keeper).resizes_adopted, 2);
    assert!(read(&after, blobs, 1).unwrap().is_some());
    too_old(read(&snapshot, blobs, 1));
}

#[test]
fn growing_ahead_of_need_ousts_nobody() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).grow_ahead(40));
    keeper.blocking_update(store(blobs, 1, 100)).unwrap();
    let snapshot = hold(&keeper, "report");
    keeper.blocking_update(store(blobs, 2, 500 * KIB)).unwrap();
    // The writer looks at the map before it takes the next command.
    keeper.blocking_send(Sync).unwrap();
    assert!(read(&snapshot, blobs, 1).unwrap().is_some());
    assert_eq!(stats(&keeper).map_resizes, 0);
    drop(snapshot);
    until("the place is free", || stats(&keeper).views.is_empty());
    keeper.blocking_update(store(blobs, 3, 100)).unwrap();
    keeper.blocking_send(Sync).unwrap();
    assert_eq!(stats(&keeper).map_resizes, 1);
}

#[test]
fn one_that_is_running_a_request_is_waited_for_and_ousted_when_that_returns() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    keeper.blocking_update(store(blobs, 1, 100)).unwrap();
    let (busy, idle) = (hold(&keeper, "busy"), hold(&keeper, "idle"));
    let running = Busy::new(&busy, blobs);
    let mut behind = Begun::new(busy.ask(|_| ()));
    let mut update = Begun::new(keeper.update(store(blobs, 2, 3 * MIB)));
    // The idle one leaves while the other is still waited for, and nothing new is begun in the busy one.
    until("the idle one is ousted", || {
        matches!(wait(idle.ask(|_| ())), Err(TxnError::SnapshotTooOld))
    });
    too_old(wait(busy.ask(|_| ())));
    assert!(update.poll().is_none() && behind.poll().is_none());
    assert_eq!(running.release().unwrap(), 1, "of the old state, whole");
    too_old(behind.answer());
    update.answer().unwrap();
    assert!(has(&keeper, blobs, 2, 3 * MIB));
    assert_eq!(stats(&keeper).snapshots_ousted, 2);
}

#[test]
fn one_that_runs_on_is_waited_for_no_longer_than_the_resize_timeout_and_is_named() {
    let folder = folder();
    let timeout = Duration::from_millis(100);
    let (keeper, blobs) = open(builder(folder.path()).resize_timeout(timeout));
    keeper.blocking_update(store(blobs, 1, 100)).unwrap();
    let snapshot = hold(&keeper, "monthly report");
    let running = Busy::new(&snapshot, blobs);
    for again in [false, true] {
        let begun = Instant::now();
        let error = keeper
            .blocking_update(store(blobs, 2, 3 * MIB))
            .unwrap_err();
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        let TxnError::MapBusy(busy) = &error else {
            panic!("{error}");
        };
        assert_eq!(busy.views.len(), 1);
        assert!(busy.views[0].held);
        assert_eq!(busy.views[0].name.as_deref(), Some("monthly report"));
        assert!(
            error
                .to_string()
                .contains("held snapshot \"monthly report\" from"),
            "{error}"
        );
        assert_eq!(busy.waited.is_zero(), again, "the gate is shut only once");
    }
    // It goes on in its state, and is ousted all the same: that was settled when it was told.
    too_old(wait(snapshot.ask(|_| ())));
    assert_eq!(running.release().unwrap(), 1);
    until("it has left", || stats(&keeper).views.is_empty());
    keeper.blocking_update(store(blobs, 2, 3 * MIB)).unwrap();
    assert_eq!(stats(&keeper).snapshots_ousted, 1);
}

/// I14: what is begun in a request would be inside already, and wait for a gate that waits for it.
#[test]
fn i14_a_request_begins_nothing_and_never_queues_at_the_gate() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    keeper.blocking_update(store(blobs, 1, 100)).unwrap();
    for changing in [false, true] {
        let snapshot = hold(&keeper, "outer");
        let (entered, runs) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let (inner, own) = (keeper.clone(), snapshot.clone());
        let request = Begun::new(snapshot.ask(move |_| {
            entered.send(()).unwrap();
            gone.recv().unwrap();
            vec![
                inner.blocking_view(|_| Ok(())),
                inner.blocking_update(|_| Ok(())),
                inner.blocking_run(RunTxn::view(|_| Ok(()))),
                wait(inner.hold_snapshot("inner", LONG)).map(drop),
                wait(own.ask(|_| ())),
            ]
        }));
        runs.recv_timeout(LONG).unwrap();
        let change = changing.then(|| {
            let update = Begun::new(keeper.update(store(blobs, 2, 3 * MIB)));
            until("the gate shuts", || !gate_is_open(&keeper));
            update
        });
        go.send(()).unwrap();
        for answer in request.answer().unwrap() {
            let error = answer.unwrap_err();
            assert!(
                matches!(error, TxnError::NestedTransaction { outer_site, .. } if outer_site.file().ends_with("snapshots.rs")),
                "{error}"
            );
        }
        match change {
            Some(update) => update.answer().unwrap(),
            None => assert!(read(&snapshot, blobs, 1).unwrap().is_some()),
        }
    }
    // Nor is one asked from inside a view of the same keeper.
    let snapshot = hold(&keeper, "asked");
    let answer = keeper.blocking_view(move |_| Ok(wait(snapshot.ask(|_| ()))));
    let error = answer.unwrap().unwrap_err();
    assert!(
        matches!(error, TxnError::NestedTransaction { .. }),
        "{error}"
    );
}

#[test]
fn i13_the_ninth_waits_and_gets_the_place_of_one_that_ends_or_is_refused_at_its_deadline() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()));
    let mut held: Vec<_> = (0..8).map(|_| hold(&keeper, "one of eight")).collect();
    let mut ninth = Begun::new(keeper.hold_snapshot("ninth", LONG));
    // Somebody who waited before it, and went away.
    drop(Begun::new(keeper.hold_snapshot("impatient", LONG)));

    let begun = Instant::now();
    let late = wait(keeper.hold_snapshot("late", Duration::from_millis(50)));
    let error = late.unwrap_err();
    assert!(matches!(error, TxnError::NoSnapshot { max: 8 }), "{error}");
    assert_eq!(error.class(), ErrorClass::Overloaded);
    assert!(error.is_retryable() && begun.elapsed() < SOON);
    assert!(ninth.poll().is_none());

    drop(held.pop());
    let ninth = ninth.answer().unwrap();
    assert!(wait(ninth.ask(|_| ())).is_ok());
    assert_eq!(stats(&keeper).snapshots_held, 8);
    // A clone keeps the place.
    let clone = held[0].clone();
    drop(held.remove(0));
    let mut tenth = Begun::new(keeper.hold_snapshot("tenth", LONG));
    assert!(tenth.poll().is_none());
    drop(clone);
    tenth.answer().unwrap();
}

#[test]
fn i13_no_more_wait_for_a_place_than_may_be_queued() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()).snapshots(1).queue(3));
    let held = hold(&keeper, "the one");
    let waiting: Vec<_> = (0..3)
        .map(|_| Begun::new(keeper.hold_snapshot("waits", LONG)))
        .collect();
    let error = wait(keeper.hold_snapshot("one too many", LONG)).unwrap_err();
    assert!(matches!(error, TxnError::NoSnapshot { max: 1 }), "{error}");
    drop(held);
    for waits in waiting {
        drop(waits.answer().unwrap());
    }
}

#[test]
fn i04_a_dropped_request_does_not_begin_and_one_that_runs_holds_nobody_up() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let snapshot = hold(&keeper, "report");
    let running = Busy::new(&snapshot, blobs);
    let (ran, runs) = mpsc::channel::<&str>();
    let never = ran.clone();
    let dropped = Begun::new(snapshot.ask(move |_| never.send("the dropped one").unwrap()));
    let kept = Begun::new(snapshot.ask(move |_| ran.send("the kept one").unwrap()));
    drop(dropped);
    // The one that runs is dropped, too: its request runs on to its end.
    let Busy { leave, answer } = running;
    drop(answer);
    leave.send(()).unwrap();
    kept.answer().unwrap();
    assert_eq!(runs.iter().collect::<Vec<_>>(), ["the kept one"]);

    // Nobody has the snapshot while its request runs: it ends with that.
    let Busy { leave, answer } = Busy::new(&snapshot, blobs);
    drop((answer, snapshot));
    assert_eq!(stats(&keeper).snapshots_held, 1);
    leave.send(()).unwrap();
    until("it has ended", || stats(&keeper).views.is_empty());
    // A future keeps the snapshot that it asks.
    let asking = {
        let snapshot = hold(&keeper, "report");
        snapshot.ask(move |txn| blobs.len(txn).unwrap())
    };
    assert_eq!(wait(asking).unwrap(), 0);
}

#[test]
fn a_panic_is_answered_and_the_snapshot_goes_on() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("while it is dropped");
            }
        }
    }
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    keeper.blocking_update(store(blobs, 1, 100)).unwrap();
    let snapshot = hold(&keeper, "report");
    let error = wait(snapshot.ask(|_| panic!("in the request"))).map(|(): ()| ());
    let error = error.unwrap_err();
    assert!(
        matches!(&error, TxnError::BodyPanicked { message, site } if message == "in the request" && site.file().ends_with("snapshots.rs")),
        "{error}"
    );
    // An answer that nobody wants, which panics as it is dropped.
    let Busy { leave, answer } = Busy::new(&snapshot, blobs);
    let bomb = Begun::new(snapshot.ask(|_| Bomb));
    drop((bomb, answer));
    leave.send(()).unwrap();
    let bomb = Bomb;
    let carried = Begun::try_new(snapshot.ask(move |_| {
        let _bomb = &bomb;
    }));
    drop(carried.map(Begun::answer));
    assert_eq!(read(&snapshot, blobs, 1).unwrap(), Some(value(1, 100)));
}

#[test]
fn those_inside_are_named_with_their_age() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()));
    let snapshot = hold(&keeper, "monthly report");
    // The clock of the ages has steps of a few milliseconds.
    thread::sleep(Duration::from_millis(30));
    let view = hold_view(&keeper, |_| Ok(()));
    let now = stats(&keeper);
    let [first, second] = &now.views[..] else {
        panic!("{:?}", now.views);
    };
    assert!(
        first.starts_with("held snapshot \"monthly report\" from tests/environment/snapshots.rs"),
        "{first}"
    );
    assert!(second.starts_with("view from"), "{second}");
    assert!(now.oldest_view_ms.unwrap() >= 10);
    assert_eq!(now.snapshots_held, 1);
    view.release().unwrap();
    drop(snapshot);
    until("it has ended", || stats(&keeper).views.is_empty());
    // The same thread, as a plain reader would be named.
    let again = hold(&keeper, "another");
    assert!(stats(&keeper).views[0].starts_with("held snapshot \"another\""));
    drop(again);
}

#[test]
fn under_no_lock_none_is_held() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()).no_lock(true));
    let error = wait(keeper.hold_snapshot("report", LONG)).unwrap_err();
    assert!(matches!(error, TxnError::SnapshotUnderNoLock), "{error}");
    assert_eq!(error.class(), ErrorClass::Usage);
    assert!(!error.is_retryable());
}

#[test]
fn without_a_free_slot_one_is_waited_for_until_the_deadline() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).max_readers(4).reader_threads(1));
    // Threads take the slots and keep them until they end.
    let takers: Vec<_> = (0..4)
        .map(|_| {
            let (ready, is_ready) = mpsc::channel();
            let (leave, left) = mpsc::channel::<()>();
            let keeper = keeper.clone();
            let thread = thread::spawn(move || {
                keeper
                    .blocking_view(move |txn| Ok(blobs.len(txn)?))
                    .unwrap();
                ready.send(()).unwrap();
                let _ = left.recv();
            });
            is_ready.recv_timeout(LONG).unwrap();
            (leave, thread)
        })
        .collect();
    let span = Duration::from_millis(50);
    let error = wait(keeper.hold_snapshot("report", span)).unwrap_err();
    assert!(matches!(error, TxnError::ReadersFull { max: 4 }), "{error}");
    let mut waiting = Begun::new(keeper.hold_snapshot("report", LONG));
    assert!(waiting.poll().is_none());
    for (leave, thread) in takers {
        drop(leave);
        thread.join().unwrap();
    }
    waiting.answer().unwrap();
}

#[test]
fn one_that_comes_while_the_gate_is_shut_waits_for_it_until_its_deadline() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let view = hold_view(&keeper, |_| Ok(()));
    // One step of growth is enough for it: the gate is shut once.
    let update = Begun::new(keeper.update(store(blobs, 1, MIB)));
    until("the gate shuts", || !gate_is_open(&keeper));
    let error = wait(keeper.hold_snapshot("late", Duration::from_millis(50))).unwrap_err();
    assert!(
        matches!(
            error,
            TxnError::DeadlineExceeded {
                stage: Stage::WaitedForGate,
                ..
            }
        ),
        "{error}"
    );
    let mut patient = Begun::new(keeper.hold_snapshot("patient", LONG));
    assert!(patient.poll().is_none());
    view.release().unwrap();
    update.answer().unwrap();
    let snapshot = patient.answer().unwrap();
    assert!(wait(snapshot.ask(|_| ())).is_ok());
}

#[test]
fn shutdown_ends_them_and_answers_those_who_wait() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).snapshots(2));
    let (idle, busy) = (hold(&keeper, "idle"), hold(&keeper, "busy"));
    let running = Busy::new(&busy, blobs);
    let behind = Begun::new(busy.ask(|_| ()));
    let waiting = Begun::new(keeper.hold_snapshot("waits", LONG));
    let begun = Instant::now();
    let stopping = Begun::new(keeper.shutdown(LONG));
    waits_in_vain(waiting.answer());
    until("the idle one has ended", || {
        matches!(wait(idle.ask(|_| ())), Err(TxnError::ShuttingDown))
    });
    running.release().unwrap();
    waits_in_vain(behind.answer());
    stopping.answer().unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    waits_in_vain(wait(busy.ask(|_| ())));
    waits_in_vain(wait(keeper.hold_snapshot("late", LONG)));
    // The folder is free, although somebody still has the handles.
    let (again, _) = open(builder(folder.path()));
    drop(hold(&again, "again"));
    waits_in_vain(wait(busy.ask(|_| ())));
    again.blocking_shutdown(LONG).unwrap();
}

#[track_caller]
fn waits_in_vain<T: std::fmt::Debug>(answer: Result<T, TxnError>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, TxnError::ShuttingDown), "{error}");
}

#[test]
fn shutdown_does_not_wait_beyond_its_deadline_for_one_that_runs_on() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let snapshot = hold(&keeper, "busy");
    let running = Busy::new(&snapshot, blobs);
    let begun = Instant::now();
    keeper
        .blocking_shutdown(Duration::from_millis(50))
        .unwrap_err();
    assert!(begun.elapsed() < SOON);
    assert_eq!(running.release().unwrap(), 0);
    waits_in_vain(wait(snapshot.ask(|_| ())));
}

#[test]
fn a_size_that_is_set_waits_for_one_that_is_busy_and_names_it() {
    let folder = folder();
    let timeout = Duration::from_millis(100);
    let (keeper, blobs) = open(builder(folder.path()).resize_timeout(timeout));
    let snapshot = hold(&keeper, "busy");
    let running = Busy::new(&snapshot, blobs);
    // The writer has a moment to name it before the sender's time is over; a busy machine may take longer.
    until("it is named", || {
        let error = keeper.blocking_send(SetMapSize(2 * MIB)).unwrap_err();
        matches!(&error, EnvError::Txn(TxnError::MapBusy(busy)) if busy.views[0].held)
    });
    running.release().unwrap();
    until("it has left", || {
        keeper.blocking_send(SetMapSize(2 * MIB)).is_ok()
    });
    assert_eq!(stats(&keeper).map_size, 2 * MIB);
}
