//! Deadlines: of waits, of transactions, and of locks that are held too long.

use std::sync::Arc;
use std::time::Duration;

use super::slab::{LockSlot, LockerSlot};
use super::{ConflictKind, Effect, Moment, Patience, Table, Timeouts, WaitId};

/// When a wait ends, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitDeadline {
    pub at: Moment,
    /// How long the wait, or the transaction, was allowed to last.
    pub timeout: Duration,
    /// Whose time is over: the waiting locker's wait, or all that this locker does.
    pub txn: Option<LockerSlot>,
}

impl Table {
    /// When a request that begins to wait now stops: its own time, else its locker's, else the table's;
    /// and in any case when the time of its transaction is over.
    pub(super) fn deadline(&self, locker: LockerSlot, patience: Patience) -> Option<WaitDeadline> {
        let timeout = match patience {
            Patience::For(time) => Some(time).filter(|time| !time.is_zero()),
            Patience::Until(at) => Some(at.since(self.now)),
            Patience::Forever | Patience::No => None,
            Patience::Default => Some(
                self.with_ancestors(locker)
                    .find_map(|one| self.lockers[one].lock_timeout)
                    .unwrap_or(self.config.timeouts.lock),
            )
            .filter(|timeout| !timeout.is_zero()),
        };
        let own = timeout.and_then(|timeout| {
            let at = self.now.after(timeout)?;
            Some(WaitDeadline {
                at,
                timeout,
                txn: None,
            })
        });
        let txn = self.with_ancestors(locker).filter_map(|one| {
            let txn = self.lockers[one].txn?;
            Some(WaitDeadline {
                at: txn.at,
                timeout: txn.timeout,
                txn: Some(one),
            })
        });
        own.into_iter()
            .chain(txn)
            .min_by_key(|deadline| deadline.at)
    }

    /// Changes how long waits, transactions and locks last. What waits already, and lockers that exist,
    /// keep the time they were given; locks that are held are judged by the new time.
    pub fn set_timeouts(&mut self, now: Moment, timeouts: Timeouts) {
        self.tell_time(now);
        let held_before = self.config.timeouts.max_hold;
        self.config.timeouts = timeouts;
        if held_before.is_zero() != timeouts.max_hold.is_zero() {
            self.holds.clear();
            if !timeouts.max_hold.is_zero() {
                let held = self.locks.iter().filter(|(_, entry)| !entry.overdue);
                self.holds = held.map(|(slot, entry)| (entry.since, slot)).collect();
            }
        }
    }

    /// Carries out what is due: waits whose time is over are refused, and locks that are held too long
    /// are told. At most `most` of them, so that a caller can let others in between; true if there are
    /// more.
    pub fn expire(&mut self, now: Moment, most: usize, effects: &mut Vec<Effect>) -> bool {
        self.tell_time(now);
        for _ in 0..most {
            if let Some(wait) = self.next_expired() {
                self.end_wait(wait, effects);
            } else if let Some(lock) = self.next_overdue() {
                self.tell_overdue(lock, effects);
            } else {
                break;
            }
            self.promote(effects);
        }
        self.finish(effects);
        self.next_expired().is_some() || self.next_overdue().is_some()
    }

    /// When [`expire`](Self::expire) has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let wait = self.deadlines.first().map(|(at, _)| *at);
        let hold = self
            .holds
            .first()
            .and_then(|(since, _)| since.after(self.config.timeouts.max_hold));
        [wait, hold].into_iter().flatten().min()
    }

    fn next_expired(&self) -> Option<WaitId> {
        let (at, wait) = self.deadlines.first()?;
        (*at <= self.now).then_some(*wait)
    }

    fn next_overdue(&self) -> Option<LockSlot> {
        let (since, lock) = self.holds.first()?;
        let end = since.after(self.config.timeouts.max_hold)?;
        (end <= self.now).then_some(*lock)
    }

    fn end_wait(&mut self, wait: WaitId, effects: &mut Vec<Effect>) {
        let Some(deadline) = self.waits[wait.slot].deadline else {
            return;
        };
        let (kind, top) = match deadline.txn {
            None => {
                self.stats.lock_timeouts += 1;
                (ConflictKind::LockTimeout, self.waits[wait.slot].locker)
            }
            Some(top) => {
                self.stats.txn_timeouts += 1;
                (ConflictKind::TransactionTimeout, top)
            }
        };
        let conflict = Arc::new(self.explain_wait(kind, wait.slot));
        self.kill(top, &conflict, effects);
    }

    fn tell_overdue(&mut self, lock: LockSlot, effects: &mut Vec<Effect>) {
        let entry = &mut self.locks[lock];
        entry.overdue = true;
        let (since, locker) = (entry.since, entry.locker);
        self.holds.remove(&(since, lock));
        self.stats.held_too_long += 1;
        let conflict = Arc::new(self.explain_hold(lock));
        effects.push(Effect::HeldTooLong(Arc::clone(&conflict)));
        if self.config.timeouts.abort_on_max_hold {
            if self.lockers[locker].dead.is_none() {
                self.kill(locker, &conflict, effects);
            }
        } else {
            self.lockers[locker].overdue.get_or_insert(conflict);
        }
    }

    /// Whether a family is past its time: that of a wait, of a transaction, or of a lock it holds.
    pub(super) fn is_past_its_time(&self, root: LockerSlot) -> bool {
        let waits = self.lockers[root].family.waits.iter();
        let late = |at: Moment| at <= self.now;
        let has_waited = waits
            .filter_map(|wait| self.waits[*wait].deadline)
            .any(|deadline| late(deadline.at));
        has_waited
            || self.subtree(root).into_iter().any(|locker| {
                let entry = &self.lockers[locker];
                entry.txn.is_some_and(|txn| late(txn.at)) || self.holds_too_long(locker)
            })
    }

    fn holds_too_long(&self, locker: LockerSlot) -> bool {
        let longest = self.config.timeouts.max_hold;
        if longest.is_zero() {
            return false;
        }
        let mut next = self.lockers[locker].locks;
        while let Some(lock) = next {
            let entry = &self.locks[lock];
            if self.now.since(entry.since) >= longest {
                return true;
            }
            next = entry.next;
        }
        false
    }
}
