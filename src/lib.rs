//! Transactions, locks and leases on LMDB for actix applications.
#![warn(missing_docs)]

mod actors;
mod locks;
mod messages;

pub use actors::lock_table::{
    Ended, Lock, LockConfig, LockGuard, LockReply, LockTable, Locker, Locks, NoSystem,
};
pub use heed;
pub use locks::{
    Age, Candidate, Conflict, ConflictKind, ConflictTable, CycleStep, DEFAULT_PRIORITY,
    DetectReport, HeldLock, LimitKind, LockSnapshot, LockStats, LockerId, LockerSpec, Mode, Object,
    Party, Text, Usage, VictimPolicy, WaitingLock,
};
pub use messages::lock_table::{Acquire, Detect, LockError, LockStatsQuery, Release, Wait};

/// The pure core of the lock table, for the tests that drive it by hand. Not part of the public face:
/// it may change in any version.
#[doc(hidden)]
pub mod lock_core {
    pub use crate::locks::{
        Attempt, ConflictTable, DEFAULT_PRIORITY, Denied, Effect, Limits, LockerSpec, Moment,
        Reason, Request, Table, TableConfig, WaitId,
    };
}
