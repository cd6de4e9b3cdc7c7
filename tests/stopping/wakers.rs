//! A waker of the application's that panics takes nobody's answer along, and no part of the stop.

use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};

use lockkeeper::{RunTxn, TxnError, Worker};

use crate::begun::{LONG, SOON, Waits, counts, waits_outside};
use crate::rt::{PATIENCE, aside, block_on, builder, open, until};

struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

/// Polls a future that is not ready, with a waker that panics.
fn arm<F: Future + Unpin>(mut future: F) -> F {
    let bomb = Waker::from(Arc::new(Bomb));
    let polled = std::pin::Pin::new(&mut future).poll(&mut Context::from_waker(&bomb));
    assert!(polled.is_pending());
    future
}

#[test]
fn whoever_waits_beside_it_is_answered_and_the_keeper_ends() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = builder(folder.path()).queue(3).open().unwrap();
    let records = counts(&keeper);
    let pool = keeper.pool("steady").start(|worker: Worker| async move {
        worker.stopped().await;
        Ok(())
    });
    let pool = pool.unwrap();
    // Of each kind one between two others, in whatever order they are woken.
    let outside = ["a", "b", "c"].map(|key| waits_outside(&keeper, records, key));
    let place = || -> Waits<()> { Box::pin(keeper.run(RunTxn::update(|_| Ok(())))) };
    let over = || Box::pin(pool.wait());
    let stops = || Box::pin(keeper.shutdown(SOON));
    let [before, between, after] = outside;
    let mut armed = vec![arm(before)];
    let mut answers = vec![aside(move || block_on(between))];
    armed.push(arm(after));
    let waiting = |many| until(|| block_on(keeper.stats()).transactions.waiting == many);
    armed.push(arm(place()));
    waiting(1);
    let between = place();
    answers.push(aside(move || block_on(between)));
    waiting(2);
    armed.push(arm(place()));
    let pools = [arm(over()), arm(over())];
    let between = over();
    let is_over = aside(move || block_on(between));
    let asked = [arm(stops()), arm(stops())];
    block_on(stops()).unwrap();

    for answer in answers {
        let answer = answer.join().unwrap();
        assert!(matches!(answer, Err(TxnError::ShuttingDown)), "{answer:?}");
    }
    is_over.join().unwrap().unwrap();
    builder(folder.path()).open().unwrap();
    // Whoever is polled again is answered, too.
    for armed in armed {
        assert!(matches!(block_on(armed), Err(TxnError::ShuttingDown)));
    }
    for pool in pools {
        block_on(pool).unwrap();
    }
    for asked in asked {
        block_on(asked).unwrap();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_blocking_worker_that_pauses_is_woken_though_another_waker_of_its_token_panics() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let (thread, is_thread) = mpsc::channel();
    let pool = keeper
        .pool("pausing")
        .start_blocking(move |worker: Worker| {
            let _armed = arm(Box::pin(worker.stop().clone().cancelled_owned()));
            let _ = thread.send(std::fs::read_link("/proc/thread-self")?);
            while !worker.pause_for(100 * PATIENCE) {}
            Ok(())
        });
    let pool = pool.unwrap();
    let thread = is_thread.recv_timeout(PATIENCE).unwrap();
    let stat = std::path::Path::new("/proc").join(thread).join("stat");
    // It sleeps, and has nowhere else to do so.
    until(|| std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") S ")));
    keeper.blocking_shutdown(LONG).unwrap();
    assert_eq!(pool.stats().abandoned, 0);
}
