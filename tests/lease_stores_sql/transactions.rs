//! Leases and the transactions of the application.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use lockkeeper::{Claim, Claimed, Fence, LeaseStore, Refreshed, StoreFuture, TableName};

use crate::ground::{
    Ground, Kind, MINUTE, PATIENCE, busy, claim, holder, name, on_stores, ours, refresh, until,
};

on_stores! {
    Postgres: postgres, Mariadb: mariadb, Sqlite: sqlite => {
        a_check_inside_a_transaction_says_whether_the_lease_is_held,
    }
}

on_stores! {
    Postgres: postgres_rows, Mariadb: mariadb_rows => {
        a_row_that_somebody_has_locked_is_skipped_and_no_other,
        nobody_gets_a_lease_that_a_transaction_has_checked_before_it_ends,
        a_claim_that_waited_for_a_row_has_its_whole_time,
        i12_a_claim_that_is_dropped_while_it_waits_leaves_nothing_held,
        i12_a_claim_that_is_dropped_takes_nothing_from_the_same_claim_made_again,
        i12_a_store_that_is_closed_gives_back_first_what_a_dropped_claim_brings,
        no_isolation_lets_a_check_see_a_lease_that_is_gone,
    }
}

on_stores! {
    Sqlite: sqlite_file => {
        while_another_writes_the_file_every_refresh_is_skipped,
    }
}

pub async fn a_check_inside_a_transaction_says_whether_the_lease_is_held(ground: Ground) {
    let store = ground.store().await;
    let table = TableName::new(&*ground.table).unwrap();
    let token = ours(store.claim(&claim("job", "a", MINUTE)).await);
    let short = ours(
        store
            .claim(&claim("short", "a", Duration::from_millis(30)))
            .await,
    );
    until("the expiry", || async {
        let record = store.look(&name("short")).await.unwrap().unwrap();
        record.remaining.is_none()
    })
    .await;
    let mut raw = ground.connect().await;
    raw.run("begin").await;
    let mut check = async |lease: &str, id: &str, token: Fence| {
        let lease = name(lease);
        let checked = raw.check().check_lease(&table, &lease, id, token).await;
        checked.unwrap()
    };
    assert!(check("job", "a", token).await);
    assert!(!check("job", "b", token).await);
    assert!(!check("job", "a", Fence(token.0 + 1)).await);
    assert!(!check("JOB", "a", token).await);
    assert!(!check("none", "a", token).await);
    assert!(!check("short", "a", short).await);
    raw.run("rollback").await;
    store.release(&name("job"), &holder("a")).await.unwrap();
    raw.run("begin").await;
    let lease = name("job");
    let checked = raw.check().check_lease(&table, &lease, "a", token).await;
    assert!(!checked.unwrap());
    raw.run("rollback").await;
}

pub async fn a_row_that_somebody_has_locked_is_skipped_and_no_other(ground: Ground) {
    let store = ground.store().await;
    let mut leases = Vec::new();
    for lease in ["a", "b", "c"] {
        let token = ours(store.claim(&claim(lease, "me", MINUTE)).await);
        leases.push(refresh(lease, "me", token, 2 * MINUTE));
    }
    let table = TableName::new(&*ground.table).unwrap();
    let mut raw = ground.connect().await;
    raw.run("begin").await;
    let checked = raw.check();
    let checked = checked.check_lease(&table, &leases[1].name, "me", leases[1].token);
    assert!(checked.await.unwrap());
    let began = Instant::now();
    let outcomes = store.refresh(&leases).await.unwrap();
    assert!(began.elapsed() < PATIENCE / 2, "it waited for the row");
    let held = Refreshed::Held;
    assert_eq!(outcomes, [held.clone(), Refreshed::Skipped, held.clone()]);
    raw.run("rollback").await;
    let outcomes = store.refresh(&leases).await.unwrap();
    assert_eq!(outcomes, [held.clone(), held.clone(), held]);
}

