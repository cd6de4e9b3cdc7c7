//! Servers that go away, or do not answer.

use std::time::{Duration, Instant};

use lockkeeper::{Claimed, LeaseStore, Leases, Refreshed, StoreError};

use crate::common::{
    EXPIRATION, PATIENCE, claim, extend, is_held, name, ours, refresh, run, store, take, until,
};
use crate::etcd::Etcd;
use crate::proxy::Proxy;

#[test]
fn a_server_that_does_not_answer_is_told_in_time_and_the_lease_goes_on_after_it_answers_again() {
    let etcd = Etcd::start(1);
    let proxy = Proxy::to(etcd.address(0));
    run(async {
        let here = store(&format!("etcd://{}/t", proxy.address()));
        let token = take(&here, "job", "me").await;
        proxy.black_hole();
        let begun = Instant::now();
        let error = extend(&here, "job", "me", token, EXPIRATION);
        let error = tokio::time::timeout(PATIENCE, error).await.unwrap();
        assert!(
            matches!(error, Err(StoreError::Unreachable(_))),
            "{error:?}"
        );
        assert!(begun.elapsed() < Duration::from_secs(15));
        proxy.heal();
        let held = until(|| async {
            let leases = [refresh("job", "me", token, EXPIRATION)];
            here.refresh(&leases).await
        });
        assert_eq!(held.await, [Refreshed::Held]);
    });
}

#[test]
fn connections_that_break_are_made_anew() {
    let etcd = Etcd::start(1);
    let proxy = Proxy::to(etcd.address(0));
    run(async {
        let here = store(&format!("etcd://{}/t", proxy.address()));
        let mut wakeups = here.wakeups().unwrap().await.unwrap();
        for n in 0..20 {
            let lease = format!("job {n}");
            proxy.break_connections();
            let claim = claim(&lease, "me", EXPIRATION);
            let claimed = until(|| here.claim(&claim)).await;
            let token = ours(claimed);
            assert!(is_held(&here, &lease, "me", token).await);
        }
        assert!(wakeups.next().await.is_err());
        let mut wakeups = here.wakeups().unwrap().await.unwrap();
        here.force_release(&name("job 3")).await.unwrap();
        assert_eq!(wakeups.next().await.unwrap(), Some(name("job 3")));
    });
}

#[test]
fn i09_a_server_that_was_paused_past_the_expiration_gives_nobody_a_lease_twice() {
    let etcd = Etcd::start(1);
    run(async {
        let expiration = Duration::from_secs(2);
        let here = store(&etcd.url("t"));
        let token = ours(here.claim(&claim("job", "me", expiration)).await.unwrap());
        etcd.pause(0);
        let refused = here
            .refresh(&[refresh("job", "me", token, expiration)])
            .await;
        assert!(
            matches!(refused, Err(StoreError::Unreachable(_))),
            "{refused:?}"
        );
        tokio::time::sleep(expiration).await;
        etcd.resume(0);
        let there = store(&etcd.url("t"));
        let wish = claim("job", "you", expiration);
        let theirs = until(|| async {
            match there.claim(&wish).await {
                Ok(Claimed::Ours { token }) => Ok(token),
                other => Err(other),
            }
        })
        .await;
        assert!(theirs > token);
        let mine = [refresh("job", "me", token, expiration)];
        let lost = until(|| here.refresh(&mine)).await;
        assert!(matches!(&lost[..], [Refreshed::Lost(_)]), "{lost:?}");
    });
}

#[test]
fn i10_a_server_that_is_killed_and_restarted_keeps_leases_and_tokens() {
    let mut etcd = Etcd::start(1);
    let url = etcd.url("t");
    run(async {
        let here = store(&url);
        let token = take(&here, "job", "me").await;
        etcd.restart(0);
        let mine = [refresh("job", "me", token, EXPIRATION)];
        assert_eq!(until(|| here.refresh(&mine)).await, [Refreshed::Held]);
        let there = store(&url);
        let wish = claim("job", "you", EXPIRATION);
        assert!(matches!(
            until(|| there.claim(&wish)).await,
            Claimed::Busy(_)
        ));
        there.force_release(&name("job")).await.unwrap();
        assert!(take(&there, "job", "you").await > token);
        assert!(!is_held(&here, "job", "me", token).await);
    });
}

#[test]
fn i09_a_holder_behind_a_black_hole_loses_its_lease_before_anybody_else_has_it() {
    let etcd = Etcd::start(1);
    let proxy = Proxy::to(etcd.address(0));
    run(async {
        let expiration = Duration::from_secs(7);
        let start = |url: &str| {
            Leases::builder(store(url))
                .expiration(expiration)
                .refresh(Duration::from_secs(1))
                // The margin in which this thread has time to look.
                .max_clock_skew(Duration::from_secs(2))
                .start()
                .unwrap()
        };
        let here = start(&format!("etcd://{}/t", proxy.address()));
        let there = start(&etcd.url("t"));
        let mine = here.acquire("job").await.unwrap();
        let waiting = tokio::spawn(there.acquire("job"));
        // Not before it has been refreshed.
        let last = std::cell::Cell::new(mine.remaining());
        until(|| async {
            let now = mine.remaining();
            if now > last.replace(now) {
                Ok(())
            } else {
                Err(now)
            }
        })
        .await;
        proxy.black_hole();
        let begun = Instant::now();
        tokio::time::timeout(expiration, mine.lost()).await.unwrap();
        assert!(!mine.is_held());
        assert!(begun.elapsed() < expiration);
        assert!(!waiting.is_finished(), "two believe that they hold it");
        let theirs = waiting.await.unwrap().unwrap();
        assert!(theirs.token() > mine.token());
        assert!(begun.elapsed() < expiration + Duration::from_secs(15));
    });
}
