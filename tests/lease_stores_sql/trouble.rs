//! Servers that go away, and servers that only read.

use std::sync::Arc;

use lockkeeper::{LeaseStore, Refreshed, StoreError};

use crate::ground::{Ground, Kind, MINUTE, busy, claim, holder, name, ours, refresh, run, until};
use crate::servers::mariadb::Mariadb;
use crate::servers::postgres::Postgres;

/// A server that may be killed.
trait Server {
    fn kill(&mut self);
    fn start_again(&mut self);
}

impl Server for Postgres {
    fn kill(&mut self) {
        self.kill();
    }

    fn start_again(&mut self) {
        self.start_again();
    }
}

impl Server for Mariadb {
    fn kill(&mut self) {
        self.kill();
    }

    fn start_again(&mut self) {
        self.start_again();
    }
}

#[test]
fn postgres_that_was_killed_and_started_again_is_used_again() {
    let server = Postgres::start();
    let ground = Ground::at(Kind::Postgres, server.url());
    run(killed_and_started_again(ground, server));
}

#[test]
fn mariadb_that_was_killed_and_started_again_is_used_again() {
    let server = Mariadb::start();
    let ground = Ground::at(Kind::Mariadb, server.url());
    run(killed_and_started_again(ground, server));
}

async fn killed_and_started_again(ground: Ground, mut server: impl Server) {
    let store = ground.store().await;
    let token = ours(store.claim(&claim("job", "a", 5 * MINUTE)).await);
    let leases = [refresh("job", "a", token, 5 * MINUTE)];
    // Several connections grow useless.
    let all = (0..8).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.look(&name("job")).await.unwrap() })
    });
    for looked in all.collect::<Vec<_>>() {
        assert!(looked.await.unwrap().is_some());
    }
    assert_eq!(store.refresh(&leases).await.unwrap(), [Refreshed::Held]);

    server.kill();
    let error = store.claim(&claim("job", "b", MINUTE)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    let error = store.refresh(&leases).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    let released = store.release(&name("other"), &holder("a")).await;
    assert!(matches!(released, Err(StoreError::Unreachable(_))));

    server.start_again();
    assert_eq!(store.refresh(&leases).await.unwrap(), [Refreshed::Held]);
    let record = busy(store.claim(&claim("job", "b", MINUTE)).await);
    assert_eq!(record.token, token);
    store.prepare().await.unwrap();

    // Killed and back before anybody noticed: what is idle is useless, and nobody is told.
    server.kill();
    server.start_again();
    assert_eq!(store.refresh(&leases).await.unwrap(), [Refreshed::Held]);
    let record = busy(store.claim(&claim("job", "b", MINUTE)).await);
    assert_eq!(record.token, token);
    store.release(&name("job"), &holder("a")).await.unwrap();
    let next = ours(store.claim(&claim("job", "b", MINUTE)).await);
    assert!(next > token);
}

#[test]
fn postgres_that_only_reads_is_told_and_used_again_when_it_writes() {
    let server = Postgres::start();
    let ground = Ground::at(Kind::Postgres, server.url());
    run(async {
        let store = ground.store().await;
        ours(store.claim(&claim("job", "a", MINUTE)).await);
        let mut raw = ground.connect().await;
        raw.run("alter system set default_transaction_read_only = on")
            .await;
        raw.run("select pg_reload_conf()").await;
        // On connections that were there before, and on new ones.
        for store in [Arc::clone(&store), ground.bare(true)] {
            until("the server to read only", || async {
                let claimed = store.claim(&claim("other", "b", MINUTE)).await;
                matches!(claimed, Err(StoreError::ReadOnly(_)))
            })
            .await;
        }
        raw.run("set default_transaction_read_only = off").await;
        raw.run("alter system reset default_transaction_read_only")
            .await;
        raw.run("select pg_reload_conf()").await;
        until("the server to write", || async {
            store.claim(&claim("job", "a", MINUTE)).await.is_ok()
        })
        .await;
    });
}

#[test]
fn mariadb_that_only_reads_is_told_and_used_again_when_it_writes() {
    let server = Mariadb::start();
    let ground = Ground::at(Kind::Mariadb, server.url());
    run(async {
        // Some users may write all the same.
        let mut raw = ground.connect().await;
        ground.store().await;
        raw.run("create user poor identified by 'secret'; grant select, insert, update on app.* to poor")
            .await;
        let poor = ground.url.replace("app:", "poor:");
        let connected = ground.bare_at(&poor, false);
        ours(connected.claim(&claim("job", "a", MINUTE)).await);
        raw.run("set global read_only = 1").await;
        let fresh = ground.bare(false);
        for store in [&connected, &fresh] {
            let claimed = store.claim(&claim("job", "a", MINUTE)).await;
            assert!(
                matches!(claimed, Err(StoreError::ReadOnly(_))),
                "{claimed:?}"
            );
        }
        raw.run("set global read_only = 0").await;
        for store in [&connected, &fresh] {
            ours(store.claim(&claim("job", "a", MINUTE)).await);
        }
    });
}

