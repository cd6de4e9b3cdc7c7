//! Every thread is joined before the answer, to its very end: what it has in thread-locals is dropped.

use std::cell::RefCell;
use std::sync::mpsc;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use lockkeeper::{
    Keeper, LockError, LockerSpec, Mode, Object, Outcome, Pool, Restart, RunTxn, ShutdownError,
    TxnError, Wait, Worker,
};
use parking_lot::Mutex;

use crate::begun::{LONG, SOON, until_free};
use crate::rt::{Latch, Latched, aside, block_on, builder, hold_writer, latch, open, until};

/// What becomes of the threads of a keeper that have a thread-local of ours.
#[derive(Default)]
struct Seen {
    have: Vec<String>,
    /// They have dropped it.
    had: Vec<String>,
    /// Threads of this name take a while for that.
    slow: String,
}

static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);

thread_local! {
    static LOCAL: Local = Local(thread::current().name().unwrap_or_default().to_owned());
}

struct Local(String);

impl Drop for Local {
    fn drop(&mut self) {
        let is_slow = match SEEN.lock().slow.as_str() {
            "actix-rt" => self.0.starts_with("actix-rt"),
            slow => slow == self.0,
        };
        if is_slow {
            thread::sleep(Duration::from_millis(150));
        }
        SEEN.lock().had.push(std::mem::take(&mut self.0));
    }
}

/// Gives this thread one, if it is the keeper's.
fn mark() {
    let thread = thread::current();
    let name = thread.name().unwrap_or_default();
    let is_ours = |begin: &str| name.starts_with(begin);
    if is_ours("lockkeeper") || is_ours("actix-rt") {
        LOCAL.with(|local| {
            let have = &mut SEEN.lock().have;
            if !have.contains(&local.0) {
                have.push(local.0.clone());
            }
        });
    }
}

/// Marks whoever wakes.
struct Marks(Thread);

impl Wake for Marks {
    fn wake(self: Arc<Self>) {
        mark();
        self.0.unpark();
    }
}

fn marking<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Marks(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(out) => return out,
            Poll::Pending => thread::park(),
        }
    }
}

/// Every kind of thread that runs anything of the application's.
const KINDS: [&str; 13] = [
    "lockkeeper-writer",
    "lockkeeper-reader",
    "lockkeeper-snapshot",
    "lockkeeper-timer",
    "lockkeeper-clock",
    "lockkeeper-leases",
    "lockkeeper-pools",
    "lockkeeper-pool",
    "lockkeeper-threads-0",
    "lockkeeper-threads-1",
    "lockkeeper-threads-2",
    "lockkeeper-stop",
    "actix-rt",
];

#[test]
fn each_has_dropped_what_it_had_in_thread_locals_when_the_shutdown_is_answered() {
    for kind in KINDS {
        // The names of arbiters have numbers.
        let is_kind = |name: &String| match kind {
            "actix-rt" => name.starts_with(kind),
            _ => name == kind,
        };
        // On a busy machine what a thread is to be waited for may be there at once, and it has nothing to do with it.
        let seen = (0..20).any(|_| {
            *SEEN.lock() = Seen {
                slow: kind.to_owned(),
                ..Seen::default()
            };
            use_everything_and_stop();
            let Seen {
                mut have, mut had, ..
            } = std::mem::take(&mut *SEEN.lock());
            let seen = have.iter().any(is_kind);
            // Several threads have one name.
            had.sort_unstable();
            had.dedup();
            have.sort_unstable();
            assert_eq!(had, have, "when {kind} is slow");
            seen
        });
        assert!(seen, "no thread is {kind}");
    }
}

