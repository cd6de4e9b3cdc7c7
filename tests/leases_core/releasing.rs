//! Giving leases back.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use lockkeeper::{LeaseEvent, LeaseFault, LeaseVerdict, Released};
use parking_lot::Mutex;

use crate::store::{Fault, Memory, Op, begin, soon, until};
use crate::{MS, builder, leases, patient};

#[tokio::test]
async fn a_release_says_whether_the_lease_was_still_ours() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.acquire("job")).await.unwrap();
    assert_eq!(soon(guard.release()).await.unwrap(), Released::WasOurs);
    assert!(!store.is_held("job"));
    let guard = soon(leases.acquire("job")).await.unwrap();
    store.steal("job", "another", Duration::from_secs(60));
    assert_eq!(soon(guard.release()).await.unwrap(), Released::WasLost);
    assert!(store.is_held("job"), "somebody else's stays");
}

#[tokio::test]
async fn a_release_is_bounded_even_if_the_store_hangs_and_can_be_tried_again() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.acquire("job")).await.unwrap();
    store.always(Op::Release, Some(Fault::Hang));
    let begun = Instant::now();
    let failed = soon(guard.release()).await.unwrap_err();
    assert!(begun.elapsed() < 10_000 * MS);
    assert!(!failed.guard.is_held(), "it is not believed in any more");
    assert!(store.is_held("job"));
    store.always(Op::Release, None);
    assert_eq!(
        soon(failed.guard.release()).await.unwrap(),
        Released::WasOurs
    );
    assert!(!store.is_held("job"));
}

#[tokio::test]
async fn fail_fast_ends_a_release_at_the_first_error() {
    let store = Memory::new();
    let leases = builder(&store).fail_fast(true).start().unwrap();
    let guard = soon(leases.acquire("job")).await.unwrap();
    store.next(Op::Release, &[Fault::Fail]);
    let failed = soon(guard.release()).await.unwrap_err();
    assert!(failed.last.is_some());
    assert_eq!(store.asked(Op::Release), 1);
    assert_eq!(
        soon(failed.guard.release()).await.unwrap(),
        Released::WasOurs
    );
}

#[tokio::test]
async fn a_release_ends_at_the_first_error_that_waiting_does_not_heal() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.acquire("job")).await.unwrap();
    store.always(Op::Release, Some(Fault::Denied));
    let failed = soon(guard.release()).await.unwrap_err();
    assert!(failed.last.is_some_and(|error| !error.is_retryable()));
    assert_eq!(store.asked(Op::Release), 1);
    store.always(Op::Release, None);
    let released = soon(failed.guard.release()).await.unwrap();
    assert_eq!(released, Released::WasOurs);
}

#[tokio::test]
async fn a_release_whose_answer_was_lost_was_ours_also_if_somebody_has_it_when_it_is_tried_again() {
    let store = Memory::new();
    let leases = builder(&store)
        .expiration(Duration::from_secs(60))
        .start()
        .unwrap();
    let guard = soon(leases.acquire("job")).await.unwrap();
    store.next(Op::Release, &[Fault::DoneThenFail]);
    let release = tokio::spawn(guard.release());
    until(|| !store.is_held("job")).await;
    store.steal("job", "another", Duration::from_secs(60));
    let released = soon(release).await.unwrap().unwrap();
    assert_eq!(released, Released::WasOurs);
    assert!(store.is_held("job"), "somebody else's stays");
}

#[tokio::test]
async fn a_release_that_fails_is_tried_again_also_when_the_guard_was_dropped() {
    let store = Memory::new();
    let leases = builder(&store)
        .expiration(Duration::from_secs(60))
        .start()
        .unwrap();
    for explicit in [true, false] {
        let guard = soon(leases.acquire("job")).await.unwrap();
        store.next(Op::Release, &[Fault::Fail, Fault::Hang]);
        if explicit {
            // It may be told in time or not.
            drop(soon(guard.release()).await);
        } else {
            drop(guard);
        }
        until(|| !store.is_held("job")).await;
    }
}

#[tokio::test]
async fn no_refresh_is_sent_after_a_release_was_asked_for() {
    let store = Memory::new();
    let leases = patient(&store).start().unwrap();
    let guard = soon(leases.acquire("job")).await.unwrap();
    until(|| store.asked(Op::Refresh) > 0).await;
    store.always(Op::Release, Some(Fault::Wait));
    store.always(Op::Refresh, Some(Fault::Hang));
    let count = store.asked(Op::Refresh);
    until(|| store.asked(Op::Refresh) > count).await;
    // One is under way, and hangs.
    let release = tokio::spawn(guard.release());
    until(|| store.asked(Op::Release) > 0).await;
    let refreshed = store.asked(Op::Refresh);
    tokio::time::sleep(200 * MS).await;
    assert_eq!(store.asked(Op::Refresh), refreshed);
    store.go_on();
    assert_eq!(soon(release).await.unwrap().unwrap(), Released::WasOurs);
}

