//! The settings of a lock table.

use std::time::Duration;

use crate::locks::{ConflictTable, Limits, TableConfig, Text, Timeouts, VictimPolicy};

/// How a lock table behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockConfig {
    /// Whether deadlocks are looked for when a request blocks. Default true.
    pub detect_on_block: bool,
    /// How often deadlocks are looked for besides; zero is never. Default 1 s.
    pub detect_interval: Duration,
    /// Who is the victim of a deadlock. Default [`VictimPolicy::Default`].
    pub detect_policy: VictimPolicy,
    /// What [`VictimPolicy::Random`] draws its numbers from. Default 0; a keeper begins each time with another.
    pub seed: u64,
    /// How long a request waits that does not say otherwise; zero is for ever. Default 5 s.
    pub lock_timeout: Duration,
    /// Whether a request that does not say otherwise does not wait at all (Berkeley DB's
    /// `db_txn_nowait`). Default false.
    pub no_wait: bool,
    /// How long a locker that does not say otherwise may take in all before its waits end; zero is for
    /// ever. Default zero.
    pub txn_timeout: Duration,
    /// How long a lock may be held before its holder and those who wait for it are told; zero is for
    /// ever. Default zero.
    pub max_hold: Duration,
    /// Whether who holds a lock longer than `max_hold` is aborted. Default false.
    pub abort_on_max_hold: bool,
    /// Most lockers at one time. Default 100,000.
    pub max_lockers: usize,
    /// Most locks at one time, those waited for included. Default 100,000.
    pub max_locks: usize,
    /// Most objects held or waited for at one time. Default 100,000.
    pub max_objects: usize,
    /// The share of a limit, in percent, at which a warning is given; zero is never. Default 80.
    pub limit_warning: u8,
    /// Whether to warn when classes of objects are locked in an order that contradicts an earlier one.
    /// Default false.
    pub order_warnings: bool,
    /// Which modes conflict. Default [`ConflictTable::standard`].
    pub conflicts: ConflictTable,
    /// Namespaces whose objects go by a table of their own. Default none.
    pub own_conflicts: Vec<(Text, ConflictTable)>,
}

impl LockConfig {
    pub(super) fn table(&self) -> TableConfig {
        TableConfig {
            limits: self.limits(),
            limit_warning: self.limit_warning,
            detect_on_block: self.detect_on_block,
            policy: self.detect_policy,
            seed: self.seed,
            conflicts: self.conflicts,
            own_conflicts: self.own_conflicts.clone(),
            timeouts: self.timeouts(),
            order_warnings: self.order_warnings,
        }
    }

    /// Warns if nothing would end a deadlock.
    pub(super) fn warn_if_endless(&self) {
        if self.lock_timeout.is_zero()
            && self.txn_timeout.is_zero()
            && self.detect_interval.is_zero()
            && !self.detect_on_block
        {
            tracing::warn!(
                target: "lockkeeper",
                "lock_timeout, txn_timeout, detect_interval and detect_on_block are all off: a deadlock would last for ever"
            );
        }
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts {
            lock: self.lock_timeout,
            no_wait: self.no_wait,
            txn: self.txn_timeout,
            max_hold: self.max_hold,
            abort_on_max_hold: self.abort_on_max_hold,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        // The core's slots are 32 bits wide.
        let cap = |value: usize| value.min(u32::MAX as usize - 1);
        Limits {
            lockers: cap(self.max_lockers),
            locks: cap(self.max_locks),
            objects: cap(self.max_objects),
        }
    }
}

impl Default for LockConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            detect_on_block: true,
            detect_interval: Duration::from_secs(1),
            detect_policy: VictimPolicy::default(),
            seed: 0,
            lock_timeout: Duration::from_secs(5),
            no_wait: false,
            txn_timeout: Duration::ZERO,
            max_hold: Duration::ZERO,
            abort_on_max_hold: false,
            max_lockers: limits.lockers,
            max_locks: limits.locks,
            max_objects: limits.objects,
            limit_warning: 80,
            order_warnings: false,
            conflicts: ConflictTable::default(),
            own_conflicts: Vec::new(),
        }
    }
}
