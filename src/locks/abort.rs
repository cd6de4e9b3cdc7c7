//! Looking for deadlocks, choosing their victims, and aborting lockers.

use std::sync::Arc;

use super::graph::{Blocker, Edge};
use super::queue::Holders;
use super::slab::{LockerSlot, WaitSlot};
use super::{
    Candidate, DeadlockRecord, DetectReport, Effect, LockConflict, LockerId, Moment, Reason, Table,
    VictimPolicy,
};

/// How many deadlocks are remembered.
const HISTORY: usize = 64;

impl Table {
    /// Changes how deadlocks are looked for. If that is to happen when a request blocks from now on, the
    /// cycles that are there are broken now.
    pub fn set_detect(
        &mut self,
        now: Moment,
        on_block: bool,
        policy: VictimPolicy,
        effects: &mut Vec<Effect>,
    ) {
        self.tell_time(now);
        self.config.policy = policy;
        let turned_on = on_block && !self.config.detect_on_block;
        self.config.detect_on_block = on_block;
        if turned_on {
            self.detect(now, VictimPolicy::Default, effects);
        }
    }

    /// Looks at the whole graph and breaks every cycle in it, by this policy
    /// ([`VictimPolicy::Default`]: the table's own).
    pub fn detect(
        &mut self,
        now: Moment,
        policy: VictimPolicy,
        effects: &mut Vec<Effect>,
    ) -> DetectReport {
        self.tell_time(now);
        let policy = self.policy_for(policy);
        let waiting = self.waits.iter().map(|(_, wait)| wait.locker);
        let mut work: Vec<LockerId> = waiting.map(|locker| self.root_id(locker)).collect();
        let mut report = DetectReport {
            waiting: work.len(),
            ..DetectReport::default()
        };
        loop {
            work.sort_unstable();
            work.dedup();
            let knots = self.knots(&work);
            if knots.is_empty() {
                break;
            }
            work.clear();
            let granted_before = self.stats.grants;
            for members in knots {
                // A grant on the way can have dissolved a later knot.
                let is_stale = self.stats.grants != granted_before;
                let victim = self
                    .victim_among(&members, policy, None)
                    .filter(|victim| !is_stale || self.is_on_cycle(victim.locker.slot));
                let mut is_over = false;
                if let Some(victim) = victim {
                    is_over = self.is_plain_ring(&members);
                    let cycle = self.shortest_cycle(victim.locker.slot);
                    let aborted = self.abort(victim, &members, &cycle, policy, effects);
                    report.victims.extend(aborted);
                }
                if !is_over {
                    work.extend(members.into_iter().map(|family| self.lockers[family].id));
                }
            }
            // Grants on the way may have changed the order of queues.
            let suspects = std::mem::take(&mut self.suspects);
            work.extend(suspects.into_iter().map(|family| self.lockers[family].id));
        }
        self.finish(effects);
        self.stats.detections += 1;
        self.stats.victims_of_detections += report.victims.len() as u64;
        report
    }

    /// Breaks the cycles that this call closed, if cycles are looked for when a request blocks.
    pub(super) fn settle(&mut self, effects: &mut Vec<Effect>) {
        let asker = self.asker.take();
        if !self.config.detect_on_block {
            self.suspects.clear();
            return;
        }
        let policy = self.config.policy;
        while let Some(family) = self.suspects.pop() {
            if self.lockers.get(family).is_none() {
                continue;
            }
            self.stats.searches += 1;
            while self.is_on_cycle(family) {
                let (members, cycle) = self.knot_of(family);
                let victim = self.victim_among(&members, policy, asker);
                let aborted = victim.and_then(|victim| {
                    let cycle = match victim.locker.slot == family {
                        true => cycle,
                        false => self.shortest_cycle(victim.locker.slot),
                    };
                    self.abort(victim, &members, &cycle, policy, effects)
                });
                if aborted.is_none() {
                    break;
                }
            }
        }
    }

    fn root_id(&self, locker: LockerSlot) -> LockerId {
        let entry = &self.lockers[locker];
        match entry.root == locker {
            true => entry.id,
            false => self.lockers[entry.root].id,
        }
    }

    fn policy_for(&self, asked: VictimPolicy) -> VictimPolicy {
        match asked {
            VictimPolicy::Default => self.config.policy,
            asked => asked,
        }
    }

