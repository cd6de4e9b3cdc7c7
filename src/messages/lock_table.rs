//! What may be asked of the lock table.

mod ops;

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use actix::Message;

pub use ops::{LockOps, LockOutcome};

use crate::actors::lock_table::{LockConfig, LockGuard, Locker, LocksFailed};
use crate::error::LockError;
use crate::locks::{
    DetectReport, LimitInUse, LockConflict, LockSnapshot, LockStats, LockerSpec, Mode, Object,
    VictimPolicy,
};

/// How long a request may wait for its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Wait {
    /// As long as the locker's `lock_timeout` says, or else the table's (5 s by default). This is the
    /// default.
    #[default]
    Default,
    /// Not at all.
    No,
    /// Until this instant.
    Until(Instant),
    /// So long, counted from when the request begins to wait; zero is for ever, as in every timeout.
    For(Duration),
    /// For ever. A deadlock, or the end of the transaction's time, still ends the wait.
    Forever,
}

/// Takes a lock, waiting for it if need be.
///
/// Anyone sends it, the lock table answers with a guard that releases the lock when dropped, also
/// when nobody reads the answer. Requests for one object are served in the order in which they come.
/// If the sender goes away while the request waits, it is withdrawn.
#[derive(Debug, Message)]
#[rtype(result = "Result<LockGuard, LockError>")]
pub struct Acquire {
    /// What to lock.
    pub object: Object,
    /// How.
    pub mode: Mode,
    /// How long to wait.
    pub wait: Wait,
    /// For whom; `None` makes a locker for this lock alone, which ends with the guard.
    pub locker: Option<Arc<Locker>>,
    /// The line of code that asks.
    pub site: &'static Location<'static>,
}

impl Acquire {
    /// Asks for the object in this mode, for a locker of its own, waiting as long as the table's
    /// `lock_timeout` says.
    #[track_caller]
    #[must_use]
    pub fn new(object: Object, mode: Mode) -> Self {
        Self {
            object,
            mode,
            wait: Wait::Default,
            locker: None,
            site: Location::caller(),
        }
    }

    /// Sets how long to wait (default: the table's `lock_timeout`).
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Asks for a locker that exists already.
    #[must_use]
    pub fn locker(mut self, locker: Arc<Locker>) -> Self {
        self.locker = Some(locker);
        self
    }
}

/// Releases a lock, or several; the answer is whether it was held, or all of them.
///
/// Anyone sends it, the lock table answers after the lock is free. Dropping a guard does the same at
/// once, without a message.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub enum Release {
    /// The lock of this guard.
    Guard(LockGuard),
    /// The locks of these guards, all at once.
    Guards(Vec<LockGuard>),
    /// A lock of a locker.
    Lock {
        /// Whose.
        locker: Arc<Locker>,
        /// On what.
        object: Object,
        /// In which mode.
        mode: Mode,
    },
}

impl Release {
    /// Does it on the calling thread.
    pub(crate) fn in_place(self) -> bool {
        match self {
            Self::Guard(guard) => guard.release(),
            Self::Guards(guards) => LockGuard::release_all(guards),
            Self::Lock {
                locker,
                object,
                mode,
            } => locker.unlock(&object, mode),
        }
    }
}

/// Changes the mode of a lock, waiting if need be. Anyone sends it; the lock table answers with the
/// guard in its new mode, or gives it back as it was, with the error. If the sender goes away, the
/// request is withdrawn and the lock released.
#[derive(Debug, Message)]
#[rtype(result = "Result<LockGuard, ChangeFailed>")]
pub struct Upgrade {
    /// The lock.
    pub guard: LockGuard,
    /// Its new mode.
    pub to: Mode,
    /// How long to wait.
    pub wait: Wait,
    /// The line of code that asks.
    pub site: &'static Location<'static>,
}

impl Upgrade {
    /// Asks for this mode, waiting as long as the locker's or the table's `lock_timeout` says.
    #[track_caller]
    #[must_use]
    pub fn new(guard: LockGuard, to: Mode) -> Self {
        Self {
            guard,
            to,
            wait: Wait::Default,
            site: Location::caller(),
        }
    }

    /// Sets how long to wait (default: the locker's or the table's `lock_timeout`).
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Does it in the caller's task.
    pub(crate) async fn run(self) -> Result<LockGuard, ChangeFailed> {
        let mut guard = self.guard;
        match guard.upgrade_at(self.to, self.wait, self.site).await {
            Ok(()) => Ok(guard),
            Err(error) => Err(ChangeFailed::new(guard, error)),
        }
    }
}

