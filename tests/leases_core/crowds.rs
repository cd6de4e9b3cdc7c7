//! Many callers of one process, and what they ask the store.

use lockkeeper::LeaseError;

use crate::store::{Fault, Memory, Op, begin, soon};
use crate::{MS, builder};

#[tokio::test]
async fn those_who_do_not_wait_are_answered_by_one_question() {
    let store = Memory::new();
    let leases = builder(&store).start().unwrap();
    for (job, fault) in [("held", Fault::Wait), ("failing", Fault::WaitThenPanic)] {
        store.steal(job, "somebody", 60_000 * MS);
        let asked = store.asked(Op::Claim);
        store.next(Op::Claim, std::slice::from_ref(&fault));
        let crowd: Vec<_> = (0..100)
            .map(|_| tokio::spawn(leases.try_acquire(job)))
            .collect();
        while leases.status(job).await.unwrap().waiting < 100 {
            tokio::task::yield_now().await;
        }
        store.go_on();
        for one in crowd {
            let refused = soon(one).await.unwrap();
            match fault {
                Fault::Wait => assert!(matches!(refused, Err(LeaseError::Busy { .. }))),
                _ => assert!(matches!(refused, Err(LeaseError::Unreachable { .. }))),
            }
        }
        assert_eq!(store.asked(Op::Claim), asked + 1);
    }
}

#[tokio::test]
async fn who_has_gone_away_does_not_wait_any_more() {
    let store = Memory::new();
    let leases = builder(&store).max_local_waiters(1).start().unwrap();
    store.next(Op::Claim, &[Fault::Hang]);
    let mut gone = Box::pin(leases.acquire("job"));
    begin(&mut gone);
    let refused = soon(leases.acquire("job")).await;
    let is_full = matches!(refused, Err(LeaseError::TooManyWaiters { limit: 1, .. }));
    assert!(is_full, "{refused:?}");
    drop(gone);
    let mut waiting = Box::pin(leases.acquire("job"));
    begin(&mut waiting);
    assert_eq!(leases.status("job").await.unwrap().waiting, 1);
    // The store is asked again when it has not answered in time.
    assert!(soon(waiting).await.unwrap().is_held());
}
