//! What tells leases apart: the store, the table and the name, and nothing else.

use std::sync::Arc;

use lockkeeper::{
    LeaseError, LeaseStore, Leases, MysqlLeases, PostgresLeases, SqliteLeases, TableName,
    store_from_url,
};

use crate::ground::{Ground, Kind, PATIENCE, Pace, run, soon};

pub fn two_labels(kind: Kind) {
    let ground = Ground::new(kind);
    let (one, two) = (ground.leases(Pace::LONG), ground.leases(Pace::LONG));
    run(async {
        let labelled = |leases: &Leases, label: &str| leases.lease("job").label(label);
        let guard = labelled(&one, "one")
            .acquire_timeout(PATIENCE)
            .await
            .unwrap();
        assert!(guard.holder().id.starts_with("one/"));
        for leases in [&one, &two] {
            let refused = labelled(leases, "two").try_acquire().await.unwrap_err();
            let LeaseError::Busy {
                holder, remaining, ..
            } = refused
            else {
                panic!("{refused:?}");
            };
            assert_eq!(holder.as_ref(), Some(guard.holder()));
            assert!(remaining.is_some_and(|remaining| remaining > Pace::LONG.expiration / 2));
        }
        let other = soon("another lease", two.acquire("other")).await.unwrap();
        assert!(other.is_held() && guard.is_held());
    });
}

pub fn two_tables(kind: Kind) {
    let ground = Ground::new(kind);
    let in_table = |table| Pace::LONG.leases_in(store_at(&ground, table));
    let (one, two, again) = (in_table("one"), in_table("two"), in_table("one"));
    run(async {
        let first = soon("the lease", one.acquire("job")).await.unwrap();
        let second = soon("the lease", two.acquire("job")).await.unwrap();
        assert!(first.is_held() && second.is_held());
        assert_ne!(first.store_id(), second.store_id());
        let refused = soon("the store", again.try_acquire("job")).await;
        assert!(
            matches!(refused, Err(LeaseError::Busy { .. })),
            "{refused:?}"
        );
        for leases in [&one, &two] {
            assert_eq!(soon("the store", leases.list()).await.unwrap().len(), 1);
        }
    });
}

/// The store with another table than the default one; etcd's are prefixes.
fn store_at(ground: &Ground, table: &str) -> Arc<dyn LeaseStore> {
    let url = &ground.url;
    macro_rules! table {
        ($store:ident) => {{
            let builder = $store::builder().url(url);
            let builder = builder.table(TableName::new(table).unwrap());
            Arc::new(builder.build().unwrap())
        }};
    }
    match ground.kind {
        Kind::Lmdb => store_from_url(&format!("{url}?table={table}")).unwrap(),
        Kind::Etcd => store_from_url(&format!("{url}/{table}")).unwrap(),
        Kind::Sqlite => table!(SqliteLeases),
        Kind::Postgres => table!(PostgresLeases),
        Kind::Mariadb => table!(MysqlLeases),
    }
}
