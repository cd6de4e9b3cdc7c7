//! Which message goes to which actor, and [`TxnRunner`].

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use actix::Message;

use super::Keeper;
use crate::actors::lock_table::{InPlace, Locks};
use crate::actors::supervisor::Runtime;
use crate::env::gate::{Entry, Shut};
use crate::env::{Ticket, Wait};
use crate::error::LockError;
use crate::error::{DatabaseError, EnvError, Stage, StorageError, TxnError};
use crate::messages::environment::{
    ClearDatabase, ClearStaleReaders, CopyTo, DeleteDatabase, EnvStatsQuery, ForgetToken, Recover,
    SetMapSize, Sync,
};
use crate::messages::lock_table::{
    Acquire, ChangeFailed, CommitLocker, DeadlockHistory, Detect, Downgrade, EndLocker,
    LockConfigQuery, LockMany, LockSnapshotQuery, LockStatsQuery, LocksRefused, NewLocker, Release,
    SetDetect, SetLimits, SetTimeouts, Upgrade,
};
use crate::messages::supervisor::{RunTxn, TxnStatsQuery};
use crate::supervision::Supervision;

/// A message that [`Keeper::send`] takes.
pub trait Request: Message<Result: Send> + Send + 'static {
    /// Sends it to the actor that it is for.
    ///
    /// # Errors
    ///
    /// Those of the message; an actor that is gone answers "shutting down" in its terms.
    fn send_to(self, keeper: &Keeper) -> impl Future<Output = Self::Result> + Send + use<Self>;
}

impl<T: Send + 'static, E: Send + 'static> Request for RunTxn<T, E> {
    fn send_to(mut self, keeper: &Keeper) -> impl Future<Output = Self::Result> + Send + use<T, E> {
        self.options.sent.get_or_insert_with(Instant::now);
        self.options.caller = Some(tracing::Span::current());
        let runtime = Arc::clone(&keeper.inner.runtime);
        let supervisor = keeper.inner.addresses.supervisor.clone();
        async move {
            let entry = match self.options.permit {
                Some(_) => Entry::Admitted,
                None => Entry::New,
            };
            // Checked here, where the thread tells whether it is inside a body; the actor has another one.
            if let Some(error) = runtime.env.refusal(entry) {
                return Err(error.widen());
            }
            if let (false, Some(error)) = (self.is_view(), runtime.inside_transaction()) {
                return Err(error.widen());
            }
            // The mailbox is not the queue: a place among the transactions in flight comes first.
            let permit = runtime
                .admit(&mut self.options)
                .await
                .map_err(TxnError::widen)?;
            self.options.permit = Some(permit);
            let ticket = Arc::new(Ticket::new());
            self.options.ticket = Some(Arc::clone(&ticket));
            let direct = runtime.is_direct(&self);
            let started = Instant::now();
            let (deadline, span) = runtime.deadline(&mut self.options);
            if !direct {
                let is_view = self.is_view();
                let answer = supervisor.send(self).await;
                return answer.unwrap_or_else(|_| {
                    let is_there = supervisor.connected();
                    let why = unanswered(&runtime, &runtime.supervision, is_there);
                    Err(match (why, is_view) {
                        // Nobody knows how far it had come.
                        (TxnError::ActorPanicked(panicked), false) => TxnError::MaybeCommitted {
                            cause: Some(StorageError::panicked(&panicked)),
                        },
                        (why, _) => why.widen(),
                    })
                });
            }
            let outcome = if started >= deadline {
                // The time has gone before the first poll; sent now, it might still be run before the timer says so.
                Err(TxnError::DeadlineExceeded {
                    deadline: span,
                    stage: Stage::WasQueued,
                })
            } else {
                let answer = std::pin::pin!(supervisor.send(self));
                let wait = Wait::with(ticket, deadline, span, answer);
                match wait.answer(&runtime.env.shared).await {
                    Ok(outcome) => outcome,
                    Err(error) => Err(error.widen()),
                }
            };
            runtime.count(&outcome, started);
            outcome
        }
    }
}

