//! Over each of the messages that are not tried elsewhere, and on the way of an answer: it is answered, and the next one is served.

use actix::MailboxError;

use super::*;
use crate::error::{LeaseError, LockError};
use crate::{
    AcquireLease, DeadlockHistory, Detect, Downgrade, EndLocker, ExtendLease, ForceRelease,
    LockConfigQuery, LockSnapshotQuery, LockerSpec, Mode, NewLocker, Object, ReleaseLease, RunTxn,
    SetDetect, SetLimits, SetTimeouts, Sync, TxnStatsQuery, Upgrade,
};

/// As many as one part of a keeper lives with in a while.
const MOST: usize = 5;

fn is_panic(panicked: &crate::ActorPanicked, part: Part) -> bool {
    panicked.part == part && panicked.message.contains("a bomb in")
}

#[test]
fn a_panic_over_what_is_done_to_a_lease_costs_no_lease_that_is_not_given_away() {
    let (_folder, keeper) = keeper();
    let bombs = keeper.bombs(Part::Leases);
    let is_told = |error: &LeaseError| matches!(error, LeaseError::ActorPanicked(panicked) if is_panic(panicked, Part::Leases));
    run(async {
        let guard = keeper.send(AcquireLease::new("a")).await.expect("free");
        let extend = || ExtendLease {
            lease: guard.claim_view(),
            expiration: LONG,
        };
        bombs.set("ExtendLease");
        assert!(is_told(
            &keeper.send(extend()).await.expect_err("it panicked")
        ));
        bombs.set("ForceRelease");
        let force = keeper.send(ForceRelease("a".into())).await;
        assert!(is_told(&force.expect_err("it panicked")));
        bombs.set("answering");
        let answer = keeper.send(extend()).await;
        assert!(is_told(&answer.expect_err("the answer is lost")));
        assert!(guard.is_held());
        keeper.send(extend()).await.expect("the next one is served");

        // The guard is in the message: it gives its lease back wherever it is dropped.
        bombs.set("ReleaseLease");
        let closed = keeper.lease_actor().send(ReleaseLease(guard)).await;
        assert!(matches!(closed, Err(MailboxError::Closed)));
        let again = keeper
            .send(AcquireLease::new("a"))
            .await
            .expect("given back");
        drop(again);
    });
    assert!(bombs.are_spent());
    assert_eq!(run(keeper.stats()).panics.leases, 4);
}

#[test]
fn a_panic_over_a_lock_that_changes_its_mode_releases_it_and_questions_are_answered_all_the_same() {
    let object = || Object::new("x", b"1");
    let (_folder, keeper) = keeper();
    let bombs = keeper.bombs(Part::LockTable);
    let kept = keeper.lock_table().clone();
    run(async {
        let guard = |mode| keeper.send(crate::Acquire::new(object(), mode));
        bombs.set("Upgrade");
        let read = guard(Mode::Read).await.expect("free");
        let closed = kept.send(Upgrade::new(read, Mode::Write)).await;
        assert!(matches!(closed, Err(MailboxError::Closed)));
        bombs.set("Downgrade");
        let write = guard(Mode::Write).await.expect("free again");
        let closed = kept
            .send(Downgrade {
                guard: write,
                to: Mode::Read,
            })
            .await;
        assert!(matches!(closed, Err(MailboxError::Closed)));
        drop(guard(Mode::Write).await.expect("free again"));

        bombs.set("EndLocker");
        let new = NewLocker {
            spec: LockerSpec::new(),
            parent: None,
        };
        let locker = keeper.send(new).await.expect("a locker");
        locker
            .blocking_lock(&object(), Mode::Write, crate::Wait::No)
            .expect("free");
        keeper.send(EndLocker { locker }).await;
        drop(guard(Mode::Write).await.expect("it has ended"));
        bombs.set("Detect");
        let policy = crate::VictimPolicy::Default;
        assert!(keeper.send(Detect { policy }).await.victims.is_empty());
        bombs.set("SetDetect");
        keeper
            .send(SetDetect {
                on_block: Some(false),
                ..SetDetect::default()
            })
            .await;
    });
    assert!(bombs.are_spent());
    assert_eq!(run(keeper.stats()).panics.lock_table, MOST as u64);
    assert!(
        !run(keeper.send(LockConfigQuery)).detect_on_block,
        "it was set in place"
    );
}

#[test]
fn so_are_the_settings_of_the_lock_table_and_what_is_asked_of_it() {
    let (_folder, keeper) = keeper();
    let bombs = keeper.bombs(Part::LockTable);
    run(async {
        bombs.set("SetTimeouts");
        let no_wait = SetTimeouts {
            no_wait: Some(true),
            ..SetTimeouts::default()
        };
        keeper.send(no_wait).await;
        bombs.set("SetLimits");
        let limits = SetLimits {
            locks: Some(123_456),
            ..SetLimits::default()
        };
        keeper.send(limits).await.expect("raised");
        bombs.set("LockConfigQuery");
        let config = keeper.send(LockConfigQuery).await;
        assert_eq!((config.no_wait, config.max_locks), (true, 123_456));
        bombs.set("DeadlockHistory");
        assert!(keeper.send(DeadlockHistory).await.is_empty());
        bombs.set("LockSnapshotQuery");
        assert!(keeper.send(LockSnapshotQuery).await.lockers.is_empty());
    });
    assert!(bombs.are_spent());
    // More than that poison it, in order.
    bombs.set("answering");
    let acquire = crate::Acquire::new(Object::new("x", b"1"), Mode::Read);
    let answer = run(keeper.send(acquire));
    assert!(
        matches!(answer, Err(LockError::ActorPanicked(_))),
        "{answer:?}"
    );
    let refused = keeper.blocking_update(|_| Ok(())).expect_err("poisoned");
    assert!(matches!(refused, TxnError::RecoveryNeeded(_)), "{refused}");
}

#[test]
fn a_panic_on_the_way_of_an_answer_leaves_nobody_waiting() {
    let (_folder, keeper) = keeper();
    let update = || RunTxn::update(|_| Ok(()));
    run(async {
        keeper.bombs(Part::Supervisor).set("answering");
        let answer = keeper.send(update()).await;
        assert!(answer.is_err(), "{answer:?}");
        keeper.send(update()).await.expect("the next one is served");
        keeper.bombs(Part::Supervisor).set("answering");
        // A question is answered in place.
        assert!(keeper.send(TxnStatsQuery).await.committed >= 1);
        // The environment's actor takes transactions, too.
        keeper.bombs(Part::Environment).set("RunTxn");
        let answer = keeper.environment().send(update()).await.expect("answered");
        assert!(
            matches!(&answer, Err(TxnError::ActorPanicked(panicked)) if is_panic(panicked, Part::Environment))
        );
        let answer = keeper.environment().send(update()).await.expect("answered");
        answer.expect("the next one is served");
        keeper.bombs(Part::Environment).set("answering");
        assert_eq!(keeper.send(crate::ClearStaleReaders).await, 0);
        keeper.send(Sync).await.expect("the next one is served");
    });
    assert!(keeper.bombs(Part::Environment).are_spent());
    let panics = run(keeper.stats()).panics;
    assert_eq!((panics.supervisor, panics.environment), (2, 2));
}
