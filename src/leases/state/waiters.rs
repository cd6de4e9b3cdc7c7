//! Those who wait for leases: what they want, in which order they come, and what they are told.

use std::sync::Arc;
use std::time::Duration;

use super::book::Timer;
use super::{Book, Effect, LeaseKey, Moment, Phase, Timing, WaiterId};
use crate::leases::{LeaseName, LeaseRecord, StoreError};

/// What a waiter wants.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The times of the lease.
    pub timing: Timing,
    /// How often the store is asked.
    pub poll: Duration,
    /// When the waiter's time is over.
    pub until: Option<Moment>,
    /// Whether it is asked for once, without waiting.
    pub once: bool,
    /// Whether the first error of the store ends it, also behind another waiter.
    pub fail_fast: bool,
}

/// Why a waiter does not get the lease.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "a field is what its type says")]
pub enum Refusal {
    /// Somebody holds it, and the waiter did not want to wait. In this process: without a record.
    Busy {
        by: Option<LeaseKey>,
        record: Option<LeaseRecord>,
        remaining: Option<Duration>,
    },
    /// Its time was over.
    TimedOut {
        waited: Duration,
        by: Option<LeaseKey>,
        record: Option<LeaseRecord>,
        errors: u32,
        last: Option<Arc<StoreError>>,
    },
    /// The store failed, and nobody wants to go on or the time was over.
    Unreachable {
        waited: Duration,
        errors: u32,
        last: Arc<StoreError>,
    },
    /// The store cannot be used.
    Unusable(Arc<StoreError>),
    /// So many wait already.
    TooMany { limit: usize },
    /// The leases are shut down.
    ShuttingDown,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub name: LeaseName,
    pub wish: Wish,
    pub since: Moment,
    /// How often the store had failed before.
    pub errors_before: u32,
}

impl Book {
    /// Somebody wants a lease. What becomes of it comes as [`Effect::Granted`] or [`Effect::Refused`].
    ///
    /// # Errors
    /// [`Refusal::TooMany`] and [`Refusal::ShuttingDown`], at once.
    pub fn ask(&mut self, now: Moment, name: &LeaseName, wish: Wish) -> Result<WaiterId, Refusal> {
        if self.closed {
            return Err(Refusal::ShuttingDown);
        }
        let limit = self.bounds.waiters;
        // Whoever is first for a name has the store asked, at once with those of other names; and what comes of that has to be
        // seen to when he has gone away, too, for long if the store fails.
        let of_all = limit.saturating_mul(NAMES).max(LEAST_OF_ALL);
        if self.waiters.len().saturating_add(self.trailing) >= of_all {
            return Err(Refusal::TooMany { limit: of_all });
        }
        if self.waiting(name) >= limit {
            return Err(Refusal::TooMany { limit });
        }
        let turns = self.names.entry(name.clone()).or_default();
        let id = WaiterId(self.next_waiter);
        self.next_waiter += 1;
        turns.queue.push_back(id);
        if wish.once {
            turns.impatient += 1;
        }
        if let Some(until) = wish.until {
            self.timers.insert((until, Timer::Waiter(id)));
        }
        let waiter = Waiter {
            name: name.clone(),
            wish,
            since: now,
            errors_before: turns.failures.count,
        };
        self.waiters.insert(id, waiter);
        Ok(id)
    }

    /// How many wait for a name. What is still asked for somebody who has gone away is not counted.
    pub(super) fn waiting(&self, name: &LeaseName) -> usize {
        let Some(turns) = self.names.get(name) else {
            return 0;
        };
        let asker = turns.asker.and_then(|key| self.leases.get(&key));
        turns.queue.len() + usize::from(asker.is_some_and(|entry| entry.waiter.is_some()))
    }

    /// Whether a waiter is behind others of this process.
    #[must_use]
    pub fn is_behind(&self, name: &LeaseName, waiter: WaiterId) -> bool {
        let turns = self.names.get(name);
        turns.is_some_and(|turns| turns.queue.back() == Some(&waiter))
    }

    /// A waiter has gone away.
    pub fn abandon(&mut self, now: Moment, waiter: WaiterId, fx: &mut Vec<Effect>) {
        if let Some(waiter) = self.take_waiter(waiter) {
            self.withdraw(now, &waiter.0, waiter.1, fx);
        }
    }