/// Why an actor has not answered: it is gone, or a panic has taken the answer along.
pub(super) fn unanswered(runtime: &Runtime, of: &Supervision, is_there: bool) -> TxnError {
    let is_closing = runtime.env.shared.gate.shut(Entry::Admitted) == Some(Shut::Closing);
    match of.last() {
        Some(panicked) if is_there && !is_closing => TxnError::ActorPanicked(panicked),
        _ => TxnError::ShuttingDown,
    }
}

fn lock_unanswered(runtime: &Runtime, is_there: bool) -> LockError {
    let of = runtime.locks.as_ref().map(Locks::supervision);
    match of.map(|of| unanswered(runtime, of, is_there)) {
        Some(TxnError::ActorPanicked(panicked)) => LockError::ActorPanicked(panicked),
        _ => LockError::ShuttingDown,
    }
}

macro_rules! for_environment {
    ($($message:ty => $gone:expr),* $(,)?) => {
        $(impl Request for $message {
            fn send_to(self, keeper: &Keeper) -> impl Future<Output = Self::Result> + Send + use<> {
                let environment = keeper.inner.addresses.environment.clone();
                let runtime = Arc::clone(&keeper.inner.runtime);
                async move {
                    // In the child of a fork there is no actor to answer anything.
                    if let Some(refused @ (TxnError::NestedTransaction { .. } | TxnError::Forked)) = runtime.env.refusal(Entry::New) {
                        #[allow(clippy::redundant_closure_call)]
                        return $gone(refused);
                    }
                    match environment.send(self).await {
                        Ok(answer) => answer,
                        #[allow(clippy::redundant_closure_call)]
                        Err(_) => $gone(unanswered(&runtime, &runtime.env.shared.supervision, environment.connected())),
                    }
                }
            }
        })*
    };
}

for_environment! {
    SetMapSize => |error| Err(EnvError::Txn(error)),
    Sync => |error| Err(EnvError::Txn(error)),
    CopyTo => |error| Err(EnvError::Txn(error)),
    Recover => |error| Err(EnvError::Txn(error)),
    ForgetToken => |error| Err(EnvError::Txn(error)),
    EnvStatsQuery => Err,
    ClearStaleReaders => |_: TxnError| 0,
    ClearDatabase => |error| Err(DatabaseError::Txn(error)),
    DeleteDatabase => |error| Err(DatabaseError::Txn(error)),
}

impl Request for Acquire {
    fn send_to(self, keeper: &Keeper) -> impl Future<Output = Self::Result> + Send + use<> {
        let lock_table = keeper.inner.addresses.lock_table.clone();
        let runtime = Arc::clone(&keeper.inner.runtime);
        async move {
            // In the child of a fork there is neither an actor nor a clock that would end the wait.
            if runtime.env.shared.forked() {
                return Err(LockError::ShuttingDown);
            }
            let answer = lock_table.send(self).await;
            answer.unwrap_or_else(|_| Err(lock_unanswered(&runtime, lock_table.connected())))
        }
    }
}

/// Without the actor, a lock is released at the second door.
impl Request for Release {
    fn send_to(self, keeper: &Keeper) -> impl Future<Output = Self::Result> + Send + use<> {
        let lock_table = keeper.inner.addresses.lock_table.clone();
        let runtime = Arc::clone(&keeper.inner.runtime);
        async move {
            if runtime.env.shared.forked() || !lock_table.connected() {
                return self.in_place();
            }
            let again = match &self {
                // A guard that is dropped on its way has released its lock.
                Self::Guard(_) | Self::Guards(_) | Self::Together(_) => None,
                Self::Lock {
                    locker,
                    object,
                    mode,
                } => Some((Arc::clone(locker), object.clone(), *mode)),
            };
            match (lock_table.send(self).await, again) {
                (Ok(held), _) => held,
                (Err(_), None) => true,
                (Err(_), Some((locker, object, mode))) => locker.unlock(&object, mode),
            }
        }
    }
}

/// Questions that have an answer as long as there is a keeper: without the actor it comes from the second door.
macro_rules! always_answered {
    ($($message:ty => $actor:ident, $in_place:expr);* $(;)?) => {
        $(impl Request for $message {
            fn send_to(self, keeper: &Keeper) -> impl Future<Output = Self::Result> + Send + use<> {
                let actor = keeper.inner.addresses.$actor.clone();
                let keeper = keeper.clone();
                async move {
                    let answer = if keeper.inner.runtime.env.shared.forked() {
                        None
                    } else {
                        actor.send(self).await.ok()
                    };
                    #[allow(clippy::redundant_closure_call)]
                    answer.unwrap_or_else(|| $in_place(&keeper))
                }
            }
        })*
    };
}

