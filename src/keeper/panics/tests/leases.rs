//! In the thread that serves the leases, and in their core.

use super::*;
use crate::error::LeaseError;
use crate::{LeaseGuard, LostReason};

fn acquire(keeper: &Keeper, name: &'static str) -> Result<LeaseGuard, LeaseError> {
    run(keeper.lease(name).acquire())
}

#[test]
fn i09_a_panic_in_the_leases_loses_them_all_tells_all_who_wait_and_others_begin_anew() {
    for place in ["a step of the leases", "the leases' driver"] {
        let (_folder, keeper) = keeper();
        let guard = acquire(&keeper, "a").expect("free");
        let waiting = {
            let keeper = keeper.clone();
            std::thread::spawn(move || acquire(&keeper, "a"))
        };
        let leases = keeper.leases().expect("leases");
        until("it waits", || {
            run(leases.status("a")).is_ok_and(|status| status.waiting == 1)
        });
        keeper.bombs(Part::Leases).set(place);
        // It goes on with the next refresh, at the latest.
        let reason = run(guard.lost());
        assert_eq!(reason, LostReason::Shutdown, "{place}");
        assert!(!guard.is_held());
        let answer = waiting.join().expect("no panic");
        assert!(
            matches!(answer, Err(LeaseError::ActorPanicked(_))),
            "{answer:?}"
        );
        let refused = run(leases.acquire("b"));
        assert!(
            matches!(refused, Err(LeaseError::ActorPanicked(_))),
            "{refused:?}"
        );
        let released = run(guard.release());
        assert!(released.is_err(), "it may be held until it expires");
        let left = run(leases.shutdown(LONG)).maybe_still_held;
        assert_eq!(
            left.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            ["a"]
        );

        // The keeper's are started anew; what was held is somebody else's until it expires.
        let b = acquire(&keeper, "b").expect("free");
        assert!(b.is_held());
        let busy = run(keeper.lease("a").try_acquire());
        assert!(matches!(busy, Err(LeaseError::Busy { .. })), "{busy:?}");
        assert_eq!(run(keeper.stats()).panics.leases, 1);
        run(b.release()).expect("released");
        run(keeper.shutdown(LONG)).expect("stopped");
    }
}
