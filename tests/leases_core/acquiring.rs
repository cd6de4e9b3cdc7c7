//! Asking for leases.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{ErrorClass, LeaseError, LeaseFault, LeaseOperation, LeaseVerdict, StoreError};

use crate::store::{Fault, Memory, Op, broken, soon, until};
use crate::turns::after_another;
use crate::{MS, builder, leases};

#[tokio::test]
async fn a_lease_excludes_others_and_its_token_grows() {
    let store = Memory::new();
    // Two processes, as far as the store can tell.
    let (one, two) = (leases(&store), leases(&store));
    let guard = soon(one.acquire("job")).await.unwrap();
    assert!(guard.is_held() && guard.remaining() <= 29_390 * MS);
    assert_eq!(
        (guard.name().as_str(), guard.store_id().as_str()),
        ("job", "memory")
    );
    let busy = soon(two.try_acquire("job")).await.unwrap_err();
    let LeaseError::Busy {
        holder, remaining, ..
    } = &busy
    else {
        panic!("{busy}")
    };
    assert_eq!(holder.as_ref(), Some(guard.holder()));
    assert!(remaining.unwrap() <= 30_000 * MS);
    assert!(busy.is_retryable() && busy.class() == ErrorClass::Conflict);
    let first = guard.token();
    drop(guard);
    let guard = soon(two.acquire("job")).await.unwrap();
    assert!(guard.token() > first);
    // Another name is another lease.
    drop(soon(one.try_acquire("Job")).await.unwrap());
}

#[tokio::test]
async fn busy_here_and_busy_elsewhere_both_say_who_holds_it() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.lease("job").label("nightly").acquire())
        .await
        .unwrap();
    assert!(guard.holder().id.starts_with("nightly/"));
    assert_eq!(guard.holder().pid, std::process::id());
    store.forget_questions();
    let busy = soon(leases.try_acquire("job")).await.unwrap_err();
    assert!(busy.to_string().contains("nightly/"), "{busy}");
    assert_eq!(
        store.asked(Op::Claim),
        0,
        "nobody has to ask the store for that"
    );
}

#[tokio::test]
async fn busy_timed_out_and_unreachable_are_different_errors() {
    let store = Memory::new();
    let leases = builder(&store)
        .handler(lockkeeper::IgnoreStoreErrors)
        .start()
        .unwrap();
    store.steal("job", "somebody", Duration::from_secs(60));
    let begun = Instant::now();
    let late = soon(leases.acquire_timeout("job", 100 * MS))
        .await
        .unwrap_err();
    assert!(begun.elapsed() >= 100 * MS);
    let LeaseError::TimedOut {
        holder,
        remaining,
        errors: 0,
        last: None,
        ..
    } = &late
    else {
        panic!("{late:?}")
    };
    assert_eq!(&*holder.as_ref().unwrap().id, "somebody");
    assert!(remaining.unwrap() > Duration::from_secs(50));
    assert_eq!(late.class(), ErrorClass::OutOfTime);

    store.always(Op::Claim, Some(Fault::Fail));
    let gone = soon(leases.acquire_timeout("other", 1_000 * MS))
        .await
        .unwrap_err();
    let LeaseError::Unreachable { errors, last, .. } = &gone else {
        panic!("{gone:?}")
    };
    assert!(*errors >= 2 && matches!(**last, StoreError::Unreachable(_)));
    assert_eq!(gone.class(), ErrorClass::StoreUnreachable);

    // Errors on the way are remembered when the time is over.
    store.always(Op::Claim, None);
    store.next(Op::Claim, &[Fault::Fail, Fault::Fail]);
    let late = soon(leases.acquire_timeout("job", 2_000 * MS))
        .await
        .unwrap_err();
    assert!(
        matches!(
            late,
            LeaseError::TimedOut {
                errors: 2,
                last: Some(_),
                ..
            }
        ),
        "{late:?}"
    );
}

#[tokio::test]
async fn acquire_goes_on_through_errors_and_tells_each_to_the_handler() {
    let store = Memory::new();
    let told = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&told);
    let leases = builder(&store)
        .handler(move |fault: &LeaseFault<'_>| {
            assert_eq!(fault.operation, LeaseOperation::Acquire);
            assert_eq!(fault.count, count.fetch_add(1, Ordering::SeqCst) + 1);
            LeaseVerdict::GoOn
        })
        .start()
        .unwrap();
    store.next(Op::Claim, &[Fault::Fail, Fault::Panic, Fault::Fail]);
    let guard = soon(leases.acquire("job")).await.unwrap();
    assert!(guard.is_held());
    assert_eq!(told.load(Ordering::SeqCst), 3);
    // The store is made ready anew after each.
    assert_eq!(store.asked(Op::Prepare), 4);
}