/// Weakens a lock, without a wait. Anyone sends it; the lock table answers with the guard in its new
/// mode, or gives it back as it was, with the error.
#[derive(Debug, Message)]
#[rtype(result = "Result<LockGuard, ChangeFailed>")]
pub struct Downgrade {
    /// The lock.
    pub guard: LockGuard,
    /// Its new mode.
    pub to: Mode,
}

/// A lock has kept its mode.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct ChangeFailed {
    /// The lock as it was.
    pub guard: LockGuard,
    /// Why.
    #[source]
    pub error: LockError,
}

impl ChangeFailed {
    pub(crate) fn new(guard: LockGuard, error: LockError) -> Self {
        Self { guard, error }
    }
}

/// Makes a locker. Anyone sends it; the lock table answers with a handle that ends the locker when the
/// last clone of it is dropped, also when nobody reads the answer.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Arc<Locker>, LockError>")]
pub struct NewLocker {
    /// What it is like.
    pub spec: LockerSpec,
    /// Whose child it is; `None` makes a family of its own.
    pub parent: Option<Arc<Locker>>,
}

/// Ends a child and gives its locks to its parent; see [`Locker::commit`]. Anyone sends it, the lock
/// table answers when it is done.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), LockError>")]
pub struct CommitLocker {
    /// The child.
    pub locker: Arc<Locker>,
}

/// Ends a locker and its children, whoever has a handle of them: what they wait for is refused, what
/// they hold is released. Anyone sends it; the answer is false if it had ended before.
#[derive(Debug, Clone, Message)]
#[rtype(result = "bool")]
pub struct EndLocker {
    /// The locker.
    pub locker: Arc<Locker>,
}

/// Does several operations of one locker in their order; see [`LockOps`]. Anyone sends it. The lock
/// table answers when all is done, or the first has failed, with guards for what was taken and is still
/// held. If the sender goes away, what was taken is released.
#[derive(Debug, Message)]
#[rtype(result = "Result<LocksHeld, LocksRefused>")]
pub struct LockMany {
    /// Whose.
    pub locker: Arc<Locker>,
    /// What to do.
    pub ops: LockOps,
    /// The line of code that asks.
    pub site: &'static Location<'static>,
}

impl LockMany {
    /// Asks for these operations.
    #[track_caller]
    #[must_use]
    pub fn new(locker: Arc<Locker>, ops: LockOps) -> Self {
        Self {
            locker,
            ops,
            site: Location::caller(),
        }
    }
}

/// The answer to [`LockMany`].
#[derive(Debug)]
#[non_exhaustive]
pub struct LocksHeld {
    /// What became of each operation.
    pub outcomes: Vec<LockOutcome>,
    /// What was taken and is still held: a guard for each reference.
    pub guards: Vec<LockGuard>,
}

impl LocksHeld {
    pub(crate) fn new(outcomes: Vec<LockOutcome>, guards: Vec<LockGuard>) -> Self {
        Self { outcomes, guards }
    }
}

/// An operation of [`LockMany`] failed.
#[derive(Debug, thiserror::Error)]
#[error("{failed}")]
#[non_exhaustive]
pub struct LocksRefused {
    /// Which operation failed and why, and what became of the others.
    #[source]
    pub failed: LocksFailed,
    /// With [`stop_at_first_error`](LockOps::stop_at_first_error): what was taken before and is still
    /// held. Otherwise empty.
    pub guards: Vec<LockGuard>,
}

impl LocksRefused {
    /// None of so many operations was begun.
    pub(crate) fn all(operations: usize, error: LockError) -> Self {
        Self::new(LocksFailed::all(operations, error), Vec::new())
    }

    pub(crate) fn new(failed: LocksFailed, guards: Vec<LockGuard>) -> Self {
        Self { failed, guards }
    }
}

/// Looks for deadlocks now, and breaks them. Anyone sends it; the lock table answers with what it found.
#[derive(Debug, Clone, Copy, Default, Message)]
#[rtype(result = "DetectReport")]
pub struct Detect {
    /// By which policy; [`VictimPolicy::Default`] is the table's own.
    pub policy: VictimPolicy,
}

