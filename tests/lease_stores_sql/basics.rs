//! What every call does when nothing goes wrong.

use std::time::Duration;

use lockkeeper::{Refreshed, Released};

use crate::ground::{Ground, MINUTE, busy, claim, holder, name, on_stores, ours, refresh, until};

on_stores! {
    Postgres: postgres, Mariadb: mariadb, Sqlite: sqlite => {
        a_lease_is_held_by_one_and_says_by_whom_and_for_how_long,
        a_claim_whose_answer_was_lost_is_recognised,
        a_release_is_told_from_one_that_came_too_late,
        a_refresh_extends_what_is_held_and_names_what_is_lost,
        what_has_expired_is_lost_even_if_nobody_took_it,
        a_forced_release_moves_the_token_on,
        a_lease_is_handed_over_in_one_step,
        i10_tokens_grow_over_a_thousand_hand_overs,
        names_compare_byte_for_byte,
        five_hundred_leases_are_refreshed_at_once,
        after_an_unclean_end_others_wait_for_the_delay,
        two_handles_of_one_table_have_the_same_id,
    }
}

pub async fn a_lease_is_held_by_one_and_says_by_whom_and_for_how_long(ground: Ground) {
    let store = ground.store().await;
    let token = ours(store.claim(&claim("job", "a", MINUTE)).await);
    assert_eq!(token.0, 1);
    let record = busy(store.claim(&claim("job", "b", MINUTE)).await);
    assert_eq!(record.holder, Some(holder("a")));
    assert_eq!(record.token, token);
    let remaining = record.remaining.unwrap();
    assert!(remaining <= MINUTE && remaining > MINUTE - Duration::from_secs(20));
    let again = busy(store.claim(&claim("job", "b", MINUTE)).await);
    assert_eq!(again.holder, Some(holder("a")));
    let looked = store.look(&name("job")).await.unwrap().unwrap();
    assert_eq!(looked.holder, record.holder);
    assert_eq!(store.look(&name("other")).await.unwrap(), None);
    assert_eq!(store.list().await.unwrap().len(), 1);
    store.close().await.unwrap();
}

pub async fn a_claim_whose_answer_was_lost_is_recognised(ground: Ground) {
    let store = ground.store().await;
    let first = ours(
        store
            .claim(&claim("job", "a", Duration::from_secs(20)))
            .await,
    );
    let again = ours(store.claim(&claim("job", "a", MINUTE)).await);
    assert_eq!(first, again);
    let record = store.look(&name("job")).await.unwrap().unwrap();
    assert!(record.remaining.unwrap() > Duration::from_secs(30));
}

pub async fn a_release_is_told_from_one_that_came_too_late(ground: Ground) {
    let store = ground.store().await;
    ours(store.claim(&claim("job", "a", MINUTE)).await);
    let release = |id: &'static str| {
        let store = store.clone();
        async move { store.release(&name("job"), &holder(id)).await.unwrap() }
    };
    assert_eq!(release("b").await, Released::WasLost);
    assert_eq!(release("a").await, Released::WasOurs);
    assert_eq!(release("a").await, Released::WasLost);
    let record = store.look(&name("job")).await.unwrap().unwrap();
    assert_eq!(record.remaining, None);
    let token = ours(store.claim(&claim("job", "b", MINUTE)).await);
    assert!(token > record.token);
    assert_eq!(release("a").await, Released::WasLost);
}

