//! Interactive transactions: an attempt is begun, its closure polled, and what it did committed, undone, or done again.

use std::borrow::Cow;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use tracing::Instrument;

use super::admission::Admitted;
use super::attempts::Attempts;
use super::keyed::Keyed;
use super::locking::{Taken, locker, order_locks};
use super::runtime::{Runtime, for_one_transaction};
use crate::actors::lock_table::Locker;
use crate::env::{Fenced, panic_message};
use crate::error::{Stage, TxnError};
use crate::messages::supervisor::{Once, TxnOptions};
use crate::txn::run::{Attempt, Inside, Isolation, Lent, Locked, Start, Txn};

impl Runtime {
    /// Runs an interactive transaction to its end.
    ///
    /// Its future is moved to where it is polled, so it is kept small: no second copy of what it is given, and what most
    /// transactions never come to is boxed when it is needed.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async function keeps its arguments twice"
    )]
    pub(crate) fn interact<T, E, F, Fut>(
        &self,
        mut options: TxnOptions,
        once: Option<Box<Once<T>>>,
        mut body: F,
    ) -> impl Future<Output = Result<T, TxnError<E>>>
    where
        F: FnMut(Txn) -> Fut,
        Fut: Future<Output = Result<T, TxnError<E>>>,
    {
        async move {
            let started = *options.sent.get_or_insert_with(Instant::now);
            let run = self.supervise_interactive(&mut options, once, &mut body);
            let outcome = run.await;
            self.count(&outcome, started);
            outcome
        }
    }

    pub(super) async fn supervise_interactive<T, E, F, Fut>(
        &self,
        options: &mut TxnOptions,
        once: Option<Box<Once<T>>>,
        body: &mut F,
    ) -> Result<T, TxnError<E>>
    where
        F: FnMut(Txn) -> Fut,
        Fut: Future<Output = Result<T, TxnError<E>>>,
    {
        if let Some(error) = self.inside_transaction() {
            return Err(error.widen());
        }
        if let Some(once) = &once {
            once.check().map_err(TxnError::widen)?;
        }
        let admitted = self.admitted(options).await.map_err(TxnError::widen)?;
        if let Some(table) = &self.locks {
            order_locks(options, table);
        }
        let mut attempts = admitted.attempts();
        let keyed = match once {
            None => None,
            Some(once) => {
                let keyed = Box::pin(self.keyed(*once, options, &admitted));
                Some(keyed.await.map_err(TxnError::widen)?)
            }
        };
        let fenced = match options.under.is_empty() {
            true => None,
            false => {
                let fenced = Box::pin(self.fenced(options, &admitted)).await;
                fenced.map_err(TxnError::widen)?.map(Arc::new)
            }
        };
        loop {
            attempts.number += 1;
            admitted.trace.record("attempt", attempts.number);
            let begun = self.begin_keyed(
                options,
                keyed.as_ref(),
                fenced.as_ref(),
                &admitted,
                &mut attempts,
            );
            let result = match begun.await {
                Ok(Begun::Answered(value)) => Ok(value),
                Ok(Begun::Runs(attempt)) => {
                    options.has_begun();
                    let ended = self.attempt(&attempt, keyed.as_ref(), body).await;
                    // Whatever the closure made of it: it is run again.
                    ended.map_err(|error| {
                        let error = match attempt.0.death() {
                            Some(gave_way @ TxnError::GaveWay { .. }) => gave_way.widen(),
                            _ => error,
                        };
                        attempts.lost_to(&error, &attempt.0);
                        error
                    })
                }
                Err(error) => {
                    attempts.lost_before(&error);
                    Err(error.widen())
                }
            };
            let error = match self.handled(result, true, &mut attempts, options) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            Box::pin(self.stand_back(error, &mut attempts, options, admitted.deadline)).await?;
        }
    }

    /// Whether the first attempt ends rather than wait out of order among others. A snapshot is waited for behind the locks, so
    /// those are not taken beforehand for one.
    fn may_give_way(&self, options: &TxnOptions) -> bool {
        let budget = options.retries.unwrap_or(self.env.shared.config.retries());
        budget > 1 && !options.in_order && options.isolation != Isolation::Snapshot
    }

    /// Begins a transaction that nobody runs again.
    pub(crate) async fn begin_by_hand(&self, mut options: TxnOptions) -> Result<Running, TxnError> {
        if let Some(error) = self.inside_transaction() {
            return Err(error);
        }
        let admitted = self.admitted(&mut options).await?;
        let mut attempts = admitted.attempts();
        attempts.number = 1;
        attempts.is_repeated = false;
        let fenced = Box::pin(self.fenced(&options, &admitted)).await?;
        let fenced = fenced.map(Arc::new);
        let fenced = fenced.as_ref();
        self.begin(&options, fenced, &admitted, &mut attempts, None)
            .await
    }

    /// Begins an attempt, unless there is an answer for its key. The key has a locker of its own: the attempt may have none, and
    /// nobody who holds what it waits for ever waits for the key.
    async fn begin_keyed<T>(
        &self,
        options: &TxnOptions,
        keyed: Option<&Keyed<T>>,
        fenced: Option<&Arc<Fenced>>,
        admitted: &Admitted,
        attempts: &mut Attempts,
    ) -> Result<Begun<T>, TxnError> {
        if let Some(fenced) = fenced {
            fenced.held()?;
        }
        let key = match keyed {
            None => None,
            Some(keyed) => {
                let taken = Box::pin(self.take_key(options, keyed, admitted, attempts));
                match taken.await? {
                    Taken::Answer(value) => return Ok(Begun::Answered(value)),
                    Taken::Locks(key) => key,
                }
            }
        };
        let attempt = self.begin(options, fenced, admitted, attempts, key).await?;
        Ok(Begun::Runs(attempt))
    }

    /// Begins an attempt: its locker with the locks that were declared, and its snapshot if it reads from one. It has the lock
    /// of its key as well, which nobody waits for who has a place for a snapshot.
    async fn begin(
        &self,
        options: &TxnOptions,
        fenced: Option<&Arc<Fenced>>,
        admitted: &Admitted,
        attempts: &mut Attempts,
        key: Option<Locker>,
    ) -> Result<Running, TxnError> {
        let Admitted { deadline, span, .. } = *admitted;
        let isolation = options.isolation;
        let mut held = Vec::new();
        // Before the locks: whoever has the place may wait for them, and no search for deadlocks would see it.
        let place = match isolation {
            Isolation::Snapshot => Some(Box::pin(self.env.place_for_snapshot(deadline)).await?),
            _ => None,
        };
        let locker = match &self.locks {
            _ if isolation == Isolation::Optimistic && options.locks.is_empty() => None,
            None => return Err(TxnError::NoLockTable),
            Some(table) => {
                let locker = locker(table, options, attempts.age)?;
                attempts.age = Some(locker.age());
                let wanted = attempts.wanted(options, table);
                for wanted in &*wanted {
                    let lock = self.lock(&locker, wanted, options.site, deadline, attempts);
                    Box::pin(lock).await?;
                }
                if let Cow::Owned(wanted) = wanted {
                    held = wanted;
                }
                Some(locker)
            }
        };
        // Before the snapshot, which is to show all that plain updates have written.
        let first = match attempts.goes_first() {
            true => Some(Box::pin(self.env.shared.go_first()).await),
            false => None,
        };
        let snapshot = match place {
            Some(place) => {
                let (site, name) = (options.site, options.name.clone());
                let held = self.env.hold_snapshot_in(place, site, name, deadline, span);
                Some(Box::pin(held).await?)
            }
            None => None,
        };
        let start = Start {
            env: Arc::clone(&self.env),
            name: options.name.clone(),
            site: options.site,
            isolation,
            deadline,
            span,
            durability: options.durability.map(for_one_transaction),
            fenced: fenced.map(Arc::clone),
            number: attempts.number,
            gives_way: attempts.number == 1 && attempts.is_repeated && self.may_give_way(options),
            trace: admitted.trace.clone(),
        };
        let locked = Locked { locker, held };
        let lent = Lent {
            permit: Some(Arc::clone(&admitted.permit)),
            snapshot,
            first,
            key,
        };
        let attempt = Attempt::new(start, locked, lent, self.seed);
        Ok(Running(attempt))
    }

    async fn attempt<T, E, F, Fut>(
        &self,
        attempt: &Running,
        keyed: Option<&Keyed<T>>,
        body: &mut F,
    ) -> Result<T, TxnError<E>>
    where
        F: FnMut(Txn) -> Fut,
        Fut: Future<Output = Result<T, TxnError<E>>>,
    {
        let (site, deadline) = (attempt.0.site(), attempt.0.deadline());
        let panicked = |message| Err(TxnError::BodyPanicked { message, site });
        let begin = || Inside::begin(self.env.shared.id, site, || body(attempt.0.txn()));
        let future = match catch_unwind(AssertUnwindSafe(begin)) {
            Ok(future) => future.instrument(attempt.0.trace().clone()),
            Err(panic) => return panicked(panic_message(&*panic)),
        };
        let in_time = self.env.shared.clock.until(deadline, future);
        let Some(ran) = self.unless_aborted(in_time).await else {
            return Err(TxnError::ShuttingDown);
        };
        match ran {
            Some(Ok(Ok(value))) => {
                let committed = match keyed {
                    None => attempt.0.commit(None).await.map(|()| value),
                    Some(keyed) => Box::pin(commit_keyed(attempt, keyed, value)).await,
                };
                committed.map_err(TxnError::widen)
            }
            Some(Ok(Err(TxnError::Abort(no)))) => {
                // A no that came of what never was so at one moment is not the application's last word. One that was
                // said in spite of a conflict is.
                if attempt.0.death().is_none() {
                    attempt.0.could_have_been().await.map_err(TxnError::widen)?;
                }
                Err(TxnError::Abort(no))
            }
            Some(Ok(Err(error))) => Err(error),
            Some(Err(message)) => panicked(message),
            None => Err(attempt.0.out_of_time(Stage::Ran).widen()),
        }
    }
}

/// Commits an attempt with its answer, or answers what another process has stored for its key meanwhile.
async fn commit_keyed<T>(attempt: &Running, keyed: &Keyed<T>, value: T) -> Result<T, TxnError> {
    let (answer, value) = keyed.prepare(&value)?;
    let (with, found) = keyed.with_commit(answer);
    let committed = attempt.0.commit(Some(with)).await;
    let earlier = found.lock().take();
    match earlier {
        Some(answer) => keyed.read(&answer),
        None => committed.map(|()| value),
    }
}

/// How an attempt begins.
enum Begun<T> {
    Runs(Running),
    /// With the answer that is stored for its key.
    Answered(T),
}

/// An attempt that is under way: undone when this is dropped, unless the writer has it.
pub(crate) struct Running(pub(crate) Arc<Attempt>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
