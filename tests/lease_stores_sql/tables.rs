//! The table: made, missing, forbidden, wrong.

use std::sync::Arc;

use lockkeeper::{LeaseStore, PostgresLeases, StoreError, TableName};

use crate::ground::{Ground, Kind, MINUTE, claim, on_stores, ours, run};
use crate::process::{self, Peer};

on_stores! {
    Postgres: postgres, Mariadb: mariadb, Sqlite: sqlite => {
        sixty_make_the_table_at_once,
        a_missing_table_is_told_with_the_statement_that_makes_it,
        a_table_of_something_else_is_refused,
    }
}

on_stores! {
    Postgres: postgres_rights, Mariadb: mariadb_rights => {
        lacking_the_right_to_make_the_table_is_told,
    }
}

async fn sixty_make_the_table_at_once(ground: Ground) {
    let ground = Arc::new(ground);
    let start = Arc::new(tokio::sync::Barrier::new(60));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let (ground, start) = (Arc::clone(&ground), Arc::clone(&start));
        tasks.spawn(async move {
            let store = ground.bare(true);
            // Connected, or else they come one after another.
            let _ = store.look(&crate::ground::name("none")).await;
            start.wait().await;
            let prepared = store.prepare().await;
            store.close().await.unwrap();
            prepared
        });
    }
    for prepared in tasks.join_all().await {
        prepared.unwrap();
    }
    let store = ground.bare(false);
    ours(store.claim(&claim("job", "a", MINUTE)).await);
}

async fn a_missing_table_is_told_with_the_statement_that_makes_it(ground: Ground) {
    let store = ground.bare(false);
    let error = store.prepare().await.unwrap_err();
    assert!(!error.is_retryable());
    let StoreError::TableMissing { table, ddl } = error else {
        panic!("{error:?}");
    };
    assert_eq!(table, ground.table);
    let claimed = store.claim(&claim("job", "a", MINUTE)).await;
    assert!(matches!(claimed, Err(StoreError::Failed(_))), "{claimed:?}");
    ground.connect().await.run(ddl).await;
    store.prepare().await.unwrap();
    ours(store.claim(&claim("job", "a", MINUTE)).await);
}

