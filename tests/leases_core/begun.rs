//! Whoever waits for an answer of the store goes on with the question himself, and the thread of the leases if he does not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use lockkeeper::{LeaseError, LeaseFault, LeaseVerdict, Released};
use parking_lot::Mutex;

use crate::store::{Fault, Memory, Op, PATIENCE, begin, soon, until};
use crate::{MS, builder, patient};

const DRIVER: &str = "lockkeeper-leases";

fn went_on_by(store: &Memory) -> Option<String> {
    store.0.went_on_by.lock().clone()
}

async fn is_asked(store: &Memory) {
    until(|| store.0.waiting.load(Ordering::SeqCst) > 0).await;
}

#[tokio::test]
async fn whoever_waits_goes_on_with_his_question_himself() {
    let store = Memory::new();
    let leases = patient(&store).start().unwrap();
    let here = std::thread::current().name().map(str::to_owned);
    for op in [Op::Claim, Op::Release] {
        // On a busy machine it may be taken over first.
        let mut by_us = false;
        for _ in 0..100 {
            store.next(op, &[Fault::Wait]);
            let waker = store.clone();
            let go_on = tokio::spawn(async move {
                is_asked(&waker).await;
                waker.go_on();
            });
            let guard = soon(leases.acquire("job")).await.unwrap();
            assert_eq!(soon(guard.release()).await.unwrap(), Released::WasOurs);
            go_on.await.unwrap();
            by_us |= went_on_by(&store) == here;
            if by_us {
                break;
            }
        }
        assert!(by_us, "{op:?} went on by {:?}", went_on_by(&store));
    }
}

#[tokio::test]
async fn what_its_caller_forgets_goes_on_all_the_same() {
    let store = Memory::new();
    let leases = patient(&store).start().unwrap();
    store.next(Op::Claim, &[Fault::Wait]);
    let mut forgotten = Box::pin(leases.acquire("job"));
    begin(&mut forgotten);
    is_asked(&store).await;
    store.go_on();
    until(|| store.is_held("job")).await;
    assert_eq!(went_on_by(&store).as_deref(), Some(DRIVER));
    // It was granted, and is refreshed until somebody asks for the answer.
    let refreshed = store.asked(Op::Refresh);
    until(|| store.asked(Op::Refresh) > refreshed + 1).await;
    let guard = soon(forgotten).await.unwrap();
    assert!(guard.is_held());

    store.next(Op::Release, &[Fault::Wait]);
    let mut forgotten = Box::pin(guard.release());
    begin(&mut forgotten);
    is_asked(&store).await;
    store.go_on();
    until(|| !store.is_held("job")).await;
    assert_eq!(soon(forgotten).await.unwrap(), Released::WasOurs);
}

#[tokio::test]
async fn a_caller_that_is_blocked_keeps_no_one_of_his_process_waiting() {
    let store = Memory::new();
    let leases = patient(&store).start().unwrap();
    let guard = soon(leases.acquire("job")).await.unwrap();
    let mut next = Box::pin(leases.acquire("job"));
    begin(&mut next);
    store.next(Op::HandOver, &[Fault::Wait]);
    let mut release = Box::pin(guard.release());
    begin(&mut release);
    is_asked(&store).await;
    store.go_on();
    // The one that gives it back does nothing any more.
    assert!(soon(next).await.unwrap().is_held());
    assert_eq!(soon(release).await.unwrap(), Released::WasOurs);
}

#[tokio::test]
async fn handlers_run_on_the_thread_of_the_leases_whoever_asked() {
    let store = Memory::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let handler = move |_: &LeaseFault<'_>| {
        let thread = std::thread::current().name().map(str::to_owned);
        told.lock().push(thread);
        LeaseVerdict::GoOn
    };
    let builder = builder(&store).release_timeout(crate::store::PATIENCE);
    let leases = builder.handler(handler).start().unwrap();
    for fault in [Fault::Fail, Fault::Hang] {
        store.next(Op::Claim, std::slice::from_ref(&fault));
        let guard = soon(leases.acquire("job")).await.unwrap();
        store.next(Op::Release, &[fault]);
        assert_eq!(soon(guard.release()).await.unwrap(), Released::WasOurs);
    }
    let seen = seen.lock().clone();
    assert_eq!(seen, vec![Some(DRIVER.to_owned()); 4]);
}

