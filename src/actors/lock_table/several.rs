//! Several operations of one locker, in order.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::locker::{LockGuard, Locker};
use super::shared::{End, State, Waiter};
use super::waiting::WaitSpan;
use crate::error::LockError;
use crate::locks::{Effect, Failure, Moment, OpOutcome, Progress, Reason, Sequence, Taken, WaitId};
use crate::messages::lock_table::{LockMany, LockOps, LockOutcome, LocksHeld, LocksRefused};

/// What became of several operations, in their order.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LocksDone {
    /// One for each operation.
    pub outcomes: Vec<LockOutcome>,
}

/// One of several operations failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("operation {} of {}: {error}", at + 1, outcomes.len())]
#[non_exhaustive]
pub struct LocksFailed {
    /// Which, counted from 0.
    pub at: usize,
    /// Why.
    #[source]
    pub error: LockError,
    /// What became of each: the earlier ones are undone, or with
    /// [`stop_at_first_error`](LockOps::stop_at_first_error) done.
    pub outcomes: Vec<LockOutcome>,
}

impl LocksFailed {
    /// None of so many operations was begun.
    pub(crate) fn all(operations: usize, error: LockError) -> Self {
        let mut outcomes = vec![LockOutcome::NotReached; operations];
        if let Some(first) = outcomes.first_mut() {
            *first = LockOutcome::Failed(error.clone());
        }
        Self {
            at: 0,
            error,
            outcomes,
        }
    }

    /// Whether the same work may succeed if it is done again from its start.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.error.is_retryable()
    }
}

/// Several operations on their way; see [`Locker::run`].
///
/// They begin at the first poll. Dropping the future undoes what they took.
#[must_use = "the operations begin when the future is polled"]
pub struct LocksRun<'a> {
    inner: Running<&'a Locker>,
}

impl<'a> LocksRun<'a> {
    pub(super) fn new(locker: &'a Locker, ops: LockOps, site: &'static Location<'static>) -> Self {
        Self {
            inner: Running::new(locker, ops, site, false),
        }
    }
}

impl Future for LocksRun<'_> {
    type Output = Result<LocksDone, LocksFailed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.inner.poll(context, |_, _| ());
        answer.map(|(result, _)| result)
    }
}

impl fmt::Debug for LocksRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocksRun").finish_non_exhaustive()
    }
}

/// What a message asked for, on its way: what is taken gets guards.
pub struct GuardedRun {
    inner: Running<Arc<Locker>>,
}

impl GuardedRun {
    pub(super) fn new(many: LockMany) -> Self {
        let LockMany { locker, ops, site } = many;
        Self {
            inner: Running::new(locker, ops, site, true),
        }
    }
}

impl Future for GuardedRun {
    type Output = Result<LocksHeld, LocksRefused>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.inner.poll(context, LockGuard::of_taken);
        answer.map(|(result, guards)| match result {
            Ok(done) => Ok(LocksHeld::new(done.outcomes, guards)),
            Err(failed) => Err(LocksRefused::new(failed, guards)),
        })
    }
}

impl fmt::Debug for GuardedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedRun").finish_non_exhaustive()
    }
}

/// The same for whoever owns the locker, or only borrows it.
struct Running<L: AsRef<Locker>> {
    locker: L,
    sequence: Option<Sequence>,
    waits: Option<(WaitId, Option<WaitSpan>)>,
    /// Whether there will be guards, which want to know which locks they are for.
    guarded: bool,
    /// How many there are.
    operations: usize,
}

impl AsRef<Locker> for Locker {
    fn as_ref(&self) -> &Locker {
        self
    }
}

impl<L: AsRef<Locker>> Running<L> {
    fn new(locker: L, ops: LockOps, site: &'static Location<'static>, guarded: bool) -> Self {
        let shared = locker.as_ref().shared();
        let operations = ops.len();
        let (ops, all_or_nothing) = ops.into_core(|at| shared.moment(at));
        let sequence = Sequence::new(locker.as_ref().id(), ops, all_or_nothing, site);
        Self {
            locker,
            sequence: Some(sequence),
            waits: None,
            guarded,
            operations,
        }
    }

