//! Between two attempts of a transaction: the handlers see how one ended, and the next begins in its time or not at all.
//!
//! What lasts over the attempts is kept here, apart from what runs them.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::locking::order;
use super::runtime::Runtime;
use crate::actors::lock_table::Locks;
use crate::config::Config;
use crate::env::random_seed;
use crate::error::LockError;
use crate::error::{Stage, TxnError};
use crate::inside::{self, Owner};
use crate::locks::{Age, ConflictKind, LockerId, Mode, Object, Reason};
use crate::messages::supervisor::TxnOptions;
use crate::txn::handler::{HandlerContext, Outcome};
use crate::txn::retry::{self, Decision, GiveUp, Loss, RetryPolicy, RetryState};
use crate::txn::run::{Attempt, Isolation};

/// What lasts over the attempts of one transaction.
pub(crate) struct Attempts {
    /// Made when the first attempt has failed: most do not.
    state: Option<Box<RetryState>>,
    sent: Instant,
    pub(super) number: u32,
    /// Somebody runs it again.
    pub(super) is_repeated: bool,
    pub(super) span: Duration,
    /// Of the first attempt: a victim keeps its seniority.
    pub(super) age: Option<Age>,
    loss: Option<Loss>,
    older: Vec<LockerId>,
    /// The locks that the last attempt of an interactive transaction needed before it was the victim of a deadlock or gave
    /// way: the next takes them first, in the order in which all take declared ones, so that those who begin again do not
    /// meet in a deadlock once more.
    pub(super) needed: Vec<(Object, Mode)>,
    context: Option<Box<HandlerContext>>,
}

impl Attempts {
    pub(super) fn new(sent: Instant, span: Duration) -> Self {
        Self {
            state: None,
            sent,
            number: 0,
            is_repeated: true,
            span,
            age: None,
            loss: None,
            older: Vec::new(),
            needed: Vec::new(),
            context: None,
        }
    }

    fn decide(&mut self, config: &Config, options: &TxnOptions) -> Decision {
        let outcome = match self.loss {
            Some(loss) => retry::Outcome::Lost(loss),
            None => return Decision::GiveUp(GiveUp::PassThrough),
        };
        let state = self.state.get_or_insert_with(|| {
            let policy = RetryPolicy {
                budget: options.retries.unwrap_or(config.retries()),
                backoff: config.retry_backoff(),
                retry_timeouts: options.retry_timeouts.unwrap_or(config.retry_timeouts()),
            };
            Box::new(RetryState::new(policy, self.sent, self.span, random_seed()))
        });
        state.decide(Instant::now(), outcome)
    }

    pub(super) fn lost(&mut self, error: &LockError) {
        self.loss = match error {
            // Told once more, of a transaction or of a child.
            LockError::Dead(conflict) if conflict.kind != ConflictKind::HeldTooLong => {
                return self.lost(&Reason::Conflict(Arc::clone(conflict)).into());
            }
            LockError::Deadlock(conflict) => {
                self.older = conflict.older.to_vec();
                Some(Loss::Deadlock)
            }
            LockError::LockTimeout(_) => Some(Loss::LockTimeout),
            LockError::TransactionTimeout(_) => Some(Loss::TransactionTimeout),
            _ => None,
        };
    }
}

impl Attempts {
    /// An attempt of an interactive transaction ended with `error`; `death` is what had killed it before, if anything had.
    pub(super) fn lost_to<E>(&mut self, error: &TxnError<E>, attempt: &Attempt) {
        // Each use of a dead transaction answers what killed it; the closure may have let out a later answer.
        if let (TxnError::Conflict(_), Some(death)) = (error, &attempt.death()) {
            self.lost_by(death);
        } else {
            self.lost_by(error);
        }
        let is_snapshot = attempt.isolation() == Isolation::Snapshot;
        if let (Some(Loss::Deadlock | Loss::GaveWay), false) = (self.loss, is_snapshot) {
            self.needed = attempt.needed();
        }
    }

    /// The same before its closure ran. Locks that were waited for in vain may not be needed any more.
    pub(super) fn lost_before(&mut self, error: &TxnError) {
        self.lost_by(error);
        if self.loss != Some(Loss::Deadlock) {
            self.needed.clear();
        }
    }

    pub(super) fn lost_by<E>(&mut self, error: &TxnError<E>) {
        match error {
            TxnError::Conflict(error) => self.lost(error),
            TxnError::GaveWay { .. } => self.loss = Some(Loss::GaveWay),
            TxnError::ReadChanged { .. } | TxnError::WriteConflict { .. } => {
                self.loss = Some(Loss::Recheck);
            }
            TxnError::SnapshotTooOld => self.loss = Some(Loss::MapChanged),
            _ => self.loss = None,
        }
    }

    /// The locks that the next attempt of an interactive transaction begins with.
    pub(super) fn wanted<'o>(
        &self,
        options: &'o TxnOptions,
        table: &Locks,
    ) -> Cow<'o, [(Object, Mode)]> {
        if self.needed.is_empty() {
            return Cow::Borrowed(&options.locks);
        }
        let mut needed = self.needed.clone();
        order(&mut needed, table);
        let mut wanted = [options.locks.as_slice(), &needed].concat();
        if !options.in_order {
            order(&mut wanted, table);
        }
        Cow::Owned(wanted)
    }

    /// Whether the next attempt goes before plain updates (I8).
    pub(super) fn goes_first(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.goes_first())
    }
}

