//! What a holder knows of its lease.

use std::time::{Duration, Instant};

use lockkeeper::{LeaseError, LeaseEvent, LeaseStanding, LostReason};

use crate::store::{Fault, Memory, Op, soon, until};
use crate::{MS, builder, leases};

#[tokio::test]
async fn a_lease_is_refreshed_as_long_as_its_guard_lives() {
    let store = Memory::new();
    let expiration = 3_000 * MS;
    let leases = builder(&store).expiration(expiration).start().unwrap();
    let guard = soon(leases.acquire("job")).await.unwrap();
    let end = Instant::now() + expiration + 500 * MS;
    while Instant::now() < end {
        assert!(guard.is_held() && store.is_held("job"));
        tokio::time::sleep(5 * MS).await;
    }
    drop(guard);
    until(|| !store.is_held("job")).await;
}

#[tokio::test]
async fn i09_a_refresh_that_hangs_loses_the_lease_by_the_margin_before_it_expires() {
    let store = Memory::new();
    // A margin in which this thread has time to look.
    let builder = builder(&store).expiration(4_000 * MS);
    let leases = builder.max_clock_skew(2_000 * MS).start().unwrap();
    let guard = soon(leases.acquire("job")).await.unwrap();
    store.always(Op::Refresh, Some(Fault::Hang));
    let reason = soon(guard.lost()).await;
    assert!(matches!(reason, LostReason::StoreError(_)), "{reason:?}");
    assert!(store.is_held("job"), "nobody else can have it yet");
    assert!(!guard.is_held() && guard.remaining().is_zero());
    assert!(guard.cancellation().is_cancelled());
    assert!(
        store.asked(Op::Refresh) > 5,
        "each was given up, and another sent"
    );
}

#[tokio::test]
async fn one_refresh_that_hangs_does_no_harm() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.acquire("job")).await.unwrap();
    let mut events = leases.subscribe();
    store.next(Op::Refresh, &[Fault::Hang]);
    let is_doubtful = |event: &LeaseEvent| matches!(event, LeaseEvent::Doubtful { .. });
    while !is_doubtful(&soon(events.recv()).await.unwrap()) {}
    assert!(guard.is_held(), "it is believed in until its deadline");
    until(|| guard.standing() == LeaseStanding::Held).await;
}

#[tokio::test]
async fn after_an_error_a_lease_is_doubtful_until_the_store_confirms_it() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.acquire("job")).await.unwrap();
    store.always(Op::Refresh, Some(Fault::Fail));
    until(|| guard.standing() == LeaseStanding::Doubtful).await;
    store.always(Op::Refresh, None);
    until(|| guard.standing() == LeaseStanding::Held).await;

    // The store that comes back has forgotten it.
    store.always(Op::Refresh, Some(Fault::Fail));
    until(|| guard.standing() == LeaseStanding::Doubtful).await;
    store.steal("job", "another", Duration::from_secs(60));
    store.always(Op::Refresh, None);
    let LostReason::Stolen { by: Some(by) } = soon(guard.lost()).await else {
        panic!("it was stolen")
    };
    assert_eq!(&*by.id, "another");
}

#[tokio::test]
async fn what_is_held_is_kept_through_a_denial_that_is_put_right_in_time() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.acquire("job")).await.unwrap();
    store.always(Op::Refresh, Some(Fault::Denied));
    let asked = store.asked(Op::Refresh);
    until(|| store.asked(Op::Refresh) > asked + 2).await;
    assert_eq!(guard.standing(), LeaseStanding::Doubtful);
    store.always(Op::Refresh, None);
    until(|| guard.standing() == LeaseStanding::Held).await;

    // Without its table there is nothing left to be refreshed.
    store.always(Op::Refresh, Some(Fault::NoTable));
    let reason = soon(guard.lost()).await;
    assert!(matches!(reason, LostReason::StoreError(_)), "{reason:?}");
    assert!(store.is_held("job"), "it did not wait for the deadline");
}

#[tokio::test]
async fn the_reasons_of_a_loss_are_told_apart() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.acquire("expired")).await.unwrap();
    store.step(60_000 * MS);
    assert_eq!(soon(guard.lost()).await, LostReason::Expired);

    let guard = soon(leases.acquire("forced")).await.unwrap();
    let lost = guard.lost();
    let record = soon(leases.force_release("forced")).await.unwrap().unwrap();
    assert_eq!(record.token, guard.token());
    assert_eq!(soon(lost).await, LostReason::Forced);
    assert!(store.token("forced") > record.token.0);
    assert_eq!(soon(leases.force_release("forced")).await.unwrap(), None);

    // By another process: told at the next refresh.
    let guard = soon(leases.acquire("forced")).await.unwrap();
    drop(
        soon(crate::leases(&store).force_release("forced"))
            .await
            .unwrap(),
    );
    assert_eq!(soon(guard.lost()).await, LostReason::Forced);

    let guard = soon(leases.lease("error").fail_fast(true).acquire())
        .await
        .unwrap();
    store.next(Op::Refresh, &[Fault::Fail]);
    assert!(matches!(
        soon(guard.lost()).await,
        LostReason::StoreError(_)
    ));

    let guard = soon(leases.acquire("released")).await.unwrap();
    let lost = guard.lost();
    drop(guard);
    assert_eq!(soon(lost).await, LostReason::Released);

    let guard = soon(leases.acquire("shutdown")).await.unwrap();
    let done = soon(leases.shutdown(Duration::from_secs(5))).await;
    assert!(done.maybe_still_held.is_empty(), "{done:?}");
    assert_eq!(soon(guard.lost()).await, LostReason::Shutdown);
    assert!(!store.is_held("shutdown"));
    let refused = soon(leases.acquire("later")).await.unwrap_err();
    assert!(matches!(refused, LeaseError::ShuttingDown), "{refused:?}");
}

