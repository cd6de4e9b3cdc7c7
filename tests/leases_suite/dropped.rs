//! Invariant I12: the future of an acquire that is dropped leaves nothing held.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use lockkeeper::{LeaseError, LeaseGuard, LeaseRecord, Leases, Released};

use crate::ground::{Ground, Kind, MS, PATIENCE, Pace, block_on, run, soon, until};
use crate::peer::given_back;

/// So many wait while the lease is given back.
const WAITERS: u32 = 30;

pub fn when_it_is_free(kind: Kind) {
    let ground = Ground::new(kind);
    let leases = ground.leases(Pace::LONG);
    run(async {
        let (mut polls, mut granted) = (0, 0);
        // The first ones meet a store that is not prepared. It goes on until the last ones have it in their hands.
        while granted < 4 {
            let name = format!("job{polls}");
            granted += u32::from(abandon(leases.acquire(name), polls).await);
            polls += 1 + polls / 16;
        }
        println!("{kind:?}: granted before {polls} polls");
    });
    nothing_is_held(&ground, &leases);
}

pub fn when_it_is_given_back(kind: Kind) {
    let ground = Ground::new(kind);
    let (leases, other) = (ground.leases(Pace::LONG), ground.leases(Pace::LONG));
    run(async {
        for polls in 0..WAITERS {
            // Nobody but the one that was dropped could keep it.
            let guard = soon("the lease", other.acquire("job")).await.unwrap();
            let mut waiting = Box::pin(leases.acquire("job"));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            let asked = soon("the store", leases.holder("job")).await.unwrap();
            assert_eq!(asked.unwrap().token, guard.token());
            let released = tokio::spawn(soon("the release", given_back(guard)));
            abandon(waiting, polls).await;
            assert_eq!(released.await.unwrap(), Released::WasOurs);
        }
    });
    nothing_is_held(&ground, &leases);
}

/// Whoever asked ends, and with it the runtime in which it was polled; its future is dropped on a thread that has none.
pub fn after_its_runtime(kind: Kind) {
    let ground = Ground::new(kind);
    let leases = ground.leases(Pace::LONG);
    for polls in 1..12 {
        let mut waiting = Box::pin(leases.acquire(format!("job{polls}")));
        let granted = block_on(async {
            let mut cx = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                if waiting.as_mut().poll(&mut cx).is_ready() {
                    return true;
                }
                tokio::time::sleep(MS / 2).await;
            }
            false
        });
        println!("{kind:?}: after {polls} polls: granted {granted}");
        std::thread::spawn(move || drop(waiting)).join().unwrap();
    }
    nothing_is_held(&ground, &leases);
}

/// Polls so often, a moment apart, and drops it then. Whether it was ready.
async fn abandon(future: impl Future<Output = Result<LeaseGuard, LeaseError>>, polls: u32) -> bool {
    let mut future = pin!(future);
    for poll in 0..polls {
        if poll > 0 {
            tokio::time::sleep(MS / 4).await;
        }
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(acquired) = future.as_mut().poll(&mut cx) {
            assert!(acquired.unwrap().is_held());
            return true;
        }
    }
    false
}

/// Nothing is held: neither now, nor later by what is on its way.
fn nothing_is_held(ground: &Ground, leases: &Leases) {
    let other = ground.leases(Pace::LONG);
    let all_free = || {
        // On a busy machine it may not be answered in time.
        let all = block_on(other.list()).ok()?;
        all.iter()
            .all(|record| record.remaining.is_none())
            .then_some(())
    };
    until("the last release", all_free);
    let ended = block_on(leases.shutdown(PATIENCE));
    assert_eq!(ended.maybe_still_held, []);
    let all = until("the list", || block_on(other.list()).ok());
    let is_held = |record: &&LeaseRecord| record.remaining.is_some();
    assert_eq!(all.iter().find(is_held), None);
}
