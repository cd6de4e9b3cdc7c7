//! Who holds a lease, and with which token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{Claimed, Fence, LeaseStore, Refreshed, Released};

use crate::common::{
    EXPIRATION, PATIENCE, claim, extend, holder, is_held, name, ours, refresh, run, store, take,
    until,
};
use crate::etcd::Etcd;

#[test]
fn i10_tokens_grow_over_a_thousand_hand_overs() {
    let etcd = Etcd::start(1);
    run(async {
        let stores = [store(&etcd.url("t")), store(&etcd.url("t"))];
        let mut last = Fence(0);
        for n in 0..1_000 {
            let store = &stores[n % 2];
            let id = format!("holder {n}");
            let token = take(store, "job", &id).await;
            assert!(token > last, "{token} after {last}");
            last = token;
            let released = match n % 50 {
                // Also when somebody else takes it away.
                0 => {
                    let was = store.force_release(&name("job")).await.unwrap().unwrap();
                    assert_eq!((was.token, was.holder.unwrap().id), (token, (&*id).into()));
                    Released::WasLost
                }
                _ => Released::WasOurs,
            };
            let answer = store.release(&name("job"), &holder(&id)).await.unwrap();
            assert_eq!(answer, released);
        }
    });
}

#[test]
fn contenders_exclude_each_other() {
    let etcd = Etcd::start(1);
    run(async {
        let inside = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        let contenders: Vec<_> = (0..16)
            .map(|n| {
                let store = store(&etcd.url("t"));
                let (inside, served) = (Arc::clone(&inside), Arc::clone(&served));
                tokio::spawn(async move {
                    for turn in 0.. {
                        // On a busy machine it takes longer until enough have been served.
                        let enough = served.load(Ordering::Relaxed) > 50;
                        let lasted = begun.elapsed();
                        if enough && lasted > Duration::from_secs(4) || lasted > PATIENCE {
                            break;
                        }
                        let id = format!("{n}/{turn}");
                        let claimed = store.claim(&claim("job", &id, EXPIRATION)).await.unwrap();
                        if let Claimed::Ours { .. } = claimed {
                            assert!(!inside.swap(true, Ordering::SeqCst), "two are inside");
                            tokio::task::yield_now().await;
                            assert!(inside.swap(false, Ordering::SeqCst));
                            served.fetch_add(1, Ordering::Relaxed);
                            let released = store.release(&name("job"), &holder(&id)).await;
                            assert_eq!(released.unwrap(), Released::WasOurs);
                        }
                    }
                })
            })
            .collect();
        for contender in contenders {
            contender.await.unwrap();
        }
        assert!(served.load(Ordering::Relaxed) > 50);
    });
}

#[test]
fn a_claim_whose_answer_was_lost_is_recognised() {
    let etcd = Etcd::start(1);
    run(async {
        let here = store(&etcd.url("t"));
        let claim = claim("job", "me", EXPIRATION);
        let token = ours(here.claim(&claim).await.unwrap());
        assert_eq!(ours(here.claim(&claim).await.unwrap()), token);
        // Also if nothing is known of it but the claim.
        let other = store(&etcd.url("t"));
        assert_eq!(ours(other.claim(&claim).await.unwrap()), token);
        assert!(is_held(&other, "job", "me", token).await);
        let released = other.release(&name("job"), &holder("me")).await.unwrap();
        assert_eq!(released, Released::WasOurs);
        assert!(!is_held(&here, "job", "me", token).await);
    });
}

#[test]
fn i12_a_claim_that_is_dropped_anywhere_leaves_nothing_after_a_release() {
    let etcd = Etcd::start(1);
    run(async {
        let store = store(&etcd.url("t"));
        for micros in (0..4_000).step_by(40) {
            let id = format!("dropped after {micros}");
            let claim = claim("job", &id, EXPIRATION);
            let cut = tokio::time::timeout(Duration::from_micros(micros), store.claim(&claim));
            let _ = cut.await;
            store.release(&name("job"), &holder(&id)).await.unwrap();
            // What was on its way may arrive after the release, also while the next is dropped; then it goes with another.
            until(|| async {
                let found = store.look(&name("job")).await.unwrap();
                let Some(found) = found else { return Ok(()) };
                let whose = found.holder.clone().unwrap();
                store.release(&name("job"), &whose).await.unwrap();
                Err(found)
            })
            .await;
        }
        take(&store, "job", "somebody").await;
    });
}

