//! A holder that is stopped past its expiry.

use rustix::process::Signal;

use crate::ground::{Ground, Kind, MS, PATIENCE, Pace, block_on, held, until};
use crate::peer;

pub fn test(kind: Kind) {
    let ground = Ground::new(kind);
    let folder = tempfile::tempdir().unwrap();
    let mut other = peer::start(&ground.url, folder.path());
    let theirs: u64 = other.ask("acquire").parse().unwrap();
    let leases = ground.leases(Pace::SHORT);
    // Not in the middle of a refresh, when it has locks of the store's; a client of etcd has none.
    until("a refresh", || {
        let record = held(&leases, "job").expect("it is held");
        let fresh = record.remaining? > Pace::SHORT.expiration - 100 * MS;
        (fresh || kind == Kind::Etcd).then_some(())
    });
    other.signal(Signal::STOP);
    let guard = block_on(leases.acquire_timeout("job", PATIENCE)).unwrap();
    assert!(guard.token().0 > theirs);
    other.signal(Signal::CONT);

    assert_eq!(other.ask("is held"), "false");
    let reason = other.ask("lost");
    assert!(
        ["expired", "stolen", "store_error"].contains(&&*reason),
        "{reason}"
    );
    assert_eq!(other.ask("is held"), "false");
    assert_eq!(other.ask("release"), "was lost");
    // It has taken nothing away from its successor.
    block_on(guard.extend(10 * Pace::SHORT.expiration)).unwrap();
    let record = held(&leases, "job").unwrap();
    assert_eq!(record.token, guard.token());
    assert_eq!(record.holder.as_ref(), Some(guard.holder()));
}
