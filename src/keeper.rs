//! [`Keeper`]: what users hold.

mod blocking;
mod builder;
mod databases;
mod host;
mod lease;
mod panics;
mod pool;
mod request;
mod snapshots;
mod stop;
pub(crate) mod stoppables;
mod stopping;
mod transaction;
mod under;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, Weak};
use std::time::Instant;

use actix::Addr;
use serde::Serialize;

use crate::actors::environment::Environment;
use crate::actors::lease::LeaseActor;
use crate::actors::lock_table::{LockTable, Locks};
use crate::actors::supervisor::{Runtime, Supervisor};
use crate::actors::worker_pool::WorkerPool;
use crate::config::Config;
use crate::env::{EnvStats, PanicEvent, ReadTxn, WriteTxn};
use crate::error::{OpenError, TxnError};
use crate::locks::LockStats;
use crate::messages::supervisor::{RunTxn, TxnStats};
use crate::pool::PoolStats;

pub use builder::KeeperBuilder;
pub use panics::PanicStats;
pub use request::{Request, TxnRunner};
use stop::now as stop_now;
pub(crate) use stop::{Stopping, in_background as stop_in_background};
pub use stopping::{Signal, Termination, termination};
pub use transaction::{Begin, Begun, Transaction};

/// A handle of the runtime: an environment with its writer, a lock table, and the supervisor that runs transactions.
///
/// It is cheap to clone, `Send` and `Sync`, and works from any thread and any async runtime. Its methods do what the messages
/// in this crate do, in the caller's task; [`Keeper::send`] has the actors do it. When the last handle is dropped, the
/// environment is closed in order in the background; [`Keeper::shutdown`] does so and says when it is done.
///
/// ```
/// use lockkeeper::Keeper;
/// use lockkeeper::heed::{byteorder::BigEndian, types::{Str, U64}};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// let keeper = Keeper::builder().path(folder).open()?;
/// let stock = keeper.blocking_database::<Str, U64<BigEndian>>("stock")?;
///
/// let left = keeper.blocking_update(move |txn| {
///     let left = stock.get(txn, "apples")?.unwrap_or(10) - 1;
///     stock.put(txn, "apples", &left)?;
///     Ok(left)
/// })?;
/// assert_eq!(left, 9);
/// assert_eq!(keeper.blocking_view(move |txn| Ok(stock.get(txn, "apples")?))?, Some(9));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Keeper {
    inner: Arc<Inner>,
    /// None in a handle that the keeper itself gives to what it runs: that does not keep it from stopping.
    #[expect(dead_code, reason = "held, not read")]
    owner: Option<Arc<Owner>>,
}

/// Stops the keeper with its last handle.
struct Owner(Arc<Runtime>);

/// What a keeper's own workers have between their runs: it keeps nothing.
#[derive(Clone)]
pub(crate) struct WeakKeeper(Weak<Inner>);

impl WeakKeeper {
    /// A handle that serves everything and does not keep the keeper going.
    pub(crate) fn upgrade(&self) -> Option<Keeper> {
        let inner = self.0.upgrade()?;
        Some(Keeper { inner, owner: None })
    }
}

struct Inner {
    runtime: Arc<Runtime>,
    locks: Locks,
    addresses: Addresses,
}

/// Where the actors of a keeper are.
#[derive(Clone)]
struct Addresses {
    environment: Addr<Environment>,
    supervisor: Addr<Supervisor>,
    lock_table: Addr<LockTable>,
    leases: Addr<LeaseActor>,
    pools: Addr<WorkerPool>,
}

/// The statistics of a keeper.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct KeeperStats {
    /// The environment.
    pub environment: EnvStats,
    /// The transactions.
    pub transactions: TxnStats,
    /// The lock table.
    pub locks: LockStats,
    /// The pools of workers, in the order of their starts.
    pub pools: Vec<PoolStats>,
    /// The panics in the keeper itself, of which there should be none.
    pub panics: PanicStats,
}

impl Keeper {
    pub(crate) fn weak(&self) -> WeakKeeper {
        WeakKeeper(Arc::downgrade(&self.inner))
    }