pub async fn a_refresh_extends_what_is_held_and_names_what_is_lost(ground: Ground) {
    let store = ground.store().await;
    let short = Duration::from_secs(10);
    let a = ours(store.claim(&claim("a", "me", short)).await);
    let b = ours(store.claim(&claim("b", "other", short)).await);
    let c = ours(store.claim(&claim("c", "me", short)).await);
    let leases = [
        refresh("a", "me", a, MINUTE),
        refresh("b", "me", b, MINUTE),
        refresh("c", "me", c, 2 * MINUTE),
        refresh("d", "me", c, MINUTE),
    ];
    let outcomes = store.refresh(&leases).await.unwrap();
    assert_eq!(outcomes.len(), 4);
    assert_eq!(outcomes[0], Refreshed::Held);
    assert!(
        matches!(&outcomes[1], Refreshed::Lost(Some(r)) if r.holder == Some(holder("other"))),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[2], Refreshed::Held);
    assert_eq!(outcomes[3], Refreshed::Lost(None));
    let left = async |lease| {
        let record = store.look(&name(lease)).await.unwrap().unwrap();
        record.remaining.unwrap()
    };
    assert!(left("a").await > short * 3 && left("a").await <= MINUTE);
    assert!(left("b").await <= short);
    assert!(left("c").await > MINUTE);
    let stale = [refresh("a", "me", lockkeeper::Fence(a.0 + 1), MINUTE)];
    let outcomes = store.refresh(&stale).await.unwrap();
    assert!(matches!(outcomes[0], Refreshed::Lost(Some(_))));
    store.release(&name("a"), &holder("me")).await.unwrap();
    let late = [refresh("a", "me", a, MINUTE)];
    let outcomes = store.refresh(&late).await.unwrap();
    assert!(matches!(outcomes[0], Refreshed::Lost(Some(_))));
    let record = store.look(&name("a")).await.unwrap().unwrap();
    assert_eq!(
        record.remaining, None,
        "a refresh after a release revived it"
    );
    assert!(store.refresh(&[]).await.unwrap().is_empty());
}

pub async fn what_has_expired_is_lost_even_if_nobody_took_it(ground: Ground) {
    let store = ground.store().await;
    let token = ours(
        store
            .claim(&claim("job", "a", Duration::from_millis(200)))
            .await,
    );
    until("the expiry", || async {
        let record = store.look(&name("job")).await.unwrap().unwrap();
        record.remaining.is_none()
    })
    .await;
    let leases = [refresh("job", "a", token, MINUTE)];
    let outcomes = store.refresh(&leases).await.unwrap();
    assert!(matches!(&outcomes[0], Refreshed::Lost(Some(r)) if r.remaining.is_none()));
    let record = store.look(&name("job")).await.unwrap().unwrap();
    assert_eq!(record.remaining, None);
    let released = store.release(&name("job"), &holder("a")).await.unwrap();
    assert_eq!(released, Released::WasOurs);
}

pub async fn a_forced_release_moves_the_token_on(ground: Ground) {
    let store = ground.store().await;
    assert_eq!(store.force_release(&name("job")).await.unwrap(), None);
    let token = ours(store.claim(&claim("job", "a", MINUTE)).await);
    let was = store.force_release(&name("job")).await.unwrap().unwrap();
    assert_eq!(was.holder, Some(holder("a")));
    assert_eq!(was.token, token);
    assert_eq!(store.force_release(&name("job")).await.unwrap(), None);
    let record = store.look(&name("job")).await.unwrap().unwrap();
    assert!(record.token > token);
    assert_eq!(record.remaining, None);
    let released = store.release(&name("job"), &holder("a")).await.unwrap();
    assert_eq!(released, Released::WasLost);
    let leases = [refresh("job", "a", token, MINUTE)];
    let outcomes = store.refresh(&leases).await.unwrap();
    assert!(matches!(outcomes[0], Refreshed::Lost(_)));
    let next = ours(store.claim(&claim("job", "b", MINUTE)).await);
    assert!(next > record.token);
}

pub async fn a_lease_is_handed_over_in_one_step(ground: Ground) {
    let store = ground.store().await;
    let token = ours(store.claim(&claim("job", "a", MINUTE)).await);
    let handed = store
        .hand_over(&holder("a"), &claim("job", "b", 2 * MINUTE))
        .await;
    let (released, claimed) = handed.unwrap();
    assert_eq!(released, Released::WasOurs);
    let next = ours(Ok(claimed));
    assert!(next > token);
    let record = store.look(&name("job")).await.unwrap().unwrap();
    assert_eq!(record.holder, Some(holder("b")));
    assert_eq!(record.token, next);
    assert!(record.remaining.unwrap() > MINUTE);
    // It is not the first one's any more.
    let handed = store
        .hand_over(&holder("a"), &claim("job", "c", MINUTE))
        .await;
    let (released, claimed) = handed.unwrap();
    assert_eq!(released, Released::WasLost);
    assert_eq!(busy(Ok(claimed)).holder, Some(holder("b")));
    store.release(&name("job"), &holder("b")).await.unwrap();
    let handed = store
        .hand_over(&holder("b"), &claim("job", "c", MINUTE))
        .await;
    let (released, claimed) = handed.unwrap();
    assert_eq!(released, Released::WasLost);
    assert!(ours(Ok(claimed)) > next);
}