pub async fn nobody_gets_a_lease_that_a_transaction_has_checked_before_it_ends(ground: Ground) {
    let store = ground.store().await;
    let table = TableName::new(&*ground.table).unwrap();
    let expiration = Duration::from_millis(700);
    let mut raw = ground.connect().await;
    let lease = name("job");
    let token = loop {
        let began = Instant::now();
        let token = ours(store.claim(&claim("job", "a", expiration)).await);
        raw.run("begin").await;
        let checked = raw.check().check_lease(&table, &lease, "a", token).await;
        if checked.unwrap() {
            break token;
        }
        // This machine has been too slow: once more.
        assert!(began.elapsed() > expiration / 2);
        raw.run("rollback").await;
        store.release(&lease, &holder("a")).await.unwrap();
    };
    until("the expiry", || async {
        let record = store.look(&lease).await.unwrap().unwrap();
        record.remaining.is_none()
    })
    .await;
    let leases = [refresh("job", "a", token, MINUTE)];
    let outcomes = store.refresh(&leases).await.unwrap();
    assert!(matches!(outcomes[0], Refreshed::Lost(Some(_))));
    // Waits, and says in the end that nobody can have it.
    let record = busy(store.claim(&claim("job", "b", MINUTE)).await);
    assert_eq!(record.remaining, None);
    raw.run("commit").await;
    ours(store.claim(&claim("job", "b", MINUTE)).await);
}

pub async fn a_claim_that_waited_for_a_row_has_its_whole_time(ground: Ground) {
    let store = ground.store().await;
    let wish = claim("job", "a", MINUTE);
    ours(store.claim(&wish).await);
    store.release(&wish.name, &wish.holder).await.unwrap();
    let time = Duration::from_secs(20);
    // Two ways of locking a row: to read and to change. The second makes the statement look again.
    for (turn, lock) in ["for share", "for update"].into_iter().enumerate() {
        let mut raw = ground.connect().await;
        let lock = match ground.kind {
            Kind::Mariadb if lock == "for share" => "lock in share mode",
            _ => lock,
        };
        raw.run("begin").await;
        let table = &ground.table;
        raw.run(format!("select * from {table} where name = 'job' {lock}"))
            .await;
        let id = format!("waiter {turn}");
        let waiting = {
            let (store, wish) = (Arc::clone(&store), claim("job", &id, time));
            tokio::spawn(async move { store.claim(&wish).await })
        };
        // The wait is what is tested.
        tokio::time::sleep(Duration::from_millis(1_700)).await;
        assert!(!waiting.is_finished());
        let free = Instant::now();
        raw.run("commit").await;
        ours(waiting.await.unwrap());
        let record = store.look(&name("job")).await.unwrap().unwrap();
        let left = record.remaining.unwrap();
        // All of it, but for what has passed since it was free.
        let gone = free.elapsed() + Duration::from_millis(100);
        assert!(left + gone > time, "{left:?} after {gone:?}");
        let released = store.release(&name("job"), &holder(&id)).await;
        released.unwrap();
    }
}

/// A claim that waits at the server for what somebody has locked.
async fn waiting_for_a_row<'a>(
    ground: &Ground,
    store: &'a Arc<dyn LeaseStore>,
    wish: &'a Claim,
) -> StoreFuture<'a, Claimed> {
    // A connection of its own: a transaction may see always the same.
    let mut raw = ground.connect().await;
    let began = Instant::now();
    loop {
        let mut claiming = store.claim(wish);
        tokio::select! {
            biased;
            () = raw.sees_who_waits_for(&ground.table) => {
                if claiming.as_mut().now_or_never().is_none() {
                    return claiming;
                }
            }
            // It waits so long and no longer, and this machine may have been too slow to see it.
            claimed = claiming.as_mut() => drop(busy(claimed)),
        }
        assert!(began.elapsed() < PATIENCE, "it does not wait");
    }
}

pub async fn i12_a_claim_that_is_dropped_while_it_waits_leaves_nothing_held(ground: Ground) {
    let store = ground.store().await;
    let wish = claim("job", "a", MINUTE);
    let token = ours(store.claim(&wish).await);
    store.release(&wish.name, &wish.holder).await.unwrap();
    let mut raw = ground.connect().await;
    raw.run("begin").await;
    let table = &ground.table;
    raw.run(format!(
        "select * from {table} where name = 'job' for update"
    ))
    .await;
    let dropped = claim("job", "dropped", MINUTE);
    drop(waiting_for_a_row(&ground, &store, &dropped).await);
    // What whoever dropped it would do comes before the statement is carried out.
    raw.run("commit").await;
    until("the claim to be carried out and given back", || async {
        let record = store.look(&name("job")).await.unwrap().unwrap();
        record.token > token && record.remaining.is_none()
    })
    .await;
    ours(store.claim(&claim("job", "b", MINUTE)).await);
}

