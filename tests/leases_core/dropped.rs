//! Invariant I12: a future that is dropped leaves nothing held.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lockkeeper::{LeaseError, LeaseEvent};

use crate::store::{Fault, Memory, Op, begin, soon, until};
use crate::{MS, builder, leases, patient};

/// Polls so often, a moment apart, and drops it then. Whether it was ready.
async fn abandon<F: Future>(future: F, polls: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(_guard) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return true;
        }
        tokio::time::sleep(MS / 4).await;
    }
    false
}

#[tokio::test]
async fn i12_an_acquire_that_is_dropped_at_any_point_leaves_nothing_held() {
    let store = Memory::new();
    let leases = leases(&store);
    for polls in 0..20 {
        abandon(leases.acquire("job"), polls).await;
        until(|| !store.is_held("job")).await;
    }
    // While the question is on its way, and while the answer is.
    for fault in [
        Fault::Wait,
        Fault::DoneThenHang,
        Fault::DoneThenFail,
        Fault::Hang,
    ] {
        let asked = store.asked(Op::Claim);
        store.next(Op::Claim, std::slice::from_ref(&fault));
        let waiting = tokio::spawn(leases.acquire("job"));
        until(|| store.asked(Op::Claim) > asked).await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        if fault == Fault::Wait {
            until(|| store.0.waiting.load(std::sync::atomic::Ordering::SeqCst) > 0).await;
            store.go_on();
        }
        tokio::time::sleep(5 * MS).await;
        until(|| !store.is_held("job")).await;
        assert!(soon(leases.acquire("job")).await.unwrap().is_held());
        until(|| !store.is_held("job")).await;
    }
}

#[tokio::test]
async fn i12_a_waiter_in_the_queue_that_is_dropped_is_passed_over() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.acquire("job")).await.unwrap();
    let mut first = Box::pin(leases.acquire("job"));
    begin(&mut first);
    let mut second = Box::pin(leases.acquire("job"));
    begin(&mut second);
    drop(first);
    drop(guard);
    assert!(soon(second).await.unwrap().is_held());
    until(|| !store.is_held("job")).await;
}

#[tokio::test]
async fn i12_a_grant_that_nobody_reads_is_given_to_the_next() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.acquire("job")).await.unwrap();
    let mut first = Box::pin(leases.acquire("job"));
    begin(&mut first);
    drop(guard);
    until(|| store.token("job") == 2).await;
    let second = tokio::spawn(leases.acquire("job"));
    drop(first);
    assert!(soon(second).await.unwrap().unwrap().is_held());
}

#[tokio::test]
async fn i12_a_release_that_is_dropped_is_carried_out() {
    let store = Memory::new();
    let leases = leases(&store);
    for polls in 0..5 {
        let guard = soon(leases.acquire("job")).await.unwrap();
        abandon(guard.release(), polls).await;
        until(|| !store.is_held("job")).await;
    }
}

#[tokio::test]
async fn i12_a_claim_of_unknown_fate_whose_waiter_ran_out_of_time_is_given_back() {
    let store = Memory::new();
    // Not before this thread has seen that it is held.
    let leases = builder(&store).call_timeout(3_000 * MS).start().unwrap();
    store.next(Op::Claim, &[Fault::DoneThenHang]);
    let late = soon(leases.acquire_timeout("job", 50 * MS))
        .await
        .unwrap_err();
    assert!(
        matches!(late, lockkeeper::LeaseError::Unreachable { .. }),
        "{late:?}"
    );
    assert!(store.is_held("job"));
    until(|| !store.is_held("job")).await;
}

#[tokio::test]
async fn i12_a_claim_on_its_way_when_the_leases_close_leaves_nothing_held() {
    let store = Memory::new();
    for dropped in [false, true] {
        let leases = patient(&store).start().unwrap();
        store.next(Op::Claim, &[Fault::Wait]);
        let waiting = store.0.waiting.load(Ordering::SeqCst);
        let releases = store.asked(Op::Release);
        let claim = tokio::spawn(leases.acquire("job"));
        until(|| store.0.waiting.load(Ordering::SeqCst) > waiting).await;
        let mut closing = Box::pin(leases.shutdown(Duration::from_secs(10)));
        begin(&mut closing);
        if dropped {
            claim.abort();
        } else {
            let refused = soon(claim).await.unwrap();
            assert!(
                matches!(refused, Err(LeaseError::ShuttingDown)),
                "{refused:?}"
            );
        }
        // A release that was served before the claim would find nothing to release.
        tokio::time::sleep(20 * MS).await;
        assert_eq!(store.asked(Op::Release), releases);
        store.go_on();
        let done = soon(closing).await;
        assert_eq!(done.maybe_still_held, []);
        assert!(!store.is_held("job"));
        assert_eq!(store.asked(Op::Release), releases + 1);
    }
}

#[tokio::test]
async fn leases_that_close_begin_no_claim_for_those_behind() {
    let store = Memory::new();
    let poll = Duration::from_secs(60);
    let leases = builder(&store).poll(poll).start().unwrap();
    store.steal("job", "somebody", Duration::from_secs(60));
    let waiters = [(); 3].map(|()| tokio::spawn(leases.acquire("job")));
    until(|| store.asked(Op::Claim) >= 1).await;
    while soon(leases.status("job")).await.unwrap().waiting < 3 {}
    // Nothing is on its way: the first waits for its poll.
    drop(soon(leases.try_acquire("other")).await.unwrap());
    store.always(Op::Claim, Some(Fault::Hang));
    let claims = store.asked(Op::Claim);
    soon(leases.shutdown(Duration::from_secs(5))).await;
    assert_eq!(store.asked(Op::Claim), claims);
    for waiter in waiters {
        let refused = soon(waiter).await.unwrap();
        assert!(matches!(refused, Err(LeaseError::ShuttingDown)));
    }
}

#[tokio::test]
async fn what_nobody_was_granted_is_told_by_no_event() {
    let store = Memory::new();
    let leases = leases(&store);
    let mut events = leases.subscribe();
    store.next(Op::Claim, &[Fault::DoneThenHang]);
    drop(
        soon(leases.acquire_timeout("job", 50 * MS))
            .await
            .unwrap_err(),
    );
    until(|| store.asked(Op::Release) > 0 && !store.is_held("job")).await;
    // One that is granted, and released, is told.
    soon(leases.acquire("job"))
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    let acquired = loop {
        match soon(events.recv()).await.unwrap() {
            LeaseEvent::StoreFailed { .. } => {}
            LeaseEvent::Acquired { token, .. } => break token,
            other => panic!("{other:?}"),
        }
    };
    let told = soon(events.recv()).await.unwrap();
    let is_end = matches!(told, LeaseEvent::Released { token, .. } if token == acquired);
    assert!(is_end, "{told:?}");
}