    /// The time of a waiter is over.
    pub(super) fn waiter_due(&mut self, now: Moment, id: WaiterId, fx: &mut Vec<Effect>) {
        let Some((id, waiter)) = self.take_waiter(id) else {
            return;
        };
        let name = waiter.name.clone();
        let waited = now.since(waiter.since);
        let turns = self.names.get(&waiter.name);
        let (by, seen) = turns.map_or((None, None), |turns| (turns.holder, turns.seen.clone()));
        let asker = turns.and_then(|turns| self.leases.get(&turns.asker?));
        let is_asked = asker.is_some_and(|entry| entry.claim.is_some() || entry.is_verifying());
        let (errors, last) = self.errors_of(&waiter);
        let refusal = match (last, self.failing(&name)) {
            (_, Some(last)) => Refusal::Unreachable {
                waited,
                // It had failed just before, too.
                errors: errors.max(1),
                last: Arc::clone(last),
            },
            // Nobody is known to hold it: the store has not said anything.
            _ if is_asked && by.is_none() && seen.is_none() => Refusal::Unreachable {
                waited,
                errors: errors.saturating_add(1),
                last: Arc::new(StoreError::Unreachable("no answer came in time".into())),
            },
            (last, None) => Refusal::TimedOut {
                waited,
                by,
                record: seen.map(|(record, at)| aged(record, now.since(at))),
                errors,
                last: last.cloned(),
            },
        };
        fx.push(Effect::Refused {
            waiter: id,
            name: name.clone(),
            refusal,
        });
        self.withdraw(now, &id, waiter, fx);
    }

    /// How often the store has failed while somebody waited, and how at last.
    pub(super) fn errors_of(&self, waiter: &Waiter) -> (u32, Option<&Arc<StoreError>>) {
        let Some(turns) = self.names.get(&waiter.name) else {
            return (0, None);
        };
        let errors = turns.failures.count.saturating_sub(waiter.errors_before);
        let last = turns.failures.last.as_ref();
        (errors, last.filter(|_| errors > 0))
    }

    /// How the store failed when it was asked last for a name, if it did.
    fn failing(&self, name: &LeaseName) -> Option<&Arc<StoreError>> {
        let failures = &self.names.get(name)?.failures;
        failures.last.as_ref().filter(|_| failures.are_going_on)
    }

    /// A waiter was taken out: what was done for it is undone.
    pub(super) fn withdraw(
        &mut self,
        now: Moment,
        id: &WaiterId,
        waiter: Waiter,
        fx: &mut Vec<Effect>,
    ) {
        let Some(turns) = self.names.get_mut(&waiter.name) else {
            return;
        };
        turns.queue.retain(|other| other != id);
        let asker = turns
            .asker
            .and_then(|key| Some((key, self.leases.get_mut(&key)?)));
        if let Some((key, entry)) = asker
            && entry.waiter == Some(*id)
        {
            entry.waiter = None;
            entry.unowned = true;
            if *entry.life.phase() == Phase::Verifying {
                if let Some(turns) = self.names.get_mut(&waiter.name) {
                    turns.asker = None;
                    turns.holder = Some(key);
                }
                self.give_back(now, key, fx);
            } else if entry.claim.is_none() {
                self.drop_asker(now, key, fx);
            } else {
                // Its answer decides: what is granted to nobody is given back.
                self.trailing += 1;
            }
        }
        self.advance(now, &waiter.name, fx);
    }

    /// Those who do not want to wait are told what is known.
    pub(super) fn refuse_impatient(&mut self, now: Moment, name: &LeaseName, fx: &mut Vec<Effect>) {
        let Some(turns) = self.names.get(name).filter(|turns| turns.impatient > 0) else {
            return;
        };
        let asker = turns
            .asker
            .and_then(|key| Some((key, self.leases.get(&key)?)));
        let is_asked = asker.is_some_and(|(_, entry)| entry.claim.is_some());
        // It is granted, as far as is known, and about to be held.
        let granted = asker.filter(|(_, entry)| entry.is_verifying());
        let holder = turns.holder.or(granted.map(|(key, _)| key));
        let failing = self.failing(name).cloned();
        let (by, seen) = match (holder, &turns.seen) {
            (Some(key), _) => (Some(key), None),
            // What the store answers is for them too.
            (None, _) if is_asked && failing.is_some() => return,
            (None, None) if is_asked => return,
            (None, seen) => (None, seen.clone()),
        };
        let seen = seen.map(|(record, at)| aged(record, now.since(at)));
        let failing = failing.filter(|_| by.is_none());
        let remaining = match by.and_then(|key| self.leases.get(&key)?.life.deadline()) {
            Some(deadline) => Some(deadline.since(now)),
            None => seen.as_ref().and_then(|record| record.remaining),
        };
        self.refuse_behind(
            name,
            |wish| wish.once,
            |waiter, errors| match &failing {
                Some(last) => unreachable(now.since(waiter.since), errors.max(1), last),
                None => Refusal::Busy {
                    by,
                    record: seen.clone(),
                    remaining,
                },
            },
            fx,
        );
    }

    /// The store has failed: those who do not go on after an error need not ask it themselves.
    pub(super) fn refuse_hasty(
        &mut self,
        now: Moment,
        name: &LeaseName,
        error: &Arc<StoreError>,
        fx: &mut Vec<Effect>,
    ) {
        self.refuse_behind(
            name,
            |wish| wish.once || wish.fail_fast,
            |waiter, errors| unreachable(now.since(waiter.since), errors, error),
            fx,
        );
    }

