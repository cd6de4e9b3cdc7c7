//! The lock table's own clock: a thread that parks until the next deadline.
//!
//! An actor's timers are polled only when its mailbox is empty, so under load they come tens of
//! milliseconds late. This thread enters by the second door instead, and nobody's messages delay it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::shared::Shared;
use crate::locks::VictimPolicy;

/// The thread, for as long as there is a handle of its table.
pub(super) struct Clock {
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Clock {
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let table = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("lockkeeper-clock".into())
            .spawn(move || run(&table, &stopped))
            .expect("the system gives a thread to the lock table's clock");
        // Nobody can ask for a lock before this returns, so no wake-up is missed until here.
        let _ = shared.clock.set(thread.thread().clone());
        Self {
            stop,
            thread: Mutex::new(Some(thread)),
        }
    }

    /// Ends the thread and waits for its end, unless it is the caller itself.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        thread.thread().unpark();
        // The last handle can go away in a wake-up that the clock itself hands out.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!(target: "lockkeeper", "the lock table's clock has panicked");
        }
    }
}

fn run(shared: &Shared, stop: &AtomicBool) {
    let mut looked_at = Instant::now();
    while !stop.load(Ordering::Acquire) {
        let pass = shared
            .supervision
            .guard("a pass of the clock", || pass(shared, &mut looked_at));
        match pass {
            Ok(Some(until)) => {
                thread::park_timeout(until.saturating_duration_since(Instant::now()));
            }
            Ok(None) => thread::park(),
            // It goes on, but not as fast as it can.
            Err(_) => thread::park_timeout(AFTER_PANIC),
        }
    }
}

/// Does what is due; answers until when the clock may sleep.
fn pass(shared: &Shared, looked_at: &mut Instant) -> Option<Instant> {
    loop {
        // The interval can have been changed while it slept.
        let interval = shared.aside(|state| state.config.detect_interval);
        let mut detect_at = next_pass(*looked_at, interval);
        if detect_at.is_some_and(|at| at <= Instant::now()) {
            // A broken table has no deadlocks.
            let _ = shared.transition(|state, effects| {
                if state.table.waiting() > 0 {
                    state.detect(shared.now(), VictimPolicy::Default, effects);
                }
            });
            *looked_at = Instant::now();
            detect_at = next_pass(*looked_at, interval);
        }
        let deadline = shared.expire();
        let until = [deadline, detect_at].into_iter().flatten().min();
        if shared.may_sleep_until(until) {
            return until;
        }
    }
}

/// How long the clock stands still after a panic.
const AFTER_PANIC: Duration = Duration::from_millis(10);

fn next_pass(last: Instant, interval: Duration) -> Option<Instant> {
    (!interval.is_zero())
        .then(|| last.checked_add(interval))
        .flatten()
}
