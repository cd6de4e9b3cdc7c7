//! What the core answers and tells, in the model's words.

use std::sync::Arc;

use lockkeeper::lock_core::{Denied, Effect, Reason};
use lockkeeper::{ConflictKind, LimitKind, LockConflict, LockSnapshot, LockerId};

use super::core::Core;
use super::words::{Answer, Event, Kind, Which, Why};

impl Core {
    pub fn event(&mut self, effect: &Effect) -> Option<Event> {
        Some(match effect {
            Effect::Granted(wait) => Event::Granted(self.answered(*wait)),
            Effect::Refused(wait, reason) => {
                let why = match reason {
                    Reason::Conflict(conflict) => Why::Conflict(kind(conflict)),
                    Reason::Ended => Why::Ended,
                    Reason::ShuttingDown => Why::ShuttingDown,
                };
                Event::Refused(self.answered(*wait), why)
            }
            Effect::Ended(locker) => Event::Ended(locker.number()),
            Effect::Doomed(locker, conflict) => {
                if let Some(choice) = conflict.choice {
                    assert_eq!(choice.victim, *locker);
                    self.victims.push(locker.number());
                    self.deadlocks.push(Arc::clone(conflict));
                }
                Event::Doomed(locker.number(), kind(conflict))
            }
            Effect::HeldTooLong(conflict) => Event::HeldTooLong(
                conflict.asker.locker.number(),
                self.number_of(&conflict.object, &mut 0),
                conflict.asker.mode,
            ),
            Effect::LimitNear { which, used, limit } => {
                self.warnings.push((which_limit(*which), *used, *limit));
                return None;
            }
            Effect::OrderContradicted(_) => return None,
        })
    }
}

pub fn done(answer: Result<(), Denied>) -> Answer {
    match answer {
        Ok(()) => Answer::Done,
        Err(denied) => refusal(&denied),
    }
}

pub fn refusal(denied: &Denied) -> Answer {
    match denied {
        Denied::Ended => Answer::Ended,
        Denied::Dead(conflict) => Answer::Dead(kind(conflict)),
        Denied::HeldTooLong(_) => Answer::HeldTooLong,
        Denied::NotAvailable(conflict) => {
            assert_eq!(conflict.kind, ConflictKind::NotAvailable);
            Answer::NotAvailable
        }
        Denied::Limit { which, value } => Answer::Limit(which_limit(*which), *value),
        Denied::NotHeld => Answer::NotHeld,
        Denied::NotWeaker { .. } => Answer::NotWeaker,
        Denied::UnknownMode(_) => Answer::UnknownMode,
    }
}

pub fn which_limit(which: LimitKind) -> Which {
    match which {
        LimitKind::Lockers => Which::Lockers,
        LimitKind::Locks => Which::Locks,
        LimitKind::Objects => Which::Objects,
        other => panic!("the histories are far from the limit of {other}"),
    }
}

pub fn kind(conflict: &LockConflict) -> Kind {
    match conflict.kind {
        ConflictKind::Deadlock => Kind::Deadlock,
        ConflictKind::LockTimeout => Kind::LockTimeout,
        ConflictKind::TransactionTimeout => Kind::TransactionTimeout,
        ConflictKind::HeldTooLong => Kind::HeldTooLong,
        other => panic!("nobody dies of {other:?}"),
    }
}

/// A deadlock's report shows a cycle: each step leads to the next family, the last to the first, and the
/// first is the victim's.
pub fn assert_is_told_well(conflict: &LockConflict, snapshot: &LockSnapshot) {
    let family = |locker: LockerId| {
        let info = snapshot.lockers.iter().find(|info| info.locker == locker);
        info.map(|info| info.family)
    };
    let cycle = &conflict.cycle;
    assert!(cycle.len() >= 2, "{conflict}");
    let victim = conflict.choice.map(|choice| choice.victim);
    assert_eq!(
        family(cycle[0].waiter.locker),
        victim.and_then(family),
        "{conflict}"
    );
    for (at, step) in cycle.iter().enumerate() {
        let next = cycle[(at + 1) % cycle.len()].waiter.locker;
        assert_eq!(family(step.blocker.locker), family(next), "{conflict}");
        assert_ne!(family(step.waiter.locker), family(next), "{conflict}");
    }
}
