//! What the lock table tells besides its answers: to the log, and to those who subscribed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::broadcast;

use crate::clock::coarse_now;
use crate::error::ActorPanicked;
use crate::locks::{Effect, LimitKind, LockConflict, OrderWarning};

/// Something that an operator of a lock table wants to know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LockEvent {
    /// A deadlock was broken.
    Deadlock(Arc<LockConflict>),
    /// A lock is held longer than `max_hold`.
    HeldTooLong(Arc<LockConflict>),
    /// A limit is near: so many are in use, by default 80 % of it.
    LimitNear {
        /// Of what.
        which: LimitKind,
        /// How many are in use.
        used: usize,
        /// The limit.
        limit: usize,
    },
    /// Classes of objects were locked in contradicting orders, which can become a deadlock.
    OrderContradicted(Arc<OrderWarning>),
    /// A panic has left the table half changed: it grants nothing more, and begins anew when its last locker has ended.
    Broken(ActorPanicked),
}

/// How many events a subscriber may be behind before the oldest are dropped for it.
const BACKLOG: usize = 256;
/// The most deadlocks that are logged in a second.
const MOST_LOGGED: u64 = 10;

pub(super) struct Events {
    sender: broadcast::Sender<LockEvent>,
    /// The second in which deadlocks were logged last, and how many.
    logged: AtomicU64,
}

impl Events {
    pub(super) fn new() -> Self {
        Self {
            sender: broadcast::Sender::new(BACKLOG),
            logged: AtomicU64::new(0),
        }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<LockEvent> {
        self.sender.subscribe()
    }

    pub(super) fn broken(&self, panicked: ActorPanicked) {
        // Nobody may have subscribed.
        let _ = self.sender.send(LockEvent::Broken(panicked));
    }

    /// Not under the table's mutex: a subscriber of the log can be anyone.
    pub(super) fn tell(&self, effect: Effect) {
        let event = match effect {
            Effect::Doomed(_, conflict) if !conflict.cycle.is_empty() => {
                self.log_deadlock(&conflict);
                LockEvent::Deadlock(conflict)
            }
            Effect::HeldTooLong(conflict) => {
                tracing::warn!(
                    target: "lockkeeper",
                    namespace = conflict.object.namespace(),
                    mode = %conflict.mode(),
                    locker = conflict.asker.locker.number(),
                    name = conflict.asker.name.as_ref().map(|name| name.as_str()),
                    site = %conflict.asker.site,
                    waiting = conflict.waiters_total,
                    "a lock is held longer than max_hold"
                );
                LockEvent::HeldTooLong(conflict)
            }
            Effect::LimitNear { which, used, limit } => {
                tracing::warn!(
                    target: "lockkeeper",
                    limit = which.setting(),
                    used,
                    value = limit,
                    "the lock table comes near a limit"
                );
                LockEvent::LimitNear { which, used, limit }
            }
            Effect::OrderContradicted(warning) => {
                tracing::warn!(target: "lockkeeper", "{warning}");
                LockEvent::OrderContradicted(warning)
            }
            _ => return,
        };
        // Nobody may have subscribed.
        let _ = self.sender.send(event);
    }

    fn log_deadlock(&self, conflict: &LockConflict) {
        let enabled = tracing::enabled!(target: "lockkeeper", tracing::Level::INFO);
        if !enabled || !self.may_log(coarse_now()) {
            return;
        }
        tracing::info!(
            target: "lockkeeper",
            namespace = conflict.object.namespace(),
            victim = conflict.choice.map(|choice| choice.victim.number()),
            name = conflict.asker.name.as_ref().map(|name| name.as_str()),
            site = %conflict.asker.site,
            cycle = conflict.cycle.len(),
            "a deadlock was broken"
        );
        // With its keys, which are not for everyone's eyes.
        tracing::debug!(target: "lockkeeper", "deadlock: {conflict}");
    }

    /// Text is made at most so many times a second.
    fn may_log(&self, now: Duration) -> bool {
        const COUNT: u64 = 1 << 16;
        let second = now.as_secs();
        let step = |last: u64| match last / COUNT == second {
            true if last % COUNT >= MOST_LOGGED => None,
            true => Some(last + 1),
            false => Some(second * COUNT + 1),
        };
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.logged.fetch_update(set, fetch, step).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_deadlocks_a_second_are_logged() {
        let events = Events::new();
        for second in 3..6 {
            let now = Duration::from_secs(second);
            let logged = (0..100).filter(|_| events.may_log(now)).count();
            assert_eq!(logged, 10);
        }
    }
}
