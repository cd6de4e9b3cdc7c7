//! Users of a cluster: who may not come in, and logins that end.

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use lockkeeper::{EtcdLeases, LeaseStore, Refreshed, Released, StoreError};

use crate::common::{EXPIRATION, claim, holder, is_held, name, refresh, run, store, take};
use crate::etcd::Etcd;

/// Passwords that are looked at in no time, also on a machine that has much else to do.
const QUICK: [&str; 2] = ["--bcrypt-cost", "4"];

/// `me` may use the prefix `t`, and nobody else anything.
fn log_in_from_now_on(etcd: &Etcd) {
    for order in [
        "user add root:secret",
        "user grant-role root root",
        "user add me:secret",
        "role add leases",
        "role grant-permission leases readwrite t/ --prefix",
        "user grant-role me leases",
        "auth enable",
    ] {
        ctl(etcd, None, order);
    }
}

fn ctl(etcd: &Etcd, user: Option<&str>, order: &str) {
    let mut ctl = Command::new("etcdctl");
    ctl.env("ETCDCTL_API", "3");
    ctl.args(["--endpoints", &etcd.address(0)])
        .args(order.split(' '));
    if let Some(user) = user {
        ctl.args(["--user", user]);
    }
    let done = ctl.output().unwrap();
    assert!(done.status.success(), "{order}: {done:?}");
}

fn store_of(etcd: &Etcd, user: &str, prefix: &str) -> EtcdLeases {
    store(&format!("etcd://{user}@{}/{prefix}", etcd.address(0)))
}

/// Everything that can be seen of an error.
fn shown(error: &StoreError) -> String {
    let mut shown = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        shown += &format!(" {error} {error:?}");
        source = error.source();
    }
    shown
}

#[test]
fn who_may_not_come_in_is_denied_and_no_password_is_shown() {
    let etcd = Etcd::start_with(1, &QUICK);
    run(async {
        let mut refused = Vec::new();
        // Nobody is known there yet.
        let early = store_of(&etcd, "me:secret", "t").prepare().await;
        let early = early.unwrap_err();
        assert!(matches!(early, StoreError::BadConfig(_)), "{early:?}");
        refused.push(early);
        log_in_from_now_on(&etcd);
        let nobody = store(&etcd.url("t"));
        let wrong = store_of(&etcd, "me:secretive", "t");
        let elsewhere = store_of(&etcd, "me:secret", "other");
        for store in [nobody, wrong, elsewhere] {
            let prepared = store.prepare().await;
            let claimed = store.claim(&claim("job", "me", EXPIRATION)).await;
            for error in [prepared.unwrap_err(), claimed.unwrap_err()] {
                assert!(matches!(error, StoreError::Denied(_)), "{error:?}");
                refused.push(error);
            }
        }
        for error in refused {
            assert!(!shown(&error).contains("secret"), "{}", shown(&error));
        }
        let mine = store_of(&etcd, "me:secret", "t");
        mine.prepare().await.unwrap();
        take(&mine, "job", "me").await;
    });
}

#[test]
fn a_login_that_has_ended_is_made_anew() {
    let mut etcd = Etcd::start_with(1, &[&QUICK[..], &["--auth-token-ttl", "1"]].concat());
    log_in_from_now_on(&etcd);
    run(async {
        let mine = store_of(&etcd, "me:secret", "t");
        let mut wakeups = mine.wakeups().unwrap().await.unwrap();
        for turn in ["too late", "forgotten"] {
            let token = take(&mine, turn, "me").await;
            match turn {
                // The wait is what is tested.
                "too late" => tokio::time::sleep(Duration::from_secs(3)).await,
                _ => etcd.restart(0),
            }
            goes_on(&mine, turn, token).await;
            if turn == "too late" {
                let woken = tokio::time::timeout(Duration::from_secs(10), wakeups.next());
                assert_eq!(woken.await.unwrap().unwrap(), Some(name(turn)));
            }
        }
        let mut wakeups = mine.wakeups().unwrap().await.unwrap();
        take(&mine, "job", "me").await;
        mine.force_release(&name("job")).await.unwrap();
        assert_eq!(wakeups.next().await.unwrap(), Some(name("job")));
    });
}

/// A token of this kind says which state of the users it is from.
#[test]
fn leases_go_on_when_users_change() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "not that secret").unwrap();
    // For the user under whom it runs.
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), all).unwrap();
    let token = format!("jwt,sign-method=HS256,priv-key={},ttl=10m", key.display());
    let etcd = Etcd::start_with(1, &[&QUICK[..], &["--auth-token", &token]].concat());
    log_in_from_now_on(&etcd);
    run(async {
        let mine = store_of(&etcd, "me:secret", "t");
        let token = take(&mine, "job", "me").await;
        ctl(&etcd, Some("root:secret"), "user add other:other");
        assert!(is_held(&mine, "job", "me", token).await);
        ctl(&etcd, Some("root:secret"), "user add another:other");
        take(&mine, "next", "me").await;
        ctl(&etcd, Some("root:secret"), "user add third:other");
        goes_on(&mine, "job", token).await;
    });
}

async fn goes_on(store: &EtcdLeases, lease: &str, token: lockkeeper::Fence) {
    let leases = [refresh(lease, "me", token, EXPIRATION)];
    assert_eq!(store.refresh(&leases).await.unwrap(), [Refreshed::Held]);
    let released = store.release(&name(lease), &holder("me")).await.unwrap();
    assert_eq!(released, Released::WasOurs);
}