#[tokio::test]
async fn fail_fast_and_a_handler_that_says_stop_end_it_at_the_first_error() {
    let store = Memory::new();
    let leases = leases(&store);
    store.always(Op::Claim, Some(Fault::Fail));
    let error = soon(leases.lease("job").fail_fast(true).acquire())
        .await
        .unwrap_err();
    assert!(
        matches!(error, LeaseError::Unreachable { errors: 1, .. }),
        "{error:?}"
    );
    let stop = |_: &LeaseFault<'_>| LeaseVerdict::Stop;
    let error = soon(leases.lease("job").handler(stop).acquire())
        .await
        .unwrap_err();
    assert!(
        matches!(error, LeaseError::Unreachable { errors: 1, .. }),
        "{error:?}"
    );
    let error = soon(leases.try_acquire("job")).await.unwrap_err();
    assert!(
        matches!(error, LeaseError::Unreachable { errors: 1, .. }),
        "{error:?}"
    );
    assert_eq!(store.asked(Op::Claim), 3);
}

#[tokio::test]
async fn a_missing_table_is_not_tried_again_and_says_what_makes_it() {
    let store = Memory::new();
    let leases = leases(&store);
    store.next(Op::Prepare, &[Fault::NoTable]);
    let error = soon(leases.acquire("job")).await.unwrap_err();
    assert!(!error.is_retryable());
    let LeaseError::Store(cause) = error else {
        panic!("{error:?}")
    };
    assert!(cause.to_string().contains("create table"));
    drop(soon(leases.acquire("job")).await.unwrap());
}

#[tokio::test]
async fn an_acquire_ends_at_the_first_error_that_waiting_does_not_heal() {
    let store = Memory::new();
    let leases = leases(&store);
    for op in [Op::Prepare, Op::Claim] {
        store.always(op, Some(Fault::Denied));
        let claims = store.asked(Op::Claim);
        let lease = leases.lease("job");
        let timeout = Duration::from_secs(60);
        for error in [
            soon(lease.acquire()).await.unwrap_err(),
            soon(lease.acquire_timeout(timeout)).await.unwrap_err(),
            soon(lease.try_acquire()).await.unwrap_err(),
        ] {
            assert!(!error.is_retryable() && error.class() == ErrorClass::BadConfig);
            let LeaseError::Store(cause) = error else {
                panic!("{error:?}")
            };
            assert!(matches!(*cause, StoreError::Denied(_)), "{cause:?}");
        }
        let expected = if op == Op::Claim { 3 } else { 0 };
        assert_eq!(store.asked(Op::Claim), claims + expected);
        store.always(op, None);
    }
    drop(soon(leases.acquire("job")).await.unwrap());
}

