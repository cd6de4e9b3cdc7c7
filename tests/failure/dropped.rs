//! I12: dropping a future at any of its awaits leaks no place, no lock and no reader slot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lockkeeper::{Keeper, Object, RunTxn};

use crate::stage::{Disk, on_stage};
use crate::support::{
    Numbers, Plug, SOON, Sent, assert_idle, folder, get, open, open_with, putting, stats, until,
};

fn account() -> Object {
    Object::new("accounts", b"1")
}

/// Counts how often its body has run.
fn counting(count: &Arc<AtomicU32>) -> RunTxn<()> {
    let count = Arc::clone(count);
    RunTxn::update(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    })
}

#[test]
fn i12_a_future_that_is_never_polled_has_done_nothing() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    drop(keeper.update(|_| Ok(())));
    drop(keeper.view(|_| Ok(())));
    drop(keeper.run(putting(numbers, 1, 1).write_lock(account())));
    drop(keeper.send(putting(numbers, 1, 1).write_lock(account())));
    assert_idle(&keeper);
    assert_eq!(get(&keeper, numbers, 1), None);
}

#[test]
fn i12_dropped_while_it_waits_for_a_place_a_lock_or_the_writer_it_never_runs() {
    let folder = folder();
    let (keeper, numbers) = open_with(Keeper::builder().path(folder.path()).queue(4));
    let count = Arc::new(AtomicU32::new(0));
    for by_message in [false, true] {
        let begin = |txn: RunTxn<()>| {
            if by_message {
                Sent::new(keeper.send(txn))
            } else {
                Sent::new(keeper.run(txn))
            }
        };
        let plug = Plug::hold(&keeper);
        let holder = Sent::new(keeper.run(putting(numbers, 1, 1).write_lock(account())));
        let queued = begin(counting(&count));
        until("one is queued", || stats(&keeper).environment.queued >= 2);
        let locked = begin(counting(&count).write_lock(account()));
        until("one waits for the lock", || {
            keeper.locks().stats().waiting == 1
        });
        let waiting = begin(counting(&count));
        until("one waits for a place", || {
            stats(&keeper).transactions.waiting == 1
        });
        drop(waiting);
        assert_eq!(stats(&keeper).transactions.waiting, 0);
        drop(locked);
        drop(queued);
        until("its place in the line for the lock is free", || {
            keeper.locks().stats().waiting == 0
        });
        until("its place is free", || {
            // Those of the plug, of the holder, and of the one that the writer will throw away.
            stats(&keeper).transactions.in_flight == 3
        });
        plug.release().unwrap();
        holder.answer().unwrap();
        assert_idle(&keeper);
        assert_eq!(count.load(Ordering::SeqCst), 0, "a dropped one has run");
    }
    keeper.blocking_shutdown(SOON).unwrap();
}

#[test]
fn i12_dropped_while_its_body_runs_it_is_committed_and_gives_everything_back() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    let (running, runs) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let txn = RunTxn::update(move |txn| {
        let _ = running.send(());
        let _ = released.recv();
        Ok(numbers.put(txn, &1, &10)?)
    });
    let sent = Sent::new(keeper.run(txn.write_lock(account())));
    runs.recv_timeout(SOON).unwrap();
    drop(sent);
    // Its lock and its place go with the commit, not with the caller.
    assert_eq!(keeper.locks().snapshot().held.len(), 1);
    assert_eq!(stats(&keeper).transactions.in_flight, 1);
    drop(release);
    assert_idle(&keeper);
    assert_eq!(get(&keeper, numbers, 1), Some(10));
}

#[test]
fn i12_dropped_while_it_commits_it_gives_everything_back() {
    let Some(stage) = on_stage("dropped::i12_dropped_while_it_commits_it_gives_everything_back")
    else {
        return;
    };
    let (keeper, numbers) = open(&stage.folder);
    stage.tell(Disk::HoldFlush);
    let sent = Sent::new(keeper.run(putting(numbers, 1, 10).write_lock(account())));
    stage.until_held();
    drop(sent);
    stage.heal(Disk::HoldFlush);
    assert_idle(&keeper);
    assert_eq!(get(&keeper, numbers, 1), Some(10));
}

/// A future of each kind, for one number; all take the same lock if they take one.
fn futures(keeper: &Keeper, numbers: Numbers, key: u64) -> Vec<Pending> {
    let read =
        move || RunTxn::view(move |txn| numbers.get(txn, &key).map(|_| ()).map_err(Into::into));
    let body = move |txn: &mut lockkeeper::WriteTxn<'_>| Ok(numbers.put(txn, &key, &key)?);
    let locked = move || putting(numbers, key, key).write_lock(account());
    let name = format!("n{}", key % 8);
    vec![
        Box::pin(discard(keeper.update(body))),
        Box::pin(discard(keeper.view(move |txn| {
            numbers.get(txn, &key).map(|_| ()).map_err(Into::into)
        }))),
        Box::pin(discard(keeper.run(locked()))),
        Box::pin(discard(keeper.send(locked()))),
        Box::pin(discard(keeper.run(read()))),
        Box::pin(discard(keeper.send(read()))),
        Box::pin(discard(keeper.database::<(), ()>(&name))),
        Box::pin(discard(keeper.stats())),
    ]
}

type Pending = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn discard<T>(future: impl Future<Output = T>) {
    drop(future.await);
}

/// Polls each kind of future some number of times, with all of its neighbours under way, then drops it: wherever it is.
#[test]
fn i12_dropped_after_any_number_of_polls_it_leaks_nothing() {
    const POLLS: u64 = 8;
    const ROUNDS: u64 = 12;
    let folder = folder();
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(folder.path())
            // Small, so that what leaks runs out.
            .queue(16)
            .max_readers(16)
            .deadline(SOON),
    );
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for round in 0..ROUNDS {
        for polls in 0..POLLS {
            let mut all: Vec<_> = futures(&keeper, numbers, round * POLLS + polls)
                .into_iter()
                .map(Some)
                .collect();
            for nth in 0..polls {
                for slot in &mut all {
                    if let Some(future) = slot
                        && future.as_mut().poll(&mut context).is_ready()
                    {
                        *slot = None;
                    }
                }
                // Different awaits in different rounds.
                match round % 3 {
                    0 => {}
                    1 => std::thread::yield_now(),
                    _ => std::thread::sleep(Duration::from_micros(100 * nth)),
                }
            }
            drop(all);
        }
    }
    assert_idle(&keeper);
    let environment = stats(&keeper).environment;
    assert!(environment.readers <= 16, "{} slots", environment.readers);
    // Everything is there for those who come now: all places, all locks, the whole map.
    let plug = Plug::hold(&keeper);
    let sent: Vec<_> = (0..15)
        .map(|key| {
            Sent::new(keeper.run(
                putting(numbers, 9000 + key, key).write_lock(Object::new("x", key.to_be_bytes())),
            ))
        })
        .collect();
    assert_eq!(stats(&keeper).transactions.in_flight, 16);
    plug.release().unwrap();
    for sent in sent {
        sent.answer().unwrap();
    }
    keeper
        .blocking_send(lockkeeper::SetMapSize(2 << 30))
        .unwrap();
    assert_idle(&keeper);
    keeper.blocking_shutdown(SOON).unwrap();
}