pub async fn i12_a_claim_that_is_dropped_takes_nothing_from_the_same_claim_made_again(
    ground: Ground,
) {
    let store = ground.store().await;
    let wish = claim("job", "me", MINUTE);
    ours(store.claim(&wish).await);
    store.release(&wish.name, &wish.holder).await.unwrap();
    let mut raw = ground.connect().await;
    raw.run("begin").await;
    let table = &ground.table;
    raw.run(format!(
        "select * from {table} where name = 'job' for update"
    ))
    .await;
    for _ in 0..3 {
        let waited = tokio::time::timeout(Duration::from_millis(100), store.claim(&wish)).await;
        assert!(waited.is_err());
    }
    let again = {
        let (store, wish) = (Arc::clone(&store), wish.clone());
        tokio::spawn(async move { store.claim(&wish).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    raw.run("commit").await;
    let token = ours(again.await.unwrap());
    for _ in 0..20 {
        let record = store.look(&name("job")).await.unwrap().unwrap();
        assert_eq!(record.token, token);
        assert!(record.remaining.is_some(), "it was given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn i12_a_store_that_is_closed_gives_back_first_what_a_dropped_claim_brings(
    ground: Ground,
) {
    let store = ground.store().await;
    let wish = claim("job", "a", MINUTE);
    let token = ours(store.claim(&wish).await);
    store.release(&wish.name, &wish.holder).await.unwrap();
    let mut raw = ground.connect().await;
    let table = &ground.table;
    let lock = format!("select * from {table} where name = 'job' for update");
    raw.run("begin").await;
    raw.run(lock).await;
    let dropped = claim("job", "dropped", MINUTE);
    drop(waiting_for_a_row(&ground, &store, &dropped).await);
    let mut closing = store.close();
    assert!(closing.as_mut().now_or_never().is_none());
    raw.run("commit").await;
    closing.await.unwrap();
    let record = ground.bare(false).look(&name("job")).await.unwrap();
    let record = record.unwrap();
    assert!(record.token > token, "it was carried out");
    assert_eq!(record.remaining, None);
}

pub async fn no_isolation_lets_a_check_see_a_lease_that_is_gone(ground: Ground) {
    let store = ground.store().await;
    let table = TableName::new(&*ground.table).unwrap();
    let mut raw = ground.connect().await;
    for level in [
        "read uncommitted",
        "read committed",
        "repeatable read",
        "serializable",
    ] {
        let lease = name(level);
        let token = ours(store.claim(&claim(level, "a", MINUTE)).await);
        raw.run(match ground.kind {
            Kind::Postgres => format!("begin isolation level {level}"),
            _ => format!("set transaction isolation level {level}; begin"),
        })
        .await;
        // Something that the transaction sees as it was. Not the row itself: that would be locked.
        raw.run(format!("select 1 from {table} where name = 'none'"))
            .await;
        store.force_release(&lease).await.unwrap();
        ours(store.claim(&claim(level, "thief", MINUTE)).await);
        let checked = raw.check().check_lease(&table, &lease, "a", token).await;
        assert!(!matches!(checked, Ok(true)), "{level}");
        raw.run("rollback").await;

        // It is nobody else's from the check on.
        let theirs = store.look(&lease).await.unwrap().unwrap().token;
        raw.run(match ground.kind {
            Kind::Postgres => format!("begin isolation level {level}"),
            _ => format!("set transaction isolation level {level}; begin"),
        })
        .await;
        let checked = raw.check().check_lease(&table, &lease, "thief", theirs);
        assert!(checked.await.unwrap(), "{level}");
        let mut taking = store.force_release(&lease);
        let taken = tokio::time::timeout(Duration::from_millis(200), taking.as_mut()).await;
        assert!(taken.is_err(), "{level}: {taken:?}");
        raw.run("commit").await;
        assert!(taking.await.unwrap().is_some());
    }
    if ground.kind == Kind::Postgres {
        let token = ours(store.claim(&claim("job", "a", MINUTE)).await);
        raw.run("begin").await;
        raw.try_run("select 1/0").await.unwrap_err();
        let lease = name("job");
        let checked = raw.check().check_lease(&table, &lease, "a", token).await;
        assert!(checked.is_err(), "the transaction has failed already");
        raw.run("rollback").await;
    }
}

pub async fn while_another_writes_the_file_every_refresh_is_skipped(ground: Ground) {
    let store = ground.store().await;
    let token = ours(store.claim(&claim("job", "a", MINUTE)).await);
    let leases = [refresh("job", "a", token, MINUTE)];
    let mut raw = ground.connect().await;
    raw.run("begin immediate").await;
    let outcomes = store.refresh(&leases).await.unwrap();
    assert_eq!(outcomes, [Refreshed::Skipped]);
    let record = busy(store.claim(&claim("other", "b", MINUTE)).await);
    assert_eq!(record.holder, None);
    raw.run("rollback").await;
    let outcomes = store.refresh(&leases).await.unwrap();
    assert_eq!(outcomes, [Refreshed::Held]);
}
