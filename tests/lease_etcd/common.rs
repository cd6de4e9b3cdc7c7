//! What these tests share.

use std::future::Future;
use std::time::{Duration, Instant};

use lockkeeper::{
    Claim, Claimed, EtcdLeases, Fence, Holder, LeaseName, LeaseStore, Refresh, Refreshed,
    StoreError,
};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const EXPIRATION: Duration = Duration::from_secs(60);

pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 4, test).await.unwrap() })
}

pub fn store(url: &str) -> EtcdLeases {
    EtcdLeases::from_url(url).unwrap()
}

pub fn name(text: &str) -> LeaseName {
    LeaseName::new(text).unwrap()
}

pub fn holder(id: &str) -> Holder {
    Holder {
        id: id.into(),
        host: "here".into(),
        pid: std::process::id(),
    }
}

pub fn claim(lease: &str, id: &str, expiration: Duration) -> Claim {
    Claim {
        name: name(lease),
        holder: holder(id),
        expiration,
        unclean_delay: Duration::ZERO,
    }
}

/// Takes a lease that is free.
#[track_caller]
pub fn ours(claimed: Claimed) -> Fence {
    match claimed {
        Claimed::Ours { token } => token,
        Claimed::Busy(record) => panic!("it is held: {record:?}"),
    }
}

pub async fn take(store: &EtcdLeases, lease: &str, id: &str) -> Fence {
    ours(store.claim(&claim(lease, id, EXPIRATION)).await.unwrap())
}

pub fn refresh(lease: &str, id: &str, token: Fence, expiration: Duration) -> Refresh {
    Refresh {
        name: name(lease),
        holder: holder(id),
        token,
        expiration,
    }
}

/// Extends one lease.
pub async fn extend(
    store: &EtcdLeases,
    lease: &str,
    id: &str,
    token: Fence,
    expiration: Duration,
) -> Result<Refreshed, StoreError> {
    let leases = [refresh(lease, id, token, expiration)];
    let answers = store.refresh(&leases).await?;
    assert_eq!(answers.len(), 1);
    Ok(answers.into_iter().next().unwrap())
}

pub async fn is_held(store: &EtcdLeases, lease: &str, id: &str, token: Fence) -> bool {
    extend(store, lease, id, token, EXPIRATION).await.unwrap() == Refreshed::Held
}

/// Asks until the answer is good.
pub async fn until<T, E, F>(mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
    E: std::fmt::Debug,
{
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "it goes on failing: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
