//! A holder that is stopped past its expiry.

use rustix::process::Signal;

use crate::ground::{Ground, Kind, PATIENCE, Pace, block_on, held, until};
use crate::peer;
use crate::stop::stop_before;

pub fn test(kind: Kind) {
    let ground = Ground::new(kind);
    let folder = tempfile::tempdir().unwrap();
    let mut other = peer::start(&ground.url, folder.path());
    assert_eq!(other.ask("go through a gate"), "through a gate");
    let theirs: u64 = other.ask("acquire").parse().unwrap();
    let leases = ground.leases(Pace::SHORT);
    // Not in the middle of a refresh, when it may have locks of the store's, and while it holds the lease.
    until("it is stopped", || {
        let away: u64 = other.ask("stay away").parse().unwrap();
        stop_before(other.pid(), away).then_some(())
    });
    // Nobody else has had it.
    let record = held(&leases, "job").expect("it is held");
    assert_eq!(record.token.0, theirs);
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