async fn a_table_of_something_else_is_refused(ground: Ground) {
    let store = ground.bare(true);
    let mut raw = ground.connect().await;
    let table = &ground.table;
    raw.run(format!(
        "create table {table} (name varchar(256) primary key)"
    ))
    .await;
    let why = |prepared: Result<(), StoreError>| match prepared {
        Err(StoreError::WrongTable { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    let said = why(store.prepare().await);
    assert_eq!(said, "it has no column locked");
    raw.run(format!("drop table {table}")).await;
    store.prepare().await.unwrap();
    let more = format!("alter table {table} add column owner varchar(9) not null default 'x'");
    raw.run(more).await;
    store.prepare().await.unwrap();
    if ground.kind == Kind::Postgres {
        let retype = "alter column expires_at type timestamp without time zone";
        raw.run(format!("alter table {table} {retype}")).await;
        assert!(why(store.prepare().await).contains("expires_at is of the type timestamp"));
    }
    if ground.kind == Kind::Mariadb {
        let retype = "modify expires_at timestamp not null";
        raw.run(format!("alter table {table} {retype}")).await;
        assert!(why(store.prepare().await).contains("timestamp(0)"));
        let retype = "modify expires_at timestamp(6) not null default current_timestamp(6)";
        raw.run(format!("alter table {table} {retype}")).await;
        raw.run(format!("alter table {table} drop primary key"))
            .await;
        assert!(why(store.prepare().await).contains("the same name"));
    }
}

async fn lacking_the_right_to_make_the_table_is_told(ground: Ground) {
    let mut raw = ground.connect().await;
    let (user, url) = match ground.kind {
        Kind::Postgres => (
            "create role poor login",
            ground.url.replace("postgres@", "poor@"),
        ),
        _ => (
            "create user poor identified by 'secret'; grant usage on *.* to poor; \
             create database poor; grant select, insert, update on poor.* to poor",
            ground.url.replace("app:", "poor:").replace("/app", "/poor"),
        ),
    };
    raw.run(user).await;
    let store = ground.bare_at(&url, true);
    let error = store.prepare().await.unwrap_err();
    assert!(!error.is_retryable());
    let StoreError::MayNotCreate { ddl, .. } = error else {
        panic!("{error:?}");
    };
    // Somebody who may makes it.
    match ground.kind {
        Kind::Postgres => {
            raw.run(ddl).await;
            let grant = format!("grant select, insert, update on {} to poor", ground.table);
            raw.run(grant).await;
        }
        _ => {
            raw.run(format!("use poor; {ddl}")).await;
        }
    }
    store.prepare().await.unwrap();
    ours(store.claim(&claim("job", "a", MINUTE)).await);
}

#[test]
fn a_table_may_be_in_a_schema_and_have_any_name_that_is_allowed() {
    run(async {
        let ground = Ground::shared(Kind::Postgres);
        let mut raw = ground.connect().await;
        raw.run("create schema \"Sel\"").await;
        let builder = PostgresLeases::builder().url(&ground.url);
        let store = builder.table(TableName::new("Sel.Order$1").unwrap());
        let store = store.build().unwrap();
        assert!(store.ddl().contains("\"Sel\".\"Order$1\""));
        store.prepare().await.unwrap();
        ours(store.claim(&claim("job", "a", MINUTE)).await);
        assert!(store.id().await.unwrap().as_str().ends_with("Sel.Order$1"));
        let counted = raw.run("select 1 from \"Sel\".\"Order$1\"").await;
        assert_eq!(counted, 1);
        let builder = PostgresLeases::builder().url(&ground.url);
        let nowhere = builder.table(TableName::new("nowhere.t").unwrap());
        let error = nowhere.build().unwrap().prepare().await.unwrap_err();
        assert!(matches!(error, StoreError::BadConfig(_)), "{error:?}");
    });
}

on_stores! {
    Postgres: postgres_processes, Mariadb: mariadb_processes, Sqlite: sqlite_processes => {
        sixty_processes_make_the_table_at_once,
    }
}

async fn sixty_processes_make_the_table_at_once(ground: Ground) {
    let kind = format!("{:?}", ground.kind);
    let told = [&*kind, &ground.url, &ground.table];
    let start = || Peer::start("tables::one_process_of_many_makes_the_table", &told);
    let mut peers: Vec<Peer> = (0..60).map(|_| start()).collect();
    // All begin when the last one is there.
    for peer in &mut peers {
        peer.tell("go");
    }
    for peer in &mut peers {
        assert_eq!(peer.answer(), "claimed");
    }
    let store = ground.bare(false);
    store.prepare().await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 1);
}

/// Does nothing unless it was started by the test above.
#[test]
fn one_process_of_many_makes_the_table() {
    let Some(told) = process::told() else {
        return;
    };
    let kind = match &*told[0] {
        "Postgres" => Kind::Postgres,
        "Mariadb" => Kind::Mariadb,
        _ => Kind::Sqlite,
    };
    let mut ground = Ground::at(kind, told[1].clone());
    ground.table = told[2].clone();
    process::obey(|_| {
        run(async {
            let store = ground.store().await;
            let wish = claim("job", &format!("{}", std::process::id()), MINUTE);
            while let Err(error) = store.claim(&wish).await {
                assert!(error.is_retryable(), "{error:?}");
            }
        });
        "claimed".into()
    })
}

on_stores! {
    Postgres: postgres_letters, Mariadb: mariadb_letters => {
        a_name_that_the_table_cannot_hold_is_not_tried_for_ever,
    }
}

async fn a_name_that_the_table_cannot_hold_is_not_tried_for_ever(mut ground: Ground) {
    let mut raw = ground.connect().await;
    match ground.kind {
        Kind::Postgres => {
            raw.run("create database latin encoding 'LATIN1' template template0")
                .await;
            ground.url = ground.url.replace("/postgres?", "/latin?");
        }
        _ => {
            let ddl = ground.ddl();
            let (before, after) = ddl.split_once("character set utf8mb4 ").unwrap();
            let after = after.split_once("not null").unwrap().1;
            raw.run(format!("{before} character set latin1 not null{after}"))
                .await;
        }
    }
    let store = ground.store().await;
    ours(store.claim(&claim("ä", "a", MINUTE)).await);
    let error = store.claim(&claim("夜", "a", MINUTE)).await.unwrap_err();
    assert!(matches!(error, StoreError::BadConfig(_)), "{error:?}");
}

#[test]
fn a_table_that_takes_several_names_for_one_is_refused() {
    run(async {
        let ground = Ground::shared(Kind::Postgres);
        let mut raw = ground.connect().await;
        raw.run("create collation any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
            .await;
        let collated = "name varchar(256) collate any_case primary key";
        let ddl = ground.ddl();
        let made = ddl.replace("name varchar(256) primary key", collated);
        assert_ne!(made, ddl);
        raw.run(made).await;
        let error = ground.bare(true).prepare().await.unwrap_err();
        let StoreError::WrongTable { why, .. } = error else {
            panic!("{error:?}");
        };
        assert!(why.contains("any_case"), "{why}");
    });
}

#[test]
fn i10_a_table_that_is_empty_after_a_crash_is_refused() {
    run(async {
        let ground = Ground::shared(Kind::Postgres);
        let mut raw = ground.connect().await;
        let made = ground
            .ddl()
            .replace("create table", "create unlogged table");
        raw.run(made).await;
        let error = ground.bare(true).prepare().await.unwrap_err();
        assert!(matches!(error, StoreError::WrongTable { .. }), "{error:?}");
        raw.run(format!("alter table {} set logged", ground.table))
            .await;
        ground.bare(true).prepare().await.unwrap();
    });
}

#[test]
fn a_file_that_may_only_be_read_is_denied() {
    run(async {
        let ground = Ground::shared(Kind::Sqlite);
        let mut raw = ground.connect().await;
        raw.run("create table app (x)").await;
        let reads = format!("{}?mode=ro", ground.url);
        let reader = ground.bare_at(&reads, true);
        let error = reader.prepare().await.unwrap_err();
        assert!(!error.is_retryable());
        let StoreError::MayNotCreate { ddl, .. } = error else {
            panic!("{error:?}");
        };
        raw.run(ddl).await;
        reader.prepare().await.unwrap();
        assert!(reader.list().await.unwrap().is_empty());
        let error = reader.claim(&claim("job", "a", MINUTE)).await.unwrap_err();
        assert!(matches!(error, StoreError::Denied(_)), "{error:?}");
        assert!(!error.is_retryable());
    });
}
