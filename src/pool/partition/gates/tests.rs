use std::time::{Duration, Instant};

use super::*;
use crate::pool::PoolLeaseState;
use crate::pool::body::Body;
use crate::pool::shared::Parts;

const LONG: Duration = Duration::from_secs(20);

#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LONG, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_task_that_is_cut_short_leaves_alone_what_another_one_holds() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let (leases, name, options) = keeper.lease("import").into_parts().unwrap();
    let source = Source {
        now: Mutex::new(leases.clone()),
        begun_anew: None,
    };
    let gates = LeasedGates::new("import".into(), source, name, options, false).unwrap();
    let gates = Arc::new(gates);
    let builder = PoolBuilder::new(keeper.clone(), "import".into());
    let pool = keeper.start_pool(Parts {
        name: "import".into(),
        keeper: keeper.weak(),
        env: keeper.env_id(),
        spec: crate::pool::supervise::Spec {
            gating: Gating::All,
            ..builder.spec
        },
        body: Body::blocking(|worker| {
            while !worker.pause_for(LONG) {}
            Ok(())
        }),
        feed: None,
        gates: Some(Arc::clone(&gates) as _),
    });
    let pool = pool.unwrap();
    until("it runs", || pool.stats().workers.running == 1);

    // It has not had its turn yet, and its thread ends under it.
    let supervision = Arc::clone(pool.pools.upgrade().unwrap().supervision());
    let context = gates.context(&pool, leases, supervision);
    drop(Working::new(&gates.at_work, &context));
    let (stats, lease) = (pool.stats(), gates.stats());
    assert_eq!((stats.workers.running, stats.workers.stopping), (1, 0));
    assert_eq!((lease.state, lease.lost), (PoolLeaseState::Held, 0));
    assert!(!gates.at_rest());
}
