//! What has happened in a history: to be compared with the core's counters, and to see that the
//! histories get somewhere.

use lockkeeper::LockStats;

use super::model::Model;
use super::step::Step;
use super::universe::POINTS;
use super::words::{Answer, Event, Kind};

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub grants: u64,
    pub waits: u64,
    pub downgrades: u64,
    pub not_available: u64,
    pub deadlocks: u64,
    pub lock_timeouts: u64,
    pub txn_timeouts: u64,
    pub held_too_long: u64,
    pub limits_met: u64,
    /// What the core does not count: victims that are not the whole of their family,
    pub child_victims: u64,
    /// requests put in a queue by a family that has another one there or elsewhere,
    pub crowded: u64,
    /// for a range,
    pub range_waits: u64,
    /// or as an upgrade.
    pub upgrade_waits: u64,
}

impl Tally {
    /// Notes a call that the model has just answered.
    pub fn note(&mut self, step: &Step, answer: Answer, model: &Model) {
        match answer {
            Answer::Granted => self.grants += 1,
            Answer::Waits => self.note_wait(step, model),
            Answer::NotAvailable => self.not_available += 1,
            Answer::Limit(..) => self.limits_met += 1,
            Answer::Done if matches!(step, Step::Downgrade { .. }) => self.downgrades += 1,
            _ => (),
        }
        for event in &model.events {
            match event {
                Event::Granted(_) => self.grants += 1,
                Event::Doomed(number, Kind::Deadlock) => {
                    self.deadlocks += 1;
                    let is_child = model
                        .lockers
                        .iter()
                        .flatten()
                        .any(|locker| locker.number == *number && locker.parent.is_some());
                    self.child_victims += u64::from(is_child);
                }
                Event::Doomed(_, Kind::LockTimeout) => self.lock_timeouts += 1,
                Event::Doomed(_, Kind::TransactionTimeout) => self.txn_timeouts += 1,
                Event::HeldTooLong(..) => self.held_too_long += 1,
                _ => (),
            }
        }
    }

    fn note_wait(&mut self, step: &Step, model: &Model) {
        self.waits += 1;
        if let Step::Request {
            slot, object, from, ..
        } = *step
        {
            let family = model.root(slot);
            let waits = model
                .waiting
                .iter()
                .filter(|wait| model.root(wait.locker) == family);
            self.crowded += u64::from(waits.count() > 1);
            self.range_waits += u64::from((POINTS..9).contains(&usize::from(object)));
            self.upgrade_waits += u64::from(from.is_some());
        }
    }

    /// Those that the core counts too, as it has counted them.
    pub fn with_counters_of(self, stats: &LockStats) -> Self {
        Self {
            grants: stats.grants,
            waits: stats.waits,
            downgrades: stats.downgrades,
            not_available: stats.not_available,
            deadlocks: stats.deadlocks,
            lock_timeouts: stats.lock_timeouts,
            txn_timeouts: stats.txn_timeouts,
            held_too_long: stats.held_too_long,
            limits_met: stats.limits_met,
            ..self
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.grants += other.grants;
        self.waits += other.waits;
        self.downgrades += other.downgrades;
        self.not_available += other.not_available;
        self.deadlocks += other.deadlocks;
        self.lock_timeouts += other.lock_timeouts;
        self.txn_timeouts += other.txn_timeouts;
        self.held_too_long += other.held_too_long;
        self.limits_met += other.limits_met;
        self.child_victims += other.child_victims;
        self.crowded += other.crowded;
        self.range_waits += other.range_waits;
        self.upgrade_waits += other.upgrade_waits;
    }
}
