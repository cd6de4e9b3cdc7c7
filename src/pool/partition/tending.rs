//! The life of one lease of a pool, from its grant to its end.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Either, FutureExt, TryFutureExt, select};
use tokio_util::sync::CancellationToken;

use super::figures::{Figures, TaskId, add};
use crate::env::quietly;
use crate::error::{ActorPanicked, LeaseError};
use crate::leases::{LeaseGuard, LeaseStanding, Leases, LostReason};
use crate::pool::shared::Shared;
use crate::pool::supervise::{PoolState, Supervision as Core, Who};
use crate::supervision::Supervision;

/// What all of this has in common.
pub(super) struct Context {
    pub pool: Arc<Shared>,
    pub leases: Leases,
    pub figures: Arc<Figures>,
    pub task: TaskId,
    /// Of the pools: panics of what is done here are told there.
    pub supervision: Arc<Supervision>,
    pub refresh: Duration,
    pub poll: Duration,
}

impl Context {
    /// Ends when the pool is over.
    pub(super) async fn over(&self) {
        self.pool
            .until(|core| core.state().is_over().then_some(()))
            .await;
    }

    /// Ends when the pool is in another state, or should have another number of workers than this.
    pub(super) async fn changed(&self, state: PoolState, target: usize) {
        let is_changed = |core: &Core| core.state() != state || core.target() != target;
        self.pool.until(|core| is_changed(core).then_some(())).await;
    }

    /// Ends after a poll, or when the pool is over.
    pub(super) async fn pause(&self) {
        either(self.over(), tokio::time::sleep(self.poll)).await;
    }

    /// Something was not done, and is tried again.
    pub(super) fn failed(&self, error: &LeaseError) {
        // What the store said was told to the handler, which counts.
        if !matches!(error, LeaseError::Unreachable { .. }) {
            self.figures.failed(error);
        }
        quietly(|| {
            tracing::warn!(
                target: "lockkeeper", pool = &**self.pool.name(), error = error as &dyn std::error::Error,
                "the leases of a pool could not be asked for"
            );
        });
    }

