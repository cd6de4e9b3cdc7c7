//! The lock table through both of its doors: in place, and by message.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod abandoned;
mod bdb_dead;
mod bdb_lock;
mod bystanders;
mod conflict_tables;
mod dead;
mod deadlock;
mod door;
mod ending;
mod families;
mod held_long;
mod interrupted;
mod je;
mod limits;
#[path = "../support/listening.rs"]
mod listening;
mod many;
mod modes;
mod order;
mod order_warnings;
mod past;
mod ranges;
mod reports;
mod seen;
mod sequences;
mod snapshots;
mod storm;
mod timeouts;
mod victims;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use actix::{Actor, Addr};
use lockkeeper::{
    Acquire, ChangeFailed, CommitLocker, ConflictKind, ConflictTable, DeadlockHistory, Detect,
    DetectReport, Downgrade, EndLocker, LimitInUse, LimitKind, LockConfig, LockConfigQuery,
    LockError, LockEvent, LockGuard, LockMany, LockOps, LockOutcome, LockSnapshot,
    LockSnapshotQuery, LockStats, LockStatsQuery, LockTable, Locker, LockerId, LockerSpec, Locks,
    LocksDone, LocksFailed, LocksHeld, LocksRefused, Mode, NewLocker, NoSystem, Object,
    PastDeadlock, Release, SetDetect, SetLimits, SetTimeouts, Upgrade, VictimPolicy, Wait,
};

use door::{Doing, Door, Held, Holding, Ran, RanInto, Task, event};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn object(name: &str) -> Object {
    Object::new("test", name)
}

/// Lets others run until this is so, or the test fails.
async fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    for _ in 0..100 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
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
