//! From one holder of a process to the next, in one step.

use std::time::Duration;

use lockkeeper::{Claimed, EtcdLeases, Fence, LeaseStore, Refreshed, Released, StoreError};

use crate::common::{
    EXPIRATION, claim, extend, holder, is_held, name, ours, run, store, take, until,
};
use crate::etcd::Etcd;
use crate::proxy::Proxy;

const LONGER: Duration = Duration::from_secs(90);

async fn hand(store: &EtcdLeases, from: &str, to: &str, keep: Duration) -> (Released, Claimed) {
    let (from, to) = (holder(from), claim("job", to, keep));
    store.hand_over(&from, &to).await.unwrap()
}

#[test]
fn i10_a_lease_that_is_handed_over_has_a_new_holder_and_a_larger_token() {
    let etcd = Etcd::start(1);
    run(async {
        let (here, there) = (store(&etcd.url("t")), store(&etcd.url("t")));
        let first = take(&here, "job", "a").await;
        let (released, claimed) = hand(&here, "a", "b", EXPIRATION).await;
        assert_eq!(released, Released::WasOurs);
        let second = ours(claimed);
        // One change of one key, and nothing between.
        assert_eq!(second, Fence(first.0 + 1));
        let record = there.look(&name("job")).await.unwrap().unwrap();
        assert_eq!(
            (record.token, record.holder.unwrap().id),
            (second, "b".into())
        );
        let busy = there.claim(&claim("job", "x", EXPIRATION)).await.unwrap();
        assert!(matches!(busy, Claimed::Busy(record) if record.token == second));

        // The one before can neither extend it nor give it back.
        let lost = extend(&here, "job", "a", first, EXPIRATION).await.unwrap();
        assert!(matches!(lost, Refreshed::Lost(_)), "{lost:?}");
        let released = here.release(&name("job"), &holder("a")).await.unwrap();
        assert_eq!(released, Released::WasLost);
        assert!(is_held(&here, "job", "b", second).await);

        // Nor hand it over.
        let (released, claimed) = hand(&here, "a", "c", EXPIRATION).await;
        assert_eq!(released, Released::WasLost);
        assert!(matches!(claimed, Claimed::Busy(record) if record.token == second));

        let released = here.release(&name("job"), &holder("b")).await.unwrap();
        assert_eq!(released, Released::WasOurs);
        assert!(there.look(&name("job")).await.unwrap().is_none());
        assert!(take(&there, "job", "x").await > second);
    });
}

#[test]
fn i10_tokens_grow_over_a_thousand_hand_overs_in_one_step() {
    let etcd = Etcd::start(1);
    run(async {
        let store = store(&etcd.url("t"));
        let mut last = take(&store, "job", "0").await;
        for n in 1..1_000_u64 {
            let (from, to) = ((n - 1).to_string(), n.to_string());
            // Now and then it lives longer, and then again not: it moves between etcd leases.
            let expiration = if n % 3 == 0 { LONGER } else { EXPIRATION };
            let (released, claimed) = hand(&store, &from, &to, expiration).await;
            assert_eq!(released, Released::WasOurs);
            let token = ours(claimed);
            assert!(token > last, "{token} after {last}");
            last = token;
        }
        assert!(is_held(&store, "job", "999", last).await);
    });
}

#[test]
fn a_lease_that_was_handed_over_keeps_its_token_when_it_is_extended() {
    let etcd = Etcd::start(1);
    run(async {
        let (here, there) = (store(&etcd.url("t")), store(&etcd.url("t")));
        take(&here, "job", "a").await;
        let token = ours(hand(&here, "a", "b", EXPIRATION).await.1);
        // To another expiration it goes by another etcd lease, and back.
        for expiration in [LONGER, EXPIRATION, LONGER] {
            let extended = extend(&here, "job", "b", token, expiration).await.unwrap();
            assert_eq!(extended, Refreshed::Held);
            let record = there.look(&name("job")).await.unwrap().unwrap();
            assert_eq!(record.token, token);
            assert!(is_held(&here, "job", "b", token).await);
        }
        let listed = there.list().await.unwrap();
        assert_eq!((listed.len(), listed[0].token), (1, token));
        let (released, claimed) = hand(&here, "b", "c", EXPIRATION).await;
        assert_eq!(released, Released::WasOurs);
        assert!(ours(claimed) > token);
    });
}

