//! What other parts plug into a pool.

use std::sync::Arc;
use std::time::Instant;

use super::jobs::{JobId, JobStats, QuarantineEntry};
use super::partition::PoolLeaseStats;
use super::shared::Shared;
use super::supervise::{Cause, PoolState, RunId};
use crate::error::RetryError;

/// What feeds the workers of a pool: a queue of jobs.
///
/// Called on the pool's driver thread, [`failed`](Self::failed) on the worker's own, [`drain`](Self::drain) and
/// [`stands`](Self::stands) also where the pool is resumed, scaled, or stopped with the keeper. It must be short, and call nothing of the
/// pool that waits.
pub(crate) trait Feed: Send + Sync {
    /// What is counted about the jobs.
    fn stats(&self) -> JobStats;

    /// The jobs that were put aside.
    fn quarantined(&self) -> Vec<QuarantineEntry>;

    /// Has one of them begun again.
    fn retry(&self, job: JobId) -> Result<(), RetryError>;

    /// Drops one of them; `false` if it is not there.
    fn discard(&self, job: JobId) -> bool;

    /// Nothing new is taken from now on: the pool drains, and its workers end when nothing is left to do.
    #[must_use = "somebody waits for an answer"]
    fn drain(&self) -> Option<Rest<'_>>;

    /// A run has failed or panicked; it may have had a job in its hands. Called on the worker's thread, or where its future was
    /// polled, before anybody else hears of it.
    fn failed(&self, run: RunId, cause: &Cause);

    /// A run was given up because it was silent, or did not stop in its time. It may go on.
    fn abandoned(&self, run: RunId);

    /// Where the pool stands, after something has changed, and how a worker failed last. Told before anybody is who waits for
    /// that, and once more when nothing of the pool is waited for any more.
    #[must_use = "somebody waits for an answer"]
    fn stands(&self, state: PoolState, last: Option<Arc<str>>) -> Option<Rest<'_>>;
}

/// What follows from what a feed was told, if anything does: submitters are answered, and jobs dropped, which may do anything. So
/// it is done when the pool holds no lock.
pub(crate) struct Rest<'a>(Box<dyn FnOnce() + 'a>);

impl<'a> Rest<'a> {
    pub(super) fn new(what: impl FnOnce() + 'a) -> Self {
        Self(Box::new(what))
    }

    pub(super) fn run(self) {
        (self.0)();
    }
}

/// What says when workers may run: leases. Where there is one, the gates of all workers or of each, as the pool's
/// [`Gating`](super::supervise::Gating) says, are closed at first, and are opened and closed with [`Shared::open_gate`] and
/// [`Shared::close_gate`].
///
/// All methods must return at once, and call nothing of the pool that waits.
pub(crate) trait Gates: Send + Sync {
    /// The pool has started, was resumed after it had failed, or goes on under other leases after a panic has ended the first.
    fn started(&self, pool: &Arc<Shared>);

    /// Looks whether what should have ended has, and answers when to look again. Called on the pool's driver thread, in each turn.
    fn look(&self, pool: &Shared) -> Option<Instant>;

    /// Whether nothing is left to be given back by a pool that is over.
    fn at_rest(&self) -> bool;

    /// What can be looked up about them.
    fn stats(&self) -> PoolLeaseStats;
}
