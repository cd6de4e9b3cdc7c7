//! Who is on a cycle of waits, and who dies for it.

use lockkeeper::{Mode, VictimPolicy};

use super::model::Model;
use super::words::{Kind, SLOTS, Slot, Time};

impl Model {
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

    /// The smallest subtree of the family that has everyone in it who keeps a member of the knot waiting,
    /// and somebody who is kept waiting by one: a child that only holds would not notice its death.
    pub fn victim(&self, family: Slot, knot: u16) -> Slot {
        let ranks = self.ranks();
        let mut guilty: Vec<Slot> = Vec::new();
        let mut kept_waiting: Vec<Slot> = Vec::new();
        for (wait, rank) in self.waiting.iter().zip(&ranks) {
            let waiter = self.root(wait.locker);
            if knot & 1 << waiter != 0 {
                self.each_blocker(wait, *rank, &ranks, |blocker, _| {
                    let to_blame = self.root(blocker);
                    if self.death(blocker).is_some() || knot & 1 << to_blame == 0 {
                        return;
                    }
                    if to_blame == family {
                        guilty.push(blocker);
                    }
                    if waiter == family {
                        kept_waiting.push(wait.locker);
                    }
                });
            }
        }
        let top = self.common_ancestor(&guilty);
        let is_told = |slot: &Slot| self.lineage(*slot).contains(&top);
        if kept_waiting.iter().any(is_told) {
            return top;
        }
        guilty.extend(kept_waiting);
        self.common_ancestor(&guilty)
    }

    /// The first of a lineage that goes up which is in the lineages of all.
    fn common_ancestor(&self, all: &[Slot]) -> Slot {
        let lineages: Vec<Vec<Slot>> = all.iter().map(|slot| self.lineage(*slot)).collect();
        *lineages[0]
            .iter()
            .find(|slot| lineages.iter().all(|line| line.contains(slot)))
            .expect("all are of one family")
    }

    /// The families that the policy may choose: one, or any of the lowest priority when it is random.
    pub fn choices(&self, knot: u16, policy: VictimPolicy, asker: Option<Slot>) -> Vec<Slot> {
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
        if policy == VictimPolicy::Default
            && let Some(asker) = asker.filter(|asker| left.contains(asker))
        {
            let age = |slot: &Slot| (self.locker(*slot).age, self.locker(*slot).number);
            let has_older = |family: Slot| knot & 1 << family != 0 && age(&family) < age(&asker);
            if (0..SLOTS as Slot).any(has_older) {
                return vec![asker];
            }
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

    /// Kills until there is no cycle; answers how often.
    pub fn break_cycles(&mut self, policy: VictimPolicy, asker: Option<Slot>) -> usize {
        let mut victims = 0;
        loop {
            let knots = self.knots();
            if knots.is_empty() {
                return victims;
            }
            let tops: Vec<Slot> = knots
                .iter()
                .flat_map(|knot| {
                    let choices = self.choices(*knot, policy, asker);
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
}