always_answered! {
    TxnStatsQuery => supervisor, |keeper: &Keeper| keeper.inner.runtime.stats();
}

/// Messages for the lock table that need no wait: without the actor they are answered at the second door.
macro_rules! for_locks {
    ($($message:ty),* $(,)?) => {
        $(impl Request for $message {
            fn send_to(self, keeper: &Keeper) -> impl Future<Output = Self::Result> + Send + use<> {
                let actor = keeper.inner.addresses.lock_table.clone();
                let keeper = keeper.clone();
                async move {
                    let forked = keeper.inner.runtime.env.shared.forked();
                    if !forked && actor.connected() {
                        let again = self.clone();
                        match actor.send(self).await {
                            Ok(answer) => answer,
                            Err(_) => again.in_place(keeper.locks()),
                        }
                    } else {
                        self.in_place(keeper.locks())
                    }
                }
            }
        })*
    };
}

for_locks!(
    NewLocker,
    CommitLocker,
    EndLocker,
    Detect,
    SetDetect,
    SetTimeouts,
    SetLimits,
    LockStatsQuery,
    LockSnapshotQuery,
    DeadlockHistory,
    LockConfigQuery,
);

/// A guard cannot be asked for twice: a downgrade is done at the second door, which needs no actor.
impl Request for Downgrade {
    fn send_to(self, keeper: &Keeper) -> impl Future<Output = Self::Result> + Send + use<> {
        let keeper = keeper.clone();
        async move { self.in_place(keeper.locks()) }
    }
}

/// In the sender's task: the guard could not be had back from an actor that is gone.
impl Request for Upgrade {
    fn send_to(self, keeper: &Keeper) -> impl Future<Output = Self::Result> + Send + use<> {
        let forked = keeper.inner.runtime.env.shared.forked();
        async move {
            match forked {
                true => Err(ChangeFailed::new(self.guard, LockError::ShuttingDown)),
                false => self.run().await,
            }
        }
    }
}

impl Request for LockMany {
    fn send_to(self, keeper: &Keeper) -> impl Future<Output = Self::Result> + Send + use<> {
        let actor = keeper.inner.addresses.lock_table.clone();
        let runtime = Arc::clone(&keeper.inner.runtime);
        async move {
            let operations = self.ops.len();
            if runtime.env.shared.forked() {
                return Err(LocksRefused::all(operations, LockError::ShuttingDown));
            }
            let answer = actor.send(self).await;
            answer.unwrap_or_else(|_| {
                let error = lock_unanswered(&runtime, actor.connected());
                Err(LocksRefused::all(operations, error))
            })
        }
    }
}

/// What runs transactions: a [`Keeper`], or what an application puts in its place in its tests. It answers lmdbsync's
/// `TxnRunner`.
///
/// ```
/// use lockkeeper::{Keeper, RunTxn, TxnError, TxnRunner};
///
/// /// Refuses everything, as a keeper that goes down does.
/// struct Down;
///
/// impl TxnRunner for Down {
///     async fn run_txn<T: Send + 'static, E: Send + 'static>(&self, _: RunTxn<T, E>) -> Result<T, TxnError<E>> {
///         Err(TxnError::ShuttingDown)
///     }
/// }
///
/// async fn next_number(runner: &impl TxnRunner) -> Result<u64, TxnError> {
///     runner.run_txn(RunTxn::update(|_| Ok(1))).await
/// }
/// ```
pub trait TxnRunner: Send + std::marker::Sync {
    /// Runs a transaction to its end.
    ///
    /// # Errors
    ///
    /// See [`TxnError`].
    fn run_txn<T: Send + 'static, E: Send + 'static>(
        &self,
        txn: RunTxn<T, E>,
    ) -> impl Future<Output = Result<T, TxnError<E>>> + Send;
}

impl TxnRunner for Keeper {
    fn run_txn<T: Send + 'static, E: Send + 'static>(
        &self,
        txn: RunTxn<T, E>,
    ) -> impl Future<Output = Result<T, TxnError<E>>> + Send {
        self.run(txn)
    }
}