    /// Refuses those behind the one who asks that are of a kind.
    fn refuse_behind(
        &mut self,
        name: &LeaseName,
        is_meant: impl Fn(&Wish) -> bool,
        refusal: impl Fn(&Waiter, u32) -> Refusal,
        fx: &mut Vec<Effect>,
    ) {
        let Some(turns) = self.names.get_mut(name) else {
            return;
        };
        let waiters = &self.waiters;
        let is_meant = |id: &WaiterId| {
            let waiter = waiters.get(id);
            waiter.is_some_and(|waiter| is_meant(&waiter.wish))
        };
        let meant: Vec<_> = turns.queue.iter().copied().filter(is_meant).collect();
        turns.queue.retain(|id| !is_meant(id));
        for id in meant {
            let Some((id, waiter)) = self.take_waiter(id) else {
                continue;
            };
            let (errors, _) = self.errors_of(&waiter);
            fx.push(Effect::Refused {
                waiter: id,
                name: name.clone(),
                refusal: refusal(&waiter, errors),
            });
        }
    }

    pub(super) fn take_waiter(&mut self, id: WaiterId) -> Option<(WaiterId, Waiter)> {
        let waiter = self.waiters.remove(&id)?;
        if let Some(until) = waiter.wish.until {
            self.timers.remove(&(until, Timer::Waiter(id)));
        }
        if waiter.wish.once
            && let Some(turns) = self.names.get_mut(&waiter.name)
        {
            turns.impatient = turns.impatient.saturating_sub(1);
        }
        Some((id, waiter))
    }
}

/// The store failed when it was asked last.
pub(super) fn unreachable(waited: Duration, errors: u32, last: &Arc<StoreError>) -> Refusal {
    let last = Arc::clone(last);
    match last.is_retryable() {
        true => Refusal::Unreachable {
            waited,
            errors,
            last,
        },
        false => Refusal::Unusable(last),
    }
}

/// For all names together so many times as many may wait as for one, and these in any case.
const NAMES: usize = 10;
const LEAST_OF_ALL: usize = 100_000;

/// A record as it is now, if nobody has refreshed it since.
fn aged(mut record: LeaseRecord, age: Duration) -> LeaseRecord {
    record.remaining = record
        .remaining
        .map(|remaining| remaining.saturating_sub(age));
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::LeaseVerdict;
    use crate::leases::state::{Bounds, ClaimAnswer};

    /// A book in which one may wait for each name, and a wish.
    fn book() -> (Book, Wish) {
        let second = Duration::from_secs(1);
        let book = Book::new(Bounds {
            waiters: 1,
            call_timeout: second,
            seed: 1,
        });
        let wish = Wish {
            timing: Timing::new(second, 60 * second, second).unwrap(),
            poll: second,
            until: None,
            once: false,
            fail_fast: false,
        };
        (book, wish)
    }

    #[test]
    fn i13_those_who_wait_for_all_names_together_are_bounded() {
        let (mut book, wish) = book();
        let name = |n: usize| LeaseName::new(n.to_string()).unwrap();
        let mut ask = |n| book.ask(Moment(1), &name(n), wish.clone());
        let first = ask(0).unwrap();
        assert!(matches!(ask(0), Err(Refusal::TooMany { limit: 1 })));
        assert!((1..LEAST_OF_ALL).all(|n| ask(n).is_ok()));
        let refused = ask(LEAST_OF_ALL);
        assert!(matches!(
            refused,
            Err(Refusal::TooMany {
                limit: LEAST_OF_ALL
            })
        ));
        book.abandon(Moment(2), first, &mut Vec::new());
        assert!(book.ask(Moment(3), &name(0), wish).is_ok());
    }

    #[test]
    fn i13_what_a_store_that_does_not_answer_leaves_behind_is_bounded() {
        let (mut book, wish) = book();
        let now = Moment(1);
        let mut claims = Vec::new();
        // Each goes away while the store is asked.
        for n in 0..LEAST_OF_ALL {
            let name = LeaseName::new(n.to_string()).unwrap();
            let (id, mut fx) = (book.ask(now, &name, wish.clone()).unwrap(), Vec::new());
            book.advance(now, &name, &mut fx);
            book.abandon(now, id, &mut fx);
            let Some(Effect::Claim { key, send, .. }) = fx.pop() else {
                panic!("{fx:?}")
            };
            claims.push((key, send));
        }
        let last = LeaseName::new("last").unwrap();
        let full = |book: &mut Book| {
            let asked = book.ask(now, &last, wish.clone());
            matches!(asked, Err(Refusal::TooMany { limit }) if limit == LEAST_OF_ALL)
        };
        assert!(full(&mut book));
        let error = || Arc::new(StoreError::Unreachable("no answer".into()));
        for (key, send) in &claims {
            let (error, verdict) = (error(), LeaseVerdict::GoOn);
            let failed = ClaimAnswer::Failed { error, verdict };
            book.claimed(now, *key, *send, failed, &mut Vec::new());
        }
        // What may be held is given back, and that is not answered either.
        assert!(full(&mut book));
        let stopped = Err((error(), LeaseVerdict::Stop));
        book.released(now, claims[0].0, stopped, &mut Vec::new());
        assert!(!full(&mut book));
    }
}
