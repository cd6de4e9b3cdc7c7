//! Whose turn it is, in this process and towards others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lockkeeper::{LeaseError, LeaseGuard, Leases};
use parking_lot::Mutex;

use crate::store::{Memory, Op, begin, soon, until};
use crate::{MS, builder, leases};

/// How long after the last release, as the store has seen both, the last claim came.
fn pause(store: &Memory) -> Duration {
    let last = |op| store.questions(op).pop().unwrap().1;
    last(Op::Claim) - last(Op::Release)
}

/// How soon the next poll may come: polls are half an interval apart at least. (A release may reach the store late on a busy
/// machine, and the time counts from when it was sent.)
fn soonest(poll: Duration) -> Duration {
    poll / 4
}

#[tokio::test]
async fn of_a_thousand_waiters_one_asks_the_store() {
    let store = Memory::new();
    let leases = builder(&store).poll(200 * MS).start().unwrap();
    store.steal("job", "somebody", Duration::from_secs(60));
    let waiters: Vec<_> = (0..1_000)
        .map(|_| tokio::spawn(leases.acquire("job")))
        .collect();
    until(|| store.asked(Op::Claim) >= 8).await;
    let status = soon(leases.status("job")).await.unwrap();
    assert_eq!(status.waiting, 1_000);
    let questions = store.questions(Op::Claim);
    for pair in questions.windows(2) {
        // One at a time, a poll apart.
        assert!(
            pair[1].1 - pair[0].1 >= soonest(200 * MS),
            "{:?}",
            pair[1].1 - pair[0].1
        );
    }
    for waiter in waiters {
        waiter.abort();
    }
}

#[tokio::test]
async fn waiters_of_one_process_are_served_in_order_without_letting_go_between_them() {
    let store = Memory::new();
    let leases = builder(&store)
        .poll(Duration::from_secs(60))
        .start()
        .unwrap();
    let guard = soon(leases.acquire("job")).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiters = Vec::new();
    for n in 0..10 {
        let mut waiting = Box::pin(leases.acquire("job"));
        begin(&mut waiting);
        let order = Arc::clone(&order);
        waiters.push(tokio::spawn(async move {
            let guard = waiting.await.unwrap();
            order.lock().push((n, guard.token().0));
        }));
    }
    drop(guard);
    for waiter in waiters {
        soon(waiter).await.unwrap();
    }
    let order = order.lock().clone();
    let expected: Vec<_> = (0..10).map(|n| (n, n + 2)).collect();
    assert_eq!(order, expected, "in order, each with a token of its own");
    assert_eq!(store.asked(Op::HandOver), 10);
    until(|| !store.is_held("job")).await;
    assert_eq!((store.asked(Op::Claim), store.asked(Op::Release)), (1, 1));
}

#[tokio::test]
async fn after_sixteen_local_hand_overs_others_get_their_turn() {
    let store = Memory::new();
    let poll = 1_000 * MS;
    let leases = builder(&store).poll(poll).start().unwrap();
    let guard = soon(leases.acquire("job")).await.unwrap();
    let waiters = (0..20).map(|_| {
        let waiting = leases.acquire("job");
        tokio::spawn(async move { drop(waiting.await.unwrap()) })
    });
    let waiters: Vec<_> = waiters.collect();
    while soon(leases.status("job")).await.unwrap().waiting < 20 {}
    drop(guard);
    until(|| store.asked(Op::Release) == 1).await;
    assert_eq!(store.asked(Op::HandOver), 16);
    // Free, and left to others until the next poll, although four wait here.
    until(|| store.asked(Op::Claim) == 2).await;
    let freed = store.questions(Op::Release)[0].1;
    let pause = store.questions(Op::Claim)[1].1 - freed;
    assert!(pause >= soonest(poll), "{pause:?}");
    for waiter in waiters {
        soon(waiter).await.unwrap();
    }
}

#[tokio::test]
async fn whoever_releases_stands_back_until_its_next_poll_where_others_were_seen() {
    let store = Memory::new();
    // Nobody else was seen: no pause, which would be one that nobody here waits for.
    let leases = builder(&store)
        .poll(Duration::from_secs(600))
        .start()
        .unwrap();
    for _ in 0..10 {
        soon(soon(leases.acquire("job")).await.unwrap().release())
            .await
            .unwrap();
    }
    let poll = 1_000 * MS;
    let leases = builder(&store).poll(poll).start().unwrap();
    let guard = after_another(&store, &leases).await;
    soon(guard.release()).await.unwrap();
    let guard = soon(leases.acquire("job")).await.unwrap();
    assert!(pause(&store) >= soonest(poll), "{:?}", pause(&store));
    soon(guard.release()).await.unwrap();
    // Who does not wait is not made to.
    assert!(soon(leases.try_acquire("job")).await.is_ok());
}

#[tokio::test]
async fn two_processes_share_a_lease_that_both_always_want() {
    for store in [
        Memory::new(),
        Memory::waking(),
        Memory::waking().with_gaps(),
    ] {
        let mut seen = Vec::new();
        // On a busy machine one may not come to ask for longer than the other stands back: then it is looked at once more.
        while seen.len() < 5 {
            let (one, two) = share(&store).await;
            if one.min(two) * 2 >= (one + two) / 2 {
                break;
            }
            seen.push((one, two));
        }
        assert!(seen.len() < 5, "{seen:?}");
    }
}

