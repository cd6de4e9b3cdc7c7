//! Limits and counters.

use std::fmt;
use std::time::Duration;

use super::{Effect, Table};

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum LimitKind {
    /// Lockers that exist at one time.
    Lockers,
    /// Locks that are held or waited for at one time.
    Locks,
    /// Objects that somebody holds or waits for.
    Objects,
    /// Pairs of objects that overlap: a range and a key in it, or two ranges. Each is kept while both are
    /// locked or waited for, some 20 bytes; there may be 64 for each object that there may be.
    Overlaps,
}

/// The pairs that overlap, for each object that there may be: with the usual limits 6.4 million, which is
/// every key of a full table locked under 64 scans of the whole. Of ranges that all overlap each other that
/// is 3,500.
const OVERLAPS_FOR_EACH: usize = 64;

impl LimitKind {
    /// Those that have a setting of their own.
    pub const ALL: [LimitKind; 3] = [LimitKind::Lockers, LimitKind::Locks, LimitKind::Objects];

    /// The name of the setting.
    #[must_use]
    pub fn setting(self) -> &'static str {
        match self {
            LimitKind::Lockers => "max_lockers",
            LimitKind::Locks => "max_locks",
            LimitKind::Objects | LimitKind::Overlaps => "max_objects",
        }
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LimitKind::Lockers => "lockers",
            LimitKind::Locks => "locks",
            LimitKind::Objects => "objects",
            LimitKind::Overlaps => "overlaps between objects",
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

impl Limits {
    /// The limit of this kind.
    #[must_use]
    pub fn of(&self, which: LimitKind) -> usize {
        match which {
            LimitKind::Lockers => self.lockers,
            LimitKind::Locks => self.locks,
            LimitKind::Objects => self.objects,
            LimitKind::Overlaps => self.objects.saturating_mul(OVERLAPS_FOR_EACH),
        }
    }
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
    /// The most that were in use at one time, since the statistics were cleared.
    pub max: usize,
    /// The limit.
    pub limit: usize,
}

/// A limit would be lower than what is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot be set to {asked}: {used} {which} are in use", which.setting())]
pub struct LimitInUse {
    /// Which limit.
    pub which: LimitKind,
    /// What it was to be.
    pub asked: usize,
    /// How many are in use.
    pub used: usize,
}

/// What the lock table has done since it began, or since its counters were cleared, and what it holds
/// now (Berkeley DB's `db_stat -c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[derive(serde::Serialize)]
pub struct LockStats {
    /// Requests granted, at once or after a wait; a repeated lock (reference count) counts too.
    pub grants: u64,
    /// Requests that were put into a queue.
    pub waits: u64,
    /// Locks that were weakened.
    pub downgrades: u64,
    /// Requests refused because they did not want to wait.
    pub not_available: u64,
    /// Cycles broken: one for each victim.
    pub deadlocks: u64,
    /// Waits that ended because the wait had lasted long enough.
    pub lock_timeouts: u64,
    /// Waits that ended because the time of their transaction was over.
    pub txn_timeouts: u64,
    /// Locks that were held too long.
    pub held_too_long: u64,
    /// Requests and lockers refused at a limit.
    pub limits_met: u64,
    /// Searches for a cycle because a request blocked or what it depends on changed.
    pub searches: u64,
    /// Full passes of the detector, by its clock or on demand.
    pub detections: u64,
    /// Victims of those passes.
    pub victims_of_detections: u64,
    /// The time that those passes took, in all.
    pub detection_time: Duration,
    /// The longest of them.
    pub longest_detection: Duration,
    /// The last of them.
    pub last_detection: PassStats,
    /// Requests waiting now.
    pub waiting: usize,
    /// Pairs of objects that overlap now.
    pub overlaps: usize,
    /// Lockers.
    pub lockers: Usage,
    /// Locks, those waited for included.
    pub locks: Usage,
    /// Objects.
    pub objects: Usage,
}

/// The cost and the result of one full pass of the detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct PassStats {
    /// Requests that were waiting.
    pub waiting: usize,
    /// Victims.
    pub victims: usize,
    /// How long it took.
    pub took: Duration,
}

