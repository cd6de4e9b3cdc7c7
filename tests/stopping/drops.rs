//! What the application has in a pool's closure is dropped by a thread of the keeper's, and may do anything then.

use std::sync::mpsc;

use lockkeeper::{Keeper, Restart, ShutdownError, Worker};

use crate::begun::{LONG, Later, until_free};
use crate::rt::{PATIENCE, aside, begin, open, until};

/// Whichever thread has the pool last, the driver's or that of the stop: both have it in some round.
const ROUNDS: usize = 8;

/// Does something when it is dropped.
struct AtDrop<F: Fn()>(F);

impl<F: Fn()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A pool whose closure does this when it is dropped, which nobody has but the keeper: it ends before the keeper, or with it.
fn with<F: Fn() + Send + Sync + 'static>(keeper: &Keeper, before: bool, at_drop: F) {
    let at_drop = AtDrop(at_drop);
    let (go, may_go) = flume::bounded::<()>(0);
    let pool = keeper.pool("drops").restart(Restart::Temporary);
    let pool = pool.workers(usize::from(before)).start(move |_: Worker| {
        let _ = &at_drop;
        let may_go = may_go.clone();
        async move {
            let _ = may_go.recv_async().await;
            Ok(())
        }
    });
    let pool = pool.unwrap();
    if before {
        until(|| pool.stats().workers.running == 1);
        let mut stops = Box::pin(pool.stop(LONG));
        begin(&mut stops);
        drop((stops, pool, go));
        until(|| keeper.find_pool("drops").is_err());
    }
}

#[test]
fn a_panic_there_keeps_no_stop_from_its_end() {
    for round in 0..ROUNDS {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, _) = open(folder.path());
        let (tell, told) = mpsc::channel();
        with(&keeper, round % 2 == 0, move || {
            let _ = tell.send(std::thread::current().name().map(str::to_owned));
            panic!("it burns");
        });
        keeper.blocking_shutdown(LONG).unwrap();
        let thread = told.recv_timeout(PATIENCE).unwrap().unwrap();
        assert!(thread.starts_with("lockkeeper"), "{thread}");
        until_free(folder.path());
    }
}

#[test]
fn i14_in_what_a_pool_drops() {
    for round in 0..ROUNDS {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, _) = open(folder.path());
        let (tell, told) = mpsc::channel();
        let later = Later::default();
        later.is(keeper.clone());
        let asks = later.clone();
        with(&keeper, round % 2 == 0, move || {
            let keeper = asks.take().unwrap();
            let _ = tell.send(keeper.blocking_shutdown(LONG));
        });
        let stops = aside(move || keeper.blocking_shutdown(LONG));
        let answer = told.recv_timeout(PATIENCE).unwrap();
        assert!(
            matches!(&answer, Err(ShutdownError::InsideHandler { .. })),
            "{answer:?}"
        );
        stops.join().unwrap().unwrap();
        until_free(folder.path());
    }
}
