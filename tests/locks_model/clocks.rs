//! The model's deadlines: of waits, of transactions, and of locks that are held too long.

use super::calls::Patience;
use super::model::Model;
use super::words::{Answer, Event, Kind, Slot, Time, Wait};

impl Model {
    /// When the wait ends, and if it is a transaction's deadline, whose. `None` if it does not wait at all.
    pub fn deadline(
        &self,
        locker: Slot,
        patience: Patience,
    ) -> Option<(Option<Time>, Option<Slot>)> {
        let after = |timeout: Time| (timeout > 0).then(|| self.now + timeout);
        let lineage = self.lineage(locker);
        let own = lineage
            .iter()
            .find_map(|slot| self.locker(*slot).lock_timeout);
        let lock = match (patience, own) {
            (Patience::No, _) => return None,
            (Patience::For(timeout), _) => after(timeout),
            (Patience::Until(moment), _) => Some(moment.max(self.now)),
            (Patience::Forever, _) => None,
            (Patience::Default, _) if self.config.timeouts.no_wait => return None,
            (Patience::Default, Some(timeout)) => after(timeout),
            (Patience::Default, None) => after(self.config.timeouts.lock),
        };
        let txn = lineage
            .iter()
            .filter_map(|slot| Some((self.locker(*slot).txn_deadline?, *slot)))
            .min_by_key(|(deadline, _)| *deadline);
        Some(match (lock, txn) {
            (Some(lock), Some((txn, whose))) if txn < lock => (Some(txn), Some(whose)),
            (None, Some((txn, whose))) => (Some(txn), Some(whose)),
            (lock, _) => (lock, None),
        })
    }

    /// When a lock has been held too long, if that has not been said yet.
    fn hold_deadline(&self, at: usize) -> Option<Time> {
        let (held, max_hold) = (&self.held[at], self.config.timeouts.max_hold);
        (max_hold > 0 && !held.said).then(|| held.since + max_hold)
    }

    pub fn next_deadline(&self) -> Option<Time> {
        let waits = self.waiting.iter().filter_map(|wait| wait.deadline);
        let holds = (0..self.held.len()).filter_map(|at| self.hold_deadline(at));
        waits.chain(holds).min()
    }

    /// What is due first: the earliest wait, or else a lock that is held too long.
    fn due(&self) -> (Option<Wait>, Option<usize>) {
        let wait = self
            .waiting
            .iter()
            .filter(|wait| wait.deadline.is_some_and(|at| at <= self.now))
            .min_by_key(|wait| (wait.deadline, wait.arrival))
            .copied();
        let first = |at: &usize| {
            let held = &self.held[*at];
            let told = (self.locker(held.locker).number, held.object, held.mode);
            let place = self.told.iter().position(|other| *other == told);
            (held.since, place.unwrap_or(usize::MAX))
        };
        let hold = (0..self.held.len())
            .filter(|at| self.hold_deadline(*at).is_some_and(|at| at <= self.now))
            .min_by_key(first);
        match (wait, hold) {
            (Some(wait), _) => (Some(wait), None),
            (None, hold) => (None, hold),
        }
    }

    /// What is due, the earliest first, at most `most`; answers whether more is.
    pub fn expire(&mut self, most: usize) -> Answer {
        for _ in 0..most {
            match self.due() {
                (Some(wait), _) => match wait.whose {
                    Some(whose) => self.doom(whose, Kind::TransactionTimeout),
                    None => self.doom(wait.locker, Kind::LockTimeout),
                },
                (None, Some(hold)) => self.held_too_long(hold),
                (None, None) => break,
            }
            self.promote();
        }
        self.settle();
        let (wait, hold) = self.due();
        Answer::Yes(wait.is_some() || hold.is_some())
    }

    fn held_too_long(&mut self, at: usize) {
        self.held[at].said = true;
        let held = self.held[at];
        let number = self.locker(held.locker).number;
        self.events
            .push(Event::HeldTooLong(number, held.object, held.mode));
        if self.config.timeouts.abort_on_max_hold {
            if self.death(held.locker).is_none() {
                self.doom(held.locker, Kind::HeldTooLong);
            }
        } else {
            let to_be_told = &mut self.locker_mut(held.locker).to_be_told;
            *to_be_told = to_be_told.or(Some(held.object));
        }
    }
}