#[tokio::test]
async fn a_release_ends_in_time_also_when_the_leases_have_ended() {
    let store = Memory::new();
    let leases = builder(&store)
        .release_timeout(Duration::from_secs(3_600))
        .start()
        .unwrap();
    let guards = [
        soon(leases.acquire("a")).await.unwrap(),
        soon(leases.acquire("b")).await.unwrap(),
    ];
    let [first, second] = guards;
    store.always(Op::Release, Some(Fault::Hang));
    let waiting = tokio::spawn(first.release());
    until(|| store.asked(Op::Release) > 0).await;
    soon(leases.shutdown(20 * MS)).await;
    assert!(soon(waiting).await.unwrap().is_err());
    assert!(soon(second.release()).await.is_err());
}

/// Wakes a thread that has no runtime.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls a future to its end, and only when it is woken.
fn without_a_runtime<F: Future>(future: F) -> F::Output {
    assert!(tokio::runtime::Handle::try_current().is_err());
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let begun = std::time::Instant::now();
    loop {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return answer;
        }
        thread::park_timeout(PATIENCE);
        assert!(begun.elapsed() < PATIENCE, "nobody wakes it");
    }
}

#[test]
fn whoever_waits_needs_no_runtime_and_is_woken_whoever_goes_on() {
    let store = Memory::new();
    let leases = patient(&store).start().unwrap();
    let waits = || store.0.waiting.load(Ordering::SeqCst) > 0;
    let is_taken_over = || store.0.looked_by.lock().as_deref() == Some(DRIVER);
    for by_driver in [false, true] {
        for op in [Op::Claim, Op::Release] {
            store.next(op, &[Fault::Wait]);
            *store.0.looked_by.lock() = None;
            thread::scope(|scope| {
                let ours = scope.spawn(|| {
                    let guard = without_a_runtime(leases.acquire("job")).unwrap();
                    without_a_runtime(guard.release()).unwrap()
                });
                while !waits() {
                    thread::yield_now();
                }
                // The thread of the leases takes over what is not answered for a while.
                while by_driver && !is_taken_over() {
                    thread::yield_now();
                }
                store.go_on();
                assert_eq!(ours.join().unwrap(), Released::WasOurs);
            });
            if by_driver {
                assert_eq!(went_on_by(&store).as_deref(), Some(DRIVER), "{op:?}");
            }
        }
    }
    // The store hangs: the time runs without anybody's runtime.
    let leases = crate::leases(&store);
    store.next(Op::Claim, &[Fault::Hang]);
    let late = without_a_runtime(leases.acquire_timeout("job", 20 * MS));
    assert!(
        matches!(late, Err(LeaseError::Unreachable { .. })),
        "{late:?}"
    );
    let guard = without_a_runtime(leases.acquire("job")).unwrap();
    store.always(Op::Release, Some(Fault::Hang));
    assert!(without_a_runtime(guard.release()).is_err());
}

#[tokio::test]
async fn a_store_that_panics_while_its_caller_goes_on_has_failed_and_no_more() {
    let store = Memory::new();
    let leases = patient(&store).start().unwrap();
    for op in [Op::Claim, Op::Release] {
        store.next(op, &[Fault::WaitThenPanic]);
        let waker = store.clone();
        let go_on = tokio::spawn(async move {
            is_asked(&waker).await;
            waker.go_on();
        });
        let guard = soon(leases.acquire("job")).await.unwrap();
        assert_eq!(soon(guard.release()).await.unwrap(), Released::WasOurs);
        go_on.await.unwrap();
    }
    assert_eq!(store.asked(Op::Claim), 3);
    // After a claim that failed, and may come late, it is given back once more.
    assert!((3..=4).contains(&store.asked(Op::Release)));
}

#[test]
fn a_question_is_dropped_where_it_can_leave_work_to_the_runtime() {
    let store = Memory::new();
    let leases = patient(&store).start().unwrap();
    let guard = without_a_runtime(leases.acquire("a")).unwrap();
    for op in [Op::Claim, Op::Release] {
        store.always(op, Some(Fault::Hang));
    }
    // One that nobody goes on with, and one whose caller goes away.
    let mut release = Box::pin(guard.release());
    begin(&mut release);
    let mut acquire = Box::pin(leases.acquire("b"));
    begin(&mut acquire);
    drop(acquire);
    without_a_runtime(leases.shutdown(20 * MS));
    assert!(without_a_runtime(release).is_err());
    assert_eq!(store.0.dropped_outside.load(Ordering::SeqCst), 0);
}