    /// Starts to describe a keeper.
    pub fn builder() -> KeeperBuilder {
        KeeperBuilder::default()
    }

    /// Opens a keeper on a folder with the default settings. See [`KeeperBuilder::open`].
    ///
    /// # Errors
    ///
    /// As [`KeeperBuilder::open`].
    pub fn open(folder: impl Into<std::path::PathBuf>) -> Result<Self, OpenError> {
        Self::builder().path(folder).open()
    }

    /// Sends a message of this crate to the actor that it is for, and answers its reply.
    ///
    /// The answer is the message's own result: an actor that is gone answers "shutting down" in the terms of that message;
    /// what has no error, such as a question for statistics, is answered without the actor then. The future does nothing until
    /// it is polled.
    ///
    /// # Errors
    ///
    /// Those of the message.
    #[track_caller]
    pub fn send<M: Request>(&self, message: M) -> impl Future<Output = M::Result> + Send + use<M> {
        message.send_to(self)
    }

    /// Runs a transaction in the caller's task: the same as sending it, without the way through the actor.
    ///
    /// The future does nothing until it is polled; dropped before the body began, the body never runs.
    ///
    /// # Errors
    ///
    /// See [`TxnError`].
    pub fn run<T, E>(
        &self,
        mut txn: RunTxn<T, E>,
    ) -> impl Future<Output = Result<T, TxnError<E>>> + Send + use<T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        txn.options.sent.get_or_insert_with(Instant::now);
        Arc::clone(&self.inner.runtime).run(txn)
    }

    /// Takes a place among the transactions in flight for `txn`, right now, or hands it back: for those who would rather do
    /// something else than wait. The transaction keeps its place until it is run, sent or dropped, and its deadline begins now.
    ///
    /// # Errors
    ///
    /// [`Refused`] with the transaction, and [`TxnError::Overloaded`], or why nothing can be begun at all.
    pub fn try_admit<T, E>(
        &self,
        mut txn: RunTxn<T, E>,
    ) -> Result<RunTxn<T, E>, Box<Refused<T, E>>> {
        match self.inner.runtime.try_admit(&mut txn.options) {
            Ok(()) => {
                txn.options.sent.get_or_insert_with(Instant::now);
                Ok(txn)
            }
            Err(why) => Err(Box::new(Refused { txn, why })),
        }
    }

    /// Runs an update whose body has no error of its own, and answers its value once it is durable.
    ///
    /// The body runs on the writer thread, together with others that share one commit, and perhaps more than once. It has to
    /// be `Send + 'static` for that: move into it what it needs (a [`Db`](crate::Db) is `Copy`), and let it
    /// return what it found.
    ///
    /// # Errors
    ///
    /// See [`TxnError`].
    #[track_caller]
    pub fn update<T, F>(
        &self,
        body: F,
    ) -> impl Future<Output = Result<T, TxnError>> + Send + use<T, F>
    where
        F: FnMut(&mut WriteTxn<'_>) -> Result<T, TxnError> + Send + 'static,
        T: Send + 'static,
    {
        self.run(RunTxn::update(body))
    }

    /// Runs an update whose body can say no with an error of the application's.
    ///
    /// ```
    /// # use lockkeeper::{Keeper, TxnError};
    /// # use lockkeeper::heed::{byteorder::BigEndian, types::{Str, U64}};
    /// #[derive(Debug, PartialEq)]
    /// struct SoldOut;
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let keeper = Keeper::open(folder.path())?;
    /// # let stock = keeper.blocking_database::<Str, U64<BigEndian>>("stock")?;
    /// let sold = lockkeeper::RunTxn::try_update(move |txn| match stock.get(txn, "pears")? {
    ///     None | Some(0) => Err(TxnError::Abort(SoldOut)),
    ///     Some(left) => Ok(stock.put(txn, "pears", &(left - 1))?),
    /// });
    /// assert!(matches!(keeper.blocking_run(sold), Err(TxnError::Abort(SoldOut))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TxnError::Abort`] with the body's error; otherwise see [`TxnError`].
    #[track_caller]
    pub fn try_update<T, E, F>(
        &self,
        body: F,
    ) -> impl Future<Output = Result<T, TxnError<E>>> + Send + use<T, E, F>
    where
        F: FnMut(&mut WriteTxn<'_>) -> Result<T, TxnError<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.run(RunTxn::try_update(body))
    }

    /// Reads one consistent snapshot, in place: the body runs on the thread that polls, and should be short. Long ones are sent
    /// as [`RunTxn::view`]. Its deadline is the setting `deadline`, 30 s by default, counted from the first poll.
    ///
    /// # Errors
    ///
    /// See [`TxnError`].
    #[track_caller]
    pub fn view<T, F>(
        &self,
        body: F,
    ) -> impl Future<Output = Result<T, TxnError>> + Send + use<T, F>
    where
        F: FnMut(&ReadTxn<'_>) -> Result<T, TxnError> + Send + 'static,
        T: Send + 'static,
    {
        self.try_view::<T, Infallible, F>(body)
    }

    /// [`Keeper::view`] with a body that can say no.
    ///
    /// # Errors
    ///
    /// [`TxnError::Abort`] with the body's error; otherwise see [`TxnError`].
    #[track_caller]
    pub fn try_view<T, E, F>(
        &self,
        body: F,
    ) -> impl Future<Output = Result<T, TxnError<E>>> + Send + use<T, E, F>
    where
        F: FnMut(&ReadTxn<'_>) -> Result<T, TxnError<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let runtime = Arc::clone(&self.inner.runtime);
        let site = Location::caller();
        async move { runtime.view_in_place(site, body).await }
    }

    /// What a person would want to look up. It answers also while the environment cannot be read; then
    /// [`EnvStats::unreadable`] says why, and what only LMDB knows is 0.
    #[track_caller]
    pub fn stats(&self) -> impl Future<Output = KeeperStats> + Send + use<> {
        let site = Location::caller();
        let keeper = self.clone();
        async move {
            KeeperStats {
                environment: keeper.inner.runtime.env.stats_in_any_case(site).await,
                transactions: keeper.inner.runtime.stats(),
                locks: keeper.inner.locks.stats(),
                pools: keeper.pools(),
                panics: PanicStats::of(&keeper.inner.runtime),
            }
        }
    }

    /// Has `listener` called once at each fatal error of the environment, on a thread of its own. It may use the keeper, and
    /// send [`Recover`](crate::Recover). What the setting `on_fatal` says is carried out when the listeners have returned, at
    /// the latest after a second. See also [`KeeperBuilder::on_panic`], which subscribes before the environment is opened.
    pub fn on_panic(&self, listener: impl Fn(&PanicEvent) + Send + Sync + 'static) {
        self.inner
            .runtime
            .env
            .shared
            .poison
            .listen(Arc::new(listener));
    }

    /// The settings that the keeper was opened with, and where each came from: [`Config::describe`] goes through them, and its
    /// `Display` prints them as a `lockkeeper.toml`. What messages have changed since is not in it.
    pub fn config(&self) -> &Config {
        &self.inner.runtime.env.shared.config
    }

    /// The address of the environment actor.
    pub fn environment(&self) -> &Addr<Environment> {
        &self.inner.addresses.environment
    }

    /// The address of the supervisor actor, which takes [`RunTxn`].
    pub fn supervisor(&self) -> &Addr<Supervisor> {
        &self.inner.addresses.supervisor
    }

    /// The address of the lock-table actor.
    pub fn lock_table(&self) -> &Addr<LockTable> {
        &self.inner.addresses.lock_table
    }

    /// The lock table's second door: the same table, used in place.
    pub fn locks(&self) -> &Locks {
        &self.inner.locks
    }
}

/// A transaction that [`Keeper::try_admit`] hands back.
#[derive(Debug, thiserror::Error)]
#[error("the transaction was refused")]
pub struct Refused<T, E> {
    /// The transaction, as it was.
    pub txn: RunTxn<T, E>,
    /// Why.
    #[source]
    pub why: TxnError,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("path", &self.inner.runtime.env.shared.path)
            .finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        stop::in_background(&self.0);
    }
}