pub async fn i10_tokens_grow_over_a_thousand_hand_overs(ground: Ground) {
    let stores = [ground.store().await, ground.store().await];
    let mut last = 0;
    for turn in 0..1_000_usize {
        let store = &stores[turn % 2];
        let id = format!("holder {turn}");
        let expiration = if turn % 50 == 0 {
            Duration::from_millis(1)
        } else {
            MINUTE
        };
        let wish = claim("job", &id, expiration);
        let token = ours(store.claim(&wish).await);
        assert!(token.0 > last);
        last = token.0;
        if turn % 50 == 0 {
            // It runs out.
            until("the expiry", || async {
                let record = store.look(&name("job")).await.unwrap().unwrap();
                record.remaining.is_none()
            })
            .await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        } else {
            let released = store.release(&wish.name, &wish.holder).await.unwrap();
            assert_eq!(released, Released::WasOurs);
        }
    }
}

pub async fn names_compare_byte_for_byte(ground: Ground) {
    let store = ground.store().await;
    let longest = "ä".repeat(127);
    let names = [
        "A", "B", "a", "a ", "a  ", "a\t", "ａ", "ä", "a\u{308}", "ss", "ß", "x'y", "x\"y", "x`y",
        "x\\y", "%", "_", &longest,
    ];
    for lease in names {
        let token = ours(store.claim(&claim(lease, lease, MINUTE)).await);
        assert_eq!(token.0, 1, "{lease:?} is another");
    }
    let mut sorted: Vec<&str> = names.to_vec();
    sorted.sort_unstable();
    let listed = store.list().await.unwrap();
    let listed: Vec<&str> = listed.iter().map(|record| record.name.as_str()).collect();
    assert_eq!(listed, sorted);
    let token = lockkeeper::Fence(1);
    let leases: Vec<_> = sorted
        .iter()
        .map(|lease| refresh(lease, lease, token, MINUTE))
        .collect();
    let outcomes = store.refresh(&leases).await.unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Refreshed::Held));
    for lease in names {
        let released = store.release(&name(lease), &holder(lease)).await.unwrap();
        assert_eq!(released, Released::WasOurs);
    }
}

pub async fn five_hundred_leases_are_refreshed_at_once(ground: Ground) {
    let store = ground.store().await;
    let mut leases = Vec::new();
    for index in 0..500 {
        let lease = format!("lease {index:04}");
        // None of them expires before the last one is there, however slow the disk is.
        let token = ours(store.claim(&claim(&lease, "me", 10 * MINUTE)).await);
        leases.push(refresh(&lease, "me", token, 20 * MINUTE));
    }
    for _ in 0..3 {
        let began = std::time::Instant::now();
        let outcomes = store.refresh(&leases).await.unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Refreshed::Held));
        assert_eq!(outcomes.len(), leases.len());
        println!("{:?}: {:?}", ground.kind, began.elapsed());
    }
    let listed = store.list().await.unwrap();
    assert!(listed.iter().all(|r| r.remaining.unwrap() > 10 * MINUTE));
}

pub async fn after_an_unclean_end_others_wait_for_the_delay(ground: Ground) {
    let store = ground.store().await;
    ours(
        store
            .claim(&claim("job", "a", Duration::from_millis(50)))
            .await,
    );
    let mut wish = claim("job", "b", MINUTE);
    wish.unclean_delay = MINUTE;
    until("the expiry", || async {
        let record = store.look(&name("job")).await.unwrap().unwrap();
        record.remaining.is_none()
    })
    .await;
    let record = busy(store.claim(&wish).await);
    assert!(record.remaining.unwrap() > MINUTE / 2, "{record:?}");
    store.release(&name("job"), &holder("a")).await.unwrap();
    ours(store.claim(&wish).await);
}

pub async fn two_handles_of_one_table_have_the_same_id(ground: Ground) {
    let (one, other) = (ground.store().await, ground.store().await);
    let id = one.id().await.unwrap();
    assert_eq!(id, other.id().await.unwrap());
    assert!(id.as_str().contains(&ground.table), "{id}");
    let elsewhere = Ground::at(ground.kind, ground.url.clone());
    assert_ne!(id, elsewhere.store().await.id().await.unwrap());
}