impl Runtime {
    /// Shows the outcome of an attempt to the handlers; what they make of it goes into `attempts` and the answer.
    pub(super) fn handled<T, E>(
        &self,
        result: Result<T, TxnError<E>>,
        repeatable: bool,
        attempts: &mut Attempts,
        options: &TxnOptions,
    ) -> Result<T, TxnError<E>> {
        // That it gave way is no outcome: it has only begun.
        let is_seen = attempts.loss != Some(Loss::GaveWay);
        if !is_seen || self.handlers.is_empty() && options.handlers.is_empty() {
            return result;
        }
        let context = attempts.context.get_or_insert_with(|| {
            Box::new(HandlerContext::new(options.name.clone(), options.site))
        });
        context.next_attempt(attempts.sent.elapsed());
        // What the caller gets if the handlers change nothing, and what the handlers see.
        let (kept, outcome) = match result {
            Ok(value) => (Ok(value), Outcome::Committed),
            Err(error) => match error.into_abort() {
                Ok(abort) => (Err(TxnError::Abort(abort)), Outcome::Aborted),
                Err(error) => (Err(error.duplicate().widen()), Outcome::Failed(error)),
            },
        };
        let seen = catch_unwind(AssertUnwindSafe(|| {
            let _inside = inside::callback(Owner::Env(self.env.shared.id), "a handler of outcomes");
            let outcome = self.handlers.run(context, outcome);
            options.handlers.run(context, outcome)
        }));
        let Ok(seen) = seen else {
            tracing::error!(target: "lockkeeper", name = options.name.as_deref(), site = %options.site, "a handler panicked");
            return kept;
        };
        let maybe_committed = matches!(kept, Err(TxnError::MaybeCommitted { .. }));
        match (kept, seen) {
            // Committed is committed.
            (Ok(value), _) => Ok(value),
            (Err(error), Outcome::Retry) => {
                if repeatable && !maybe_committed {
                    attempts.loss = Some(Loss::Asked);
                }
                Err(error)
            }
            (Err(kept), Outcome::Failed(error)) => {
                // Passed on as it was, it is retried as it would have been; replaced, it is not.
                if !matches!(error, TxnError::Conflict(_)) {
                    let was = attempts.loss.take();
                    attempts.lost_by(&error);
                    attempts.loss = was.filter(|_| attempts.loss == was);
                }
                // A commit that may have happened is never told as something else.
                Err(if maybe_committed { kept } else { error.widen() })
            }
            // A failure cannot be made a success: there is no value.
            (Err(error), Outcome::Committed | Outcome::Aborted) => Err(error),
        }
    }

    /// Waits until the next attempt, or answers the error that ends the transaction.
    pub(super) async fn stand_back<E>(
        &self,
        error: TxnError<E>,
        attempts: &mut Attempts,
        options: &TxnOptions,
        deadline: Instant,
    ) -> Result<(), TxnError<E>> {
        let span = attempts.span;
        let out_of_time = || TxnError::DeadlineExceeded {
            deadline: span,
            stage: Stage::BackedOff,
        };
        let decision = attempts.decide(&self.env.shared.config, options);
        let loss = attempts.loss.take();
        let after = match decision {
            Decision::Retry { after } => after,
            Decision::GiveUp(GiveUp::PassThrough) => return Err(error),
            Decision::GiveUp(GiveUp::DeadlineExceeded { .. }) => return Err(out_of_time()),
            Decision::GiveUp(GiveUp::RetriesExhausted {
                attempts: tried,
                waited,
            }) => {
                let last = match error.into_abort() {
                    // A handler had it run again and again; the application's own error is the better answer.
                    Ok(abort) => return Err(TxnError::Abort(abort)),
                    Err(last) => last,
                };
                tracing::warn!(target: "lockkeeper", attempts = tried, ?waited, error = %last, "a transaction was given up");
                return Err(TxnError::RetriesExhausted {
                    attempts: tried,
                    waited,
                    last: Box::new(last),
                });
            }
        };
        self.counters.retries.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("lockkeeper_retries_total").increment(1);
        // The wait for older families counts: who has stood back for them need not do so again.
        let wake = crate::clock::far(Instant::now(), after);
        let clock = &self.env.shared.clock;
        if loss == Some(Loss::Deadlock) {
            self.counters
                .deadlocks_retried
                .fetch_add(1, Ordering::Relaxed);
            // The older families of the cycle go first, or the same deadlock would come again (I8).
            if let Some(table) = &self.locks {
                let older = std::mem::take(&mut attempts.older);
                let ended = table.ended(&older);
                match self.unless_aborted(clock.until(deadline, ended)).await {
                    Some(Some(())) => {}
                    Some(None) => return Err(out_of_time()),
                    None => return Err(TxnError::ShuttingDown),
                }
            }
        }
        let sleep = clock.sleep_until(wake.min(deadline));
        match self.unless_aborted(sleep).await {
            None => Err(TxnError::ShuttingDown),
            Some(()) if wake >= deadline => Err(out_of_time()),
            Some(()) => Ok(()),
        }
    }
}
