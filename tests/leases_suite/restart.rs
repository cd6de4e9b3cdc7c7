//! A server that is killed, and comes back with what it had.

use std::time::Duration;

use lockkeeper::{LeaseStanding, LostReason, Released};

use crate::ground::{Kind, PATIENCE, Pace, Server, block_on, held, until};
use crate::peer::released;
use crate::proxy::Proxy;

pub fn test(kind: Kind) {
    let mut server = Server::start(kind);
    let url = server.place();
    let proxy = Proxy::to(server.address());
    let leases = Pace::LONG.leases(&url.replace(&server.address(), &proxy.address()));
    let acquire = |name: &str, expiration: Duration| {
        let lease = leases.lease(name).refresh(Pace::SHORT.refresh);
        let lease = lease.expiration(expiration);
        block_on(lease.acquire_timeout(PATIENCE)).unwrap()
    };
    let kept = acquire("kept", Pace::LONG.expiration);
    let taken = acquire("taken", Pace::LONG.expiration);
    let expired = acquire("expired", 3 * Pace::SHORT.expiration);
    let is_lost = expired.lost();

    server.kill();
    for guard in [&kept, &taken] {
        until("the doubt", || {
            (guard.standing() == LeaseStanding::Doubtful).then_some(())
        });
        assert!(guard.is_held(), "it is believed in until its deadline");
    }
    let reason = block_on(crate::ground::soon("the loss", is_lost));
    assert!(matches!(reason, LostReason::StoreError(_)), "{reason:?}");
    assert!(!expired.is_held());

    // While nobody can see it, somebody takes one of them away.
    proxy.black_hole();
    server.start_again();
    let other = Pace::LONG.leases(&url);
    // It may be slow at first, and what it does while nobody waits any more is done all the same.
    until("the server", || block_on(other.holder("taken")).ok());
    let theirs = block_on(other.force_release("taken")).unwrap();
    assert_eq!(theirs.unwrap().token, taken.token());
    let theirs = block_on(other.acquire_timeout("taken", PATIENCE)).unwrap();
    assert!(theirs.token() > taken.token());
    assert_eq!(kept.standing(), LeaseStanding::Doubtful);

    proxy.heal();
    until("the store's word", || {
        (kept.standing() == LeaseStanding::Held).then_some(())
    });
    let record = held(&other, "kept").unwrap();
    assert_eq!(
        (record.token, record.holder.as_ref()),
        (kept.token(), Some(kept.holder()))
    );
    let reason = block_on(crate::ground::soon("the loss", taken.lost()));
    assert!(matches!(reason, LostReason::Stolen { .. }), "{reason:?}");
    assert!(!taken.is_held());

    // Its own time in the store may last longer than it was believed in.
    let next = block_on(other.acquire_timeout("expired", PATIENCE)).unwrap();
    assert!(next.token() > expired.token());
    assert!(!expired.is_held());
    for (guard, outcome) in [
        (kept, Released::WasOurs),
        (taken, Released::WasLost),
        (expired, Released::WasLost),
        (theirs, Released::WasOurs),
        (next, Released::WasOurs),
    ] {
        let name = guard.name().clone();
        assert_eq!(released(guard), outcome, "{name}");
    }
}
