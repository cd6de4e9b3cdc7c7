//! The lock table through both of its doors: in place, and by message.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod deadlock;
mod ending;
mod order;
mod seen;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use actix::{Actor, Addr};
use lockkeeper::{
    Acquire, ConflictKind, Detect, LimitKind, LockConfig, LockError, LockGuard, LockStatsQuery,
    LockTable, Locker, LockerSpec, Locks, Mode, NoSystem, Object, Release, Wait,
};

/// One way in.
#[derive(Clone)]
enum Door {
    InPlace(Locks),
    Message(Locks, Addr<LockTable>),
}

type Taking = Pin<Box<dyn Future<Output = Result<Option<LockGuard>, LockError>>>>;

impl Door {
    fn both(config: LockConfig) -> [Door; 2] {
        let locks = Locks::start(config.clone());
        let (address, behind) = LockTable::start_alone(config).unwrap();
        [Door::InPlace(locks), Door::Message(behind, address)]
    }

    fn locks(&self) -> &Locks {
        match self {
            Door::InPlace(locks) | Door::Message(locks, _) => locks,
        }
    }

    fn locker(&self) -> Arc<Locker> {
        Arc::new(self.locks().locker(LockerSpec::new()).unwrap())
    }

    /// The lock stays with the locker, or with the guard if there is one.
    fn take(&self, locker: &Arc<Locker>, object: &Object, mode: Mode, wait: Wait) -> Taking {
        let (locker, object) = (Arc::clone(locker), object.clone());
        match self.clone() {
            Door::InPlace(_) => {
                Box::pin(async move { locker.lock(&object, mode, wait).await.map(|()| None) })
            }
            Door::Message(_, address) => Box::pin(async move {
                let acquire = Acquire::new(object, mode).wait(wait).locker(locker);
                address.send(acquire).await.unwrap().map(Some)
            }),
        }
    }

    /// Asks, and comes back when the request is queued.
    async fn queue(
        &self,
        locker: &Arc<Locker>,
        object: &Object,
        mode: Mode,
    ) -> tokio::task::JoinHandle<Taken> {
        let before = self.locks().stats().waits;
        let taking = self.take(locker, object, mode, Wait::Forever);
        let task = tokio::task::spawn_local(taking);
        until(|| self.locks().stats().waits > before).await;
        task
    }
}

type Taken = Result<Option<LockGuard>, LockError>;

fn object(name: &str) -> Object {
    Object::new("test", name)
}

/// Lets others run until this is so; far longer than anything here takes, and the test fails.
async fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "what was waited for has not come");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

fn without_detection() -> LockConfig {
    LockConfig {
        detect_on_block: false,
        detect_interval: Duration::ZERO,
        lock_timeout: Duration::ZERO,
        ..LockConfig::default()
    }
}