/// As when another server takes over, and those who were connected have the right to write all the same.
#[test]
fn i09_mariadb_that_was_told_to_read_only_grants_and_refreshes_nothing_on_old_connections() {
    let server = Mariadb::start();
    let ground = Ground::at(Kind::Mariadb, server.url());
    run(async {
        let store = ground.store().await;
        let token = ours(store.claim(&claim("job", "a", MINUTE)).await);
        let leases = [refresh("job", "a", token, MINUTE)];
        assert_eq!(store.refresh(&leases).await.unwrap(), [Refreshed::Held]);
        let mut raw = ground.connect().await;
        let mut empty = Ground::at(Kind::Mariadb, server.url());
        empty.table = format!("{}_empty", ground.table);
        let empty = empty.store().await;
        assert!(empty.list().await.unwrap().is_empty());
        raw.run("set global read_only = 1").await;
        let wishes = [claim("job", "b", MINUTE), claim("new", "b", MINUTE)];
        let handed = store.hand_over(&holder("a"), &wishes[0]).await.err();
        let errors = [
            store.claim(&wishes[0]).await.err(),
            store.claim(&wishes[1]).await.err(),
            handed,
            store.refresh(&leases).await.err(),
            store.release(&name("job"), &holder("a")).await.err(),
            store.force_release(&name("job")).await.err(),
            // What is not there may be on the server that is written to.
            store
                .refresh(&[refresh("none", "a", token, MINUTE)])
                .await
                .err(),
            store.look(&name("none")).await.err(),
            store.force_release(&name("none")).await.err(),
            empty.list().await.err(),
        ];
        for error in errors {
            assert!(matches!(error, Some(StoreError::ReadOnly(_))), "{error:?}");
        }
        raw.run("set global read_only = 0").await;
        assert_eq!(store.refresh(&leases).await.unwrap(), [Refreshed::Held]);
        assert_eq!(store.list().await.unwrap().len(), 1, "nothing was written");
        let released = store.release(&name("job"), &holder("a")).await.unwrap();
        assert_eq!(released, lockkeeper::Released::WasOurs);
        assert_eq!(
            ours(store.claim(&claim("job", "b", MINUTE)).await).0,
            token.0 + 1
        );
    });
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_connected() {
    use lockkeeper::{MysqlLeases, PostgresLeases, SqliteLeases, TableName};
    let wrong = |error: Option<StoreError>| matches!(error, Some(StoreError::BadConfig(_)));
    assert!(wrong(PostgresLeases::from_url("no url").err()));
    assert!(wrong(PostgresLeases::builder().build().err()));
    assert!(wrong(MysqlLeases::from_url("mysql://u@127.0.0.1").err()));
    let schema = TableName::new("app.leases").unwrap();
    let builder = MysqlLeases::builder().url("mysql://u@127.0.0.1");
    assert!(builder.table(schema.clone()).build().is_ok());
    assert!(wrong(SqliteLeases::from_url("sqlite::memory:").err()));
    let builder = SqliteLeases::builder().url("sqlite://x.db");
    assert!(wrong(builder.table(schema).build().err()));
    let builder = PostgresLeases::builder().url("postgres://u@127.0.0.1/d");
    assert!(wrong(builder.clone().connections(0).build().err()));
    let never = std::time::Duration::ZERO;
    assert!(wrong(builder.connect_timeout(never).build().err()));
}

#[test]
fn a_store_from_a_pool_works_while_the_pool_is_exhausted() {
    run(async {
        let ground = Ground::shared(Kind::Postgres);
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1);
        let pool = pool.connect(&ground.url).await.unwrap();
        let _only = pool.acquire().await.unwrap();
        let builder = lockkeeper::PostgresLeases::builder().pool(&pool);
        let table = lockkeeper::TableName::new(&*ground.table).unwrap();
        let store = builder.table(table).build().unwrap();
        store.prepare().await.unwrap();
        ours(store.claim(&claim("job", "a", MINUTE)).await);
    });
}

#[test]
fn sqlite_answers_a_claim_also_where_nobody_can_note_that_he_waits() {
    run(busy_without_notes(Ground::shared(Kind::Sqlite)));
}

#[test]
fn mariadb_answers_a_claim_also_where_nobody_can_note_that_he_waits() {
    run(busy_without_notes(Ground::shared(Kind::Mariadb)));
}

/// The note is a courtesy: the claim is answered all the same, and nothing is wrong with what comes after it.
async fn busy_without_notes(ground: Ground) {
    let store = ground.store().await;
    let table = &ground.table;
    let refuse = match ground.kind {
        Kind::Sqlite => "select raise(abort, 'no notes'); end",
        _ => "if new.updated_at < new.locked_at then signal sqlstate '45000'; end if; end",
    };
    let when = match ground.kind {
        Kind::Sqlite => "for each row when new.updated_at < new.locked_at",
        _ => "for each row",
    };
    let mut raw = ground.connect().await;
    raw.run(format!(
        "create trigger {table}_notes before update on {table} {when} begin {refuse}"
    ))
    .await;
    let token = ours(store.claim(&claim("job", "a", MINUTE)).await);
    for _ in 0..3 {
        let record = busy(store.claim(&claim("job", "b", MINUTE)).await);
        assert_eq!(record.token, token);
    }
    let leases = [refresh("job", "a", token, MINUTE)];
    assert_eq!(store.refresh(&leases).await.unwrap(), [Refreshed::Held]);
    let released = store.release(&name("job"), &holder("a")).await.unwrap();
    assert_eq!(released, lockkeeper::Released::WasOurs);
    assert!(ours(store.claim(&claim("job", "b", MINUTE)).await) > token);
}
