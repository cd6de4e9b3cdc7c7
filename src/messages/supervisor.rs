//! What the supervisor is asked: [`RunTxn`], a transaction as a message, and [`TxnStatsQuery`].

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use crate::config::{Durability, WhenFull};
use crate::env::{ReadTxn, Ticket, Under, UpdateBody, ViewBody, WriteTxn};
use crate::error::{Name, Site, TxnError};
use crate::locks::{DEFAULT_PRIORITY, Mode, Object};
use crate::txn::answers::{Codec, hash};
use crate::txn::handler::{Handler, HandlerChain};
use crate::txn::run::{Isolation, Txn};

/// A transaction: a body, and what it needs.
///
/// Anyone sends it: with [`Keeper::send`](crate::Keeper::send) to the supervisor actor, or with
/// [`Keeper::run`](crate::Keeper::run), which does the same in the caller's task. The reply is the body's value once it is
/// durable, or a [`TxnError`]. If the sender goes away before the body began, it never runs; after that it may still commit.
/// Transactions that are sent one after the other, each after the answer to the one before, see each other's writes; those
/// that are in flight together are ordered by the writer's queue.
///
/// It answers lmdbsync's `View`, `Update` and `RunTxn(flags)`.
///
/// ```
/// use lockkeeper::{Object, RunTxn};
/// use std::time::Duration;
///
/// let transfer = RunTxn::update(|_txn| Ok(42))
///     .name("transfer")
///     .write_lock(Object::new("accounts", b"1"))
///     .write_lock(Object::new("accounts", b"2"))
///     .deadline(Duration::from_secs(5));
/// assert_eq!(transfer.given_name(), Some("transfer"));
/// ```
#[must_use = "a transaction does nothing until it is sent"]
pub struct RunTxn<T, E = Infallible> {
    pub(crate) body: Body<T, E>,
    pub(crate) options: TxnOptions,
    /// Boxed: most have none.
    pub(crate) once: Option<Box<Once<T>>>,
}

/// The key of a transaction that is to happen once, and how its answer is stored.
pub(crate) struct Once<T> {
    pub key: Arc<[u8]>,
    pub codec: Codec<T>,
}

impl<T: Serialize + DeserializeOwned> Once<T> {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self {
            key: key.into(),
            codec: Codec::new(),
        }
    }
}

pub(crate) enum Body<T, E> {
    Update(UpdateBody<T, E>),
    View(ViewBody<T, E>),
    Interactive(Closure<T, E>),
}

/// The closure of an interactive transaction, in a message.
pub(crate) type Closure<T, E> = Box<dyn FnMut(Txn) -> Running<T, E> + Send>;
type Running<T, E> = Pin<Box<dyn Future<Output = Result<T, TxnError<E>>> + Send>>;

/// What a transaction was sent with.
pub(crate) struct TxnOptions {
    pub name: Name,
    pub site: Site,
    pub locks: Vec<(Object, Mode)>,
    pub in_order: bool,
    pub deadline: Option<Duration>,
    pub retries: Option<u32>,
    pub retry_timeouts: Option<bool>,
    pub priority: u32,
    pub lock_timeout: Option<Duration>,
    pub txn_timeout: Option<Duration>,
    pub durability: Option<Durability>,
    pub when_full: Option<WhenFull>,
    pub handlers: HandlerChain,
    /// The leases without which it is not applied.
    pub under: Vec<Under>,
    /// The hash of what it asks for, beside its name.
    pub request: Option<[u8; 16]>,
    /// Only interactive transactions have any.
    pub isolation: Isolation,
    /// Deadlines count from here.
    pub sent: Option<Instant>,
    /// And from here, if it was sent to an actor's address and nobody knows when.
    pub built: Option<Instant>,
    /// The span that was current where it was sent.
    pub caller: Option<tracing::Span>,
    /// Its place among the transactions in flight, if it has one already.
    pub permit: Option<Arc<OwnedSemaphorePermit>>,
    /// Set by a sender that keeps the deadline itself: the writer may then answer it directly.
    pub ticket: Option<Arc<Ticket>>,
    /// Set when something is begun that may be committed, for a sender who wants to know.
    pub begun: Option<Arc<AtomicBool>>,
}

