//! What other parts plug into a pool.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use super::supervise::{Cause, RunId};

/// What feeds the workers of a pool: a queue of jobs.
///
/// Called on the pool's driver thread, [`failed`](Self::failed) on the worker's own. It must be short, and call nothing of the
/// pool that waits.
pub(crate) trait Feed: Send + Sync {
    /// How many jobs wait.
    fn queued(&self) -> usize;

    /// Nothing new is taken from now on: the pool drains, and its workers end when nothing is left to do.
    fn drain(&self);

    /// A run has failed or panicked; it may have had a job in its hands. Called on the worker's thread, or where its future was
    /// polled, before anybody else hears of it.
    fn failed(&self, worker: usize, run: RunId, cause: &Cause);

    /// A run was given up because it was silent, or did not stop in its time. It may go on.
    fn abandoned(&self, worker: usize, run: RunId, why: Abandoned);

    /// The pool is over: no worker runs, and none will, unless it failed and is resumed.
    fn over(&self);
}

/// Why a run was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abandoned {
    /// It gave no heartbeat for so long.
    Silent(Duration),
    /// It was told to stop, and did not in its time.
    Late,
}

/// What says when workers may run: leases. The pool is started with its gates closed (see [`Gating`](super::supervise::Gating)), and
/// they are opened and closed with [`Shared::open_gate`] and [`Shared::close_gate`].
///
/// Both methods are called on the pool's driver thread, and must return at once.
pub(crate) trait Gates: Send + Sync {
    /// The pool has started, or was resumed after it had failed.
    fn started(&self, pool: &Arc<Shared>);

    /// The pool is over: what it needs no more is to be given back.
    fn over(&self);
}
