//! [`Keeper::transaction`] and [`Keeper::begin`]: interactive transactions, run by the keeper or driven by hand.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Keeper;
use crate::actors::supervisor::{Running, Runtime};
use crate::config::{Durability, WhenFull};
use crate::error::TxnError;
use crate::messages::supervisor::{Once, TxnOptions};
use crate::txn::answers::hash;
use crate::txn::handler::{Handler, HandlerChain};
use crate::txn::run::{Isolation, Txn};

/// An interactive transaction that has not begun; made with [`Keeper::transaction`]. It runs when it is awaited.
#[must_use = "a transaction does nothing until it is awaited"]
pub struct Transaction<'k, T, E, F> {
    keeper: &'k Keeper,
    pub(super) options: TxnOptions,
    once: Option<Box<Once<T>>>,
    body: F,
    answer: PhantomData<fn() -> (T, E)>,
}

/// An interactive transaction that has not begun and is going to be driven by hand; made with [`Keeper::begin`].
#[must_use = "a transaction does nothing until it is awaited"]
pub struct Begin {
    runtime: Arc<Runtime>,
    pub(super) options: TxnOptions,
}

/// An interactive transaction in the hands of whoever began it. Dropping it aborts it.
///
/// It has all methods of [`Txn`]. Nobody runs it again after a conflict: begin a new one then. Its deadline ends what waits,
/// and its commit; locks that it holds without doing anything stay until it is dropped (the setting `max_hold` tells of those).
#[must_use = "dropping it aborts the transaction"]
pub struct Begun {
    txn: Txn,
    running: Running,
    runtime: Arc<Runtime>,
    started: Instant,
    ended: bool,
}

impl Keeper {
    /// Runs a transaction that spans awaits: `body` reads and writes records under locks, may wait for the outside world in
    /// between, and is applied in one go when it answers `Ok`. After a deadlock, a timeout or a conflict it is run again, with
    /// its seniority, within its retry budget and deadline; so what it does outside of the transaction has to be idempotent.
    /// While it waits it holds record locks, never LMDB's writer. (Berkeley DB's transactional application, with its loop.)
    ///
    /// The closure may borrow: neither it nor its future has to be `'static`. What is awaited after the last use of the
    /// transaction still holds its locks.
    ///
    /// ```
    /// use lockkeeper::{Keeper, Records, TxnError, abort};
    /// use lockkeeper::heed::{byteorder::BigEndian, types::{Str, U64}};
    ///
    /// #[derive(Debug, PartialEq)]
    /// struct SoldOut;
    ///
    /// async fn price(_item: &str) -> u64 { 7 }
    ///
    /// async fn buy(keeper: &Keeper, stock: Records<Str, U64<BigEndian>>, item: &str) -> Result<(u64, u64), TxnError<SoldOut>> {
    ///     keeper.transaction("buy", |txn| async move {
    ///         let left = txn.get_for_update_as(stock, item).await?.unwrap_or(1);
    ///         let price = price(item).await; // locks are held; LMDB's writer is not
    ///         let left = left.checked_sub(1).ok_or(abort(SoldOut))?;
    ///         txn.put(stock, item, &left).await?;
    ///         Ok((left, price))
    ///     })
    ///     .await
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let keeper = Keeper::open(folder.path())?;
    /// let stock = keeper.records("stock").await?;
    /// assert_eq!(buy(&keeper, stock, "pears").await.unwrap(), (0, 7));
    /// assert!(matches!(buy(&keeper, stock, "pears").await, Err(TxnError::Abort(SoldOut))));
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn transaction<T, E, F, Fut>(
        &self,
        name: impl Into<Arc<str>>,
        body: F,
    ) -> Transaction<'_, T, E, F>
    where
        F: FnMut(Txn) -> Fut + Send,
        Fut: Future<Output = Result<T, TxnError<E>>> + Send,
    {
        let mut options = TxnOptions::new(Location::caller());
        options.name = Some(name.into());
        Transaction {
            keeper: self,
            options,
            once: None,
            body,
            answer: PhantomData,
        }
    }

    /// Begins a transaction that its owner drives, commits and aborts; awaiting it answers a [`Begun`]. (Berkeley DB's
    /// `txn_begin`.)
    ///
    /// ```
    /// # use lockkeeper::Keeper;
    /// # use lockkeeper::heed::types::Str;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let keeper = Keeper::open(folder.path())?;
    /// let names = keeper.records::<Str, Str>("names").await?;
    /// let txn = keeper.begin().name("rename").await?;
    /// txn.put(names, "1", "Ada").await?;
    /// txn.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn begin(&self) -> Begin {
        Begin {
            runtime: Arc::clone(&self.inner.runtime),
            options: TxnOptions::new(Location::caller()),
        }
    }
}

