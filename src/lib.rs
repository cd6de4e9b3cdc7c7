//! Transactions, locks and leases on LMDB for actix applications.
#![warn(missing_docs)]

mod locks;
pub use heed;
pub use locks::{
    Age, Candidate, Conflict, ConflictKind, ConflictTable, CycleStep, DetectReport, HeldLock,
    LimitKind, LockSnapshot, LockStats, LockerId, Mode, Object, Party, Text, Usage, VictimPolicy,
    WaitingLock,
};

/// The pure core of the lock table, for the tests that drive it by hand. Not part of the public face:
/// it may change in any version.
#[doc(hidden)]
pub mod lock_core {
    pub use crate::locks::{
        Attempt, ConflictTable, DEFAULT_PRIORITY, Denied, Effect, Limits, LockerSpec, Moment,
        Reason, Request, Table, TableConfig, WaitId,
    };
}
