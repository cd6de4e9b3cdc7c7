//! Whoever waits for an answer of the store goes on with the question himself, and the thread of the leases if he does not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lockkeeper::{LeaseFault, LeaseVerdict, Released};
use parking_lot::Mutex;

use crate::store::{Fault, Memory, Op, begin, soon, until};
use crate::{MS, builder, leases};

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
    let leases = leases(&store);
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
    let leases = leases(&store);
    store.next(Op::Claim, &[Fault::Wait]);
    let mut forgotten = Box::pin(leases.acquire("job"));
    begin(&mut forgotten);
    is_asked(&store).await;
    store.go_on();
    until(|| store.is_held("job")).await;
    assert_eq!(went_on_by(&store).as_deref(), Some(DRIVER));
    // It was granted, and is refreshed until somebody asks for the answer.
    tokio::time::sleep(3 * 50 * MS).await;
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
    let leases = leases(&store);
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
