//! Many at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::Claimed;

use crate::ground::{Ground, Kind, MINUTE, PATIENCE, claim, on_stores, run};
use crate::servers::postgres::Postgres;

on_stores! {
    Postgres: postgres, Mariadb: mariadb, Sqlite: sqlite => {
        i09_only_one_of_sixteen_contenders_is_inside,
        as_many_new_names_as_connections_do_not_disturb_each_other,
    }
}

/// Sixteen contenders on four stores; what they do inside tells whether another is there.
pub async fn i09_only_one_of_sixteen_contenders_is_inside(ground: Ground) {
    let inside = Arc::new(AtomicBool::new(false));
    let largest = Arc::new(AtomicU64::new(0));
    let (begun, served) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = ground.store().await;
        for _ in 0..4 {
            let (store, inside) = (Arc::clone(&store), Arc::clone(&inside));
            let (largest, served) = (Arc::clone(&largest), Arc::clone(&served));
            tasks.spawn(async move {
                let mut entered = 0_u32;
                loop {
                    // On a slow machine it takes longer until enough have been served.
                    let enough = served.load(Ordering::Relaxed) > 20;
                    let lasted = begun.elapsed();
                    if enough && lasted > Duration::from_secs(4) || lasted > PATIENCE {
                        return entered;
                    }
                    let id = format!("{:p}-{entered}", &raw const entered);
                    let wish = claim("job", &id, MINUTE);
                    let Claimed::Ours { token } = store.claim(&wish).await.unwrap() else {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        continue;
                    };
                    assert!(!inside.swap(true, Ordering::SeqCst), "two are inside");
                    let before = largest.swap(token.0, Ordering::SeqCst);
                    assert!(token.0 > before, "{token} after {before}");
                    tokio::task::yield_now().await;
                    assert!(inside.swap(false, Ordering::SeqCst));
                    entered += 1;
                    served.fetch_add(1, Ordering::Relaxed);
                    while let Err(error) = store.release(&wish.name, &wish.holder).await {
                        assert!(error.is_retryable(), "{error:?}");
                    }
                }
            });
        }
    }
    let entered: u32 = tasks.join_all().await.into_iter().sum();
    println!("{:?}: {entered} entered", ground.kind);
    assert!(entered > 20, "{entered}");
    assert_eq!(u64::from(entered), largest.load(Ordering::SeqCst));
}

#[test]
fn i09_only_one_is_inside_where_all_transactions_are_serializable() {
    let server = Postgres::start();
    let ground = Ground::at(Kind::Postgres, server.url());
    run(async {
        let level = "default_transaction_isolation = 'serializable'";
        let mut raw = ground.connect().await;
        raw.run(format!("alter database postgres set {level}"))
            .await;
        i09_only_one_of_sixteen_contenders_is_inside(ground).await;
    });
}

pub async fn as_many_new_names_as_connections_do_not_disturb_each_other(ground: Ground) {
    let store = ground.store().await;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..64 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let wish = claim(
                &format!("job {}", index / 2),
                &format!("{index}"),
                10 * MINUTE,
            );
            loop {
                match store.claim(&wish).await {
                    Ok(claimed) => return matches!(claimed, Claimed::Ours { .. }),
                    // SQLite has one writer.
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            }
        });
    }
    let ours = tasks.join_all().await.into_iter().filter(|ours| *ours);
    assert_eq!(ours.count(), 32);
}