/// Changes how deadlocks are looked for, from now on; what is `None` stays. Anyone sends it, the lock
/// table answers when it is done. If detection on block is turned on, the cycles there are are broken.
#[derive(Debug, Clone, Copy, Default, Message)]
#[rtype(result = "()")]
pub struct SetDetect {
    /// Whether to look when a request blocks.
    pub on_block: Option<bool>,
    /// How often to look besides; zero is never.
    pub interval: Option<Duration>,
    /// Who is the victim.
    pub policy: Option<VictimPolicy>,
}

impl SetDetect {
    pub(crate) fn apply(self, config: &mut LockConfig) {
        change(&mut config.detect_on_block, self.on_block);
        change(&mut config.detect_interval, self.interval);
        change(&mut config.detect_policy, self.policy);
    }
}

/// Changes how long waits, transactions and locks last, from now on; what is `None` stays, zero is for
/// ever. Anyone sends it, the lock table answers when it is done. Requests that wait already and lockers
/// that exist keep the time they were given; locks that are held are judged by the new time.
#[derive(Debug, Clone, Copy, Default, Message)]
#[rtype(result = "()")]
pub struct SetTimeouts {
    /// A wait that does not say otherwise.
    pub lock: Option<Duration>,
    /// Whether a request that does not say otherwise does not wait at all.
    pub no_wait: Option<bool>,
    /// Everything a locker does, unless it says otherwise.
    pub txn: Option<Duration>,
    /// A lock, before its holder and those who wait for it are told.
    pub max_hold: Option<Duration>,
    /// Whether who holds a lock longer than that is aborted.
    pub abort_on_max_hold: Option<bool>,
}

impl SetTimeouts {
    pub(crate) fn apply(self, config: &mut LockConfig) {
        change(&mut config.lock_timeout, self.lock);
        change(&mut config.no_wait, self.no_wait);
        change(&mut config.txn_timeout, self.txn);
        change(&mut config.max_hold, self.max_hold);
        change(&mut config.abort_on_max_hold, self.abort_on_max_hold);
    }
}

/// Changes the limits, from now on; what is `None` stays. Anyone sends it; the lock table refuses a limit
/// that is lower than what is in use, and then changes none.
#[derive(Debug, Clone, Copy, Default, Message)]
#[rtype(result = "Result<(), LimitInUse>")]
pub struct SetLimits {
    /// Most lockers at one time.
    pub lockers: Option<usize>,
    /// Most locks at one time, those waited for included.
    pub locks: Option<usize>,
    /// Most objects held or waited for at one time.
    pub objects: Option<usize>,
}

impl SetLimits {
    pub(crate) fn apply(self, config: &mut LockConfig) {
        change(&mut config.max_lockers, self.lockers);
        change(&mut config.max_locks, self.locks);
        change(&mut config.max_objects, self.objects);
    }
}

fn change<T>(setting: &mut T, to: Option<T>) {
    if let Some(to) = to {
        *setting = to;
    }
}

/// Asks for the lock table's statistics. Anyone sends it.
#[derive(Debug, Clone, Copy, Default, Message)]
#[rtype(result = "LockStats")]
pub struct LockStatsQuery {
    /// Whether to set the counters to zero afterwards. What is in use and the limits are not touched.
    pub clear: bool,
}

/// Asks for everything that is held and waited for, at one moment: when it is this message's turn. Anyone sends it. It is put in
/// order aside, and messages that come later can be answered before.
#[derive(Debug, Clone, Copy, Default, Message)]
#[rtype(result = "LockSnapshot")]
pub struct LockSnapshotQuery;

/// Asks how the lock table is set: as at the start, with all changes since. Anyone sends it.
#[derive(Debug, Clone, Copy, Default, Message)]
#[rtype(result = "LockConfig")]
pub struct LockConfigQuery;

/// Asks for the last 64 deadlocks, the oldest first, each with its full report. Anyone sends it.
#[derive(Debug, Clone, Copy, Default, Message)]
#[rtype(result = "Vec<PastDeadlock>")]
pub struct DeadlockHistory;

/// A deadlock of the past.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PastDeadlock {
    /// When it was broken, by the system's clock as it is now.
    pub at: SystemTime,
    /// The report, with the cycle and why this victim was chosen.
    pub conflict: Arc<LockConflict>,
}

impl PastDeadlock {
    pub(crate) fn new(at: SystemTime, conflict: Arc<LockConflict>) -> Self {
        Self { at, conflict }
    }
}
