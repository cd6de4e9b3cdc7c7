//! From one holder of a process to the next, in one step.

use std::time::Duration;

use lockkeeper::{Claimed, EtcdLeases, Fence, LeaseStore, Refreshed, Released};

use crate::common::{EXPIRATION, claim, extend, holder, is_held, name, ours, run, store, take};
use crate::etcd::Etcd;

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