impl TxnOptions {
    /// Nothing but the defaults.
    pub(crate) fn new(site: Site) -> Self {
        Self {
            name: None,
            site,
            locks: Vec::new(),
            in_order: false,
            deadline: None,
            retries: None,
            retry_timeouts: None,
            priority: DEFAULT_PRIORITY,
            lock_timeout: None,
            txn_timeout: None,
            durability: None,
            when_full: None,
            handlers: HandlerChain::default(),
            under: Vec::new(),
            request: None,
            isolation: Isolation::default(),
            sent: None,
            built: None,
            caller: None,
            permit: None,
            ticket: None,
            begun: None,
        }
    }

    /// From here on it may be committed.
    pub(crate) fn has_begun(&self) {
        if let Some(begun) = &self.begun {
            begun.store(true, Ordering::Release);
        }
    }
}

impl<T> RunTxn<T>
where
    T: Send + 'static,
{
    /// An update whose body has no error of its own.
    #[track_caller]
    pub fn update<F>(body: F) -> Self
    where
        F: FnMut(&mut WriteTxn<'_>) -> Result<T, TxnError> + Send + 'static,
    {
        Self::new(Body::Update(Box::new(body)))
    }

    /// A view whose body has no error of its own. It runs on a reader thread, so it may take long; see
    /// [`Keeper::view`](crate::Keeper::view) for short ones.
    #[track_caller]
    pub fn view<F>(body: F) -> Self
    where
        F: FnMut(&ReadTxn<'_>) -> Result<T, TxnError> + Send + 'static,
    {
        Self::new(Body::View(Box::new(body)))
    }

    /// An update whose body can say no with an error `E` of the application's: [`TxnError::Abort`].
    #[track_caller]
    pub fn try_update<F, E>(body: F) -> RunTxn<T, E>
    where
        F: FnMut(&mut WriteTxn<'_>) -> Result<T, TxnError<E>> + Send + 'static,
        E: Send + 'static,
    {
        RunTxn::new(Body::Update(Box::new(body)))
    }

    /// A view whose body can say no.
    #[track_caller]
    pub fn try_view<F, E>(body: F) -> RunTxn<T, E>
    where
        F: FnMut(&ReadTxn<'_>) -> Result<T, TxnError<E>> + Send + 'static,
        E: Send + 'static,
    {
        RunTxn::new(Body::View(Box::new(body)))
    }
}

impl<T> RunTxn<T>
where
    T: Send + 'static,
{
    /// An interactive transaction whose closure has no error of its own; what [`Keeper::transaction`](crate::Keeper::transaction)
    /// runs, as a message.
    ///
    /// ```
    /// use lockkeeper::{Isolation, Records, RunTxn};
    /// use lockkeeper::heed::{byteorder::BigEndian, types::{Str, U64}};
    ///
    /// fn add(accounts: Records<Str, U64<BigEndian>>, name: String, amount: u64) -> RunTxn<u64> {
    ///     RunTxn::interactive(move |txn| {
    ///         let name = name.clone();
    ///         async move {
    ///             let balance = txn.get_for_update_as(accounts, &name).await?.unwrap_or(0) + amount;
    ///             txn.put(accounts, &name, &balance).await?;
    ///             Ok(balance)
    ///         }
    ///     })
    ///     .isolation(Isolation::ReadCommitted)
    /// }
    /// ```
    #[track_caller]
    pub fn interactive<F, Fut>(body: F) -> Self
    where
        F: FnMut(Txn) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, TxnError>> + Send + 'static,
    {
        Self::try_interactive(body)
    }

    /// An interactive transaction whose closure can say no with an error `E` of the application's.
    #[track_caller]
    pub fn try_interactive<F, Fut, E>(mut body: F) -> RunTxn<T, E>
    where
        F: FnMut(Txn) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, TxnError<E>>> + Send + 'static,
        E: Send + 'static,
    {
        RunTxn::new(Body::Interactive(Box::new(move |txn| Box::pin(body(txn)))))
    }
}

impl<T, E> RunTxn<T, E> {
    /// The isolation of an interactive transaction; on other bodies it has no effect: an update is alone on the writer, and a
    /// view has its snapshot. Default: serialisable.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.options.isolation = isolation;
        self
    }

    #[track_caller]
    pub(crate) fn new(body: Body<T, E>) -> Self {
        let mut options = TxnOptions::new(Location::caller());
        options.built = Some(Instant::now());
        Self {
            body,
            options,
            once: None,
        }
    }

    /// Names the transaction in logs, errors and statistics. Default: none; its call site is shown in any case.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.options.name = Some(name.into());
        self
    }

    /// Takes a write lock before the body runs; it is held until the commit has returned.
    pub fn write_lock(self, object: Object) -> Self {
        self.lock(object, Mode::Write)
    }

    /// Takes a read lock before the body runs; it is held until the commit has returned.
    pub fn read_lock(self, object: Object) -> Self {
        self.lock(object, Mode::Read)
    }

    /// Takes a lock before the body runs.
    pub fn lock(mut self, object: Object, mode: Mode) -> Self {
        self.options.locks.push((object, mode));
        self
    }

    /// Takes the locks in the order in which they were declared. Default: sorted, so that transactions that declare all
    /// they need cannot deadlock among themselves. (Over ranges they can: one waits for the first of several keys of
    /// another, which then waits behind it for the next. The victim runs again.)
    pub fn in_order(mut self) -> Self {
        self.options.in_order = true;
        self
    }

    /// The time from the send to the answer, the time in an actor's mailbox included. Sent to an actor's address without the
    /// keeper, it counts from when the transaction was made. Default: the setting `deadline`, 30 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// Most attempts, those lost to deadlocks not counted. Default: the setting `retries`, 10. At 1 and at 0 only a
    /// deadlock is retried.
    pub fn retries(mut self, attempts: u32) -> Self {
        self.options.retries = Some(attempts);
        self
    }

    /// Whether lock timeouts are retried. Default: the setting `retry_timeouts`, true.
    pub fn retry_timeouts(mut self, retry: bool) -> Self {
        self.options.retry_timeouts = Some(retry);
        self
    }

    /// The longest wait for one of its locks; zero is none. Default: the setting `lock_timeout`, 5 s. The deadline
    /// holds in any case.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.options.lock_timeout = Some(timeout);
        self
    }

    /// The time that each attempt has, from when it begins to take its locks, before its waits for locks end; zero is
    /// none. Default: the setting `txn_timeout`, none. The deadline holds in any case.
    pub fn txn_timeout(mut self, timeout: Duration) -> Self {
        self.options.txn_timeout = Some(timeout);
        self
    }

    /// Among the lockers of a deadlock the lowest priority is the victim. Default: 100, as in Berkeley DB.
    pub fn priority(mut self, priority: u32) -> Self {
        self.options.priority = priority;
        self
    }

    /// The durability of this transaction; its batch takes the strictest. Default: the setting `durability`.
    ///
    /// No-sync is a property of the environment: asked for here, it means [`Durability::NoMetaSync`]; and in an
    /// environment without sync this has no effect.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = Some(durability);
        self
    }

    /// What happens when too many transactions are in flight. Default: the setting `when_full`, wait.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.options.when_full = Some(when_full);
        self
    }

    /// Has the effect happen once, however often the transaction is sent with this key: the answer is stored with the effect, in the
    /// same commit, and whoever sends the key again within the setting `idempotency_window` (24 h) is answered it. The body does
    /// not run then. That holds after a crash, after [`TxnError::MaybeCommitted`], from another process, and for two that
    /// send it at the same time. Default: no key.
    ///
    /// - Only what was committed is stored: after an error, the body's own included, the same key may be sent again, and runs.
    /// - The key stands for one request: with another [`name`](Self::name) or another [`request`](Self::request) it is
    ///   [`TxnError::KeyReused`].
    /// - The answer is stored as JSON, and read back before the commit; the first sender, too, is answered what was read back. A
    ///   `T` that does not survive this, or that has more than 1 MiB, is [`TxnError::AnswerNotStorable`], and nothing is written.
    ///   What a `T` leaves out of its JSON, no sender gets.
    /// - A stored answer that cannot be read, because `T` has changed or the record is damaged, is
    ///   [`TxnError::AnswerUnreadable`], and the body does not run.
    /// - The key is locked like an object, before the declared locks and until the commit has returned; without a lock table
    ///   the answer is [`TxnError::NoLockTable`].
    /// - A key has 1 to 255 bytes, else it is [`DbError::KeySize`](crate::DbError::KeySize); on a view it is
    ///   [`TxnError::KeyOnView`]. Both are answered when it is sent.
    ///
    /// The window is kept by a clock of its own, in the environment: a wall clock that jumps has no effect while a process runs.
    ///
    /// ```
    /// use lockkeeper::{Keeper, RunTxn};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let keeper = Keeper::open(folder.path())?;
    ///
    /// let order = |number: u64| RunTxn::update(move |_| Ok(number)).idempotent("order-7").request("two apples");
    /// assert_eq!(keeper.blocking_run(order(1))?, 1);
    /// assert_eq!(keeper.blocking_run(order(2))?, 1, "the body did not run again");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn idempotent(mut self, key: impl AsRef<[u8]>) -> Self
    where
        T: Serialize + DeserializeOwned,
    {
        self.once = Some(Box::new(Once::new(key.as_ref())));
        self
    }

    /// What is asked for, as bytes: with it a key that is used for something else is recognised. Only a hash of 128 bits is kept. It
    /// has an effect together with [`idempotent`](Self::idempotent) alone. Default: none; then only the name counts.
    pub fn request(mut self, request: impl AsRef<[u8]>) -> Self {
        self.options.request = Some(hash(&[request.as_ref()]));
        self
    }

    /// Adds a handler for this transaction, behind those for all.
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.options.handlers = self.options.handlers.append(handler);
        self
    }

    /// Adds the handlers of a chain for this transaction, behind those for all.
    pub fn handlers(mut self, chain: &HandlerChain) -> Self {
        self.options.handlers = self.options.handlers.then(chain);
        self
    }

    /// Whether the body may only read.
    pub fn is_view(&self) -> bool {
        matches!(self.body, Body::View(_))
    }

    /// The name that it was given.
    pub fn given_name(&self) -> Option<&str> {
        self.options.name.as_deref()
    }
}

impl<T, E> fmt::Debug for RunTxn<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunTxn")
            .field("name", &self.options.name)
            .field("site", &self.options.site)
            .field("view", &self.is_view())
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static, E: Send + 'static> Message for RunTxn<T, E> {
    type Result = Result<T, TxnError<E>>;
}

/// Asks for the statistics of the transactions; anyone sends it to the supervisor.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "TxnStats")]
pub struct TxnStatsQuery;

/// Transactions since the keeper was opened. Short views in place are not counted here.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TxnStats {
    /// Committed, or views that have read; counted when they are answered.
    pub committed: u64,
    /// Ended by their own body; counted when they are answered.
    pub aborted: u64,
    /// Ended with any other error; counted when they are answered.
    pub failed: u64,
    /// Attempts after the first; counted when they are decided on.
    pub retries: u64,
    /// Those of them that followed a deadlock.
    pub deadlocks_retried: u64,
    /// Refused because too many were in flight.
    pub overloaded: u64,
    /// In flight right now: admitted and not yet answered, or given up by their caller and still running.
    pub in_flight: usize,
    /// Waiting to be admitted.
    pub waiting: usize,
    /// Most in flight: the setting `queue`.
    pub limit: usize,
}
