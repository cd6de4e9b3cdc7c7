//! Transactions, locks and leases on LMDB for actix applications.
#![warn(missing_docs)]

mod actors;
mod backoff;
mod clock;
mod config;
mod env;
mod error;
mod keeper;
mod locks;
mod messages;
mod txn;
#[cfg(feature = "actix-web")]
mod web;

pub use actors::environment::Environment;
pub use actors::lock_table::{
    Ended, Lock, LockConfig, LockGuard, LockReply, LockTable, Locker, Locks, NoSystem,
};
pub use actors::supervisor::Supervisor;
pub use backoff::{Backoff, Delay};
pub use config::{
    Change, Config, ConfigError, Durability, Growth, OnFatal, Place, SettingInfo, Settings, Source,
    WhenFull, settings_table,
};
pub use env::{
    BodyKind, DatabaseStats, Db, EnvStats, Occupant, PanicEvent, ReadTxn, Readable, WriteTxn,
};
pub use error::{
    DatabaseError, DbError, EnvError, ErrorClass, MapBusy, OpenError, ShutdownError, Site, Stage,
    StorageError, TxnError,
};
pub use heed;
pub use keeper::{Keeper, KeeperBuilder, KeeperStats, Request, TxnRunner};
pub use locks::{
    Age, Candidate, Conflict, ConflictKind, ConflictTable, CycleStep, DEFAULT_PRIORITY,
    DetectReport, HeldLock, LimitKind, LockSnapshot, LockStats, LockerId, LockerSpec, Mode, Object,
    Party, Text, Usage, VictimPolicy, WaitingLock,
};
pub use messages::environment::{
    ClearDatabase, ClearStaleReaders, CopyTo, DeleteDatabase, EnvStatsQuery, Recover, SetMapSize,
    Sync,
};
pub use messages::lock_table::{Acquire, Detect, LockError, LockStatsQuery, Release, Wait};
pub use messages::supervisor::{RunTxn, TxnStats, TxnStatsQuery};
pub use txn::handler::{Handler, HandlerChain, HandlerContext, Outcome};

/// The pure core of the lock table, for the tests that drive it by hand. Not part of the public face:
/// it may change in any version.
#[doc(hidden)]
pub mod lock_core {
    pub use crate::locks::{
        Attempt, ConflictTable, DEFAULT_PRIORITY, Denied, Effect, Limits, LockerSpec, Moment,
        Reason, Request, Table, TableConfig, WaitId,
    };
}
