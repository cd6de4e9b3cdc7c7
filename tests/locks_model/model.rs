//! The naive model of the lock table: flat lists, everything looked at each time.
//!
//! It is written from the rules, not from the code under test. This file has the state and the rules
//! (who waits for whom, who is granted, who dies); `calls.rs` has what can be asked.

use std::collections::VecDeque;

use lockkeeper::Mode;

use super::universe::{Obj, UNIVERSE};
use super::words::{Config, Event, Held, Kind, Locker, SLOTS, Slot, Time, Wait, Which, Why};

/// A request's rank: those whose family holds something there come first, then by arrival.
pub type Rank = (bool, u64);

pub struct Model {
    pub config: Config,
    pub lockers: [Option<Locker>; SLOTS],
    pub held: Vec<Held>,
    pub waiting: Vec<Wait>,
    pub events: Vec<Event>,
    /// Whose request began to wait in this call.
    pub asker: Option<Slot>,
    /// One of several calls that count as one: deadlocks are looked for after the last.
    pub goes_on: bool,
    /// The latest moment that a call has told.
    pub now: Time,
    pub arrivals: u64,
    /// Whether use of each has reached its mark, and not been well below since.
    pub warned: [bool; 3],
    /// Warnings that are to be told: with the next call that has effects.
    pub warnings: VecDeque<(Which, usize, usize)>,
    /// Whom the core has doomed in this call, in its order. Where the rules leave a choice (the draw
    /// of the random policy; which of several separate cycles is broken first) the model takes the
    /// core's, if it is one of those that the rules allow.
    pub hints: VecDeque<u64>,
    /// Of several locks that are held too long since the same moment, which the core told first.
    pub told: VecDeque<(u64, Obj, Mode)>,
}

