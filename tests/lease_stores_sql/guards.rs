//! Transactions of the application under a lease that a guard holds.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use lockkeeper::{
    CheckError, Claimed, ErrorClass, Fence, LeaseConfig, LeaseError, LeaseGuard, LeaseStanding,
    Leases, LmdbLeases, Released,
};
use sqlx::AssertSqlSafe;

use crate::ground::{Ground, Kind, MINUTE, claim, holder, name, on_stores, ours, run, until};

on_stores! {
    Postgres: postgres, Mariadb: mariadb, Sqlite: sqlite => {
        a_transaction_fails_its_check_once_the_lease_of_the_guard_is_gone,
    }
}

on_stores! {
    Postgres: postgres_txn, Mariadb: mariadb_txn, Sqlite: sqlite_txn => {
        i09_nothing_of_a_transaction_is_committed_without_the_lease_that_it_checked,
    }
}

on_stores! {
    Postgres: postgres_rows, Mariadb: mariadb_rows => {
        a_checked_lease_is_nobody_elses_until_the_commit_and_takes_no_other_with_it,
        releases_that_a_transaction_keeps_waiting_keep_no_refresh_waiting,
    }
}

const REFRESH: Duration = Duration::from_millis(300);

async fn leases(ground: &Ground) -> Leases {
    let mut config = LeaseConfig::default();
    config.refresh = REFRESH;
    config.expiration = Duration::from_secs(4);
    config.poll = Duration::from_millis(100);
    config.max_clock_skew = Duration::from_millis(100);
    Leases::start_shared(ground.store().await, config).unwrap()
}

pub async fn a_transaction_fails_its_check_once_the_lease_of_the_guard_is_gone(ground: Ground) {
    // No refresh tells it meanwhile.
    let mut config = LeaseConfig::default();
    config.refresh = MINUTE;
    let leases = Leases::start_shared(ground.store().await, config).unwrap();
    let guard = leases.acquire("job").await.unwrap();
    let mut raw = ground.connect().await;
    let begin = match ground.kind {
        Kind::Sqlite => "begin immediate",
        Kind::Postgres | Kind::Mariadb => "begin",
    };
    raw.run(begin).await;
    guard.check(raw.check()).await.unwrap();
    raw.run("commit").await;

    // Somebody else's doing: this process does not know.
    let other = ground.store().await;
    assert!(other.force_release(&name("job")).await.unwrap().is_some());
    ours(other.claim(&claim("job", "thief", MINUTE)).await);
    assert!(guard.is_held());
    raw.run(begin).await;
    let error = guard.check(raw.check()).await.unwrap_err();
    raw.run("rollback").await;
    assert!(matches!(&error, CheckError::Lost { reason: None, .. }));
    assert_eq!(error.class(), ErrorClass::LeaseLost);

    // What this process knows to be gone is not asked for.
    let guard = leases.acquire("another").await.unwrap();
    leases.force_release("another").await.unwrap();
    let error = guard.check(raw.check()).await.unwrap_err();
    assert!(matches!(
        error,
        CheckError::Lost {
            reason: Some(_),
            ..
        }
    ));

    // A database without the table cannot say anything.
    let guard = leases.acquire("third").await.unwrap();
    raw.run(format!("drop table {}", ground.table)).await;
    let error = guard.check(raw.check()).await.unwrap_err();
    assert!(matches!(error, CheckError::Sql(_)), "{error:?}");
}

/// When another process takes the lease away from the holder whose transaction it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TakenAway {
    Never,
    BeforeTheCheck,
    AfterTheCheck,
}

/// As an application has it: a transaction of its pool, begun as sqlx begins it, on the same database.
pub async fn i09_nothing_of_a_transaction_is_committed_without_the_lease_that_it_checked(
    ground: Ground,
) {
    let other = ground.store().await;
    let mut raw = ground.connect().await;
    let written = format!("written_{}", ground.table);
    let table = format!("create table {written} (token bigint)");
    raw.run(table).await;
    let insert = |token: Fence| AssertSqlSafe(format!("insert into {written} values ({token})"));
    let mut config = LeaseConfig::default();
    config.refresh = MINUTE;
    config.poll = Duration::from_millis(20);
    let leases = Leases::start_shared(ground.store().await, config).unwrap();

    // What is committed is committed under the lease.
    macro_rules! transaction {
        ($pool:ident, $taken:expr, $writes_first:expr) => {{
            let guard = leases.acquire("job").await.unwrap();
            let mut txn = $pool.begin().await.unwrap();
            let mut thief = None;
            // Only once the transaction has ended, where it keeps others out.
            let keeps_out = match ground.kind {
                Kind::Sqlite => $writes_first,
                Kind::Postgres | Kind::Mariadb => $taken == TakenAway::AfterTheCheck,
            };
            let mut take_away = async || {
                let other = Arc::clone(&other);
                let taking = tokio::spawn(async move {
                    while !matches!(other.force_release(&name("job")).await, Ok(Some(_))) {}
                    ours(other.claim(&claim("job", "thief", MINUTE)).await)
                });
                match keeps_out {
                    true => tokio::time::sleep(Duration::from_millis(50)).await,
                    false => until("the theft", || async { taking.is_finished() }).await,
                }
                assert_eq!(taking.is_finished(), !keeps_out);
                thief = Some(taking);
            };
            let committed = async {
                if $writes_first {
                    let insert = sqlx::query(insert(guard.token()));
                    insert.execute(&mut *txn).await?;
                }
                if $taken == TakenAway::BeforeTheCheck {
                    take_away().await;
                }
                guard.check(&mut txn).await?;
                if $taken == TakenAway::AfterTheCheck {
                    take_away().await;
                }
                if !$writes_first {
                    let insert = sqlx::query(insert(guard.token()));
                    insert.execute(&mut *txn).await?;
                }
                txn.commit().await?;
                Ok::<_, Box<dyn std::error::Error>>(())
            };
            let committed = committed.await;
            if let Some(thief) = thief {
                assert!(thief.await.unwrap() > guard.token());
                let released = other.release(&name("job"), &holder("thief")).await;
                assert_eq!(released.unwrap(), Released::WasOurs);
            }
            let token = guard.token();
            let rows = format!("select * from {written} where token = {token}");
            assert_eq!(raw.count(rows).await, usize::from(committed.is_ok()));
            let is_kept = $taken == TakenAway::Never || keeps_out;
            let case = ($taken, $writes_first);
            assert_eq!(committed.is_ok(), is_kept, "{case:?}: {committed:?}");
        }};
    }
    macro_rules! transactions {
        ($pool:expr) => {{
            let pool = $pool;
            for writes_first in [false, true] {
                transaction!(pool, TakenAway::Never, writes_first);
                transaction!(pool, TakenAway::BeforeTheCheck, writes_first);
                transaction!(pool, TakenAway::AfterTheCheck, writes_first);
            }
        }};
    }
    match ground.kind {
        Kind::Postgres => transactions!(sqlx::PgPool::connect(&ground.direct).await.unwrap()),
        Kind::Mariadb => transactions!(sqlx::MySqlPool::connect(&ground.direct).await.unwrap()),
        Kind::Sqlite => transactions!(sqlx::SqlitePool::connect(&ground.direct).await.unwrap()),
    }
}

