//! A black hole between a holder and its store.

use std::time::{Duration, Instant};

use lockkeeper::{LeaseEvent, LostReason, Released};

use crate::ground::{Kind, Pace, Server, held, run, soon};
use crate::peer::released;
use crate::proxy::Proxy;

pub fn test(kind: Kind) {
    let server = Server::start(kind);
    let url = server.place();
    let proxy = Proxy::to(server.address());
    let pace = Pace {
        // Whoever looks at the clock here may be late as well: this is the margin that he has for it.
        max_clock_skew: Duration::from_secs(2),
        expiration: Duration::from_secs(5),
        ..Pace::SHORT
    };
    let cut_off = pace.leases(&url.replace(&server.address(), &proxy.address()));
    let other = pace.leases(&url);
    let (guard, next) = run(async {
        let guard = soon("the lease", cut_off.acquire("job")).await.unwrap();
        let mut events = cut_off.subscribe();
        proxy.black_hole();
        let lost = guard.lost();
        let lost = tokio::spawn(async move { (lost.await, Instant::now()) });
        let next = tokio::spawn(other.acquire("job"));
        let next = soon("the lease", next).await.unwrap().unwrap();
        let granted = Instant::now();
        assert!(!guard.is_held(), "two believe");
        assert!(guard.remaining().is_zero() && guard.cancellation().is_cancelled());
        let (reason, at) = soon("the loss", lost).await.unwrap();
        let LostReason::StoreError(error) = reason else {
            panic!("{reason:?}");
        };
        assert!(at < granted, "it was told late, after {error}");
        assert!(next.token() > guard.token());

        // What has piled up arrives now.
        proxy.heal();
        soon("a refresh", next.extend(Pace::LONG.expiration))
            .await
            .unwrap();
        let asked = soon("the store", cut_off.holder("job")).await;
        assert_eq!(asked.unwrap().unwrap().token, next.token());
        assert!(!guard.is_held());
        while let Ok(event) = events.try_recv() {
            let again = matches!(
                event,
                LeaseEvent::HeldAgain { .. } | LeaseEvent::Acquired { .. }
            );
            assert!(!again, "{event:?}");
        }
        (guard, next)
    });
    assert_eq!(released(guard), Released::WasLost);
    let record = held(&other, "job").unwrap();
    assert_eq!(record.holder.as_ref(), Some(next.holder()));
    assert_eq!(released(next), Released::WasOurs);
}