    /// Does something whose panics must not take along what else is held: they are counted and told. Boxed, since one is within
    /// another.
    pub(super) fn caught<'a, T: Send + 'a>(
        &'a self,
        doing: &'static str,
        what: impl Future<Output = T> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, ActorPanicked>> {
        let what = what.map(Ok).boxed();
        let done = self.supervision.guarded(doing, what, Err);
        done.inspect_err(|panicked| self.figures.panicked(panicked))
            .boxed()
    }

    /// Whether no worker behind this lease runs, not even one that the pool does not wait for any more.
    pub(super) fn is_empty(&self, who: Who) -> bool {
        self.pool.runs_of(who).is_empty()
    }

    /// Ends when no worker behind this lease runs, not even one that the pool does not wait for any more.
    pub(super) async fn empty(&self, who: Who) {
        loop {
            let none = self
                .pool
                .until(|core| (core.live(who) == (0, 0)).then_some(()));
            if let Either::Left(()) = either(none, tokio::time::sleep(LOOK_AGAIN)).await {
                return;
            }
        }
    }

    /// A lease is lost: its workers are told, and not waited for.
    pub(super) fn lost(&self, who: Who, reason: LostReason) {
        if self.figures.loses(who) {
            // First: whoever looks for them is woken by the other.
            self.figures.ending.expect(&self.pool, who, reason);
            self.close(who, Some(Duration::ZERO));
        }
    }

    /// The workers are told to stop; after `within`, or the pool's grace, they are not waited for any more.
    fn close(&self, who: Who, within: Option<Duration>) {
        let now = Instant::now();
        let within = within.unwrap_or(self.pool.spec.grace);
        drop(self.pool.close_gate(who, crate::clock::far(now, within)));
    }
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was given back.
    Given,
    /// It was lost.
    Lost(LostReason),
}

/// A worker that was told to stop when its lease was in doubt has so much of what is left of it, at the most.
const LONGEST_NOTICE: Duration = Duration::from_secs(30);
/// A pool whose name another has taken tells nobody that its last worker has ended: so often it is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Lets the workers in, of whom none runs before, and sees to it that they have ended before the lease is given back; answers when
/// none is left, whatever becomes of the lease.
///
/// - **Doubt.** When a quarter of what one missed refresh leaves of the lease is left, at most 30 s, the workers are told to stop: the
///   store has not answered for long. When it answers again, they are started anew.
/// - **Loss.** Workers are told, and not waited for: an async one is dropped at its next await, a blocking one is told and counted.
/// - **Giving back.** Workers are told, and have the pool's grace. A lease is kept as long as one of them runs, however long.
pub(super) async fn tend(
    context: &Context,
    who: Who,
    guard: LeaseGuard,
    give: CancellationToken,
) -> Ended {
    context.figures.holds(context.task, who, guard.claim_view());
    let held = hold(context, who, &guard, &give);
    let (ended, panicked) = match context.caught("holding a lease of a pool", held).await {
        Ok(ended) => (ended, false),
        // Nobody knows how far it had come. The guard is here still: it is not given back before the last worker has ended.
        Err(_) => (end(context, who, &guard).await, true),
    };
    context.figures.holds_no_more(who);
    match ended {
        Ended::Given => give_back(context, guard).await,
        Ended::Lost(_) => drop(guard),
    }
    if panicked {
        context.pause().await;
    }
    ended
}

async fn hold(context: &Context, who: Who, guard: &LeaseGuard, give: &CancellationToken) -> Ended {
    let mut lost = pin!(guard.lost());
    // What a grant leaves is the most that there ever is.
    let notice = guard.remaining().saturating_sub(context.refresh) / 4;
    let notice = notice.min(LONGEST_NOTICE);
    while !give.is_cancelled() {
        context.pool.open_gate(who, Some(guard.claim_view()));
        let stay = pin!(stay(guard, notice, give));
        match select(lost.as_mut(), stay).await {
            Either::Left((reason, _)) => return lose(context, who, reason).await,
            Either::Right((Stay::Give, _)) => break,
            Either::Right((Stay::Doubt, _)) => {
                quietly(|| {
                    tracing::warn!(
                        target: "lockkeeper", pool = &**context.pool.name(), lease = guard.name().as_str(), remaining = ?guard.remaining(),
                        "the store has not confirmed a lease for long: its workers are told to stop"
                    );
                });
                let cleared = pin!(clear(context, who, guard, notice, give));
                if let Either::Left((reason, _)) = select(lost.as_mut(), cleared).await {
                    return lose(context, who, reason).await;
                }
            }
        }
    }
    end(context, who, guard).await
}

/// Workers are told, and have the pool's grace; ends when none is left.
async fn end(context: &Context, who: Who, guard: &LeaseGuard) -> Ended {
    context.close(who, None);
    match either(guard.lost(), context.empty(who)).await {
        Either::Left(reason) => lose(context, who, reason).await,
        Either::Right(()) => Ended::Given,
    }
}

enum Stay {
    Doubt,
    Give,
}

/// Ends when the workers should stop.
async fn stay(guard: &LeaseGuard, notice: Duration, give: &CancellationToken) -> Stay {
    match either(give.cancelled(), runs_out(guard, notice)).await {
        Either::Left(()) => Stay::Give,
        Either::Right(()) => Stay::Doubt,
    }
}

/// Ends when no more than this is left of the lease.
async fn runs_out(guard: &LeaseGuard, left: Duration) {
    loop {
        let more = guard.remaining().saturating_sub(left);
        if more.is_zero() {
            return;
        }
        tokio::time::sleep(more).await;
    }
}

/// The workers stop; ends when they have, and the lease is beyond doubt.
async fn clear(
    context: &Context,
    who: Who,
    guard: &LeaseGuard,
    notice: Duration,
    give: &CancellationToken,
) {
    context.close(who, None);
    context.empty(who).await;
    let is_doubtful =
        || guard.standing() != LeaseStanding::Held || guard.remaining() <= notice.saturating_mul(2);
    while is_doubtful() && !give.is_cancelled() {
        tokio::time::sleep(context.refresh / 4).await;
    }
}

/// From here on others may hold it at any moment.
async fn lose(context: &Context, who: Who, reason: LostReason) -> Ended {
    context.lost(who, reason.clone());
    context.empty(who).await;
    Ended::Lost(reason)
}

async fn give_back(context: &Context, guard: LeaseGuard) {
    let name = guard.name().clone();
    match guard.release().await {
        Ok(_) => add(&context.figures.given_back, 1),
        // Its guard goes on trying in the background until the lease has expired.
        Err(error) => {
            quietly(|| {
                tracing::warn!(target: "lockkeeper", pool = &**context.pool.name(), lease = name.as_str(), %error, "a lease of a pool could not be given back yet");
            });
        }
    }
}

/// Ends when the first of two does, and says which; the first counts if both have.
pub(super) async fn either<A: Future, B: Future>(one: A, other: B) -> Either<A::Output, B::Output> {
    let (one, other) = (pin!(one), pin!(other));
    match select(one, other).await {
        Either::Left((value, _)) => Either::Left(value),
        Either::Right((value, _)) => Either::Right(value),
    }
}
