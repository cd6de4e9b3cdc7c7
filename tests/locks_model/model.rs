//! The naive model of the lock table: flat lists, everything looked at each time.
//!
//! It is written from the rules, not from the code under test. This file has the state and the rules
//! (who waits for whom, who is granted, who dies); `calls.rs` has what can be asked.

use std::collections::VecDeque;

use lockkeeper::{Mode, VictimPolicy};

use super::universe::{Obj, UNIVERSE};

/// Nanoseconds, as the table counts them.
pub type Time = u64;
/// A locker's place in [`Model::lockers`]; given again after the locker has ended.
pub type Slot = u8;
/// As many lockers as a history can have at one time; a family is a bit in a set of these.
pub const SLOTS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Deadlock,
    LockTimeout,
    TransactionTimeout,
    HeldTooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    Conflict(Kind),
    Ended,
    ShuttingDown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    Lockers,
    Locks,
    Objects,
}

/// What follows from a call. Waits are named by their arrival, lockers by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Granted(u64),
    Refused(u64, Why),
    Ended(u64),
    Doomed(u64, Kind),
    HeldTooLong(u64, Obj, Mode),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Granted,
    Waits,
    Blocked,
    Done,
    Yes(bool),
    Count(usize),
    Detected { waiting: usize, victims: usize },
    Ended,
    Dead(Kind),
    HeldTooLong,
    NotAvailable,
    Limit(Which, usize),
    LimitInUse,
    NotHeld,
    NotWeaker,
    UnknownMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub lock: Time,
    pub no_wait: bool,
    pub txn: Time,
    pub max_hold: Time,
    pub abort_on_max_hold: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    pub on_block: bool,
    pub policy: VictimPolicy,
    pub timeouts: Timeouts,
    /// Of lockers, locks and objects.
    pub limits: [usize; 3],
    /// Percent of a limit; 0 is off.
    pub warning: u8,
}