pub async fn a_checked_lease_is_nobody_elses_until_the_commit_and_takes_no_other_with_it(
    ground: Ground,
) {
    let leases = leases(&ground).await;
    let others = [
        leases.acquire("a").await.unwrap(),
        leases.acquire("z").await.unwrap(),
    ];
    let job = leases.acquire("job").await.unwrap();
    let mut raw = ground.connect().await;
    raw.run("begin").await;
    job.check(raw.check()).await.unwrap();
    // Three refreshes cannot have it.
    refreshed(&others[1], 3).await;
    for guard in others.iter().chain([&job]) {
        assert_ne!(
            guard.standing(),
            LeaseStanding::Lost(lockkeeper::LostReason::Expired)
        );
        assert!(guard.is_held(), "{guard:?}");
    }
    let before = job.remaining();
    for other in &others {
        assert!(other.remaining() > before, "{other:?} goes on");
    }
    raw.run("commit").await;
    until("its refresh", || async { job.remaining() > before }).await;

    raw.run("begin").await;
    job.check(raw.check()).await.unwrap();
    let store = ground.store().await;
    until("its expiry", || async {
        let record = store.look(&name("job")).await.unwrap().unwrap();
        record.remaining.is_none()
    })
    .await;
    let thief = {
        let store = Arc::clone(&store);
        let wish = claim("job", "thief", MINUTE);
        tokio::spawn(async move {
            loop {
                if let Claimed::Ours { token } = store.claim(&wish).await.unwrap() {
                    return token;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    refreshed(&others[1], 2).await;
    assert!(!thief.is_finished(), "the transaction has not ended");
    for other in &others {
        assert!(other.is_held(), "{other:?}");
    }
    raw.run("commit").await;
    assert!(thief.await.unwrap() > job.token());
    raw.run("begin").await;
    assert!(job.check(raw.check()).await.is_err());
    raw.run("rollback").await;
}

pub async fn releases_that_a_transaction_keeps_waiting_keep_no_refresh_waiting(ground: Ground) {
    let leases = leases(&ground).await;
    let other = leases.acquire("other").await.unwrap();
    let mut raw = ground.connect().await;
    raw.run("begin").await;
    for n in 0..6 {
        let job = leases.acquire(format!("job {n}")).await.unwrap();
        job.check(raw.check()).await.unwrap();
        // Its release waits for the transaction.
    }
    // For longer than the expiration.
    refreshed(&other, 15).await;
    assert!(other.is_held());
    raw.run("commit").await;
    let store = ground.store().await;
    until("they are given back", || async {
        let held = store.list().await.unwrap();
        held.iter().filter(|held| held.remaining.is_some()).count() == 1
    })
    .await;
}

/// Waits until a lease has been refreshed so many times more.
async fn refreshed(guard: &LeaseGuard, times: u32) {
    let (last, seen) = (Cell::new(guard.remaining()), Cell::new(0));
    until("refreshes", || async {
        let now = guard.remaining();
        seen.set(seen.get() + u32::from(now > last.replace(now)));
        seen.get() >= times
    })
    .await;
}

#[test]
fn a_lease_in_no_table_cannot_be_checked_by_a_transaction() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = LmdbLeases::open(folder.path()).unwrap();
        let leases = Leases::start(store, LeaseConfig::default()).unwrap();
        let guard = leases.acquire("job").await.unwrap();
        let mut raw = Ground::shared(Kind::Sqlite).connect().await;
        let error = guard.check(raw.check()).await.unwrap_err();
        assert!(matches!(error, CheckError::NoTable { .. }), "{error:?}");
        let busy = leases.try_acquire("job").await.unwrap_err();
        assert!(matches!(busy, LeaseError::Busy { .. }));
    });
}
