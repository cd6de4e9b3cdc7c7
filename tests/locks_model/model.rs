//! The naive model: flat lists, everything looked at each time.

use std::collections::{BTreeMap, BTreeSet};

use lockkeeper::Mode;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Granted(usize),
    Deadlock(usize),
    Timeout(usize),
    Ended(usize),
}

#[derive(Debug, Clone)]
pub struct ModelLocker {
    pub age: u64,
    pub priority: u32,
    pub aborted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    pub object: u8,
    pub locker: u64,
    pub mode: Mode,
    pub count: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub arrival: usize,
    pub locker: u64,
    pub object: u8,
    pub mode: Mode,
    pub deadline: Option<u64>,
}

#[derive(Default)]
pub struct Model {
    pub on_block: bool,
    pub lockers: BTreeMap<u64, ModelLocker>,
    pub held: Vec<Held>,
    pub waiting: Vec<Waiting>,
    pub events: Vec<Event>,
    pub ages: u64,
    pub made: u64,
    pub arrivals: usize,
}

pub fn conflict(held: Mode, wanted: Mode) -> bool {
    held == Mode::Write || wanted == Mode::Write
}

impl Model {
    pub fn holds(&self, locker: u64, object: u8) -> bool {
        self.held
            .iter()
            .any(|held| held.locker == locker && held.object == object)
    }

    pub fn place(&self, wait: &Waiting) -> (bool, usize) {
        (!self.holds(wait.locker, wait.object), wait.arrival)
    }

    /// Who keeps the request waiting: the two conflicts of the rule.
    pub fn blockers(&self, wait: &Waiting) -> BTreeSet<u64> {
        let holders = self
            .held
            .iter()
            .filter(|held| held.object == wait.object && conflict(held.mode, wait.mode));
        let ahead = self.waiting.iter().filter(|other| {
            other.object == wait.object
                && conflict(other.mode, wait.mode)
                && self.place(other) < self.place(wait)
        });
        let mut all: BTreeSet<u64> = holders
            .map(|held| held.locker)
            .chain(ahead.map(|other| other.locker))
            .collect();
        all.remove(&wait.locker);
        all
    }

    pub fn give(&mut self, locker: u64, object: u8, mode: Mode) {
        let same =
            |held: &&mut Held| (held.locker, held.object, held.mode) == (locker, object, mode);
        match self.held.iter_mut().find(same) {
            Some(held) => held.count += 1,
            None => self.held.push(Held {
                object,
                locker,
                mode,
                count: 1,
            }),
        }
    }

    pub fn promote(&mut self) {
        loop {
            let mut order = self.waiting.clone();
            order.sort_by_key(|wait| self.place(wait));
            let Some(wait) = order
                .into_iter()
                .find(|wait| self.blockers(wait).is_empty())
            else {
                return;
            };
            self.waiting.retain(|other| other.arrival != wait.arrival);
            self.give(wait.locker, wait.object, wait.mode);
            self.events.push(Event::Granted(wait.arrival));
        }
    }

    pub fn knots(&self) -> Vec<Vec<u64>> {
        let mut reach: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for wait in &self.waiting {
            reach
                .entry(wait.locker)
                .or_default()
                .extend(self.blockers(wait));
        }
        loop {
            let before: usize = reach.values().map(BTreeSet::len).sum();
            for locker in reach.keys().copied().collect::<Vec<_>>() {
                let further: BTreeSet<u64> = reach[&locker]
                    .iter()
                    .filter_map(|to| reach.get(to))
                    .flatten()
                    .copied()
                    .collect();
                reach.get_mut(&locker).unwrap().extend(further);
            }
            if reach.values().map(BTreeSet::len).sum::<usize>() == before {
                break;
            }
        }
        let mut knots: BTreeSet<Vec<u64>> = BTreeSet::new();
        for (locker, to) in &reach {
            if to.contains(locker) {
                knots.insert(
                    to.iter()
                        .copied()
                        .filter(|other| reach.get(other).is_some_and(|back| back.contains(locker)))
                        .collect(),
                );
            }
        }
        knots.into_iter().collect()
    }

    pub fn break_cycles(&mut self) {
        loop {
            let knots = self.knots();
            if knots.is_empty() {
                return;
            }
            for knot in knots {
                let lowest = knot
                    .iter()
                    .map(|locker| self.lockers[locker].priority)
                    .min()
                    .unwrap();
                let among = knot
                    .into_iter()
                    .filter(|locker| self.lockers[locker].priority == lowest);
                let victim = among
                    .max_by_key(|locker| (self.lockers[locker].age, *locker))
                    .unwrap();
                self.lockers.get_mut(&victim).unwrap().aborted = true;
                self.refuse(|wait| wait.locker == victim, Event::Deadlock);
            }
        }
    }

    pub fn refuse(&mut self, which: impl Fn(&Waiting) -> bool, event: fn(usize) -> Event) {
        let gone: Vec<usize> = self
            .waiting
            .iter()
            .filter(|wait| which(wait))
            .map(|wait| wait.arrival)
            .collect();
        self.waiting.retain(|wait| !which(wait));
        self.events.extend(gone.into_iter().map(event));
        self.promote();
    }

    pub fn settle(&mut self) {
        self.promote();
        if self.on_block {
            self.break_cycles();
        }
    }

    /// `Err` refused, `Ok(None)` granted, `Ok(Some)` waits.
    pub fn request(
        &mut self,
        locker: u64,
        object: u8,
        mode: Mode,
        wait: Option<Option<u64>>,
    ) -> Result<Option<usize>, ()> {
        if self
            .lockers
            .get(&locker)
            .is_none_or(|locker| locker.aborted)
        {
            return Err(());
        }
        let asked = Waiting {
            arrival: usize::MAX,
            locker,
            object,
            mode,
            deadline: wait.flatten(),
        };
        let again = self
            .held
            .iter()
            .any(|held| (held.locker, held.object, held.mode) == (locker, object, mode));
        if again || self.blockers(&asked).is_empty() {
            self.give(locker, object, mode);
            self.settle();
            return Ok(None);
        }
        if wait.is_none() {
            return Err(());
        }
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.waiting.push(Waiting { arrival, ..asked });
        self.settle();
        Ok(Some(arrival))
    }
}
