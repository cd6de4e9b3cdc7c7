//! In the thread that serves the pools, beside their turns.

use std::sync::mpsc;
use std::thread;

use super::*;
use crate::error::PoolError;

const BETWEEN: &str = "between turns of the pools";

#[test]
fn a_panic_between_two_turns_ends_neither_the_pools_nor_a_stop() {
    let (folder, keeper) = keeper();
    let pool = keeper.pool("steady").start(|worker| async move {
        worker.stopped().await;
        Ok(())
    });
    let pool = pool.expect("a pool");
    keeper.bombs(Part::WorkerPool).set(BETWEEN);
    pool.scale(2).expect("scaled");
    until("it has panicked", || {
        keeper.bombs(Part::WorkerPool).are_spent()
    });
    pool.scale(3).expect("scaled");
    until("all run", || pool.stats().workers.running == 3);
    until("it is counted", || {
        run(keeper.stats()).panics.worker_pool == 1
    });

    // And in the midst of the stop.
    keeper.bombs(Part::WorkerPool).set(BETWEEN);
    run(keeper.shutdown(LONG)).expect("stopped");
    assert!(keeper.bombs(Part::WorkerPool).are_spent());
    drop(keeper);
    let again = Keeper::open(folder.path()).expect("free");
    run(again.shutdown(LONG)).expect("stopped");
}

/// Asks for the pools when it is dropped.
struct Asks(Keeper, mpsc::Sender<usize>);

impl Drop for Asks {
    fn drop(&mut self) {
        let _ = self.1.send(self.0.pools().len());
    }
}

#[test]
fn what_a_pool_that_comes_too_late_has_in_its_closure_may_ask_the_keeper_when_it_is_dropped() {
    let (_folder, keeper) = keeper();
    let pool = keeper.pool("steady").start(|worker| async move {
        worker.stopped().await;
        Ok(())
    });
    let _pool = pool.expect("a pool");
    // A stop has begun, and the pools have not heard of it.
    keeper.inner.runtime.stopping.stoppables.close();
    let (tell, told) = mpsc::channel();
    let (asks, starts) = (Asks(keeper.clone(), tell), keeper.clone());
    let late = thread::spawn(move || {
        starts.pool("late").start(move |_| {
            let _ = &asks;
            async { Ok(()) }
        })
    });
    assert_eq!(told.recv_timeout(LONG / 6), Ok(1));
    let late = late.join().expect("no panic");
    assert!(matches!(late, Err(PoolError::ShuttingDown)), "{late:?}");
    run(keeper.shutdown(LONG)).expect("stopped");
}
