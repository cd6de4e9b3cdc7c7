use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use super::*;

/// A store whose opening waits for the test.
fn held_up() -> (Later<LmdbLeases>, flume::Sender<bool>, Arc<AtomicU32>) {
    let folder = tempfile::tempdir().unwrap();
    let (go_on, wait) = flume::unbounded();
    let opened = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&opened);
    let later = Later::new(move || {
        let goes_well = wait.recv().unwrap();
        count.fetch_add(1, Ordering::SeqCst);
        match goes_well {
            true => LmdbLeases::open(folder.path()),
            false => Err(StoreError::Unreachable("not yet".into())),
        }
    });
    (later, go_on, opened)
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn an_opening_that_waits_keeps_no_thread_but_its_own_and_is_one_for_all() {
    let (later, go_on, opened) = held_up();
    let (mut first, mut second) = (later.prepare(), later.list());
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    // Its asker goes away, and it is not begun anew.
    drop(first);
    assert!(poll(&mut second).is_pending());
    go_on.send(true).unwrap();
    assert_eq!(second.await.unwrap(), []);
    later.prepare().await.unwrap();
    assert_eq!(opened.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_opening_that_failed_is_told_and_tried_again() {
    let (later, go_on, opened) = held_up();
    let (mut first, mut second) = (later.prepare(), later.prepare());
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    go_on.send(false).unwrap();
    assert!(matches!(first.await, Err(StoreError::Unreachable(_))));
    // Who waited for another's opening begins one of its own.
    go_on.send(true).unwrap();
    second.await.unwrap();
    assert_eq!(opened.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_opening_that_panics_is_an_error_and_not_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let tries = AtomicU32::new(0);
    let later = Later::new(move || match tries.fetch_add(1, Ordering::SeqCst) {
        0 => panic!("the opening panics"),
        _ => LmdbLeases::open(&path),
    });
    assert!(matches!(later.prepare().await, Err(StoreError::Failed(_))));
    later.prepare().await.unwrap();
}

#[tokio::test]
async fn what_is_opened_when_nobody_is_left_is_closed_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, (go_on, wait)) = (folder.path().to_owned(), flume::unbounded::<()>());
    let (told, opened) = flume::unbounded();
    let later = Later::new(move || {
        wait.recv().unwrap();
        let store = LmdbLeases::open(&path)?;
        told.send(store.worker.weak()).unwrap();
        Ok(store)
    });
    let mut asked = later.prepare();
    assert!(poll(&mut asked).is_pending());
    drop(asked);
    drop(later);
    go_on.send(()).unwrap();
    let worker = opened.recv_async().await.unwrap();
    // The thread that opened it was the last to have it.
    while worker.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn whoever_joins_waits_for_an_opening_that_nobody_asks_for_any_more_and_closes_what_it_has_opened()
{
    let folder = tempfile::tempdir().unwrap();
    let (path, (go_on, wait)) = (folder.path().to_owned(), flume::unbounded::<()>());
    let (told, opened) = flume::unbounded();
    let later = Later::new(move || {
        wait.recv().unwrap();
        let store = LmdbLeases::open(&path)?;
        told.send(store.worker.weak()).unwrap();
        Ok(store)
    });
    let mut asked = later.prepare();
    assert!(poll(&mut asked).is_pending());
    drop(asked);
    // The leases have ended without waiting for it.
    let mut closes = later.close();
    assert!(poll(&mut closes).is_pending());
    drop(closes);
    let joined = std::thread::spawn(move || {
        later.join();
        let worker = opened.try_recv().expect("it was opened before");
        assert!(worker.upgrade().is_none(), "it is open still");
        let late = later.prepare();
        assert!(matches!(
            crate::clock::block_on(late),
            Err(StoreError::Failed(_))
        ));
    });
    go_on.send(()).unwrap();
    joined.join().unwrap();
}
