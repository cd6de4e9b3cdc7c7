//! How a lease ends, and how its end is put off: what its guard is told, and what others see.

use std::sync::Arc;
use std::time::Duration;

use lockkeeper::{
    Holder, IgnoreStoreErrors, LeaseConfig, LeaseError, LeaseStanding, Leases, LostReason,
    Released, store_from_url,
};

use crate::ground::{Ground, Kind, Pace, block_on, held, run, soon, until};

const MINUTE: Duration = Duration::from_secs(60);
/// etcd counts in whole seconds, and adds one.
const ROUNDED_UP: Duration = Duration::from_secs(2);

/// Leases that are refreshed only when they are extended.
fn leases(ground: &Ground) -> Leases {
    let mut config = LeaseConfig::default();
    config.refresh = MINUTE;
    config.expiration = 10 * MINUTE;
    config.handler = Arc::new(IgnoreStoreErrors);
    Leases::start_shared(store_from_url(&ground.url).unwrap(), config).unwrap()
}

pub fn reasons(kind: Kind) {
    let ground = Ground::new(kind);
    let (leases, others) = (leases(&ground), leases(&ground));
    run(async {
        let acquire = || soon("the lease", leases.acquire("job"));
        let force = || async {
            let forced = soon("the store", others.force_release("job")).await;
            forced.unwrap().unwrap().holder
        };

        let guard = acquire().await.unwrap();
        let (lost, cancellation) = (guard.lost(), guard.cancellation());
        assert!(guard.is_held() && !cancellation.is_cancelled());
        assert_eq!(guard.release().await.unwrap(), Released::WasOurs);
        assert_eq!(soon("its end", lost).await, LostReason::Released);
        assert!(cancellation.is_cancelled());

        let guard = acquire().await.unwrap();
        let lost = guard.lost();
        drop(guard);
        assert_eq!(soon("its end", lost).await, LostReason::Released);

        // By another process, which is found out by the next refresh.
        let guard = acquire().await.unwrap();
        assert_eq!(force().await.as_ref(), Some(guard.holder()));
        let refreshed = soon("the refresh", guard.extend(10 * MINUTE)).await;
        assert_eq!(lost_by(refreshed), LostReason::Forced);
        assert_eq!(soon("its end", guard.lost()).await, LostReason::Forced);
        assert_eq!(guard.standing(), LeaseStanding::Lost(LostReason::Forced));
        assert_eq!(guard.remaining(), Duration::ZERO);
        assert_eq!(guard.release().await.unwrap(), Released::WasLost);

        // And taken by it.
        let guard = acquire().await.unwrap();
        force().await;
        let thief = soon("the lease", others.acquire("job")).await.unwrap();
        assert!(thief.token() > guard.token());
        let refreshed = soon("the refresh", guard.extend(10 * MINUTE)).await;
        let by: Option<Holder> = Some(thief.holder().clone());
        assert_eq!(lost_by(refreshed), LostReason::Stolen { by });
        assert_eq!(guard.release().await.unwrap(), Released::WasLost);
        assert!(thief.is_held());
        drop(thief);

        let guard = acquire().await.unwrap();
        let lost = guard.lost();
        leases.shutdown(MINUTE).await;
        assert_eq!(soon("its end", lost).await, LostReason::Shutdown);
        assert!(!guard.is_held());
    });
    assert_eq!(held(&others, "job"), None);
}

fn lost_by(refreshed: Result<(), LeaseError>) -> LostReason {
    match refreshed {
        Err(LeaseError::Lost { reason, .. }) => reason,
        other => panic!("it is not lost: {other:?}"),
    }
}

pub fn extended(kind: Kind) {
    let ground = Ground::new(kind);
    let (leases, others) = (leases(&ground), leases(&ground));
    run(async {
        let guard = soon("the lease", leases.acquire("job")).await.unwrap();
        for minutes in [30, 10, 4] {
            let expiration = minutes * MINUTE;
            soon("the refresh", guard.extend(expiration)).await.unwrap();
            assert!(guard.is_held());
            assert!(guard.remaining() < expiration);
            assert!(guard.remaining() > expiration - MINUTE);
            let refused = soon("the store", others.try_acquire("job")).await;
            let Err(LeaseError::Busy {
                remaining: Some(remaining),
                ..
            }) = refused
            else {
                panic!("{refused:?}");
            };
            assert!(remaining <= expiration + ROUNDED_UP, "{remaining:?}");
            // Others are never told less than the holder believes.
            assert!(remaining >= guard.remaining(), "{remaining:?}");
        }
        // Less than three refreshes.
        let refused = soon("the answer", guard.extend(2 * MINUTE)).await;
        assert!(
            matches!(refused, Err(LeaseError::BadSettings(_))),
            "{refused:?}"
        );
        assert!(guard.remaining() > 3 * MINUTE);
    });
}

pub fn without_runtime(kind: Kind) {
    let ground = Ground::new(kind);
    let (leases, others) = (ground.leases(Pace::LONG), ground.leases(Pace::LONG));
    let guard = block_on(soon("the lease", leases.acquire("job"))).unwrap();
    // Its own handle and runtime are gone; the guard is all that is left.
    drop(leases);
    assert_eq!(held(&others, "job").unwrap().token, guard.token());
    assert!(guard.is_held());
    std::thread::spawn(move || drop(guard)).join().unwrap();
    until("the release", || {
        held(&others, "job").is_none().then_some(())
    });
    drop(block_on(soon("the lease", others.acquire("job"))).unwrap());
}
