//! Shutdowns inside of what a shutdown waits for: each is told so at once, and nothing is begun (I14).

use std::sync::mpsc;
use std::time::Duration;

use lockkeeper::{
    Claim, Claimed, Holder, LeaseFault, LeaseName, LeaseRecord, LeaseStore, LeaseVerdict, Outcome,
    Refresh, Refreshed, Released, RunTxn, ShutdownError, StoreError, StoreFuture, StoreId,
    TxnError,
};
use parking_lot::Mutex;

use crate::begun::{LONG, Later};
use crate::rt::{PATIENCE, block_on, builder, open};

/// Asks in either way, if there is a keeper.
fn ask(later: &Later) -> Option<[Result<(), ShutdownError>; 2]> {
    let keeper = later.get()?;
    Some([
        keeper.blocking_shutdown(Duration::MAX),
        block_on(keeper.shutdown(Duration::MAX)),
    ])
}

#[test]
fn i14_in_the_closure_of_an_interactive_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let stops = keeper.clone();
    let ran: Result<(), TxnError> = block_on(async {
        keeper
            .transaction("interactive", |_| {
                let stops = stops.clone();
                async move {
                    let blocking = stops.blocking_shutdown(Duration::MAX);
                    assert!(matches!(blocking, Err(ShutdownError::InsideBody)));
                    let awaited = stops.shutdown(Duration::MAX).await;
                    assert!(matches!(awaited, Err(ShutdownError::InsideBody)));
                    Ok(())
                }
            })
            .await
    });
    ran.unwrap();
    keeper.blocking_update(|_| Ok(())).unwrap();
    keeper.blocking_shutdown(LONG).unwrap();
}

#[test]
fn i14_in_a_handler_of_outcomes_by_either_door() {
    let folder = tempfile::tempdir().unwrap();
    let later = Later::default();
    let (answers, answered) = mpsc::channel();
    let keeper = {
        let later = later.clone();
        let answers = Mutex::new(answers);
        builder(folder.path())
            .handler(move |_: &mut _, outcome: Outcome| {
                if let Some(asked) = ask(&later) {
                    answers.lock().send(asked).unwrap();
                }
                outcome
            })
            .open()
            .unwrap()
    };
    later.is(keeper.clone());
    keeper.blocking_update(|_| Ok(())).unwrap();
    keeper.blocking_send(RunTxn::update(|_| Ok(()))).unwrap();
    for _ in 0..2 {
        for answer in answered.recv_timeout(PATIENCE).unwrap() {
            assert!(
                matches!(answer, Err(ShutdownError::InsideHandler { what }) if what.contains("outcomes")),
                "{answer:?}"
            );
        }
    }
    drop(later.take());
    keeper.blocking_shutdown(LONG).unwrap();
}

/// A store that is never there.
struct Gone;

fn gone<'a, T: Send + 'a>() -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(Err(StoreError::Unreachable(
        "gone".into(),
    ))))
}

impl LeaseStore for Gone {
    fn id(&self) -> StoreFuture<'_, StoreId> {
        gone()
    }
    fn prepare(&self) -> StoreFuture<'_, ()> {
        gone()
    }
    fn claim<'a>(&'a self, _: &'a Claim) -> StoreFuture<'a, Claimed> {
        gone()
    }
    fn refresh<'a>(&'a self, _: &'a [Refresh]) -> StoreFuture<'a, Vec<Refreshed>> {
        gone()
    }
    fn release<'a>(&'a self, _: &'a LeaseName, _: &'a Holder) -> StoreFuture<'a, Released> {
        gone()
    }
    fn look<'a>(&'a self, _: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        gone()
    }
    fn list(&self) -> StoreFuture<'_, Vec<LeaseRecord>> {
        gone()
    }
    fn force_release<'a>(&'a self, _: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        gone()
    }
}

#[test]
fn i14_in_a_handler_of_lease_errors() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = builder(folder.path()).lease_store(Gone).open().unwrap();
    let later = Later::default();
    later.is(keeper.clone());
    let (answers, answered) = mpsc::channel();
    let answers = Mutex::new(answers);
    let asks = later.clone();
    let handler = move |_: &LeaseFault<'_>| {
        if let Some(asked) = ask(&asks) {
            answers.lock().send(asked).unwrap();
        }
        LeaseVerdict::Stop
    };
    let lease = block_on(keeper.lease("job").handler(handler).acquire());
    assert!(lease.is_err());
    for answer in answered.recv_timeout(PATIENCE).unwrap() {
        assert!(
            matches!(answer, Err(ShutdownError::InsideHandler { what }) if what.contains("lease")),
            "{answer:?}"
        );
    }
    drop(later.take());
    keeper.blocking_shutdown(LONG).unwrap();
}

#[test]
fn a_handler_may_have_somebody_else_do_it() {
    let folder = tempfile::tempdir().unwrap();
    let later = Later::default();
    let (stopped, has_stopped) = mpsc::channel();
    let keeper = {
        let later = later.clone();
        let stopped = Mutex::new(stopped);
        builder(folder.path())
            .handler(move |_: &mut _, outcome: Outcome| {
                if let Some(keeper) = later.take() {
                    let stopped = stopped.lock().clone();
                    let stops = keeper.shutdown(LONG);
                    std::thread::spawn(move || stopped.send(block_on(stops)));
                }
                outcome
            })
            .open()
            .unwrap()
    };
    later.is(keeper.clone());
    keeper.blocking_update(|_| Ok(())).unwrap();
    has_stopped.recv_timeout(PATIENCE).unwrap().unwrap();
    drop(keeper);
}