/// Counts what is in use, and notices when a limit is near.
#[derive(Debug)]
pub(super) struct Gauges {
    warning: u8,
    each: [Gauge; 3],
}

#[derive(Debug, Default)]
struct Gauge {
    usage: Usage,
    /// The number at which to warn; zero is never.
    mark: usize,
    /// Whether it was told, and has not been far enough below since.
    told: bool,
}

impl Gauges {
    pub(super) fn new(limits: Limits, warning: u8) -> Self {
        let mut gauges = Self {
            warning,
            each: Default::default(),
        };
        gauges.set_limits(limits);
        gauges
    }

    pub(super) fn set_limits(&mut self, limits: Limits) {
        for which in LimitKind::ALL {
            let limit = limits.of(which);
            let share = (limit as u128 * u128::from(self.warning)).div_ceil(100);
            let gauge = &mut self.each[which as usize];
            gauge.usage.limit = limit;
            gauge.mark = usize::try_from(share).unwrap_or(usize::MAX);
            gauge.told &= gauge.usage.now >= gauge.mark;
        }
    }

    /// Notes how many are in use; the limit, if a warning is due.
    pub(super) fn set(&mut self, which: LimitKind, now: usize) -> Option<usize> {
        let gauge = &mut self.each[which as usize];
        gauge.usage.now = now;
        gauge.usage.max = gauge.usage.max.max(now);
        if gauge.mark == 0 || now < gauge.mark {
            // Told again only after a clear retreat, or use that swings around the mark would never be quiet.
            gauge.told &= now >= gauge.mark - gauge.mark / 10;
            return None;
        }
        (!std::mem::replace(&mut gauge.told, true)).then_some(gauge.usage.limit)
    }

    pub(super) fn usage(&self, which: LimitKind) -> Usage {
        self.each[which as usize].usage
    }

    fn clear(&mut self) {
        for gauge in &mut self.each {
            gauge.usage.max = gauge.usage.now;
        }
    }
}

impl Table {
    /// The counters.
    #[must_use]
    pub fn stats(&self) -> LockStats {
        let mut stats = self.stats;
        stats.waiting = self.waits.len();
        stats.overlaps = self.overlaps;
        stats.lockers = self.gauges.usage(LimitKind::Lockers);
        stats.locks = self.gauges.usage(LimitKind::Locks);
        stats.objects = self.gauges.usage(LimitKind::Objects);
        stats
    }

    /// Sets the counters to zero. What is in use, and the limits, are not touched.
    pub fn clear_stats(&mut self) {
        self.stats = LockStats::default();
        self.gauges.clear();
    }

    /// Notes how long a full pass took; the table itself has no clock.
    pub fn note_detection(&mut self, waiting: usize, victims: usize, took: Duration) {
        self.stats.detection_time += took;
        self.stats.longest_detection = self.stats.longest_detection.max(took);
        self.stats.last_detection = PassStats {
            waiting,
            victims,
            took,
        };
    }

    /// Changes the limits.
    ///
    /// # Errors
    /// [`LimitInUse`] if one would be lower than what is in use; then nothing changes.
    pub fn set_limits(&mut self, limits: Limits) -> Result<(), LimitInUse> {
        for which in LimitKind::ALL {
            let asked = limits.of(which);
            let used = match which {
                // The pairs of them have to have room too.
                LimitKind::Objects => {
                    let for_pairs = self.overlaps.div_ceil(OVERLAPS_FOR_EACH);
                    self.in_use(which).max(for_pairs)
                }
                which => self.in_use(which),
            };
            if asked < used {
                return Err(LimitInUse { which, asked, used });
            }
        }
        self.config.limits = limits;
        self.gauges.set_limits(limits);
        Ok(())
    }

    /// How many requests wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waits.len()
    }

    /// Notes how many locks and objects are in use: at the end of each call, and before a sequence releases what it took.
    pub(super) fn count_use(&mut self) {
        self.count(LimitKind::Locks);
        self.count(LimitKind::Objects);
    }

    /// Notes how many are in use after a change.
    pub(super) fn count(&mut self, which: LimitKind) {
        let used = self.in_use(which);
        if let Some(limit) = self.gauges.set(which, used) {
            self.events.push(Effect::LimitNear { which, used, limit });
        }
    }
}
