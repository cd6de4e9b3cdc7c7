//! Clusters of three, of which one dies, and then the leader.

use std::time::{Duration, Instant};

use lockkeeper::{Claimed, Fence, LeaseStore, Refreshed};

use crate::common::{EXPIRATION, PATIENCE, claim, refresh, run, store, take, until};
use crate::etcd::Etcd;
use crate::proxy::Proxy;

#[test]
fn i10_leases_go_on_and_tokens_grow_when_members_die_and_return() {
    let mut etcd = Etcd::start(3);
    let url = etcd.url("t");
    run(async {
        let here = store(&url);
        let there = store(&url);
        let token = take(&here, "held", "me").await;
        let held = [refresh("held", "me", token, EXPIRATION)];
        let mut last = token;
        for turn in 0..4 {
            // A follower, then the leader, then both again.
            let leader = etcd.leader();
            let victim = if turn % 2 == 0 {
                (leader + 1) % 3
            } else {
                leader
            };
            etcd.kill(victim);
            for n in 0..10 {
                assert_eq!(until(|| here.refresh(&held)).await, [Refreshed::Held]);
                let id = format!("{turn}/{n}");
                let wish = claim("passed on", &id, EXPIRATION);
                let got = until(|| there.claim(&wish)).await;
                let Claimed::Ours { token } = got else {
                    panic!("{got:?}");
                };
                assert!(token > last, "{token} after {last}");
                last = token;
                until(|| there.release(&wish.name, &wish.holder)).await;
            }
            etcd.restart(victim);
        }
        let wish = claim("held", "you", EXPIRATION);
        let busy = until(|| there.claim(&wish)).await;
        assert!(matches!(busy, Claimed::Busy(_)), "{busy:?}");
    });
}

#[test]
fn another_member_is_asked_when_one_does_not_answer() {
    let etcd = Etcd::start(3);
    let proxies: Vec<_> = (0..3).map(|n| Proxy::to(etcd.address(n))).collect();
    let addresses: Vec<_> = proxies.iter().map(Proxy::address).collect();
    run(async {
        let here = store(&format!("etcd://{}/t", addresses.join(",")));
        let token = take(&here, "job", "me").await;
        let held = [refresh("job", "me", token, EXPIRATION)];
        for hole in [0, 1, 2, 0] {
            proxies.iter().for_each(Proxy::heal);
            proxies[hole].black_hole();
            // As the actor does: a refresh is given up after the refresh interval.
            let begun = Instant::now();
            let mut answered = false;
            while !answered {
                let turn = tokio::time::timeout(Duration::from_secs(1), here.refresh(&held)).await;
                answered = matches!(turn, Ok(Ok(answer)) if answer == [Refreshed::Held]);
                assert!(begun.elapsed() < PATIENCE, "nobody else is asked");
            }
        }
    });
}

#[test]
fn i09_a_leader_that_was_paused_and_replaced_extends_nothing() {
    let etcd = Etcd::start(3);
    run(async {
        let leader = etcd.leader();
        let expiration = Duration::from_secs(3);
        // One that asks only the leader that will be replaced.
        let here = store(&format!("etcd://{}/t", etcd.address(leader)));
        let others = [(leader + 1) % 3, (leader + 2) % 3].map(|n| etcd.address(n));
        let there = store(&format!("etcd://{}/t", others.join(",")));
        let wish = claim("job", "me", expiration);
        let claimed = here.claim(&wish).await.unwrap();
        let Claimed::Ours { token } = claimed else {
            panic!("{claimed:?}");
        };
        etcd.pause(leader);
        let wish = claim("job", "you", expiration);
        let theirs: Fence = until(|| async {
            match there.claim(&wish).await {
                Ok(Claimed::Ours { token }) => Ok(token),
                other => Err(other),
            }
        })
        .await;
        assert!(theirs > token);
        etcd.resume(leader);
        let mine = [refresh("job", "me", token, expiration)];
        let answer = until(|| here.refresh(&mine)).await;
        assert!(matches!(&answer[..], [Refreshed::Lost(_)]), "{answer:?}");
    });
}