#[tokio::test]
async fn a_store_that_has_not_answered_is_not_taken_for_a_lease_that_is_held() {
    let store = Memory::new();
    let leases = leases(&store);
    store.always(Op::Claim, Some(Fault::Hang));
    // One of them asks, the other waits behind it.
    let waiting = [(); 2].map(|()| soon(leases.acquire_timeout("job", 50 * MS)));
    for refused in futures_util::future::join_all(waiting).await {
        assert!(
            matches!(refused, Err(LeaseError::Unreachable { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_handler_can_insist_on_what_waiting_does_not_heal() {
    let store = Memory::new();
    let insist = |_: &LeaseFault<'_>| LeaseVerdict::Insist;
    let leases = builder(&store).handler(insist).start().unwrap();
    store.always(Op::Claim, Some(Fault::Denied));
    let refused = soon(leases.acquire_timeout("job", 1_000 * MS)).await;
    let Err(LeaseError::Unreachable { errors, last, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert!(errors >= 2 && matches!(*last, StoreError::Denied(_)));
    let lease = leases.acquire("job");
    let asked = store.asked(Op::Claim);
    let given = async {
        until(|| store.asked(Op::Claim) > asked + 1).await;
        store.always(Op::Claim, None);
    };
    let (guard, ()) = tokio::join!(soon(lease), given);
    assert!(guard.unwrap().is_held());
}

#[tokio::test]
async fn a_lost_answer_to_a_claim_is_recognised_as_ours_and_verified() {
    let store = Memory::new();
    let leases = leases(&store);
    for fault in [Fault::DoneThenFail, Fault::DoneThenHang] {
        store.next(Op::Claim, &[fault]);
        let refreshes = store.asked(Op::Refresh);
        let guard = soon(leases.acquire("job")).await.unwrap();
        assert_eq!(guard.token().0, store.token("job"));
        assert_eq!(store.holder("job").as_ref(), Some(guard.holder()));
        assert!(
            store.asked(Op::Refresh) > refreshes,
            "it was confirmed before it was held"
        );
        assert!(guard.is_held());
        soon(guard.release()).await.unwrap();
        until(|| !store.is_held("job")).await;
    }
}

#[tokio::test]
async fn a_dead_holder_is_followed_soon_after_its_expiry() {
    let store = Memory::new();
    let leases = builder(&store)
        .poll(Duration::from_secs(30))
        .start()
        .unwrap();
    let begun = Instant::now();
    store.steal("job", "dead", 200 * MS);
    let guard = soon(leases.acquire("job")).await.unwrap();
    assert!(begun.elapsed() >= 190 * MS && guard.is_held());
}

#[tokio::test]
async fn an_unclean_end_is_followed_by_the_delay_that_was_asked_for() {
    let store = Memory::new();
    let leases = leases(&store);
    let begun = Instant::now();
    store.steal("job", "dead", 50 * MS);
    let wish = leases.lease("job").unclean_delay(200 * MS);
    drop(soon(wish.acquire()).await.unwrap());
    assert!(begun.elapsed() >= 240 * MS);
}

#[tokio::test]
async fn a_notification_wakes_whoever_waits() {
    let store = Memory::waking();
    let leases = builder(&store)
        .poll(Duration::from_secs(60))
        .start()
        .unwrap();
    store.steal("job", "somebody", Duration::from_secs(600));
    let waiting = tokio::spawn(leases.acquire("job"));
    // Refused, and refused again when it began to listen.
    until(|| store.asked(Op::Claim) >= 2).await;
    store.give_back("job");
    assert!(soon(waiting).await.unwrap().unwrap().is_held());
}

#[tokio::test]
async fn who_is_woken_is_so_again_soon_after_the_wake_ups_broke_however_seldom_is_polled() {
    let store = Memory::waking();
    let poll = Duration::from_secs(600);
    let leases = builder(&store).poll(poll).start().unwrap();
    store.steal("job", "somebody", Duration::from_secs(3_600));
    let waiting = tokio::spawn(leases.acquire("job"));
    until(|| store.listeners() == 1).await;
    store.wake(|| Err(broken()));
    until(|| store.listeners() == 0).await;
    store.give_back("job");
    assert!(soon(waiting).await.unwrap().unwrap().is_held());
}

#[test]
fn leases_need_no_runtime_of_the_callers() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = spin(Box::pin(leases.acquire("job"))).unwrap();
    assert!(guard.is_held());
}

/// Polls in a loop, without any runtime.
fn spin<T>(mut future: std::pin::Pin<Box<dyn Future<Output = T>>>) -> T {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(out) = future.as_mut().poll(&mut cx) {
            return out;
        }
        std::thread::sleep(MS);
    }
}

#[tokio::test]
async fn who_is_behind_another_caller_is_told_of_a_store_that_fails_as_that_one_is() {
    let store = Memory::new();
    let leases = leases(&store);
    store.always(Op::Claim, Some(Fault::Fail));
    let first = tokio::spawn(leases.acquire("job"));
    until(|| store.asked(Op::Claim) >= 1).await;
    // Who does not want to wait hears of the first error, and who has some time of those until then.
    let refused = soon(leases.try_acquire("job")).await;
    let Err(LeaseError::Unreachable { errors: 1, .. }) = refused else {
        panic!("{refused:?}")
    };
    let asked = store.asked(Op::Claim);
    let behind = leases.acquire_timeout("job", 1_000 * MS);
    let Err(LeaseError::Unreachable { errors, last, .. }) = soon(behind).await else {
        panic!("it was not told")
    };
    let asked = u32::try_from(store.asked(Op::Claim) - asked).unwrap();
    assert!((1..=asked + 1).contains(&errors), "{errors} of {asked}");
    assert!(matches!(*last, StoreError::Unreachable(_)), "{last:?}");
    // What failed before is not told once the store answers.
    store.steal("job", "somebody", Duration::from_secs(60));
    store.always(Op::Claim, None);
    let asked = store.asked(Op::Claim);
    until(|| store.asked(Op::Claim) > asked + 1).await;
    let behind = soon(leases.acquire_timeout("job", 1_000 * MS)).await;
    let Err(LeaseError::TimedOut {
        errors: 0,
        last: None,
        holder: Some(_),
        ..
    }) = behind
    else {
        panic!("{behind:?}")
    };
    first.abort();
}

#[tokio::test]
async fn who_does_not_wait_is_answered_while_a_lease_is_left_to_others() {
    let store = Memory::new();
    let poll = Duration::from_secs(60);
    let leases = builder(&store).poll(poll).start().unwrap();
    let guard = after_another(&store, &leases).await;
    soon(guard.release()).await.unwrap();
    // It stands back, and waits.
    let waiting = tokio::spawn(leases.acquire("job"));
    while soon(leases.status("job")).await.unwrap().waiting == 0 {}
    let busy = soon(leases.try_acquire("job")).await;
    assert!(matches!(busy, Err(LeaseError::Busy { .. })), "{busy:?}");
    waiting.abort();
    while soon(leases.status("job")).await.unwrap().waiting > 0 {}
    // Nobody is refused what is free without having asked for it.
    let guard = soon(leases.acquire_timeout("job", 10_000 * MS)).await;
    assert!(guard.unwrap().is_held());
}

#[tokio::test]
async fn a_store_that_fails_before_it_has_confirmed_a_lease_is_not_taken_for_one_that_is_held() {
    let store = Memory::new();
    let leases = leases(&store);
    // It has granted the lease, as far as is known, and says nothing more.
    store.next(Op::Claim, &[Fault::DoneThenFail]);
    store.always(Op::Refresh, Some(Fault::Hang));
    let waiting = tokio::spawn(soon(leases.acquire_timeout("job", 2_000 * MS)));
    until(|| store.asked(Op::Refresh) >= 1).await;
    let busy = soon(leases.try_acquire("job")).await;
    let Err(LeaseError::Busy { holder, .. }) = busy else {
        panic!("{busy:?}")
    };
    assert_eq!(
        holder,
        store.holder("job"),
        "it says who is about to hold it"
    );
    let late = waiting.await.unwrap();
    let Err(LeaseError::Unreachable { errors, .. }) = late else {
        panic!("{late:?}")
    };
    assert!(errors >= 1, "{errors}");
}

#[tokio::test]
async fn fail_fast_ends_an_acquire_at_the_first_error_also_behind_another() {
    let store = Memory::new();
    let leases = builder(&store)
        .handler(lockkeeper::IgnoreStoreErrors)
        .start()
        .unwrap();
    store.next(Op::Claim, &[Fault::Wait]);
    let first = tokio::spawn(leases.acquire("job"));
    until(|| store.asked(Op::Claim) >= 1).await;
    let behind = tokio::spawn(leases.lease("job").fail_fast(true).acquire());
    while soon(leases.status("job")).await.unwrap().waiting < 2 {}
    // The next answer, or the one after that.
    store.always(Op::Claim, Some(Fault::Fail));
    store.steal("job", "somebody", Duration::from_secs(60));
    store.go_on();
    let refused = soon(behind).await.unwrap();
    assert!(
        matches!(refused, Err(LeaseError::Unreachable { errors: 1, .. })),
        "{refused:?}"
    );
    assert!(!first.is_finished());
    first.abort();
}

#[tokio::test]
async fn errors_are_counted_in_a_row() {
    let store = Memory::new();
    let counts = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let told = Arc::clone(&counts);
    let leases = builder(&store)
        .handler(move |fault: &LeaseFault<'_>| {
            told.lock().push(fault.count);
            LeaseVerdict::GoOn
        })
        .start()
        .unwrap();
    store.steal("job", "somebody", Duration::from_secs(60));
    store.next(Op::Claim, &[Fault::Fail, Fault::Fail]);
    let waiting = tokio::spawn(leases.acquire("job"));
    // The store has answered in between.
    until(|| store.asked(Op::Claim) >= 4).await;
    store.next(Op::Claim, &[Fault::Fail]);
    until(|| counts.lock().len() >= 3).await;
    assert_eq!(*counts.lock(), [1, 2, 1]);
    waiting.abort();
}