#[derive(Debug, Clone, Copy)]
pub struct Locker {
    pub number: u64,
    pub parent: Option<Slot>,
    pub root: Slot,
    pub age: u64,
    pub priority: u32,
    /// `Some(0)` is none.
    pub lock_timeout: Option<Time>,
    pub txn_deadline: Option<Time>,
    pub dead: Option<Kind>,
    /// It has held a lock too long, and has not been told yet.
    pub to_be_told: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub object: Obj,
    pub locker: Slot,
    pub mode: Mode,
    pub count: u64,
    pub since: Time,
    /// That it is held too long has been said.
    pub said: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Wait {
    pub arrival: u64,
    pub object: Obj,
    pub locker: Slot,
    pub mode: Mode,
    pub from: Option<Mode>,
    pub deadline: Option<Time>,
    /// The locker whose transaction's deadline it is; none for a lock timeout.
    pub whose: Option<Slot>,
}

/// A request's rank: those whose family holds something there come first, then by arrival.
pub type Rank = (bool, u64);

pub struct Model {
    pub config: Config,
    pub lockers: [Option<Locker>; SLOTS],
    pub held: Vec<Held>,
    pub waiting: Vec<Wait>,
    pub events: Vec<Event>,
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
    fn each_blocker(
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
        if self.held[at].count == 0 {
            self.held.remove(at);
        }
        true
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

    /// For each family, as a set of roots, those that keep it waiting. What the dead hold does not
    /// count: it is about to be released.
    fn edges(&self) -> [u16; SLOTS] {
        let mut edges = [0; SLOTS];
        let ranks = self.ranks();
        for (wait, rank) in self.waiting.iter().zip(&ranks) {
            let from = usize::from(self.root(wait.locker));
            self.each_blocker(wait, *rank, &ranks, |blocker, _| {
                if self.death(blocker).is_none() {
                    edges[from] |= 1 << self.root(blocker);
                }
            });
        }
        edges
    }

    /// The strongly connected components of two families and more, as sets of roots.
    pub fn knots(&self) -> Vec<u16> {
        if self.waiting.len() < 2 {
            return Vec::new();
        }
        let mut reach = self.edges();
        loop {
            let before = reach;
            for from in 0..SLOTS {
                for to in 0..SLOTS {
                    if before[from] & 1 << to != 0 {
                        reach[from] |= before[to];
                    }
                }
            }
            if reach == before {
                break;
            }
        }
        let mut knots = Vec::new();
        for family in 0..SLOTS {
            if reach[family] & 1 << family == 0 {
                continue;
            }
            let mut knot = 0;
            for other in 0..SLOTS {
                if reach[family] & 1 << other != 0 && reach[other] & 1 << family != 0 {
                    knot |= 1 << other;
                }
            }
            if !knots.contains(&knot) {
                knots.push(knot);
            }
        }
        knots
    }

    /// The smallest subtree of the family that has everyone in it who keeps a member of the knot waiting.
    pub fn victim(&self, family: Slot, knot: u16) -> Slot {
        let ranks = self.ranks();
        let mut guilty: Vec<Slot> = Vec::new();
        for (wait, rank) in self.waiting.iter().zip(&ranks) {
            if knot & 1 << self.root(wait.locker) != 0 {
                self.each_blocker(wait, *rank, &ranks, |blocker, _| {
                    if self.root(blocker) == family && self.death(blocker).is_none() {
                        guilty.push(blocker);
                    }
                });
            }
        }
        // The first of a lineage that goes up which is in all lineages.
        let lineages: Vec<Vec<Slot>> = guilty.iter().map(|slot| self.lineage(*slot)).collect();
        *lineages[0]
            .iter()
            .find(|slot| lineages.iter().all(|line| line.contains(slot)))
            .expect("all are of one family")
    }

    /// The families that the policy may choose: one, or any of the lowest priority when it is random.
    pub fn choices(&self, knot: u16, policy: VictimPolicy) -> Vec<Slot> {
        let families: Vec<Slot> = (0..SLOTS as Slot)
            .filter(|slot| knot & 1 << slot != 0)
            .collect();
        let priority = |slot: &Slot| self.locker(*slot).priority;
        let lowest = families.iter().map(priority).min();
        let mut left: Vec<Slot> = families
            .into_iter()
            .filter(|slot| Some(priority(slot)) == lowest)
            .collect();
        if policy == VictimPolicy::Random {
            return left;
        }
        // What is to be greatest, then the youngest.
        let merit = |slot: Slot| -> i64 {
            let family = || {
                self.held
                    .iter()
                    .filter(move |held| self.root(held.locker) == slot)
            };
            let locks = family().count() as i64;
            let writes = family()
                .filter(|held| {
                    matches!(
                        held.mode,
                        Mode::IntentWrite | Mode::ReadIntentWrite | Mode::Write
                    )
                })
                .count() as i64;
            match policy {
                VictimPolicy::Expire => i64::from(self.is_expired(slot)),
                VictimPolicy::MaxLocks => locks,
                VictimPolicy::MinLocks => -locks,
                VictimPolicy::MaxWrite => writes,
                VictimPolicy::MinWrite => -writes,
                VictimPolicy::Oldest => -(self.locker(slot).age as i64),
                _ => 0,
            }
        };
        let seniority = |slot: Slot| (self.locker(slot).age, self.locker(slot).number);
        left.sort_by_key(|slot| (merit(*slot), seniority(*slot)));
        if policy == VictimPolicy::Oldest {
            // Of one age the one made first.
            left.sort_by_key(|slot| std::cmp::Reverse(seniority(*slot)));
        }
        left.split_off(left.len() - 1)
    }

    /// Past its time: a transaction's of its own, that of one of its waits, or that of a lock it holds.
    fn is_expired(&self, family: Slot) -> bool {
        let past = |deadline: Option<Time>| deadline.is_some_and(|deadline| deadline <= self.now);
        let max_hold = self.config.timeouts.max_hold;
        self.subtree(family)
            .into_iter()
            .any(|slot| past(self.locker(slot).txn_deadline))
            || self
                .waiting
                .iter()
                .any(|wait| self.root(wait.locker) == family && past(wait.deadline))
            || self.held.iter().any(|held| {
                self.root(held.locker) == family
                    && max_hold > 0
                    && past(Some(held.since + max_hold))
            })
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

    /// Kills until there is no cycle; answers how often.
    pub fn break_cycles(&mut self, policy: VictimPolicy) -> usize {
        let mut victims = 0;
        loop {
            let knots = self.knots();
            if knots.is_empty() {
                return victims;
            }
            let tops: Vec<Slot> = knots
                .iter()
                .flat_map(|knot| {
                    let choices = self.choices(*knot, policy);
                    choices
                        .into_iter()
                        .map(|family| self.victim(family, *knot))
                        .collect::<Vec<_>>()
                })
                .collect();
            let hinted = self.hints.front().and_then(|hint| {
                tops.iter()
                    .copied()
                    .find(|top| self.locker(*top).number == *hint)
            });
            if hinted.is_some() {
                self.hints.pop_front();
            }
            self.doom(hinted.unwrap_or(tops[0]), Kind::Deadlock);
            victims += 1;
            self.promote();
        }
    }

    /// What is left to do after each call.
    pub fn settle(&mut self) {
        self.promote();
        if self.config.on_block {
            self.break_cycles(self.policy());
        }
        self.warn(Which::Locks);
        self.warn(Which::Objects);
    }

    /// The table's policy.
    pub fn policy(&self) -> VictimPolicy {
        match self.config.policy {
            VictimPolicy::Default => VictimPolicy::Youngest,
            other => other,
        }
    }
}