    fn victim_among(
        &mut self,
        members: &[LockerSlot],
        policy: VictimPolicy,
        asker: Option<LockerSlot>,
    ) -> Option<Candidate> {
        let candidates: Vec<Candidate> = members
            .iter()
            .map(|&slot| {
                let entry = &self.lockers[slot];
                Candidate {
                    locker: entry.id,
                    priority: entry.priority,
                    age: entry.age,
                    locks: entry.family.locks,
                    write_locks: entry.family.write_locks,
                    expired: policy == VictimPolicy::Expire && self.is_past_its_time(slot),
                    asked: asker == Some(slot),
                }
            })
            .collect();
        let random = match policy {
            VictimPolicy::Random => self.next_random(),
            _ => 0,
        };
        policy.choose(&candidates, random)
    }

    /// The numbers of SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Aborts what a family has in the way of the others on its cycles. Its requests leave the graph,
    /// and what it holds makes no edge any more, so the cycles through it are broken; its locks stay
    /// until whoever owns them releases them.
    fn abort(
        &mut self,
        victim: Candidate,
        members: &[LockerSlot],
        cycle: &[Edge],
        policy: VictimPolicy,
        effects: &mut Vec<Effect>,
    ) -> Option<Arc<LockConflict>> {
        let top = self.smallest_subtree(victim.locker.slot, members)?;
        let conflict = self.explain_deadlock(top, cycle, policy, victim.asked, members.len())?;
        let conflict = Arc::new(conflict);
        self.stats.deadlocks += 1;
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(DeadlockRecord {
            at: self.now,
            conflict: Arc::clone(&conflict),
        });
        self.kill(top, &conflict, effects);
        self.promote(effects);
        Some(conflict)
    }

    /// The top of the smallest subtree of the family that has all of what keeps the others waiting, and
    /// somebody who waits for them.
    fn smallest_subtree(&self, family: LockerSlot, members: &[LockerSlot]) -> Option<LockerSlot> {
        if self.lockers[family].children.is_empty() {
            return Some(family);
        }
        let others = || members.iter().filter(|member| **member != family);
        let waits = others().flat_map(|other| self.lockers[*other].family.waits.iter());
        let top = waits
            .flat_map(|wait| self.blockers_of(*wait, family))
            .map(|blocker| match blocker {
                Blocker::Lock(lock) => self.locks[lock].locker,
                Blocker::Wait(wait) => self.waits[wait].locker,
            })
            .reduce(|one, other| self.common_ancestor(one, other))?;
        // Those of the family whom the others keep waiting. One of them at least has to be told: who only
        // holds, and waits for nothing, would not notice.
        let kept_waiting = |wait: &WaitSlot| {
            others().any(|other| self.blockers_of(*wait, *other).next().is_some())
        };
        let own_waits = self.lockers[family].family.waits.iter();
        let waiting: Vec<LockerSlot> = own_waits
            .filter(|wait| kept_waiting(wait))
            .map(|wait| self.waits[*wait].locker)
            .collect();
        let is_told = |locker: &LockerSlot| self.with_ancestors(*locker).any(|one| one == top);
        if waiting.iter().any(is_told) {
            return Some(top);
        }
        waiting
            .into_iter()
            .chain([top])
            .reduce(|one, other| self.common_ancestor(one, other))
    }

    /// Whether none of a knot waits for more than one lock of another, so that it is one ring, which any of
    /// them breaks.
    fn is_plain_ring(&self, members: &[LockerSlot]) -> bool {
        members.iter().all(|member| {
            let entry = &self.lockers[*member];
            let [wait] = entry.family.waits.as_slice() else {
                return false;
            };
            let object = &self.objects[self.waits[*wait].object];
            let only_waiter = object
                .queue
                .as_ref()
                .is_some_and(|queue| queue.order.len() == 1);
            only_waiter
                && object.overlaps.is_none()
                && matches!(object.holders, Holders::One(..))
                && entry.children.is_empty()
        })
    }

    fn common_ancestor(&self, one: LockerSlot, other: LockerSlot) -> LockerSlot {
        let ancestors: Vec<LockerSlot> = self.with_ancestors(one).collect();
        self.with_ancestors(other)
            .find(|ancestor| ancestors.contains(ancestor))
            .unwrap_or(one)
    }

    /// Marks a locker and its children as dead and refuses their waits. Who waits behind them is looked
    /// at later.
    pub(super) fn kill(
        &mut self,
        top: LockerSlot,
        conflict: &Arc<LockConflict>,
        effects: &mut Vec<Effect>,
    ) {
        let all = self.subtree(top);
        for &locker in &all {
            let dead = &mut self.lockers[locker].dead;
            dead.get_or_insert_with(|| Arc::clone(conflict));
        }
        let reason = Reason::Conflict(Arc::clone(conflict));
        self.refuse_waits(&all, &reason, effects);
        effects.push(Effect::Doomed(self.lockers[top].id, Arc::clone(conflict)));
    }
}
