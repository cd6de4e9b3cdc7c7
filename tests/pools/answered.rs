//! When the end of a pool is answered, everybody who had submitted a job has been answered, whichever thread is at that.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use lockkeeper::{Job, JobError, OnFull, PoolState};
use parking_lot::Mutex;

use crate::rt::{Latched, latch};
use crate::support::{LONG, block_on, keeper, until};

/// Blocks where it is woken, until the latch is open.
struct Blocks {
    latched: Mutex<Latched>,
    is_woken: AtomicBool,
}

impl Wake for Blocks {
    fn wake(self: Arc<Self>) {
        self.latched.lock().pass();
        self.is_woken.store(true, Ordering::SeqCst);
    }
}

/// A job that blocks whoever drops it, until the latch is open.
struct Heavy(Mutex<Latched>);

impl Drop for Heavy {
    fn drop(&mut self) {
        self.0.lock().pass();
    }
}

#[test]
fn whoever_waits_for_the_end_waits_for_the_answers_that_another_thread_gives() {
    let (_folder, keeper) = keeper();
    // Keeps the thread that serves the pools busy, so that it cannot be the one that answers.
    let (mut driver, heavy) = latch();
    let busy = keeper.pool("busy").workers(0);
    let busy = busy
        .serve(|_: Job<Heavy>| async { Ok::<_, ()>(()) })
        .unwrap();
    assert!(
        busy.submit_and_forget(Heavy(Mutex::new(heavy)))
            .blocking()
            .unwrap()
            .is_some()
    );
    let jobs = keeper.pool("jobs").workers(0).queue(1);
    let jobs = jobs
        .when_full(OnFull::Wait(LONG))
        .serve(|job: Job<u8>| async move { Ok::<_, ()>(*job) })
        .unwrap();
    assert!(jobs.submit_and_forget(1).blocking().unwrap().is_some());
    let (mut answers, latched) = latch();
    let waker = Arc::new(Blocks {
        latched: Mutex::new(latched),
        is_woken: AtomicBool::new(false),
    });
    let mut waits = pin!(jobs.submit(2));
    let woken = Waker::from(Arc::clone(&waker));
    let polled = waits.as_mut().poll(&mut Context::from_waker(&woken));
    assert!(polled.is_pending());
    drop(busy.stop(LONG));
    driver.entered();

    let stops = {
        let keeper = keeper.clone();
        std::thread::spawn(move || keeper.blocking_shutdown(LONG))
    };
    answers.entered();
    let (tell, ended) = mpsc::channel();
    let waiting = {
        let (jobs, waker) = (jobs.clone(), Arc::clone(&waker));
        std::thread::spawn(move || {
            block_on(jobs.stop(LONG)).unwrap();
            let _ = tell.send(waker.is_woken.load(Ordering::SeqCst));
        })
    };
    driver.open();
    until("it is over", || jobs.state() == PoolState::Drained);
    // One that does not wait would be answered now.
    let soon = Instant::now() + Duration::from_millis(100);
    while Instant::now() < soon && !waiting.is_finished() {
        std::thread::sleep(Duration::from_millis(1));
    }
    answers.open();
    let was_answered = ended.recv_timeout(LONG).unwrap();
    assert!(was_answered, "the end was told before the answer");
    waiting.join().unwrap();
    let answer = block_on(waits);
    assert!(
        matches!(answer, Err(JobError::Stopped { job: 2 })),
        "{answer:?}"
    );
    stops.join().unwrap().unwrap();
}