impl Model {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            lockers: [None; SLOTS],
            held: Vec::new(),
            waiting: Vec::new(),
            events: Vec::new(),
            asker: None,
            goes_on: false,
            now: 0,
            arrivals: 0,
            warned: [false; 3],
            warnings: VecDeque::new(),
            hints: VecDeque::new(),
            told: VecDeque::new(),
        }
    }

    pub fn locker(&self, slot: Slot) -> &Locker {
        self.lockers[usize::from(slot)]
            .as_ref()
            .expect("a locker that has not ended")
    }

    pub fn locker_mut(&mut self, slot: Slot) -> &mut Locker {
        self.lockers[usize::from(slot)]
            .as_mut()
            .expect("a locker that has not ended")
    }

    pub fn root(&self, slot: Slot) -> Slot {
        self.locker(slot).root
    }

    /// The locker, its parent, and so on up to the root.
    pub fn lineage(&self, slot: Slot) -> Vec<Slot> {
        let mut line = vec![slot];
        let mut at = slot;
        while let Some(parent) = self.locker(at).parent {
            line.push(parent);
            at = parent;
        }
        line
    }

    /// The locker and all below it: generation by generation, each in the order in which it was made.
    pub fn subtree(&self, top: Slot) -> Vec<Slot> {
        let mut all: Vec<Slot> = (0..SLOTS as Slot)
            .filter(|slot| self.lockers[usize::from(*slot)].is_some())
            .filter(|slot| self.lineage(*slot).contains(&top))
            .collect();
        all.sort_by_key(|slot| (self.lineage(*slot).len(), self.locker(*slot).number));
        all
    }

    /// What killed the locker, or the nearest of its ancestors that is dead.
    pub fn death(&self, slot: Slot) -> Option<Kind> {
        let mut at = Some(slot);
        while let Some(here) = at {
            let locker = self.locker(here);
            if locker.dead.is_some() {
                return locker.dead;
            }
            at = locker.parent;
        }
        None
    }

    pub fn rank(&self, wait: &Wait) -> Rank {
        let family = self.root(wait.locker);
        let overlap = &UNIVERSE.overlap[usize::from(wait.object)];
        for held in &self.held {
            if overlap[usize::from(held.object)] && self.root(held.locker) == family {
                return (false, wait.arrival);
            }
        }
        (true, wait.arrival)
    }

    pub fn ranks(&self) -> Vec<Rank> {
        self.waiting.iter().map(|wait| self.rank(wait)).collect()
    }

    /// Calls `found` for each lock and for each earlier request that keeps the request waiting. `ranks`
    /// are those of all that wait.
    pub fn each_blocker(
        &self,
        wait: &Wait,
        rank: Rank,
        ranks: &[Rank],
        mut found: impl FnMut(Slot, bool),
    ) {
        let family = self.root(wait.locker);
        let wanted = (wait.object, wait.mode);
        for held in &self.held {
            if self.root(held.locker) != family
                && UNIVERSE.conflict((held.object, held.mode), wanted)
            {
                found(held.locker, true);
            }
        }
        for (other, other_rank) in self.waiting.iter().zip(ranks) {
            if *other_rank < rank
                && self.root(other.locker) != family
                && UNIVERSE.conflict((other.object, other.mode), wanted)
            {
                found(other.locker, false);
            }
        }
    }

    pub fn must_wait(&self, wait: &Wait, rank: Rank, ranks: &[Rank]) -> bool {
        let mut blocked = false;
        self.each_blocker(wait, rank, ranks, |_, _| blocked = true);
        blocked
    }

    pub fn lock_of(&self, locker: Slot, object: Obj, mode: Mode) -> Option<usize> {
        self.held
            .iter()
            .position(|held| (held.locker, held.object, held.mode) == (locker, object, mode))
    }

    /// One reference more; if it is an upgrade, one less of what it was.
    pub fn give(&mut self, locker: Slot, object: Obj, mode: Mode, from: Option<Mode>) {
        self.give_since(locker, object, mode, self.now);
        if let Some(from) = from {
            self.take(locker, object, from);
        }
    }

    /// One reference more, which counts as held since then if it is the first.
    pub fn give_since(&mut self, locker: Slot, object: Obj, mode: Mode, since: Time) {
        match self.lock_of(locker, object, mode) {
            Some(at) => self.held[at].count += 1,
            None => self.held.push(Held {
                object,
                locker,
                mode,
                count: 1,
                since,
                said: false,
            }),
        }
    }

    /// One reference less. False if there was none.
    pub fn take(&mut self, locker: Slot, object: Obj, mode: Mode) -> bool {
        let Some(at) = self.lock_of(locker, object, mode) else {
            return false;
        };
        self.held[at].count -= 1;
        if self.held[at].count == 0 && self.held.remove(at).said {
            self.is_gone(locker, object);
        }
        true
    }

    /// A lock that was held too long is gone: that is not told any more.
    pub fn is_gone(&mut self, locker: Slot, object: Obj) {
        let to_be_told = &mut self.locker_mut(locker).to_be_told;
        *to_be_told = to_be_told.filter(|told| *told != object);
    }

    /// Grants whatever can be granted: always the first in rank, until nobody can be.
    pub fn promote(&mut self) {
        while !self.waiting.is_empty() {
            let ranks = self.ranks();
            let mut first: Option<usize> = None;
            for (at, wait) in self.waiting.iter().enumerate() {
                if first.is_none_or(|first| ranks[at] < ranks[first])
                    && !self.must_wait(wait, ranks[at], &ranks)
                {
                    first = Some(at);
                }
            }
            let Some(first) = first else { return };
            let wait = self.waiting.remove(first);
            self.give(wait.locker, wait.object, wait.mode, wait.from);
            self.events.push(Event::Granted(wait.arrival));
        }
    }

    /// The subtree dies: its waits are refused, what it holds stays.
    pub fn doom(&mut self, top: Slot, kind: Kind) {
        for slot in self.subtree(top) {
            let locker = self.locker_mut(slot);
            locker.dead = locker.dead.or(Some(kind));
            self.refuse(slot, Why::Conflict(kind));
        }
        self.events
            .push(Event::Doomed(self.locker(top).number, kind));
    }

    /// All waits of the locker are refused.
    pub fn refuse(&mut self, locker: Slot, why: Why) {
        let events = &mut self.events;
        self.waiting.retain(|wait| {
            if wait.locker == locker {
                events.push(Event::Refused(wait.arrival, why));
            }
            wait.locker != locker
        });
    }

    /// What is left to do after each call.
    pub fn settle(&mut self) {
        self.promote();
        if self.goes_on {
            return;
        }
        let asker = self.asker.take();
        if self.config.on_block {
            self.break_cycles(self.config.policy, asker);
        }
        self.warn(Which::Locks);
        self.warn(Which::Objects);
    }
}