/// A refresh of several leases is decided, and before it is sent they are given back by a shutdown.
#[tokio::test]
async fn no_refresh_that_was_decided_before_a_shutdown_is_sent_after_its_releases() {
    let store = Memory::new();
    let (entered, has_entered) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let leases = builder(&store)
        .expiration(Duration::from_secs(60))
        .handler(move |_: &LeaseFault<'_>| {
            // The thread of the leases sends nothing meanwhile.
            let _ = entered.send(());
            let _ = may_go_on.lock().recv();
            LeaseVerdict::GoOn
        })
        .start()
        .unwrap();
    let mut guards = Vec::new();
    for name in ["one", "two", "three"] {
        guards.push(soon(leases.acquire(name)).await.unwrap());
    }
    store.next(Op::Refresh, &[Fault::Fail]);
    tokio::task::spawn_blocking(move || has_entered.recv())
        .await
        .unwrap()
        .unwrap();
    // All are due again, and whoever extends one has them refreshed.
    tokio::time::sleep(100 * MS).await;
    let mut extended = Box::pin(guards[0].extend(Duration::from_secs(50)));
    begin(&mut extended);
    let mut shutdown = Box::pin(leases.shutdown(Duration::from_secs(5)));
    begin(&mut shutdown);
    let refreshed = store.asked(Op::Refresh);
    drop(go_on);
    let done = soon(shutdown).await;
    assert_eq!(done.maybe_still_held.len(), 0, "{done:?}");
    assert_eq!(store.asked(Op::Release), 3);
    assert_eq!(store.asked(Op::Refresh), refreshed);
}

#[tokio::test]
async fn events_tell_of_the_whole_life() {
    let store = Memory::new();
    let leases = leases(&store);
    let mut events = leases.subscribe();
    let guard = soon(leases.acquire("job")).await.unwrap();
    store.next(Op::Refresh, &[Fault::Fail]);
    let mut told = Vec::new();
    while !told.contains(&"again") {
        told.push(word(&soon(events.recv()).await.unwrap()));
    }
    soon(guard.release()).await.unwrap();
    told.push(word(&soon(events.recv()).await.unwrap()));
    assert_eq!(
        told,
        ["acquired", "failed", "doubtful", "again", "released"]
    );
}

fn word(event: &LeaseEvent) -> &'static str {
    match event {
        LeaseEvent::Acquired { .. } => "acquired",
        LeaseEvent::Doubtful { .. } => "doubtful",
        LeaseEvent::HeldAgain { .. } => "again",
        LeaseEvent::Lost { .. } => "lost",
        LeaseEvent::Released { .. } => "released",
        LeaseEvent::StoreFailed { .. } => "failed",
        _ => "unknown",
    }
}

#[tokio::test]
async fn the_end_of_all_handles_gives_everything_back_and_closes_the_store() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = soon(leases.acquire("job")).await.unwrap();
    drop(leases);
    tokio::time::sleep(100 * MS).await;
    assert!(guard.is_held(), "a guard keeps the leases going");
    drop(guard);
    until(|| !store.is_held("job") && store.0.closed.load(std::sync::atomic::Ordering::SeqCst))
        .await;
}

#[tokio::test]
async fn a_shutdown_is_bounded_and_names_what_may_be_held_still() {
    let store = Memory::new();
    let leases = leases(&store);
    let one = soon(leases.acquire("one")).await.unwrap();
    let two = soon(leases.acquire("two")).await.unwrap();
    store.next(Op::Release, &[Fault::Hang]);
    store.always(Op::Look, Some(Fault::Hang));
    let begun = Instant::now();
    let done = soon(leases.shutdown(100 * MS)).await;
    assert!(begun.elapsed() < 10_000 * MS);
    // Each was given back on its own: the one that hangs keeps no other.
    assert_eq!(done.maybe_still_held.len(), 1, "{done:?}");
    assert_ne!(store.is_held("one"), store.is_held("two"));
    drop((one, two));
}

#[tokio::test]
async fn a_release_of_what_was_stolen_says_so_at_once_however_the_lease_was_got() {
    let store = Memory::new();
    let leases = builder(&store)
        .refresh(Duration::from_secs(5))
        .expiration(Duration::from_secs(60))
        .call_timeout(100 * MS)
        .start()
        .unwrap();
    // Its answer was lost, long ago.
    store.next(Op::Claim, &[Fault::DoneThenFail]);
    let guard = soon(leases.acquire("job")).await.unwrap();
    tokio::time::sleep(250 * MS).await;
    store.steal("job", "another", Duration::from_secs(60));
    let releases = store.asked(Op::Release);
    assert_eq!(soon(guard.release()).await.unwrap(), Released::WasLost);
    assert_eq!(store.asked(Op::Release), releases + 1);
}