fn use_everything_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = builder(folder.path())
        .reader_threads(1)
        .handler(|_: &mut _, outcome: Outcome| {
            mark();
            outcome
        })
        .open()
        .unwrap();
    let marks = || {
        RunTxn::update(|_| {
            mark();
            Ok(())
        })
    };
    // The writer; by message the supervisor's thread, and that of the system.
    keeper.blocking_send(marks()).unwrap();
    let view = RunTxn::view(|_| {
        mark();
        Ok(())
    });
    marking(keeper.run(view)).unwrap();
    let snapshot = marking(keeper.hold_snapshot("held", LONG)).unwrap();
    marking(snapshot.ask(|_| mark())).unwrap();
    // The clock of the lock table, and the timer.
    let held = hold_writer(&keeper);
    let late = marking(keeper.run(marks().deadline(Duration::from_millis(5))));
    assert!(
        matches!(late, Err(TxnError::WriterStalled { .. })),
        "{late:?}"
    );
    held.release().unwrap();
    let lockers = [(); 2].map(|()| keeper.locks().locker(LockerSpec::new()).unwrap());
    let object = Object::new("boats", b"1");
    lockers[0]
        .blocking_lock(&object, Mode::Write, Wait::No)
        .unwrap();
    let brief = Wait::For(Duration::from_millis(5));
    let late = marking(lockers[1].lock(&object, Mode::Write, brief));
    assert!(matches!(late, Err(LockError::LockTimeout(_))));
    drop(lockers);
    // The leases.
    let guard = marking(keeper.lease("job").acquire()).unwrap();
    // The pools: what serves them, what runs tasks, what blocks, and a thread that a worker has left behind.
    let (runs, does_run) = mpsc::channel();
    let told = runs.clone();
    let tasks = keeper.pool("tasks").start(move |worker: Worker| {
        let told = told.clone();
        async move {
            mark();
            tokio::task::spawn_blocking(mark).await?;
            let _ = told.send(());
            worker.stopped().await;
            Ok(())
        }
    });
    let threads = keeper.pool("threads").workers(3);
    let threads = threads.start_blocking(move |worker: Worker| {
        mark();
        let _ = runs.send(());
        while !worker.pause_for(LONG) {}
        Ok(())
    });
    for _ in 0..4 {
        does_run.recv_timeout(LONG).unwrap();
    }
    let waits = [tasks.unwrap().wait(), threads.unwrap().wait()];
    let waits = waits.map(|waits| aside(move || marking(waits)));

    marking(keeper.shutdown(Duration::MAX)).unwrap();
    assert!(!guard.is_held());
    for waits in waits {
        waits.join().unwrap().unwrap();
    }
}

thread_local! {
    static LATCHED: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
}

/// Keeps its thread from ending.
struct AtEnd(Latched);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.pass();
    }
}

/// A pool whose one thread has ended its work, or does when it is told, and keeps on being there.
fn clings(keeper: &Keeper, ends: bool) -> (Pool, Latch) {
    let (latch, latched) = latch();
    let at_end = Mutex::new(Some(AtEnd(latched)));
    let pool = keeper.pool("clings").restart(Restart::Temporary);
    let pool = pool.start_blocking(move |worker: Worker| {
        LATCHED.set(at_end.lock().take());
        while !ends && !worker.pause_for(LONG) {}
        Ok(())
    });
    (pool.unwrap(), latch)
}

#[test]
fn one_that_does_not_come_to_its_end_is_named_and_joined_when_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let (pool, mut latch) = clings(&keeper, false);
    until(|| pool.stats().workers.running == 1);
    let outcome = keeper.blocking_shutdown(SOON);
    latch.entered();
    let Err(ShutdownError::WorkersRunOn { pool: name, what }) = &outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!((&**name, &**what), ("clings", "a thread has not ended"));
    // It keeps nothing but itself.
    until_free(folder.path());
    assert!(pool.state().is_over());
    latch.open();
    keeper.blocking_shutdown(LONG).unwrap();
}

#[test]
fn one_that_does_not_come_to_its_end_holds_up_no_other_pool() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let (_pool, mut latch) = clings(&keeper, true);
    latch.entered();
    let other = keeper.pool("other").start(|worker: Worker| async move {
        worker.stopped().await;
        Ok(())
    });
    let other = other.unwrap();
    until(|| other.stats().workers.running == 1);
    block_on(other.stop(LONG)).unwrap();
    latch.open();
    keeper.blocking_shutdown(LONG).unwrap();
}
