//! The waits-for graph against its edges: who waits for a family.

use std::ops::Bound;

use super::queue::Rank;
use super::slab::{LockerSlot, ObjectSlot};
use super::{Mode, Table};

impl Table {
    /// All who wait for the family and that the pass has not seen yet; they are seen now.
    pub(super) fn visit_backward(
        &mut self,
        family: LockerSlot,
        pass: u64,
        found: &mut Vec<LockerSlot>,
    ) {
        let entry = &self.lockers[family].family;
        // Whichever is shorter: its locks, or the objects that anybody waits for.
        // (A contended object that others overlap leads to all of those.)
        if self.contended.len() < entry.locks && self.has_no_ranges() {
            let mut last = None;
            while let Some(object) = self.next_contended(last) {
                last = Some(object);
                let held: Vec<Mode> = self
                    .reach(object)
                    .flat_map(|near| self.objects[near].holders.of_family(family))
                    .filter(|(key, _)| self.is_alive(*key))
                    .map(|(key, _)| key.mode)
                    .collect();
                for mode in held {
                    self.visit_behind(object, mode, Rank::FIRST, family, pass, found);
                }
            }
        } else if self.lockers[family].children.is_empty() {
            self.visit_behind_locks(family, family, pass, found);
        } else {
            for locker in self.subtree(family) {
                self.visit_behind_locks(locker, family, pass, found);
            }
        }
        for at in 0..self.lockers[family].family.waits.len() {
            let wait = &self.waits[self.lockers[family].family.waits[at]];
            let (object, mode, rank) = (wait.object, wait.mode, wait.rank);
            let behind = Rank {
                arrival: rank.arrival + 1,
                ..rank
            };
            self.visit_all_behind(object, mode, behind, family, pass, found);
        }
    }

    /// Those who wait for what one locker of the family holds.
    fn visit_behind_locks(
        &mut self,
        locker: LockerSlot,
        family: LockerSlot,
        pass: u64,
        found: &mut Vec<LockerSlot>,
    ) {
        if self.lockers[locker].dead.is_some() {
            return;
        }
        let mut lock = self.lockers[locker].locks;
        while let Some(slot) = lock {
            let entry = &self.locks[slot];
            lock = entry.next;
            let (object, mode) = (entry.object, entry.mode);
            self.visit_all_behind(object, mode, Rank::FIRST, family, pass, found);
        }
    }

    fn next_contended(&self, last: Option<ObjectSlot>) -> Option<ObjectSlot> {
        let after = (
            last.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        self.contended.range(after).next().copied()
    }

    /// Those behind in the queues of the object and of all that overlap it.
    fn visit_all_behind(
        &mut self,
        object: ObjectSlot,
        mode: Mode,
        start: Rank,
        family: LockerSlot,
        pass: u64,
        found: &mut Vec<LockerSlot>,
    ) {
        let overlaps = self.objects[object].overlaps.as_ref();
        if overlaps.is_some_and(|overlaps| overlaps.len() > self.contended.len()) {
            let mut last = None;
            while let Some(waited_for) = self.next_contended(last) {
                last = Some(waited_for);
                if waited_for == object || self.overlap(object, waited_for) {
                    self.visit_behind(waited_for, mode, start, family, pass, found);
                }
            }
            return;
        }
        let mut last = None;
        while let Some(near) = self.reach_after(object, last) {
            last = Some(near);
            self.visit_behind(near, mode, start, family, pass, found);
        }
    }

    /// Those from `start` on in the queue whom a lock in `mode`, held or waited for, keeps waiting.
    fn visit_behind(
        &mut self,
        object: ObjectSlot,
        mode: Mode,
        start: Rank,
        family: LockerSlot,
        pass: u64,
        found: &mut Vec<LockerSlot>,
    ) {
        let rules = *self.rules(object);
        let Some(queue) = &mut self.objects[object].queue else {
            return;
        };
        let visited = queue.visited(mode);
        if visited.backward_pass != pass {
            visited.backward_pass = pass;
            visited.from = None;
        }
        let end = visited.from.map_or(Bound::Unbounded, Bound::Excluded);
        if visited.from.is_some_and(|end| start >= end) {
            return;
        }
        visited.from = Some(start);
        for (_, queued) in queue.order.range((Bound::Included(start), end)) {
            if queued.family != family && rules.conflicts(mode, queued.mode) {
                let other = &mut self.lockers[queued.family].family;
                if other.seen_backward != pass {
                    other.seen_backward = pass;
                    found.push(queued.family);
                }
            }
        }
    }
}
