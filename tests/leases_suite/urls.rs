//! A store that a URL names goes wherever leases are wanted: to leases alone, to a keeper, to an actor.

use std::sync::Arc;
use std::time::Duration;

use actix::System;
use lockkeeper::{
    AcquireLease, Claim, Claimed, Holder, Keeper, LeaseActor, LeaseConfig, LeaseError, LeaseGuard,
    LeaseName, LeaseStore, Leases, Released, store_from_url,
};

use crate::ground::{Ground, Kind, MS, PATIENCE, run, soon};

pub fn everywhere(kind: Kind) {
    let ground = Ground::new(kind);
    let store = || store_from_url(&ground.url).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::builder().path(folder.path()).map_size(1 << 20);
    let keeper = keeper.lease_store(store()).open().unwrap();
    let alone = Leases::builder(store()).poll(5 * MS).start().unwrap();
    System::new().block_on(async {
        let (actor, _) = LeaseActor::start_alone(store(), LeaseConfig::default()).unwrap();
        let guard = soon("the lease", keeper.lease("job").acquire());
        let guard = guard.await.unwrap();
        let refused = [
            soon("the store", alone.try_acquire("job")).await,
            soon("the store", actor.send(AcquireLease::new("job").no_wait()))
                .await
                .unwrap(),
        ];
        for refused in refused {
            assert_eq!(holder(refused).as_ref(), Some(guard.holder()));
        }
        assert_eq!(guard.release().await.unwrap(), Released::WasOurs);
        let guard = soon("the lease", alone.acquire("job")).await.unwrap();
        let refused = soon("the store", keeper.lease("job").try_acquire()).await;
        assert_eq!(holder(refused).as_ref(), Some(guard.holder()));
    });
    keeper.blocking_shutdown(PATIENCE).unwrap();
}

fn holder(refused: Result<LeaseGuard, LeaseError>) -> Option<Holder> {
    match refused {
        Err(LeaseError::Busy { holder, .. }) => holder,
        other => panic!("it is held: {other:?}"),
    }
}

/// Also in what a store need not do, and has another way for.
pub fn shared(kind: Kind) {
    let ground = Ground::new(kind);
    let inner = store_from_url(&ground.url).unwrap();
    let shared: Arc<dyn LeaseStore> = Arc::new(Arc::clone(&inner));
    let claim = |id: &str| Claim {
        name: LeaseName::new("job").unwrap(),
        holder: Holder {
            id: id.into(),
            host: "here".into(),
            pid: 1,
        },
        expiration: PATIENCE,
        unclean_delay: Duration::ZERO,
    };
    run(async {
        shared.prepare().await.unwrap();
        assert_eq!(shared.id().await.unwrap(), inner.id().await.unwrap());
        assert_eq!(shared.table(), inner.table());
        assert_eq!(shared.wakeups().is_some(), inner.wakeups().is_some());
        let (one, other) = (claim("one"), claim("other"));
        let claimed = shared.claim(&one).await.unwrap();
        assert!(matches!(claimed, Claimed::Ours { .. }), "{claimed:?}");
        let claimed = inner.claim(&other).await.unwrap();
        assert!(matches!(claimed, Claimed::Busy(_)), "{claimed:?}");
        // Where nobody is woken, whoever gives it back hears that it was wanted.
        let polled = inner.wakeups().is_none();
        let given_back = shared.give_back(&one.name, &one.holder).await.unwrap();
        assert_eq!(given_back, (Released::WasOurs, polled));
        shared.close().await.unwrap();
    });
}
