//! The same by message: to an actor alone, and through a keeper.

use std::time::Duration;

use actix::System;
use lockkeeper::{
    AcquireLease, ErrorClass, ExtendLease, ForceRelease, Keeper, LeaseActor, LeaseActorError,
    LeaseConfig, LeaseError, LeaseInfo, ListLeases, LostReason, ReleaseLease, Released,
    ShutdownError,
};

use crate::MS;
use crate::store::{Fault, Memory, Op, soon, until};

fn config() -> LeaseConfig {
    let mut config = LeaseConfig::default();
    config.refresh = 50 * MS;
    config.expiration = 30_000 * MS;
    config.poll = 20 * MS;
    config.max_clock_skew = 10 * MS;
    config
}

fn keeper(store: &Memory, folder: &tempfile::TempDir) -> Keeper {
    Keeper::builder()
        .path(folder.path())
        .map_size(1 << 20)
        .lease_store(store.clone())
        .lease_poll(20 * MS)
        .open()
        .unwrap()
}

#[test]
fn an_actor_alone_answers_every_message_without_environment_or_lock_table() {
    let store = Memory::new();
    System::new().block_on(async {
        let (actor, leases) = LeaseActor::start_alone(store.clone(), config()).unwrap();
        let wish = AcquireLease::new("job")
            .label("one")
            .timeout(Duration::from_secs(5));
        let guard = soon(actor.send(wish)).await.unwrap().unwrap();
        assert!(guard.is_held() && guard.holder().id.starts_with("one/"));
        let busy = soon(actor.send(AcquireLease::new("job").no_wait()))
            .await
            .unwrap();
        assert!(matches!(busy, Err(LeaseError::Busy { .. })), "{busy:?}");
        let late = AcquireLease::new("job").timeout(30 * MS);
        let late = soon(actor.send(late)).await.unwrap();
        assert!(matches!(late, Err(LeaseError::TimedOut { .. })), "{late:?}");

        let info = soon(actor.send(LeaseInfo("job".into())))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(info.held_here, Some(guard.token()));
        assert_eq!(info.record.unwrap().holder.as_ref(), Some(guard.holder()));
        assert_eq!(
            soon(actor.send(ListLeases)).await.unwrap().unwrap().len(),
            1
        );

        let extend = ExtendLease {
            lease: guard.claim_view(),
            expiration: Duration::from_secs(60),
        };
        soon(actor.send(extend.clone())).await.unwrap().unwrap();
        assert!(guard.remaining() > Duration::from_secs(50));
        assert_eq!(
            soon(actor.send(ReleaseLease(guard)))
                .await
                .unwrap()
                .unwrap(),
            Released::WasOurs
        );
        assert!(
            soon(actor.send(extend)).await.unwrap().is_err(),
            "a view owns nothing"
        );

        let guard = soon(actor.send(AcquireLease::new("job")))
            .await
            .unwrap()
            .unwrap();
        let taken = soon(actor.send(ForceRelease("job".into())))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(taken.unwrap().token, guard.token());
        assert_eq!(soon(guard.lost()).await, LostReason::Forced);

        // The actor stops when nobody can send to it, and its leases with it.
        let guard = soon(leases.acquire("last")).await.unwrap();
        drop(actor);
        assert_eq!(soon(guard.lost()).await, LostReason::Shutdown);
        until(|| !store.is_held("last")).await;
    });
}