#[test]
fn what_was_moved_meanwhile_is_given_back_and_handed_over_all_the_same() {
    let etcd = Etcd::start(1);
    run(async {
        let (here, there) = (store(&etcd.url("t")), store(&etcd.url("t")));
        let token = take(&here, "job", "a").await;
        // The other store moves it, and this one does not know.
        let moved = extend(&there, "job", "a", token, LONGER).await.unwrap();
        assert_eq!(moved, Refreshed::Held);
        let (released, claimed) = hand(&here, "a", "b", EXPIRATION).await;
        assert_eq!(released, Released::WasOurs);
        let next = ours(claimed);
        assert!(next > token);

        let moved = extend(&there, "job", "b", next, LONGER).await.unwrap();
        assert_eq!(moved, Refreshed::Held);
        let released = here.release(&name("job"), &holder("b")).await.unwrap();
        assert_eq!(released, Released::WasOurs);
        assert!(there.look(&name("job")).await.unwrap().is_none());
    });
}

#[test]
fn i10_a_hand_over_whose_first_answer_was_lost_is_one_hand_over() {
    let etcd = Etcd::start(1);
    let proxy = Proxy::to(etcd.address(0));
    run(async {
        let (through, direct) = (proxy.address(), etcd.address(0));
        let here = store(&format!("etcd://{through},{direct}/t"));
        let first = take(&here, "job", "a").await;
        proxy.mute();
        // What asks twice finds what it did itself.
        let (released, claimed) = hand(&here, "a", "b", EXPIRATION).await;
        assert_eq!(released, Released::WasOurs);
        let second = ours(claimed);
        assert_eq!(second, Fence(first.0 + 1));
        assert!(is_held(&here, "job", "b", second).await);
        let released = here.release(&name("job"), &holder("b")).await.unwrap();
        assert_eq!(released, Released::WasOurs);
        assert!(here.look(&name("job")).await.unwrap().is_none());
    });
}

#[test]
fn i10_a_hand_over_that_is_never_answered_is_found_or_given_back() {
    let etcd = Etcd::start(1);
    let proxy = Proxy::to(etcd.address(0));
    run(async {
        let here = store(&format!("etcd://{}/t", proxy.address()));
        let there = store(&etcd.url("t"));
        let mut last = Fence(0);
        for forced in [false, true] {
            let first = take(&here, "job", "a").await;
            assert!(first > last);
            proxy.mute();
            let (from, to) = (holder("a"), claim("job", "b", EXPIRATION));
            let lost = here.hand_over(&from, &to).await;
            assert!(matches!(lost, Err(StoreError::Unreachable(_))), "{lost:?}");
            proxy.heal();
            if forced {
                let was = there.force_release(&name("job")).await.unwrap().unwrap();
                assert_eq!(was.holder.unwrap().id, "b".into());
                last = take(&there, "job", "x").await;
                assert!(last > was.token);
            }
            let released = until(|| here.release(&to.name, &from)).await;
            assert_eq!(released, Released::WasLost);
            let claimed = until(|| here.claim(&to)).await;
            if forced {
                assert!(matches!(claimed, Claimed::Busy(record) if record.token == last));
                assert!(is_held(&there, "job", "x", last).await);
            } else {
                last = ours(claimed);
                assert!(last > first);
                assert!(is_held(&here, "job", "b", last).await);
                let released = here.release(&name("job"), &holder("b")).await.unwrap();
                assert_eq!(released, Released::WasOurs);
            }
        }
    });
}

#[test]
fn i09_a_hand_over_and_a_refresh_at_once_leave_one_holder() {
    let etcd = Etcd::start(1);
    run(async {
        let here = store(&etcd.url("t"));
        let mut last = take(&here, "job", "0").await;
        for n in 0..200_u64 {
            let (from, to) = (n.to_string(), (n + 1).to_string());
            // Every other pass moves it to another etcd lease.
            let expiration = if n % 2 == 0 { LONGER } else { EXPIRATION };
            let pass = extend(&here, "job", &from, last, expiration);
            let (extended, (_, claimed)) = tokio::join!(pass, hand(&here, &from, &to, EXPIRATION));
            assert!(extended.is_ok(), "{extended:?}");
            let token = ours(claimed);
            assert!(token > last, "{token} after {last}");
            let lost = extend(&here, "job", &from, last, EXPIRATION).await.unwrap();
            assert!(matches!(lost, Refreshed::Lost(_)), "{lost:?}");
            last = token;
        }
        assert!(is_held(&here, "job", "200", last).await);
        let released = here.release(&name("job"), &holder("200")).await.unwrap();
        assert_eq!(released, Released::WasOurs);
        assert!(here.look(&name("job")).await.unwrap().is_none());
    });
}