    /// The answer, and what `keep` makes of each reference that was taken and is still held.
    fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        keep: impl Fn(&L, Taken) -> T,
    ) -> Poll<(Result<LocksDone, LocksFailed>, Vec<T>)> {
        let shared = self.locker.as_ref().shared();
        loop {
            let Some(sequence) = &mut self.sequence else {
                // Polled again after its end, which no executor does.
                return Poll::Pending;
            };
            let outcome = match &self.waits {
                None => None,
                Some((id, span)) => {
                    let Some(outcome) = shared.poll_wait(*id, context.waker()) else {
                        return Poll::Pending;
                    };
                    if let Some(span) = span {
                        let error = outcome.as_ref().err().cloned().map(LockError::from);
                        span.end(error.as_ref());
                    }
                    Some(outcome)
                }
            };
            let stepped = shared.transition(|state, effects| {
                match outcome {
                    Some(Ok(())) => {
                        sequence.granted();
                        if state.closed && !sequence.is_at_its_end() {
                            let closed = Reason::ShuttingDown;
                            sequence.refused(closed, &mut state.table, effects);
                        }
                    }
                    Some(Err(End::Refused(reason))) => {
                        sequence.refused(reason, &mut state.table, effects);
                    }
                    // The table has begun anew since: what was taken went with the old one.
                    Some(Err(End::Broken(broken))) => return Err(broken),
                    None if state.closed => {
                        sequence.refused(Reason::ShuttingDown, &mut state.table, effects);
                    }
                    None => {}
                }
                // Read only then: what waits for the table itself is no part of a wait for a lock.
                let now = || shared.now();
                let waits = go_on(sequence, state, now, effects);
                if self.guarded && waits.is_none() {
                    sequence.find_locks(&state.table);
                }
                Ok(waits)
            });
            let waits = match stepped.flatten() {
                Ok(waits) => waits,
                Err(broken) => {
                    // What was taken stays with its locker, which has to end.
                    self.sequence = None;
                    let failed = LocksFailed::all(self.operations, broken.into());
                    return Poll::Ready((Err(failed), Vec::new()));
                }
            };
            if waits.is_some() {
                metrics::counter!("lockkeeper_lock_waits_total").increment(1);
            }
            self.waits = waits.map(|id| {
                let wanted = sequence.wanted();
                let locker = self.locker.as_ref().id();
                let span = wanted.map(|(object, mode)| WaitSpan::begin(locker, object, mode));
                (id, span)
            });
            if self.waits.is_none()
                && let Some(sequence) = self.sequence.take()
            {
                return Poll::Ready(answer(sequence, |taken| keep(&self.locker, taken)));
            }
        }
    }
}

fn go_on(
    sequence: &mut Sequence,
    state: &mut State,
    now: impl Fn() -> Moment,
    effects: &mut Vec<Effect>,
) -> Option<WaitId> {
    match sequence.run(&mut state.table, now, effects) {
        Progress::Done => None,
        Progress::Waits(id) => {
            state.waiters.insert(id, Waiter::task());
            Some(id)
        }
    }
}

fn answer<T>(
    sequence: Sequence,
    keep: impl Fn(Taken) -> T,
) -> (Result<LocksDone, LocksFailed>, Vec<T>) {
    let (outcomes, kept) = sequence.finish(keep);
    let mut failed = None;
    let outcomes: Vec<LockOutcome> = outcomes
        .into_iter()
        .enumerate()
        .map(|(at, outcome)| match outcome {
            OpOutcome::Granted => LockOutcome::Granted,
            OpOutcome::Released(count) => LockOutcome::Released(count),
            OpOutcome::Undone => LockOutcome::Undone,
            OpOutcome::NotReached => LockOutcome::NotReached,
            OpOutcome::Failed(failure) => {
                let error = match failure {
                    Failure::Denied(denied) => LockError::from(denied),
                    Failure::Refused(reason) => LockError::from(reason),
                };
                failed = Some((at, error.clone()));
                LockOutcome::Failed(error)
            }
        })
        .collect();
    let result = match failed {
        None => Ok(LocksDone { outcomes }),
        Some((at, error)) => Err(LocksFailed {
            at,
            error,
            outcomes,
        }),
    };
    (result, kept)
}

impl<L: AsRef<Locker>> Drop for Running<L> {
    fn drop(&mut self) {
        let Some(sequence) = &mut self.sequence else {
            return;
        };
        let waits = self.waits.as_ref().map(|(id, _)| *id);
        let shared = self.locker.as_ref().shared();
        let waiter = shared.transition(|state, effects| {
            let waiter = waits.and_then(|id| state.waiters.remove(&id));
            if let Some(Waiter::Task {
                outcome: Some(Ok(())),
                ..
            }) = &waiter
            {
                sequence.granted();
            } else if let Some(id) = waits {
                state.table.withdraw(id, effects);
            }
            sequence.abandon(&mut state.table, effects);
            waiter
        });
        drop(waiter);
    }
}
