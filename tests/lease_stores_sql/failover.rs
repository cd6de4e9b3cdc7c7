//! A primary that is killed, and a standby that takes over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockkeeper::{Claimed, StoreError};
use sqlx::{Connection, PgConnection, Row};

use crate::ground::{Ground, Kind, MINUTE, claim, run, until};
use crate::servers::postgres::Postgres;

#[test]
fn i10_no_token_is_seen_twice_when_a_synchronous_standby_takes_over() {
    let mut primary = Postgres::start();
    let standby = primary.standby();
    run(async move {
        let first = Ground::at(Kind::Postgres, primary.url());
        let mut raw = first.connect().await;
        raw.run("alter system set synchronous_standby_names = '*'")
            .await;
        raw.run("select pg_reload_conf()").await;
        let mut asking = PgConnection::connect(&primary.url()).await.unwrap();
        loop {
            let states = "select count(*) from pg_stat_replication where sync_state = 'sync'";
            let row = sqlx::query(states).fetch_one(&mut asking).await.unwrap();
            if row.get::<i64, _>(0) == 1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let only_standby = first.bare_at(&standby.url(), true);
        let error = only_standby.prepare().await.unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly(_)), "{error:?}");

        // The standby comes first in the list: it is passed over as long as it only reads.
        let both = format!(
            "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?sslmode=disable",
            standby.port(),
            primary.port()
        );
        let store = first.bare_at(&both, true);
        store.prepare().await.unwrap();
        let id = store.id().await.unwrap();
        let last = Arc::new(AtomicU64::new(0));
        let hand_overs = Arc::new(AtomicU64::new(0));
        let handing_over = {
            let (store, last) = (Arc::clone(&store), Arc::clone(&last));
            let hand_overs = Arc::clone(&hand_overs);
            tokio::spawn(async move {
                for turn in 0_u64.. {
                    let wish = claim("job", &format!("holder {turn}"), MINUTE);
                    // An answer may be lost: then the same claim finds what it got.
                    let token = loop {
                        match store.claim(&wish).await {
                            Ok(Claimed::Ours { token }) => break token.0,
                            Ok(busy) => panic!("{busy:?}"),
                            Err(error) => assert!(error.is_retryable(), "{error:?}"),
                        }
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    };
                    let before = last.swap(token, Ordering::SeqCst);
                    assert!(token > before, "{token} after {before}");
                    while let Err(error) = store.release(&wish.name, &wish.holder).await {
                        assert!(error.is_retryable(), "{error:?}");
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    }
                    hand_overs.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let many = async |more: u64| {
            let goal = hand_overs.load(Ordering::SeqCst) + more;
            until("hand-overs", || async {
                hand_overs.load(Ordering::SeqCst) >= goal || handing_over.is_finished()
            })
            .await;
        };
        many(100).await;
        primary.kill();
        let mut promoting = PgConnection::connect(&standby.url()).await.unwrap();
        let promote = sqlx::query("select pg_promote()");
        let row = promote.fetch_one(&mut promoting).await.unwrap();
        assert!(row.get::<bool, _>(0));
        many(100).await;
        assert!(!handing_over.is_finished(), "{:?}", handing_over.await);
        handing_over.abort();
        let after = first.bare_at(&standby.url(), false);
        assert_eq!(after.id().await.unwrap(), id);
    });
}
