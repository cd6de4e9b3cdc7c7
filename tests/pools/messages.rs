//! The same by message, which is the front door of pools.

use std::time::Duration;

use lockkeeper::{
    DrainPool, ListPools, PausePool, PoolError, PoolState, PoolStatsQuery, ResumePool, ScalePool,
    StopPool,
};

use crate::support::{LONG, block_on, keeper, running, until};

#[test]
fn pools_can_be_looked_up_changed_and_ended_by_message() {
    let (_folder, keeper) = keeper();
    let [import, mail] = ["import", "mail"].map(|name| {
        let pool = keeper.pool(name).workers(2).start(|worker| async move {
            worker.stopped().await;
            Ok(())
        });
        pool.unwrap()
    });
    until("all run", || running(&import) + running(&mail) == 4);
    block_on(async {
        let names: Vec<_> = keeper
            .send(ListPools)
            .await
            .into_iter()
            .map(|stats| stats.name)
            .collect();
        assert_eq!(*names, ["import".into(), "mail".into()]);
        let scale = ScalePool {
            pool: "import".into(),
            workers: 3,
        };
        keeper.send(scale).await.unwrap();
        assert_eq!(import.stats().target, 3);
        keeper.send(PausePool("import".into())).await.unwrap();
        let stats = keeper.send(PoolStatsQuery("import".into())).await.unwrap();
        assert_eq!((stats.state, stats.workers.idle), (PoolState::Paused, 3));
        keeper.send(ResumePool("import".into())).await.unwrap();
        assert_eq!(import.state(), PoolState::Running);

        let in_keeper = keeper.stats().await.pools;
        assert_eq!(in_keeper.len(), 2);
        assert_eq!(
            (in_keeper[1].state, in_keeper[1].target),
            (PoolState::Running, 2)
        );

        let stop = StopPool {
            pool: "import".into(),
            deadline: LONG,
        };
        keeper.send(stop).await.unwrap();
        let drain = DrainPool {
            pool: "mail".into(),
            deadline: LONG,
        };
        keeper.send(drain).await.unwrap();
        assert_eq!(
            (import.state(), mail.state()),
            (PoolState::Stopped, PoolState::Drained)
        );
        let none = keeper.send(PoolStatsQuery("nobody".into())).await;
        assert!(matches!(none, Err(PoolError::NoSuchPool { .. })));
    });
}

#[test]
fn a_message_is_answered_without_the_actor_too() {
    let (_folder, keeper) = keeper();
    let pool = keeper.pool("import").start(|worker| async move {
        worker.stopped().await;
        Ok(())
    });
    let pool = pool.unwrap();
    block_on(keeper.shutdown(Duration::from_secs(10))).unwrap();
    assert!(pool.state().is_over());
    assert!(block_on(keeper.send(ListPools)).is_empty());
    let gone = block_on(keeper.send(PausePool("import".into())));
    assert!(
        matches!(gone, Err(PoolError::NoSuchPool { .. })),
        "{gone:?}"
    );
    assert!(matches!(
        block_on(pool.pause()),
        Err(PoolError::Ended { .. })
    ));
    block_on(pool.stop(LONG)).unwrap();
}

#[test]
fn i14_a_worker_that_asks_by_message_for_the_end_of_its_own_pool_does_not_wait_for_itself() {
    let (_folder, keeper) = keeper();
    for by in ["pause", "drain", "stop"] {
        let (tell, told) = flume::bounded(1);
        let pool = keeper.pool(by).start(move |worker| {
            let tell = tell.clone();
            async move {
                let (keeper, pool) = (worker.keeper(), by.into());
                let deadline = LONG;
                let answer = match by {
                    "pause" => keeper.send(PausePool(pool)).await,
                    "drain" => keeper.send(DrainPool { pool, deadline }).await,
                    _ => keeper.send(StopPool { pool, deadline }).await,
                };
                tell.send(answer).unwrap();
                // It is done all the same.
                worker.stopped().await;
                Ok(())
            }
        });
        let pool = pool.unwrap();
        let answer = told.recv_timeout(LONG / 2).unwrap();
        assert!(
            matches!(answer, Err(PoolError::InsideWorker { .. })),
            "{answer:?}"
        );
        until("it ends", || {
            pool.state().is_over() || pool.state() == PoolState::Paused
        });
    }
}
