//! A table whose key takes several names for one, and one with triggers.

use lockkeeper::{Fence, Refreshed, Released, StoreError};

use crate::ground::{Ground, Kind, MINUTE, claim, holder, name, ours, refresh, run};
use crate::servers::mariadb::Mariadb;

#[test]
fn names_that_the_key_takes_for_one_are_never_treated_as_one() {
    run(async {
        let ground = Ground::shared(Kind::Mariadb);
        let mut raw = ground.connect().await;
        // As dbmutex leaves it to the server.
        let ddl = ground
            .ddl()
            .replace("/*M! collate utf8mb4_nopad_bin */", "");
        raw.run(ddl).await;
        let store = ground.store().await;
        let token = ours(store.claim(&claim("A", "big", MINUTE)).await);
        for twin in ["a", "Ä", "A "] {
            let claimed = store.claim(&claim(twin, "small", MINUTE)).await;
            let Err(StoreError::WrongTable { why, .. }) = claimed else {
                panic!("{claimed:?}");
            };
            assert!(why.contains(&format!("{twin:?}")), "{why}");
            assert_eq!(store.look(&name(twin)).await.unwrap(), None);
            assert_eq!(store.force_release(&name(twin)).await.unwrap(), None);
            let released = store.release(&name(twin), &holder("big")).await.unwrap();
            assert_eq!(released, Released::WasLost);
            let leases = [refresh(twin, "big", token, MINUTE)];
            let outcomes = store.refresh(&leases).await.unwrap();
            assert_eq!(outcomes, [Refreshed::Lost(None)]);
        }
        let leases = [refresh("A", "big", token, MINUTE)];
        let outcomes = store.refresh(&leases).await.unwrap();
        assert_eq!(outcomes, [Refreshed::Held]);
    });
}

/// The server keeps the number that brings the token for itself when there is a trigger, or says that of the trigger's own row.
#[test]
fn i10_triggers_on_the_table_change_no_token() {
    run(async {
        for when in ["before", "after"] {
            let ground = Ground::shared(Kind::Mariadb);
            let store = ground.store().await;
            let (mut raw, table) = (ground.connect().await, &ground.table);
            raw.run(format!(
                "create table {table}_audit (id bigint auto_increment primary key) auto_increment = 1000"
            ))
            .await;
            raw.run(format!(
                "create trigger {table}_trigger {when} update on {table} for each row insert into {table}_audit values ()"
            ))
            .await;
            assert_eq!(
                ours(store.claim(&claim("job", "a", MINUTE)).await),
                Fence(1)
            );
            let next = claim("job", "b", MINUTE);
            let (released, claimed) = store.hand_over(&holder("a"), &next).await.unwrap();
            assert_eq!(released, Released::WasOurs);
            assert_eq!(ours(Ok(claimed)), Fence(2));
            let leases = [refresh("job", "b", Fence(2), MINUTE)];
            assert_eq!(store.refresh(&leases).await.unwrap(), [Refreshed::Held]);
            let released = store.release(&name("job"), &holder("b")).await.unwrap();
            assert_eq!(released, Released::WasOurs);
            assert_eq!(
                ours(store.claim(&claim("job", "c", MINUTE)).await),
                Fence(3)
            );
        }
    });
}

/// Under it a plain `select` inside of a transaction waits for the locks of others.
#[test]
fn a_locked_lease_takes_no_other_with_it_where_all_transactions_are_serializable() {
    let server = Mariadb::start();
    let ground = Ground::at(Kind::Mariadb, server.url());
    run(async {
        let mut raw = ground.connect().await;
        raw.run("set global transaction isolation level serializable")
            .await;
        let store = ground.store().await;
        let mut leases = Vec::new();
        for lease in ["a", "job", "z"] {
            let token = ours(store.claim(&claim(lease, "me", MINUTE)).await);
            leases.push(refresh(lease, "me", token, MINUTE));
        }
        let lock = format!(
            "select 1 from {} where name = 'job' for update",
            ground.table
        );
        raw.run(format!("begin; {lock}")).await;
        let outcomes = store.refresh(&leases).await.unwrap();
        assert_eq!(
            outcomes,
            [Refreshed::Held, Refreshed::Skipped, Refreshed::Held]
        );
        raw.run("rollback").await;
    });
}

/// Else whoever remembers the tokens of the one would take the smaller ones of somebody who was paused for those of another.
#[test]
fn i10_a_server_that_takes_over_is_the_same_store_to_those_who_remember_tokens() {
    let mut server = Mariadb::start();
    let mut ground = Ground::at(Kind::Mariadb, server.url());
    run(async {
        let before = ground.store().await;
        let id = before.id().await.unwrap();
        let token = ours(before.claim(&claim("job", "a", MINUTE)).await);
        before.release(&name("job"), &holder("a")).await.unwrap();
        server.stop();
        server.start_elsewhere();
        (ground.url, ground.direct) = (server.url(), server.url());
        let after = ground.store().await;
        assert!(ours(after.claim(&claim("job", "b", MINUTE)).await) > token);
        assert_eq!(after.id().await.unwrap(), id);
    });
}