macro_rules! setters {
    () => {
        /// What the transaction is kept from seeing of others. Default: serialisable.
        pub fn isolation(mut self, isolation: Isolation) -> Self {
            self.options.isolation = isolation;
            self
        }

        /// The time from here to the answer. Default: the setting `deadline`, 30 s.
        pub fn deadline(mut self, deadline: Duration) -> Self {
            self.options.deadline = Some(deadline);
            self
        }

        /// The longest wait for one of its locks; zero is none. Default: the setting `lock_timeout`, 5 s. The deadline
        /// holds in any case.
        pub fn lock_timeout(mut self, timeout: Duration) -> Self {
            self.options.lock_timeout = Some(timeout);
            self
        }

        /// The time that each attempt has before its waits for locks end; zero is none. Default: the setting
        /// `txn_timeout`, none.
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
        pub fn durability(mut self, durability: Durability) -> Self {
            self.options.durability = Some(durability);
            self
        }

        /// What happens when too many transactions are in flight. Default: the setting `when_full`, wait.
        pub fn when_full(mut self, when_full: WhenFull) -> Self {
            self.options.when_full = Some(when_full);
            self
        }
    };
}

impl<T, E, F> Transaction<'_, T, E, F> {
    setters!();

    /// Most attempts, those lost to deadlocks not counted. Default: the setting `retries`, 10. At 1 and at 0 only a deadlock
    /// is retried.
    pub fn retries(mut self, attempts: u32) -> Self {
        self.options.retries = Some(attempts);
        self
    }

    /// Whether lock timeouts are retried. Default: the setting `retry_timeouts`, true.
    pub fn retry_timeouts(mut self, retry: bool) -> Self {
        self.options.retry_timeouts = Some(retry);
        self
    }

    /// Has the effect happen once, however often the transaction is sent with this key; as
    /// [`RunTxn::idempotent`](crate::RunTxn::idempotent) says. The answer is stored with what the transaction writes, and also if it writes nothing. Default:
    /// no key.
    pub fn idempotent(mut self, key: impl AsRef<[u8]>) -> Self
    where
        T: Serialize + DeserializeOwned,
    {
        self.once = Some(Box::new(Once::new(key.as_ref())));
        self
    }

    /// What is asked for, as bytes, so that a key that is used for something else is recognised; as
    /// [`RunTxn::request`](crate::RunTxn::request) says. Default: none; then only the name counts.
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
}

impl<'k, T, E, F, Fut> IntoFuture for Transaction<'k, T, E, F>
where
    F: FnMut(Txn) -> Fut + Send + 'k,
    Fut: Future<Output = Result<T, TxnError<E>>> + Send + 'k,
    T: Send + 'k,
    E: Send + 'k,
{
    type Output = Result<T, TxnError<E>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'k>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self {
            keeper,
            mut options,
            body,
            once,
            ..
        } = self;
        options.sent.get_or_insert_with(Instant::now);
        Box::pin(keeper.inner.runtime.interact(options, once, body))
    }
}

impl Begin {
    setters!();

    /// Names the transaction in logs, errors and statistics. Default: none; its call site is shown in any case.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.options.name = Some(name.into());
        self
    }
}

impl IntoFuture for Begin {
    type Output = Result<Begun, TxnError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self {
            runtime,
            mut options,
        } = self;
        let started = Instant::now();
        options.sent.get_or_insert(started);
        Box::pin(async move {
            let running = runtime.begin_by_hand(options).await?;
            Ok(Begun {
                txn: running.0.txn(),
                running,
                runtime,
                started,
                ended: false,
            })
        })
    }
}

impl Begun {
    /// Applies the transaction; answered when it is durable. Dropped before that, it may still be applied, and its locks go
    /// with it. (Berkeley DB's `DB_TXN->commit`.)
    ///
    /// # Errors
    ///
    /// [`TxnError`]: the conflict that killed the transaction, or the one that its commit has met; it is undone then.
    pub async fn commit(mut self) -> Result<(), TxnError> {
        self.ended = true;
        let outcome = self.running.0.commit(None).await;
        self.runtime.count(&outcome, self.started);
        outcome
    }

    /// Undoes the transaction and releases its locks; dropping it does the same. (Berkeley DB's `DB_TXN->abort`.)
    pub fn abort(self) {
        drop(self);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.ended {
            let undone: Result<(), TxnError<()>> = Err(TxnError::Abort(()));
            self.runtime.count(&undone, self.started);
        }
    }
}

impl Deref for Begun {
    type Target = Txn;

    fn deref(&self) -> &Txn {
        &self.txn
    }
}

impl<T, E, F> fmt::Debug for Transaction<'_, T, E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("name", &self.options.name)
            .field("site", &self.options.site)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Begin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begin")
            .field("name", &self.options.name)
            .field("site", &self.options.site)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun")
            .field("txn", &self.txn)
            .finish_non_exhaustive()
    }
}
