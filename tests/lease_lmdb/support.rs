//! What these tests share.

use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::{Claim, Claimed, Fence, Holder, LeaseName, LeaseStore, Refresh};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

pub fn name(name: &str) -> LeaseName {
    LeaseName::new(name).unwrap()
}

pub fn holder(id: &str) -> Holder {
    Holder {
        id: id.into(),
        host: "here".into(),
        pid: std::process::id(),
    }
}

pub fn wish(lease: &str, id: &str, expiration: Duration) -> Claim {
    Claim {
        name: name(lease),
        holder: holder(id),
        expiration,
        unclean_delay: Duration::ZERO,
    }
}

pub fn extension(lease: &str, id: &str, token: Fence, expiration: Duration) -> Refresh {
    Refresh {
        name: name(lease),
        holder: holder(id),
        token,
        expiration,
    }
}

/// The token of a lease that must be free.
pub fn taken(store: &impl LeaseStore, claim: &Claim) -> Fence {
    match block_on(store.claim(claim)).unwrap() {
        Claimed::Ours { token } => token,
        Claimed::Busy(record) => panic!("{} is held: {record:?}", claim.name),
    }
}

/// Waits until `look` answers something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(Duration::from_millis(2));
    }
}