#[tokio::test]
async fn run_stops_the_future_when_the_lease_is_lost() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.acquire("job")).await.unwrap();
    assert_eq!(soon(guard.run(async { 7 })).await.unwrap(), 7);
    let run = guard.run(std::future::pending::<()>());
    let (ran, _) = tokio::join!(run, leases.force_release("job"));
    let lost = ran.unwrap_err();
    assert!(
        matches!(
            lost,
            LeaseError::Lost {
                reason: LostReason::Forced,
                ..
            }
        ),
        "{lost:?}"
    );
    assert!(
        soon(guard.run(async { 7 })).await.is_err(),
        "not begun any more"
    );
}

#[tokio::test]
async fn an_extension_counts_once_the_store_has_confirmed_it() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.acquire("job")).await.unwrap();
    soon(guard.extend(Duration::from_secs(60))).await.unwrap();
    assert!(guard.remaining() > Duration::from_secs(50));
    // A shorter one counts from when it is sent.
    soon(guard.extend(10_000 * MS)).await.unwrap();
    assert!(guard.remaining() < 10_000 * MS);
    let refused = soon(guard.extend(100 * MS)).await.unwrap_err();
    assert!(matches!(refused, LeaseError::BadSettings(_)), "{refused:?}");
    store.steal("job", "another", Duration::from_secs(60));
    let lost = soon(guard.extend(Duration::from_secs(60)))
        .await
        .unwrap_err();
    assert!(matches!(lost, LeaseError::Lost { .. }), "{lost:?}");
}

#[tokio::test]
async fn a_row_that_is_locked_takes_no_other_lease_with_it() {
    let store = Memory::new();
    let expiration = 2_000 * MS;
    let leases = builder(&store).expiration(expiration).start().unwrap();
    let guards = futures_util::future::join_all((0..3).map(|n| leases.acquire(format!("job{n}"))));
    let guards: Vec<_> = soon(guards).await.into_iter().map(Result::unwrap).collect();
    store.lock_row("job1", true);
    let before = store.asked(Op::Refresh);
    until(|| store.asked(Op::Refresh) > before + 3).await;
    assert!(
        guards
            .iter()
            .all(|guard| guard.standing() == LeaseStanding::Held)
    );
    store.lock_row("job1", false);
    tokio::time::sleep(expiration + 200 * MS).await;
    assert!(guards.iter().all(lockkeeper::LeaseGuard::is_held));
    // Locked for longer than it lasts, it is lost, and alone.
    store.lock_row("job1", true);
    assert_eq!(soon(guards[1].lost()).await, LostReason::Expired);
    assert!(guards[0].is_held() && guards[2].is_held());
}

#[tokio::test]
async fn a_view_of_a_lease_can_be_kept_and_owns_nothing() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.acquire("job")).await.unwrap();
    let view = guard.claim_view();
    assert!(view.is_held() && view.token() == guard.token() && view.holder() == guard.holder());
    let other = std::thread::spawn(move || (view.is_held(), view))
        .join()
        .unwrap();
    assert!(other.0);
    // Who cancels his token himself tells nobody that the lease is lost.
    let tokens = [guard.cancellation(), other.1.cancellation()];
    tokens[0].cancel();
    assert!(guard.is_held() && !guard.cancellation().is_cancelled() && !tokens[1].is_cancelled());
    drop(guard);
    assert!(tokens[1].is_cancelled());
    assert!(!other.1.is_held());
    until(|| !store.is_held("job")).await;
}

#[tokio::test]
async fn one_who_makes_the_store_ready_for_long_keeps_no_lease_from_its_refresh() {
    let store = Memory::new();
    let leases = builder(&store)
        .refresh(300 * MS)
        .call_timeout(Duration::from_secs(60))
        .handler(lockkeeper::IgnoreStoreErrors)
        .start()
        .unwrap();
    let guard = soon(leases.acquire("job")).await.unwrap();
    store.next(Op::Claim, &[Fault::Fail]);
    store.next(Op::Prepare, &[Fault::Hang]);
    // After an error it is made ready anew, and does not answer to that.
    let other = tokio::spawn(leases.acquire("other"));
    until(|| store.asked(Op::Prepare) >= 2).await;
    let refreshed = store.asked(Op::Refresh);
    until(|| store.asked(Op::Refresh) >= refreshed + 4 || !guard.is_held()).await;
    assert!(guard.is_held());
    other.abort();
}