#[test]
fn a_lease_that_nobody_refreshes_is_free_after_its_expiration_although_its_neighbours_live() {
    let etcd = Etcd::start(1);
    run(async {
        let here = store(&etcd.url("t"));
        let expiration = Duration::from_secs(3);
        let begun = Instant::now();
        ours(here.claim(&claim("left", "me", expiration)).await.unwrap());
        let kept = ours(here.claim(&claim("kept", "me", expiration)).await.unwrap());
        let there = store(&etcd.url("t"));
        loop {
            let still = extend(&here, "kept", "me", kept, expiration).await;
            assert_eq!(still.unwrap(), Refreshed::Held);
            let claimed = there
                .claim(&claim("left", "you", expiration))
                .await
                .unwrap();
            match claimed {
                Claimed::Ours { token } => {
                    assert!(begun.elapsed() >= expiration);
                    assert!(token > kept);
                    break;
                }
                Claimed::Busy(record) => {
                    assert_eq!(record.holder, Some(holder("me")));
                    assert!(record.remaining.is_some());
                }
            }
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let lost = extend(&here, "left", "me", kept, expiration).await;
        assert!(matches!(lost.unwrap(), Refreshed::Lost(Some(_))));
    });
}

#[test]
fn an_expiration_can_be_changed_either_way() {
    let etcd = Etcd::start(1);
    run(async {
        let here = store(&etcd.url("t"));
        let short = Duration::from_secs(10);
        let token = ours(here.claim(&claim("job", "me", short)).await.unwrap());
        for seconds in [300, 10, 20] {
            let expiration = Duration::from_secs(seconds);
            let answer = extend(&here, "job", "me", token, expiration).await;
            assert_eq!(answer.unwrap(), Refreshed::Held);
            let record = here.look(&name("job")).await.unwrap().unwrap();
            assert_eq!(record.token, token);
            let remaining = record.remaining.unwrap().as_secs();
            assert!(
                (seconds - 5..=seconds + 2).contains(&remaining),
                "{remaining}"
            );
        }
    });
}

#[test]
fn many_leases_are_refreshed_in_one_go_and_those_that_are_lost_are_told() {
    let etcd = Etcd::start(1);
    run(async {
        let here = Arc::new(store(&etcd.url("t")));
        let mut leases = Vec::new();
        for n in 0..500 {
            let lease = format!("lease {n:03}");
            // None expires before the last one is there.
            let claimed = here.claim(&claim(&lease, "me", 10 * EXPIRATION)).await;
            let token = ours(claimed.unwrap());
            leases.push(refresh(&lease, "me", token, 10 * EXPIRATION));
        }
        // Others between them, so that they are not read in one go.
        let there = store(&etcd.url("t"));
        for n in 0..1_500 {
            let lease = format!("lease {:03}/{n}", n % 500);
            let claimed = there.claim(&claim(&lease, "you", 10 * EXPIRATION)).await;
            ours(claimed.unwrap());
        }
        here.force_release(&name("lease 007")).await.unwrap();
        here.force_release(&name("lease 400")).await.unwrap();
        take(&there, "lease 400", "you").await;
        let begun = Instant::now();
        let answers = here.refresh(&leases).await.unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{:?}",
            begun.elapsed()
        );
        for (n, answer) in answers.iter().enumerate() {
            match (n, answer) {
                // Not expired, but taken away: its token has moved on, and nobody has it.
                (7, Refreshed::Lost(Some(record))) => {
                    assert!(record.token > leases[7].token);
                    assert_eq!((&record.holder, record.remaining), (&None, None));
                }
                (400, Refreshed::Lost(Some(record))) => {
                    assert_eq!(record.holder, Some(holder("you")));
                }
                (n, answer) => assert_eq!(*answer, Refreshed::Held, "{n}"),
            }
        }
        let all = here.list().await.unwrap();
        assert_eq!(all.len(), 499 + 1_500);
        assert!(all.is_sorted_by_key(|record| record.name.clone()));
        assert!(all.iter().all(|record| record.remaining.is_some()));
    });
}

#[test]
fn after_an_unclean_end_the_lease_stays_taken_for_the_delay() {
    let etcd = Etcd::start(1);
    run(async {
        let expiration = Duration::from_secs(2);
        let delay = Duration::from_secs(3);
        let mut wish = claim("job", "me", expiration);
        wish.unclean_delay = delay;
        let begun = Instant::now();
        let dead = store(&etcd.url("t"));
        let token = ours(dead.claim(&wish).await.unwrap());
        let record = dead.look(&name("job")).await.unwrap().unwrap();
        assert!(record.remaining.unwrap() <= expiration + Duration::from_secs(1));
        let there = store(&etcd.url("t"));
        let mut late = false;
        loop {
            if !late && begun.elapsed() > expiration + Duration::from_millis(100) {
                late = true;
                let answer = extend(&dead, "job", "me", token, expiration).await;
                assert!(matches!(answer.unwrap(), Refreshed::Lost(_)));
            }
            let claimed = there.claim(&claim("job", "you", expiration)).await.unwrap();
            if let Claimed::Ours { .. } = claimed {
                break;
            }
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(late && begun.elapsed() >= expiration + delay);
    });
}

#[test]
fn whoever_waits_is_woken_by_a_release_and_by_an_expiry() {
    let etcd = Etcd::start(1);
    run(async {
        let here = store(&etcd.url("t"));
        let there = store(&etcd.url("t"));
        let mut wakeups = there.wakeups().unwrap().await.unwrap();
        take(&here, "other", "me").await;
        take(&here, "a/b%c", "me").await;
        let begun = Instant::now();
        here.release(&name("a/b%c"), &holder("me")).await.unwrap();
        let woken = tokio::time::timeout(PATIENCE, wakeups.next())
            .await
            .unwrap();
        assert_eq!(woken.unwrap(), Some(name("a/b%c")));
        assert!(begun.elapsed() < Duration::from_secs(10));
        let dying = claim("dying", "me", Duration::from_secs(2));
        ours(here.claim(&dying).await.unwrap());
        // Nothing for longer than the watch is content with.
        let woken = tokio::time::timeout(PATIENCE, wakeups.next())
            .await
            .unwrap();
        assert_eq!(woken.unwrap(), Some(name("dying")));
    });
}

/// As when a refresh was given up while it was on its way to a cluster without a leader, and the next one is sent.
#[test]
fn two_refreshes_that_move_a_lease_at_once_both_leave_it_held() {
    let etcd = Etcd::start(1);
    run(async {
        let here = store(&etcd.url("t"));
        let token = take(&here, "job", "me").await;
        for turn in 0..100_u64 {
            let expiration = EXPIRATION + Duration::from_secs(turn % 2 * 30);
            let both = [(); 2].map(|()| extend(&here, "job", "me", token, expiration));
            let kept = futures_util::future::join_all(both).await;
            let lost = |answer| matches!(answer, &Ok(Refreshed::Lost(_)));
            assert!(!kept.iter().any(lost), "{turn}: {kept:?}");
            assert!(is_held(&here, "job", "me", token).await);
        }
    });
}
