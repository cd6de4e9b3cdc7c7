//! A refresh of many leases of which each has another fate: every answer is that of its own lease.

use std::time::Duration;

use lockkeeper::{Fence, Refreshed};

use crate::ground::{Ground, Kind, MINUTE, claim, holder, name, on_stores, ours, refresh, until};

on_stores! {
    Postgres: postgres, Mariadb: mariadb, Sqlite: sqlite => {
        each_of_many_leases_has_its_own_answer_whatever_became_of_its_neighbours,
        i09_of_several_who_ask_for_one_lease_only_its_holder_is_told_that_he_has_it,
    }
}

/// So many leases.
const LEASES: u64 = 80;
const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Held,
    HeldAndLocked,
    OfAnother,
    OfAnotherAndLocked,
    GivenBack,
    Expired,
    OfALaterToken,
    Unknown,
}

use Fate::{
    Expired, GivenBack, Held, HeldAndLocked, OfALaterToken, OfAnother, OfAnotherAndLocked, Unknown,
};

/// In an order without a pattern.
fn fate(n: u64) -> Fate {
    let all = [
        Held,
        HeldAndLocked,
        OfAnother,
        OfAnotherAndLocked,
        GivenBack,
        Expired,
        OfALaterToken,
        Unknown,
    ];
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61;
    all[usize::try_from(mixed).unwrap()]
}

fn lease(n: u64) -> String {
    format!("lease {n:03}")
}

/// Each by another time.
fn expiration(n: u64) -> Duration {
    10 * MINUTE + SECOND * u32::try_from(n).unwrap()
}

async fn each_of_many_leases_has_its_own_answer_whatever_became_of_its_neighbours(ground: Ground) {
    let store = ground.store().await;
    let mut raw = ground.connect().await;
    let (mut asked, mut locked) = (Vec::new(), Vec::new());
    for n in 0..LEASES {
        let lease = lease(n);
        let claim = |id, expiration| {
            let (store, wish) = (&store, claim(&lease, id, expiration));
            async move { ours(store.claim(&wish).await) }
        };
        let token = match fate(n) {
            Unknown => Fence(1),
            OfAnother | OfAnotherAndLocked => claim("another", MINUTE).await,
            Expired => claim("me", Duration::from_millis(1)).await,
            OfALaterToken => Fence(claim("me", MINUTE).await.0 + 1),
            Held | HeldAndLocked | GivenBack => claim("me", MINUTE).await,
        };
        if fate(n) == GivenBack {
            store.release(&name(&lease), &holder("me")).await.unwrap();
        }
        if matches!(fate(n), HeldAndLocked | OfAnotherAndLocked) {
            locked.push(lease.clone());
        }
        asked.push(refresh(&lease, "me", token, expiration(n)));
    }
    until("the expiries", || async {
        let all = store.list().await.unwrap();
        let held = all.iter().filter(|record| record.remaining.is_some());
        let expires = |n: &u64| !matches!(fate(*n), Expired | GivenBack | Unknown);
        held.count() == (0..LEASES).filter(expires).count()
    })
    .await;

    // SQLite has one lock, that of the file.
    let locks_rows = ground.kind != Kind::Sqlite;
    if locks_rows {
        raw.run("begin").await;
        for lease in &locked {
            let table = &ground.table;
            let row = format!("select 1 from {table} where name = '{lease}' for update");
            assert_eq!(raw.count(row).await, 1);
        }
    }
    for again in [false, true] {
        let answers = store.refresh(&asked).await.unwrap();
        assert_eq!(answers.len(), asked.len());
        for (n, answer) in (0..).zip(&answers) {
            let is_right = match (fate(n), answer) {
                (Held, Refreshed::Held) => true,
                (HeldAndLocked, Refreshed::Held) => again || !locks_rows,
                (HeldAndLocked, Refreshed::Skipped) => !again && locks_rows,
                (OfAnother | OfAnotherAndLocked, Refreshed::Lost(Some(record))) => {
                    record.holder == Some(holder("another")) && record.remaining.is_some()
                }
                (GivenBack | Expired, Refreshed::Lost(Some(record))) => record.remaining.is_none(),
                (OfALaterToken, Refreshed::Lost(Some(record))) => {
                    record.name.as_str() == lease(n) && record.token < asked[n as usize].token
                }
                (Unknown, Refreshed::Lost(None)) => true,
                _ => false,
            };
            assert!(is_right, "{} is {:?}: {answer:?}", lease(n), fate(n));
        }
        // As they stand in the table.
        for record in store.list().await.unwrap() {
            let n: u64 = record.name.as_str()[6..].parse().unwrap();
            let is_extended = match fate(n) {
                Held => true,
                HeldAndLocked => again || !locks_rows,
                _ => false,
            };
            let left = record.remaining.unwrap_or_default();
            match is_extended {
                true => assert!(
                    left <= expiration(n) && left > expiration(n) - MINUTE / 2,
                    "{record:?}"
                ),
                false => assert!(left <= MINUTE, "{record:?}"),
            }
        }
        if !again && locks_rows {
            raw.run("rollback").await;
        }
    }
}

async fn i09_of_several_who_ask_for_one_lease_only_its_holder_is_told_that_he_has_it(
    ground: Ground,
) {
    let store = ground.store().await;
    let token = ours(store.claim(&claim("job", "me", MINUTE)).await);
    let later = Fence(token.0 + 1);
    let asked = [
        refresh("job", "another", token, MINUTE),
        refresh("job", "me", later, MINUTE),
        refresh("job", "me", token, 2 * MINUTE),
        refresh("job", "a third", later, MINUTE),
    ];
    let answers = store.refresh(&asked).await.unwrap();
    assert_eq!(answers[2], Refreshed::Held);
    for other in [0, 1, 3] {
        let Refreshed::Lost(Some(record)) = &answers[other] else {
            panic!("{:?}: {:?}", asked[other], answers[other]);
        };
        assert_eq!((&record.holder, record.token), (&Some(holder("me")), token));
    }
}
