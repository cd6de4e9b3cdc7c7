//! What workers have started and left behind: tasks and threads of their own, which the keeper can neither ask nor stop.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use lockkeeper::{Keeper, ShutdownError, Worker};
use parking_lot::Mutex;

use crate::begun::{LONG, stopping, until_free};
use crate::rt::{Latch, PATIENCE, latch, open};

thread_local! {
    static ENDS: RefCell<Option<Ends>> = const { RefCell::new(None) };
}

/// Says that its thread has come to its very end.
struct Ends(Arc<AtomicBool>);

impl Drop for Ends {
    fn drop(&mut self) {
        thread::sleep(Duration::from_millis(100));
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A worker that has left something behind which blocks its thread, and has ended itself when it is told to.
fn leaves(keeper: &Keeper, as_task: bool) -> (Latch, Arc<AtomicBool>) {
    let (latch, latched) = latch();
    let (latched, ended) = (Mutex::new(Some(latched)), Arc::new(AtomicBool::new(false)));
    let (ends, (runs, has_run)) = (Arc::clone(&ended), mpsc::channel());
    let pool = keeper.pool("leaves").start(move |worker: Worker| {
        let (latched, ends) = (latched.lock().take(), Ends(Arc::clone(&ends)));
        let runs = runs.clone();
        async move {
            let blocks = move || {
                ENDS.set(Some(ends));
                if let Some(latched) = latched {
                    latched.pass();
                }
            };
            match as_task {
                true => drop(tokio::spawn(async move { blocks() })),
                false => drop(tokio::task::spawn_blocking(blocks)),
            }
            let _ = runs.send(());
            worker.stopped().await;
            Ok(())
        }
    });
    let _pool = pool.unwrap();
    has_run.recv_timeout(PATIENCE).unwrap();
    latch.entered();
    (latch, ended)
}

#[test]
fn what_a_worker_has_left_behind_is_waited_for_and_its_thread_joined() {
    for as_task in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, _) = open(folder.path());
        let (mut latch, ended) = leaves(&keeper, as_task);
        let stops = stopping(&keeper, LONG);
        // Longer than whoever has nothing to do but end is given.
        thread::sleep(Duration::from_millis(600));
        assert!(!stops.is_finished(), "as a task: {as_task}");
        latch.open();
        stops.join().unwrap().unwrap();
        assert!(ended.load(Ordering::SeqCst), "as a task: {as_task}");
        until_free(folder.path());
    }
}

#[test]
fn what_a_worker_has_left_behind_is_named_at_the_deadline_and_keeps_no_environment_open() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let (mut latch, ended) = leaves(&keeper, true);
    let outcome = keeper.blocking_shutdown(Duration::from_secs(1));
    let Err(ShutdownError::TimedOut { what }) = &outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(*what, "a task that a worker has left behind");
    until_free(folder.path());
    assert!(!ended.load(Ordering::SeqCst));
    latch.open();
    keeper.blocking_shutdown(LONG).unwrap();
    assert!(ended.load(Ordering::SeqCst));
}

#[test]
fn i14_in_what_a_worker_has_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let (tell, told) = mpsc::channel();
    let pool = keeper.pool("leaves").start(move |worker: Worker| {
        let tell = tell.clone();
        async move {
            let (keeper, say) = (worker.keeper().clone(), tell.clone());
            drop(tokio::task::spawn_blocking(move || {
                let _ = say.send(keeper.blocking_shutdown(Duration::MAX));
            }));
            let keeper = worker.keeper().clone();
            drop(tokio::spawn(async move {
                let _ = tell.send(keeper.blocking_shutdown(Duration::MAX));
                // Dropped here, where it waits.
                let _ = keeper.shutdown(Duration::MAX).await;
            }));
            worker.stopped().await;
            Ok(())
        }
    });
    let _pool = pool.unwrap();
    for _ in 0..2 {
        let answer = told.recv_timeout(PATIENCE).unwrap();
        assert!(
            matches!(answer, Err(ShutdownError::InsideHandler { .. })),
            "{answer:?}"
        );
    }
    keeper.blocking_shutdown(LONG).unwrap();
}