#[test]
fn a_lease_of_others_is_not_extended_and_not_taken_for_a_lost_one() {
    System::new().block_on(async {
        let (actor, leases) = LeaseActor::start_alone(Memory::new(), config()).unwrap();
        let (_actor, others) = LeaseActor::start_alone(Memory::new(), config()).unwrap();
        // Both are the first of their store.
        let own = soon(leases.acquire("job")).await.unwrap();
        let guard = soon(others.acquire("job")).await.unwrap();
        let extend = ExtendLease {
            lease: guard.claim_view(),
            expiration: Duration::from_secs(60),
        };
        let refused = soon(actor.send(extend.clone())).await.unwrap();
        let error = refused.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Usage, "{error:?}");
        let LeaseError::OfOtherLeases { name } = error else {
            panic!("{error:?}")
        };
        assert_eq!(name.as_str(), "job");
        drop(own);
        let refused = soon(actor.send(extend.clone())).await.unwrap();
        assert!(
            matches!(refused, Err(LeaseError::OfOtherLeases { .. })),
            "{refused:?}"
        );
        // What has ended has ended, whoever is asked.
        drop(guard);
        let refused = soon(actor.send(extend)).await.unwrap();
        let Err(LeaseError::Lost { reason, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(reason, LostReason::Released);
    });
}

#[test]
fn an_actor_alone_needs_a_system() {
    let started = LeaseActor::start_alone(Memory::new(), config());
    assert!(matches!(started, Err(LeaseActorError::NoSystem(_))));
}

#[test]
fn i12_a_sender_that_goes_away_leaves_nothing_held() {
    let store = Memory::new();
    System::new().block_on(async {
        let (actor, _leases) = LeaseActor::start_alone(store.clone(), config()).unwrap();
        for (tokens, fault) in (1_usize..).zip([Fault::Wait, Fault::DoneThenFail]) {
            store.next(Op::Claim, std::slice::from_ref(&fault));
            let asked = store.asked(Op::Claim);
            let waiting = tokio::spawn(actor.send(AcquireLease::new("job")));
            until(|| store.asked(Op::Claim) > asked).await;
            waiting.abort();
            drop(waiting.await);
            if fault == Fault::Wait {
                store.go_on();
            }
            // It was granted to nobody, and is given back.
            until(|| store.token("job") == tokens as u64 && !store.is_held("job")).await;
            until(|| store.asked(Op::Release) == tokens).await;
        }
        // Nobody takes the answer.
        actor.do_send(AcquireLease::new("job"));
        until(|| !store.is_held("job")).await;
        assert!(
            soon(actor.send(AcquireLease::new("job")))
                .await
                .unwrap()
                .is_ok()
        );
    });
}

#[tokio::test]
async fn a_keeper_has_leases_in_the_store_it_was_given_and_releases_them_when_it_stops() {
    let (store, folder) = (Memory::new(), tempfile::tempdir().unwrap());
    let keeper = keeper(&store, &folder);
    let guard = soon(keeper.lease("one").acquire()).await.unwrap();
    let other = soon(keeper.send(AcquireLease::new("two"))).await.unwrap();
    assert!(guard.is_held() && other.is_held());
    assert_eq!(soon(keeper.send(ListLeases)).await.unwrap().len(), 2);
    let info = soon(keeper.send(LeaseInfo("two".into()))).await.unwrap();
    assert_eq!(info.held_here, Some(other.token()));
    assert_eq!(
        soon(keeper.send(ReleaseLease(other))).await.unwrap(),
        Released::WasOurs
    );
    let extend = ExtendLease {
        lease: guard.claim_view(),
        expiration: Duration::from_secs(3_600),
    };
    soon(keeper.send(extend)).await.unwrap();
    assert!(guard.remaining() > Duration::from_secs(3_000));
    let forced = soon(keeper.send(ForceRelease("one".into()))).await.unwrap();
    assert_eq!(forced.unwrap().token, guard.token());

    let guard = soon(
        keeper
            .lease("last")
            .expiration(Duration::from_secs(60))
            .acquire(),
    )
    .await
    .unwrap();
    soon(keeper.shutdown(Duration::from_secs(5))).await.unwrap();
    assert!(!guard.is_held() && !store.is_held("last"));
    assert_eq!(soon(guard.lost()).await, LostReason::Shutdown);
    let refused = soon(keeper.lease("later").acquire()).await.unwrap_err();
    assert!(matches!(refused, LeaseError::ShuttingDown), "{refused:?}");
    let refused = soon(keeper.send(AcquireLease::new("later")))
        .await
        .unwrap_err();
    assert!(matches!(refused, LeaseError::ShuttingDown), "{refused:?}");
}

#[tokio::test]
async fn a_store_that_hangs_does_not_keep_a_keeper_from_stopping() {
    let (store, folder) = (Memory::new(), tempfile::tempdir().unwrap());
    let keeper = keeper(&store, &folder);
    let guard = soon(keeper.lease("job").acquire()).await.unwrap();
    store.always(Op::Release, Some(Fault::Hang));
    let begun = std::time::Instant::now();
    let stopped = soon(keeper.shutdown(300 * MS)).await;
    let told = matches!(&stopped, Err(ShutdownError::LeasesMaybeHeld { .. }));
    assert!(told, "{stopped:?}");
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(!guard.is_held());
}

#[tokio::test]
async fn a_store_that_blocks_a_thread_does_not_keep_a_keeper_from_stopping() {
    let (store, folder) = (Memory::new(), tempfile::tempdir().unwrap());
    let keeper = keeper(&store, &folder);
    store.always(Op::Claim, Some(Fault::Block));
    let waiting = tokio::spawn(keeper.lease("job").acquire());
    until(|| store.asked(Op::Claim) > 0).await;
    let begun = std::time::Instant::now();
    drop(soon(keeper.shutdown(300 * MS)).await);
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(soon(waiting).await.unwrap().is_err());
}
