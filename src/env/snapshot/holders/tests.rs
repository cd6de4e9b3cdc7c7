use std::path::Path;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::super::{ROOM, Snapshot};
use crate::clock::block_on;
use crate::config::Settings;
use crate::env::Core;
use crate::env::gate::Entry;
use crate::error::TxnError;

const LONG: Duration = Duration::from_secs(60);
const MAX: usize = 3;

fn open(folder: &Path) -> Arc<Core> {
    let settings = Settings::default().snapshots(MAX);
    Core::open(folder, settings.resolve(folder).unwrap(), Vec::new()).unwrap()
}

fn hold(core: &Core) -> impl Future<Output = Result<Snapshot, TxnError>> + Send + use<> {
    let site = std::panic::Location::caller();
    core.hold_snapshot(site, None, Instant::now() + LONG, LONG)
}

/// Threads that hold a snapshot, or will hold the next one.
fn threads(core: &Core) -> usize {
    core.shared.holders.crew.lock().threads.len()
}

/// Reader slots of the environment that were ever used.
fn slots(core: &Core) -> u32 {
    let env = core.shared.env.load_full().unwrap();
    env.info().number_of_readers
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LONG, "in vain: {what}");
        thread::sleep(Duration::from_micros(200));
    }
}

fn all_is_given_back(core: &Core) {
    until("everything given back", || {
        core.shared.holders.places.available_permits() == MAX && core.shared.gate.is_empty()
    });
    let crew = core.shared.holders.crew.lock();
    assert_eq!(crew.idle, crew.threads.len());
    assert_eq!(core.shared.gate.lodgers(), 0);
}

#[test]
fn threads_are_started_when_they_are_needed_used_again_and_joined_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let core = open(folder.path());
    until("the readers have their slots", || slots(&core) >= 3);
    let before = slots(&core);
    assert_eq!(threads(&core), 0);
    for _ in 0..100 {
        let snapshot = block_on(hold(&core)).unwrap();
        assert!(block_on(snapshot.ask(|_| ())).is_ok());
        drop(snapshot);
        all_is_given_back(&core);
    }
    assert_eq!(threads(&core), 1, "one at a time needs one thread");

    let held: Vec<_> = (0..MAX).map(|_| block_on(hold(&core)).unwrap()).collect();
    assert_eq!(threads(&core), MAX);
    assert!(slots(&core) <= before + MAX as u32);
    core.stop(|| ());
    // They are joined, so nobody has the environment any more.
    assert_eq!(threads(&core), 0);
    assert_eq!(Arc::strong_count(&core.shared), 1);
    let error = block_on(held[0].ask(|_| ())).unwrap_err();
    assert!(matches!(error, TxnError::ShuttingDown), "{error}");
    let error = block_on(hold(&core)).unwrap_err();
    assert!(matches!(error, TxnError::ShuttingDown), "{error}");
    core.stop(|| ());
    drop(core);
    let error = block_on(held[1].ask(|_| ())).unwrap_err();
    assert!(matches!(error, TxnError::ShuttingDown), "{error}");
}

/// Each future is dropped after as many polls as it takes to get past each of its awaits, and at once.
#[test]
fn dropped_futures_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let core = open(folder.path());
    let before = slots(&core);
    let mut cx = Context::from_waker(Waker::noop());
    for polls in 0..20 {
        let mut beginning = Box::pin(hold(&core));
        for _ in 0..polls {
            if beginning.as_mut().poll(&mut cx).is_ready() {
                break;
            }
            // The thread may have got anywhere by then.
            thread::yield_now();
        }
        drop(beginning);

        let snapshot = block_on(hold(&core)).unwrap();
        let mut asking = Box::pin(snapshot.ask(|_| ()));
        drop(snapshot);
        for _ in 0..polls {
            if let Poll::Ready(answer) = asking.as_mut().poll(&mut cx) {
                answer.unwrap();
                break;
            }
            thread::yield_now();
        }
        drop(asking);
    }
    all_is_given_back(&core);
    // While all places are taken, waiting for one is given up.
    let held: Vec<_> = (0..MAX).map(|_| block_on(hold(&core)).unwrap()).collect();
    for _ in 0..100 {
        let mut waiting = Box::pin(hold(&core));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
    }
    drop(held);
    all_is_given_back(&core);
    assert!(threads(&core) <= MAX);
    assert!(slots(&core) <= before + MAX as u32 + 2);
    core.stop(|| ());
}

#[test]
fn requests_beyond_the_room_wait_with_their_callers_and_keep_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let core = open(folder.path());
    let snapshot = block_on(hold(&core)).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let (release, released) = mpsc::channel::<()>();
    let (ran, order) = mpsc::channel();
    let mut asked: Vec<_> = (0..3 * ROOM)
        .map(|nth| {
            let ran = ran.clone();
            Box::pin(snapshot.ask(move |_| ran.send(nth).unwrap()))
        })
        .collect();
    let holding = snapshot.ask(move |_| released.recv().is_err());
    let mut holding = Box::pin(holding);
    assert!(holding.as_mut().poll(&mut cx).is_pending());
    for asking in &mut asked {
        assert!(asking.as_mut().poll(&mut cx).is_pending());
    }
    assert!(snapshot.0.held.state.lock().asked.len() <= ROOM);
    drop(release);
    assert!(block_on(holding).unwrap());
    for asking in asked {
        block_on(asking).unwrap();
    }
    let order: Vec<_> = order.try_iter().collect();
    assert_eq!(order, (0..3 * ROOM).collect::<Vec<_>>());
    core.stop(|| ());
}

#[test]
fn whoever_shuts_the_gate_meets_no_snapshot_that_was_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let core = open(folder.path());
    let (mut ousted, mut served) = (0, 0);
    thread::scope(|scope| {
        let changing = scope.spawn(|| {
            for nth in 0..200_u64 {
                block_on(core.set_map_size((1 << 30) + nth * (1 << 20))).unwrap();
            }
        });
        while !changing.is_finished() {
            let snapshot = block_on(hold(&core)).unwrap();
            for _ in 0..3 {
                match block_on(snapshot.ask(|_| ())) {
                    Ok(()) => served += 1,
                    Err(TxnError::SnapshotTooOld) => ousted += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        changing.join().unwrap();
    });
    assert!(served > 0 && ousted > 0, "{served} {ousted}");
    all_is_given_back(&core);
    core.stop(|| ());
}

#[test]
fn while_the_keeper_shuts_down_only_those_who_were_admitted_get_one_and_keep_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let core = open(folder.path());
    let before = block_on(hold(&core)).unwrap();
    core.shared.gate.drain();
    assert!(block_on(before.ask(|_| ())).is_ok());
    let snapshot = block_on(hold(&core)).unwrap();
    assert!(block_on(snapshot.ask(|_| ())).is_ok());
    let site = std::panic::Location::caller();
    let new = core.hold_snapshot_as(Entry::New, site, None, Instant::now() + LONG, LONG);
    let error = block_on(new).unwrap_err();
    assert!(matches!(error, TxnError::ShuttingDown), "{error}");
    core.stop(|| ());
}
