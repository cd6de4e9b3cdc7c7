//! Limits, counters, and a picture of the whole table.

use std::fmt;

use super::{LockerId, Mode, Object};

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// Lockers that exist at one time.
    Lockers,
    /// Locks that are held or waited for at one time.
    Locks,
    /// Objects that somebody holds or waits for.
    Objects,
}

impl LimitKind {
    /// The name of the setting.
    #[must_use]
    pub fn setting(self) -> &'static str {
        match self {
            LimitKind::Lockers => "max_lockers",
            LimitKind::Locks => "max_locks",
            LimitKind::Objects => "max_objects",
        }
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LimitKind::Lockers => "lockers",
            LimitKind::Locks => "locks",
            LimitKind::Objects => "objects",
        })
    }
}

/// The most there may be of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most lockers. Default 100,000.
    pub lockers: usize,
    /// Most locks, those waited for included. Default 100,000.
    pub locks: usize,
    /// Most objects. Default 100,000.
    pub objects: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lockers: 100_000,
            locks: 100_000,
            objects: 100_000,
        }
    }
}

/// How much of something is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Usage {
    /// In use now.
    pub now: usize,
    /// The most that ever was in use at one time.
    pub max: usize,
    /// The limit.
    pub limit: usize,
}

impl Usage {
    pub(super) fn set(&mut self, now: usize) {
        self.now = now;
        self.max = self.max.max(now);
    }
}

/// What the lock table has done since it began, and what it holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[derive(serde::Serialize)]
pub struct LockStats {
    /// Requests granted, at once or after a wait; a repeated lock (reference count) counts too.
    pub grants: u64,
    /// Requests that were put into a queue.
    pub waits: u64,
    /// Requests refused because they did not want to wait.
    pub not_available: u64,
    /// Cycles broken: one for each victim.
    pub deadlocks: u64,
    /// Waits that ended at their deadline.
    pub timeouts: u64,
    /// Requests and lockers refused at a limit.
    pub limits_met: u64,
    /// Full passes of the detector.
    pub detections: u64,
    /// Requests waiting now.
    pub waiting: usize,
    /// Lockers.
    pub lockers: Usage,
    /// Locks, those waited for included.
    pub locks: Usage,
    /// Objects.
    pub objects: Usage,
}

/// A held lock in a [`LockSnapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLock {
    /// The object.
    pub object: Object,
    /// Who holds it.
    pub locker: LockerId,
    /// In which mode.
    pub mode: Mode,
    /// How many times it was taken and not yet released.
    pub count: u64,
}

/// A waiting request in a [`LockSnapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingLock {
    /// The object.
    pub object: Object,
    /// Who waits.
    pub locker: LockerId,
    /// For which mode.
    pub mode: Mode,
}

/// Everything the table holds at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockSnapshot {
    /// Held locks, ordered by object, locker and mode.
    pub held: Vec<HeldLock>,
    /// Waiting requests, ordered by object, and for each object in the order of its queue.
    pub waiting: Vec<WaitingLock>,
    /// Lockers that exist, in the order in which they were made.
    pub lockers: Vec<LockerId>,
}
