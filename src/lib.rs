//! Transactions, locks and leases on LMDB for services written with actix-web or plain tokio.
//!
//! A [`Keeper`] is a runtime inside your process: an LMDB environment with one writer thread, a lock table, and a supervisor
//! that runs transactions. Updates that wait share one commit, each isolated from the others; the memory map grows under load
//! while nobody is on it; deadlocks are found and retried; and every call ends with an answer by its deadline.
//!
//! ```
//! use lockkeeper::heed::{byteorder::BigEndian, types::{Str, U64}};
//! use lockkeeper::{Db, Keeper, RunTxn, TxnError};
//!
//! #[derive(Debug, PartialEq)]
//! struct SoldOut;
//!
//! async fn sell(keeper: &Keeper, stock: Db<Str, U64<BigEndian>>, item: String) -> Result<u64, TxnError<SoldOut>> {
//!     keeper.send(RunTxn::try_update(move |txn| {
//!         let left = stock.get(txn, &item)?.unwrap_or(1);
//!         let left = left.checked_sub(1).ok_or(TxnError::Abort(SoldOut))?;
//!         stock.put(txn, &item, &left)?;
//!         Ok(left)
//!     })).await // answered when it is durable
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let keeper = Keeper::open(folder.path())?;
//! let stock = keeper.database("stock").await?;
//! assert_eq!(sell(&keeper, stock, "pears".into()).await.unwrap(), 0);
//! assert!(matches!(sell(&keeper, stock, "pears".into()).await, Err(TxnError::Abort(SoldOut))));
//! assert_eq!(keeper.view(move |txn| Ok(stock.get(txn, "pears")?)).await?, Some(0));
//! # Ok(())
//! # }
//! ```
//!
//! # Where to find what
//!
//! - **Open and close**: [`Keeper`], [`KeeperBuilder`], [`Settings`] and the file `lockkeeper.toml`, [`OpenError`],
//!   [`ShutdownError`].
//! - **Transactions**: [`Keeper::update`] and [`Keeper::view`], or [`RunTxn`] as a message with a name, locks, a deadline, a
//!   retry budget and a durability; [`WriteTxn`] and [`ReadTxn`] are what a body gets; [`TxnRunner`] is for tests.
//! - **Transactions that span awaits**: [`Keeper::transaction`], [`RunTxn::interactive`], [`Keeper::begin`]; [`Txn`] is what the
//!   closure gets, [`Records`] what it reads and writes, [`Isolation`] how much of others it sees, [`OpError`] why an operation
//!   failed.
//! - **Databases**: [`Keeper::database`] gives a [`Db`], a typed handle with heed's methods that may be copied into every body.
//! - **Errors**: [`TxnError`], with [`TxnError::class`] and [`TxnError::is_retryable`]; [`DbError`], [`DatabaseError`],
//!   [`EnvError`].
//! - **Outcomes**: [`Handler`] and [`HandlerChain`] stand between an outcome and the caller.
//! - **The map**: [`Growth`], [`SetMapSize`], [`MapBusy`].
//! - **The environment**: [`Durability`], [`Sync`], [`CopyTo`], [`ClearDatabase`], [`DeleteDatabase`], [`ClearStaleReaders`];
//!   after a fatal error [`PanicEvent`], [`OnFatal`], [`Recover`].
//! - **Locks**: [`Object`] (a key or a range) and [`Mode`] in [`RunTxn::lock`]; alone, [`Acquire`] by message and [`Locks`] in
//!   place, with [`Locker`]s and their children, and [`LockOps`] for several at once. [`LockConflict`] says who is in the way,
//!   [`LockError`] what to do; [`SetDetect`], [`SetTimeouts`] and [`SetLimits`] change the table while it runs.
//! - **Leases**: [`Keeper::lease`] or [`AcquireLease`]; alone, [`Leases`] in any [`LeaseStore`]. [`LeaseGuard`] is what one gets,
//!   [`LeaseError`] why not, [`LeaseHandler`] decides what to do when the store fails.
//! - **Workers**: [`Keeper::pool`] starts a supervised [`Pool`] of [`Worker`]s; [`Restart`], [`Strategy`], [`OnSilence`] say what happens when
//!   they fail, [`PoolStats`] what has happened.
//!   [`PoolBuilder::serve`] makes one serve a queue of jobs: [`JobPool`], [`Submit`], [`OnFull`], [`JobError`], [`Quarantine`].
//! - **To be seen**: [`Keeper::stats`]; spans and metrics.
//! - **Actors**: [`Environment`], [`Supervisor`], [`LockTable`], [`LeaseActor`] and [`WorkerPool`], whose addresses [`Keeper::environment`] and the like give.
//!
//! The README says what is guaranteed and when not to use it; `docs/guide.md` which thread runs a body, what happens when a
//! client goes away, backup, durability and recovery; `docs/isolation.md` interactive transactions; `docs/locks.md` and `docs/choosing.md` the locks; `docs/settings.md`, `docs/observability.md` and `docs/migrating.md` the
//! rest.
//!
//! # Features
//!
//! All are off by default.
//!
//! - `actix-web`: `ResponseError` for [`TxnError`], [`LockError`], [`DatabaseError`] and [`EnvError`].
//! - `postgres`, `mysql` (MariaDB too), `sqlite`: leases in that database, through sqlx.
//! - `etcd`: leases in etcd; building it needs `protoc`.
#![warn(missing_docs)]