/// How often each of two had it in a second.
async fn share(store: &Memory) -> (u32, u32) {
    let took = |leases: Leases| {
        tokio::spawn(async move {
            let (end, mut count) = (Instant::now() + 2_000 * MS, 0_u32);
            while Instant::now() < end {
                let guard = soon(leases.acquire("job")).await.unwrap();
                tokio::time::sleep(MS).await;
                soon(guard.release()).await.unwrap();
                // Whoever came first does not know at once that there is another.
                count += u32::from(Instant::now() + 1_000 * MS >= end);
            }
            count
        })
    };
    let (one, two) = (took(leases(store)), took(leases(store)));
    (one.await.unwrap(), two.await.unwrap())
}

#[tokio::test]
async fn too_many_waiters_are_refused_clearly() {
    let store = Memory::new();
    let leases = builder(&store).max_local_waiters(2).start().unwrap();
    let guard = soon(leases.acquire("job")).await.unwrap();
    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(leases.acquire("job"))).collect();
    for one in &mut waiting {
        begin(one);
    }
    let refused = soon(leases.acquire("job")).await.unwrap_err();
    assert!(
        matches!(refused, LeaseError::TooManyWaiters { limit: 2, .. }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("lease_max_local_waiters"));
    // Another name has a queue of its own.
    assert!(soon(leases.acquire("other")).await.is_ok());
    drop(guard);
    for one in waiting {
        drop(soon(one).await.unwrap());
    }
}

#[tokio::test]
async fn a_process_that_is_alone_is_not_held_up_by_gaps_between_tokens() {
    let store = Memory::waking().with_gaps();
    // One pause would be one that nobody here waits for.
    let leases = builder(&store)
        .poll(Duration::from_secs(600))
        .start()
        .unwrap();
    let mut tokens = Vec::new();
    for _ in 0..50 {
        let guard = soon(leases.acquire("job")).await.unwrap();
        tokens.push(guard.token());
        soon(guard.release()).await.unwrap();
    }
    assert!(tokens.is_sorted());
}

/// Acquires the lease after it was found held by another process.
pub async fn after_another(store: &Memory, leases: &Leases) -> LeaseGuard {
    loop {
        let claims = store.asked(Op::Claim);
        store.steal("job", "somebody", 50 * MS);
        let guard = soon(leases.acquire("job")).await.unwrap();
        if store.asked(Op::Claim) > claims + 1 {
            return guard;
        }
        // On a busy machine it may have been free again before anybody asked.
        soon(guard.release()).await.unwrap();
    }
}

/// Another process takes it, as soon as it is free, and gives it back.
async fn another_turn(store: &Memory) {
    until(|| !store.is_held("job")).await;
    store.steal("job", "somebody", Duration::from_secs(60));
    store.give_back("job");
}

#[tokio::test]
async fn releases_from_before_anybody_listened_hide_no_release_of_another_process() {
    let store = Memory::waking();
    let leases = builder(&store)
        .poll(Duration::from_secs(60))
        .start()
        .unwrap();
    for _ in 0..20 {
        let guard = soon(leases.acquire("job")).await.unwrap();
        soon(guard.release()).await.unwrap();
    }
    store.steal("job", "somebody", Duration::from_secs(60));
    let waiting = tokio::spawn(leases.acquire("job"));
    until(|| store.listeners() == 1).await;
    store.give_back("job");
    let mut guard = soon(waiting).await.unwrap().unwrap();
    // From now on it stands back after each release, until the other has had its turn.
    for _ in 0..20 {
        let (claims, begun) = (store.asked(Op::Claim), Instant::now());
        soon(guard.release()).await.unwrap();
        let waiting = tokio::spawn(leases.acquire("job"));
        while soon(leases.status("job")).await.unwrap().waiting == 0 && !waiting.is_finished() {}
        let is_left = store.asked(Op::Claim) == claims;
        // What is told of its own release after more than a second is taken for another's.
        let is_late = begun.elapsed() > Duration::from_secs(1);
        assert!(is_left || is_late, "it is left to the other");
        if is_left {
            another_turn(&store).await;
        }
        guard = soon(waiting).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn its_own_release_is_no_reason_to_take_a_lease_that_is_left_to_others() {
    let store = Memory::waking();
    let poll = 1_000 * MS;
    let leases = builder(&store).poll(poll).start().unwrap();
    store.steal("job", "somebody", Duration::from_secs(60));
    let waiting = tokio::spawn(leases.acquire("job"));
    until(|| store.listeners() == 1).await;
    store.give_back("job");
    let mut guard = soon(waiting).await.unwrap().unwrap();
    for _ in 0..3 {
        soon(guard.release()).await.unwrap();
        guard = soon(leases.acquire("job")).await.unwrap();
        assert!(pause(&store) >= soonest(poll), "{:?}", pause(&store));
    }
}
