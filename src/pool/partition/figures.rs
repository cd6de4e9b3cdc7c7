//! What can be looked up about the leases of a pool.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use super::overrun::Ending;
use crate::error::ActorPanicked;
use crate::leases::{LeaseFault, LeaseHandler, LeaseVerdict, LeaseView};
use crate::pool::supervise::Who;

/// Where the leases of a pool are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PoolLeaseState {
    /// Nothing is held, and nothing is asked for: the pool is over or about to start, or its leases are, because they were shut down,
    /// or because a panic has ended them and they are not the keeper's, which begin anew.
    Idle,
    /// No lease is held: other processes hold them, the store does not answer, or a worker from before a panic of the leases runs on,
    /// behind which none is asked for. The pool goes on asking.
    WaitingForLease,
    /// A lease, or some partitions, are held.
    Held,
}

/// The leases of a pool. Counters count from its start.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct PoolLeaseStats {
    /// The name of the lease, or what the names of the partitions' leases begin with.
    pub name: Arc<str>,
    /// Whether each worker number has a lease of its own.
    pub partitioned: bool,
    /// Where they are.
    pub state: PoolLeaseState,
    /// The numbers of the partitions that are held, those included whose worker is being ended; empty without partitions.
    pub partitions: Vec<usize>,
    /// How many partitions this process should hold as far as it knows; `None` without partitions, and while it does not know.
    pub share: Option<usize>,
    /// How many processes took part when the store was looked at last; 0 without partitions.
    pub members: usize,
    /// Leases that were granted.
    pub acquired: u64,
    /// Leases that were given back, after their workers had ended. Those are not counted that were not back within the setting
    /// `release_timeout`, 5 s by default: they may be later, since that is tried on in the background, or have expired.
    pub given_back: u64,
    /// Leases that were lost: expired, stolen, taken away by force, shut down, with the keeper or before, or ended by a panic.
    pub lost: u64,
    /// Workers that had not ended when their lease was lost: blocking ones, or async ones that did not come to an await. They were
    /// told, and nobody can stop them; only what they do under the lease's token is refused.
    pub overrun: u64,
    /// How often asking for them, refreshing them or giving them back has failed: nearly always it was the store.
    pub store_errors: u64,
    /// How often what sees to the leases has panicked. What it held is given back then, after its workers have ended, and asked for
    /// again after a poll.
    pub panics: u64,
    /// What went wrong last, a panic included.
    pub last_error: Option<Arc<str>>,
}

/// One task that sees to the leases of a pool: while one ends, the next may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct TaskId(pub u64);

#[derive(Default)]
pub(super) struct Figures {
    /// By the number of the partition, if it is one.
    held: Mutex<BTreeMap<Option<usize>, Hold>>,
    /// As the last task has it that said so.
    seen: Mutex<(TaskId, Seen)>,
    pub acquired: AtomicU64,
    pub given_back: AtomicU64,
    lost: AtomicU64,
    pub overrun: AtomicU64,
    pub ending: Ending,
    store_errors: AtomicU64,
    panics: AtomicU64,
    last_error: Mutex<Option<Arc<str>>>,
}

struct Hold {
    by: TaskId,
    lease: LeaseView,
    /// It is not held any more, but its workers may not have ended yet.
    is_lost: bool,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    pub asking: bool,
    pub share: Option<usize>,
    pub members: usize,
}

impl Figures {
    pub(super) fn holds(&self, by: TaskId, who: Who, lease: LeaseView) {
        add(&self.acquired, 1);
        let hold = Hold {
            by,
            lease,
            is_lost: false,
        };
        self.held.lock().insert(key(who), hold);
    }

    /// A lease is lost. Whether nobody has said so before.
    pub(super) fn loses(&self, who: Who) -> bool {
        let mut held = self.held.lock();
        let hold = held.get_mut(&key(who));
        let is_news = hold.is_some_and(|hold| !std::mem::replace(&mut hold.is_lost, true));
        add(&self.lost, u64::from(is_news));
        is_news
    }

    pub(super) fn holds_no_more(&self, who: Who) {
        self.held.lock().remove(&key(who));
    }

    /// The leases that this task holds, or has lost.
    pub(super) fn held_by(&self, task: TaskId) -> Vec<(Who, LeaseView)> {
        let held = self.held.lock();
        let of_task = held.iter().filter(|(_, hold)| hold.by == task);
        let who = |key: &Option<usize>| key.map_or(Who::All, Who::One);
        of_task
            .map(|(key, hold)| (who(key), hold.lease.clone()))
            .collect()
    }

    pub(super) fn saw(&self, by: TaskId, seen: Seen) {
        *self.seen.lock() = (by, seen);
    }

    /// This task asks for nothing any more. Another one may have begun to.
    pub(super) fn sees_no_more(&self, by: TaskId) {
        let mut seen = self.seen.lock();
        if seen.0 == by {
            seen.1 = Seen::default();
        }
    }

    pub(super) fn failed(&self, error: &dyn std::error::Error) {
        add(&self.store_errors, 1);
        self.note(error);
    }

    pub(super) fn panicked(&self, panicked: &ActorPanicked) {
        add(&self.panics, 1);
        self.note(panicked);
    }

    fn note(&self, error: &dyn std::error::Error) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        *self.last_error.lock() = Some(text.into());
    }

    pub(super) fn shown(&self, name: Arc<str>, partitioned: bool) -> PoolLeaseStats {
        let held = self.held.lock();
        let seen = self.seen.lock().1;
        let state = match (held.values().any(|hold| hold.lease.is_held()), seen.asking) {
            (true, _) => PoolLeaseState::Held,
            (false, true) => PoolLeaseState::WaitingForLease,
            (false, false) => PoolLeaseState::Idle,
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PoolLeaseStats {
            name,
            partitioned,
            state,
            partitions: held.keys().copied().flatten().collect(),
            share: seen.share,
            members: seen.members,
            acquired: count(&self.acquired),
            given_back: count(&self.given_back),
            lost: count(&self.lost),
            overrun: count(&self.overrun),
            store_errors: count(&self.store_errors),
            panics: count(&self.panics),
            last_error: self.last_error.lock().clone(),
        }
    }
}

fn key(who: Who) -> Option<usize> {
    match who {
        Who::All => None,
        Who::One(worker) => Some(worker),
    }
}

pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// Counts the store's errors, and leaves the decision to whoever has it.
pub(super) struct Counting {
    pub figures: Arc<Figures>,
    pub inner: Arc<dyn LeaseHandler>,
}

impl LeaseHandler for Counting {
    fn store_failed(&self, fault: &LeaseFault<'_>) -> LeaseVerdict {
        self.figures.failed(fault.error);
        self.inner.store_failed(fault)
    }
}