mod actors;
mod backoff;
mod bombs;
mod clock;
mod config;
mod env;
mod error;
mod inside;
mod keeper;
mod leases;
mod locks;
mod messages;
mod panics;
mod pool;
mod supervision;
mod txn;
#[cfg(feature = "actix-web")]
mod web;

pub use actors::environment::Environment;
pub use actors::lease::{LeaseActor, LeaseActorError};
pub use actors::lock_table::{
    Ended, Later, Lock, LockConfig, LockEvent, LockGuard, LockGuards, LockReply, LockTable, Locker,
    Locks, LocksDone, LocksFailed, LocksRun, NoSystem,
};
pub use actors::supervisor::Supervisor;
pub use actors::worker_pool::WorkerPool;
pub use backoff::{Backoff, Delay};
pub use config::{
    Change, Config, ConfigError, Durability, Growth, NoCounterpart, OnFatal, Place, SettingInfo,
    Settings, Source, WhenFull, settings_table,
};
pub use env::{
    BodyKind, DatabaseStats, Db, EnvStats, Occupant, PanicEvent, ReadTxn, Readable, Records,
    WriteTxn,
};
pub use error::{
    ActorPanicked, DatabaseError, DbError, EnvError, ErrorClass, JobError, JobPanic, LeaseError,
    LockError, MapBusy, MaybeStillHeld, NoRecords, OpenError, Part, PoolError, RetryError,
    ShutdownError, Site, SizeLimit, Stage, StorageError, TxnError,
};
pub use heed;
pub use keeper::{
    Begin, Begun, Keeper, KeeperBuilder, KeeperStats, PanicStats, Refused, Request, Signal,
    Termination, Transaction, TxnRunner, termination,
};
pub use leases::{
    AsLease, BadLeaseName, BadTableName, Claim, Claimed, Fence, Holder, IgnoreStoreErrors, Lease,
    LeaseConfig, LeaseEvent, LeaseFault, LeaseGuard, LeaseHandler, LeaseName, LeaseOperation,
    LeaseOptions, LeaseRecord, LeaseSettingsError, LeaseShutdown, LeaseStanding, LeaseStore,
    LeaseVerdict, LeaseView, Leases, LeasesBuilder, LmdbLeases, LogStoreErrors, LostReason,
    Refresh, Refreshed, Released, StoreError, StoreFuture, StoreId, TableName, Wakeups,
    store_from_url,
};
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub use leases::{CheckError, CheckLease};
#[cfg(feature = "etcd")]
pub use leases::{EtcdLeases, EtcdOptions};
#[cfg(feature = "mysql")]
pub use leases::{MysqlLeases, MysqlLeasesBuilder};
#[cfg(feature = "postgres")]
pub use leases::{PostgresLeases, PostgresLeasesBuilder};
#[cfg(feature = "sqlite")]
pub use leases::{SqliteLeases, SqliteLeasesBuilder};
pub use locks::{
    Age, Candidate, Choice, ConflictKind, ConflictTable, ConflictTableError, CycleStep,
    DEFAULT_PRIORITY, DetectReport, EmptyRange, HeldLock, LimitInUse, LimitKind, LockConflict,
    LockSnapshot, LockStats, LockerId, LockerInfo, LockerSpec, Mode, Object, OrderStep,
    OrderWarning, Party, PassStats, Text, UnknownModeName, Usage, VictimPolicy, WaitingLock,
    WaitsFor,
};
pub use messages::environment::{
    ClearDatabase, ClearStaleReaders, CopyTo, DeleteDatabase, EnvStatsQuery, ForgetToken, Recover,
    SetMapSize, Sync,
};
pub use messages::lease::{
    AcquireLease, ExtendLease, ForceRelease, LeaseInfo, LeaseStatus, ListLeases, ReleaseLease,
};
pub use messages::lock_table::{
    Acquire, ChangeFailed, CommitLocker, DeadlockHistory, Detect, Downgrade, EndLocker,
    LockConfigQuery, LockMany, LockOps, LockOutcome, LockSnapshotQuery, LockStatsQuery, LocksHeld,
    LocksRefused, NewLocker, PastDeadlock, Release, SetDetect, SetLimits, SetTimeouts, Upgrade,
    Wait,
};
pub use messages::quarantine::{DropQuarantined, QuarantineQuery, RetryQuarantined};
pub use messages::supervisor::{RunTxn, TxnStats, TxnStatsQuery};
pub use messages::worker_pool::{
    DrainPool, ListPools, PausePool, PoolStatsQuery, ResumePool, ScalePool, StopPool,
};
pub use pool::{
    BoxError, Detached, FailureKind, Job, JobId, JobPool, JobStats, OnFull, OnSilence, Pool,
    PoolBuilder, PoolLease, PoolLeaseState, PoolLeaseStats, PoolState, PoolStats, Quarantine,
    QuarantineEntry, QuarantinedJob, Restart, Strategy, Submit, Worker, WorkerCounts,
    WorkerFailure, WorkerState,
};
pub use txn::answers::AnswerError;
pub use txn::handler::{Handler, HandlerChain, HandlerContext, Outcome};
pub use txn::run::{Fetched, Isolation, OpError, Savepoint, Scan, Txn, abort};
pub use txn::sets::WhichSet;

