//! The settings of a lock table.

use std::time::Duration;

use crate::locks::{ConflictTable, Limits, TableConfig, VictimPolicy};

/// How a lock table behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockConfig {
    /// Whether deadlocks are looked for when a request blocks. Default true.
    pub detect_on_block: bool,
    /// How often deadlocks are looked for besides; zero is never. Default 1 s.
    pub detect_interval: Duration,
    /// How long a request waits that does not say otherwise; zero is for ever. Default 5 s.
    pub lock_timeout: Duration,
    /// Who is the victim of a deadlock. Default [`VictimPolicy::Youngest`].
    pub policy: VictimPolicy,
    /// Most lockers at one time. Default 100,000.
    pub max_lockers: usize,
    /// Most locks at one time, those waited for included. Default 100,000.
    pub max_locks: usize,
    /// Most objects held or waited for at one time. Default 100,000.
    pub max_objects: usize,
}

impl LockConfig {
    pub(super) fn table(&self) -> TableConfig {
        // The core's slots are 32 bits wide.
        let cap = |value: usize| value.min(u32::MAX as usize);
        TableConfig {
            limits: Limits {
                lockers: cap(self.max_lockers),
                locks: cap(self.max_locks),
                objects: cap(self.max_objects),
            },
            detect_on_block: self.detect_on_block,
            policy: self.policy,
            conflicts: ConflictTable::default(),
        }
    }
}

impl Default for LockConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            detect_on_block: true,
            detect_interval: Duration::from_secs(1),
            lock_timeout: Duration::from_secs(5),
            policy: VictimPolicy::default(),
            max_lockers: limits.lockers,
            max_locks: limits.locks,
            max_objects: limits.objects,
        }
    }
}