/// A snapshot held over awaits, for those who drive one by hand. Not part of the public face: it may change in any version.
#[doc(hidden)]
pub use env::Snapshot;

/// The pure core of the lock table, for the tests that drive it by hand. Not part of the public face:
/// it may change in any version.
#[doc(hidden)]
pub mod lock_core {
    pub use crate::locks::{
        Attempt, ConflictTable, DEFAULT_PRIORITY, DeadlockRecord, Denied, Effect, Failure, Limits,
        LockerSpec, Moment, Op, OpOutcome, Patience, Progress, Reason, Request, Sequence, Table,
        TableConfig, Timeouts, WaitId,
    };
}

/// The pure core of leases, for the tests that drive it by hand. Not part of the public face: it may change in any version.
#[doc(hidden)]
pub mod lease_core {
    pub use crate::leases::state::{
        Book, Bounds, ClaimAnswer, ClaimWon, Effect, LeaseKey, Life, LifeChange, Moment, Phase,
        RefreshAnswer, RefreshItem, Refusal, SendId, Timing, WaiterId, Wish,
    };
}

/// The pure core of worker pools, for the tests that drive it by hand. Not part of the public face: it may change in any version.
#[doc(hidden)]
pub mod pool_core {
    pub use crate::pool::supervise::{
        Cause, Counts, Effect, End, FailureNote, Gating, RunId, Spec, Supervision, Who,
    };
}

/// The samples in the README and in the docs are compiled, and run where that means something.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/choosing.md")]
    struct Choosing;
    #[doc = include_str!("../docs/guide.md")]
    struct Guide;
    #[doc = include_str!("../docs/isolation.md")]
    struct IsolationPage;
    #[doc = include_str!("../docs/leases.md")]
    struct LeasesPage;
    #[doc = include_str!("../docs/locks.md")]
    struct LocksPage;
    #[doc = include_str!("../docs/migrating.md")]
    struct Migrating;
    #[doc = include_str!("../docs/observability.md")]
    struct Observability;
    #[doc = include_str!("../docs/pools-leases.md")]
    struct PoolsLeases;
    #[doc = include_str!("../docs/pools.md")]
    struct PoolsPage;
    #[doc = include_str!("../docs/settings.md")]
    struct SettingsPage;
}
