//! The waits-for graph along its edges: whom a family waits for.

use super::locker::LockerEntry;
use super::queue::{Rank, Visited};
use super::slab::{LockerSlot, ObjectSlot, Slab, WaitSlot};
use super::{Mode, Table};

impl Table {
    /// A family that this one waits for and that the pass has not seen yet; it is seen now.
    pub(super) fn next_forward(&mut self, family: LockerSlot, pass: u64) -> Option<LockerSlot> {
        // A wait that has led to everyone it can lead to is not looked at again.
        loop {
            let entry = &self.lockers[family].family;
            let &wait = entry.waits.get(entry.waits_done)?;
            if let Some(next) = self.next_before(wait, family, pass) {
                return Some(next);
            }
            self.lockers[family].family.waits_done += 1;
        }
    }

    /// The same for one of its waits.
    fn next_before(&mut self, wait: WaitSlot, family: LockerSlot, pass: u64) -> Option<LockerSlot> {
        let next = self
            .next_holder(wait, family, pass)
            .or_else(|| self.next_ahead(wait, family, pass))
            .or_else(|| self.next_ahead_nearby(wait, family, pass))?;
        self.see_forward(next, pass);
        Some(next)
    }

    /// All whom the family waits for and that the pass has not seen yet, one after the other; they are seen
    /// now. Whoever wants all of them has them cheaper than by [`next_forward`](Self::next_forward).
    pub(super) fn visit_forward(
        &mut self,
        family: LockerSlot,
        pass: u64,
        mut found: impl FnMut(LockerSlot),
    ) {
        for at in 0..self.lockers[family].family.waits.len() {
            let wait = self.lockers[family].family.waits[at];
            if self.objects[self.waits[wait].object].overlaps.is_none() {
                self.visit_before(wait, family, pass, &mut found);
                continue;
            }
            while let Some(next) = self.next_before(wait, family, pass) {
                found(next);
            }
        }
    }

    /// Those before a wait for an object that no other overlaps: who holds it, and who came before.
    fn visit_before(
        &mut self,
        wait: WaitSlot,
        family: LockerSlot,
        pass: u64,
        found: &mut impl FnMut(LockerSlot),
    ) {
        let entry = &self.waits[wait];
        let (object, mode, rank) = (entry.object, entry.mode, entry.rank);
        let rules = *self.rules(object);
        let entry = &mut self.objects[object];
        let Some(queue) = &mut entry.queue else {
            return;
        };
        let visited = queue.visited(mode).in_pass(pass);
        let from = visited.before.unwrap_or(Rank::FIRST);
        visited.before = visited.before.max(Some(rank));
        let holders_done = std::mem::replace(&mut visited.holders_done, true);
        let last = visited.holder;
        let mut see = |lockers: &mut Slab<LockerSlot, LockerEntry>, next: LockerSlot| {
            let family_of_next = &mut lockers[next].family;
            if next != family && family_of_next.seen_forward != pass {
                family_of_next.seen_forward = pass;
                family_of_next.waits_done = 0;
                found(next);
            }
        };
        if !holders_done {
            for (key, _) in entry.holders.iter().filter(|(key, _)| Some(*key) > last) {
                if rules.conflicts(key.mode, mode) && self.lockers[key.locker].dead.is_none() {
                    see(&mut self.lockers, key.family);
                }
            }
        }
        if from < rank {
            for (_, ahead) in queue.order.range(from..rank) {
                if rules.conflicts(ahead.mode, mode) {
                    see(&mut self.lockers, ahead.family);
                }
            }
        }
    }

    /// A walk forward comes by a family.
    pub(super) fn see_forward(&mut self, family: LockerSlot, pass: u64) {
        let entry = &mut self.lockers[family].family;
        entry.seen_forward = pass;
        entry.waits_done = 0;
    }

    /// Where this pass has been for requests like this one.
    fn visited(&mut self, object: ObjectSlot, mode: Mode, pass: u64) -> Option<&mut Visited> {
        let queue = self.objects[object].queue.as_mut()?;
        Some(queue.visited(mode).in_pass(pass))
    }

    /// Among those who hold what the request waits for.
    fn next_holder(&mut self, wait: WaitSlot, family: LockerSlot, pass: u64) -> Option<LockerSlot> {
        let (waited_for, mode) = (self.waits[wait].object, self.waits[wait].mode);
        if self.objects[waited_for].overlaps.is_none() {
            return self.next_holder_of(waited_for, mode, family, pass);
        }
        let mut visited = *self.visited(waited_for, mode, pass)?;
        if visited.holders_done {
            return None;
        }
        let rules = *self.rules(waited_for);
        let mut object = visited.object.unwrap_or(waited_for);
        let found = loop {
            if let Some((key, _)) = self.objects[object].holders.after(visited.holder) {
                visited.holder = Some(key);
                if key.family != family
                    && rules.conflicts(key.mode, mode)
                    && self.lockers[key.family].family.seen_forward != pass
                    && self.is_alive(key)
                {
                    break Some(key.family);
                }
            } else if let Some(next) = self.reach_after(waited_for, Some(object)) {
                object = next;
                visited.holder = None;
            } else {
                visited.holders_done = true;
                break None;
            }
        };
        visited.object = Some(object);
        *self.visited(waited_for, mode, pass)? = visited;
        found
    }

    /// The same for an object that no other overlaps.
    fn next_holder_of(
        &mut self,
        object: ObjectSlot,
        mode: Mode,
        family: LockerSlot,
        pass: u64,
    ) -> Option<LockerSlot> {
        let rules = *self.rules(object);
        let entry = &mut self.objects[object];
        let queue = entry.queue.as_mut()?;
        let visited = queue.visited(mode).in_pass(pass);
        if visited.holders_done {
            return None;
        }
        while let Some((key, _)) = entry.holders.after(visited.holder) {
            visited.holder = Some(key);
            if key.family != family
                && rules.conflicts(key.mode, mode)
                && self.lockers[key.family].family.seen_forward != pass
                && self.lockers[key.locker].dead.is_none()
            {
                return Some(key.family);
            }
        }
        visited.holders_done = true;
        None
    }

    /// Among those who wait for the same object and came before.
    fn next_ahead(&mut self, wait: WaitSlot, family: LockerSlot, pass: u64) -> Option<LockerSlot> {
        let entry = &self.waits[wait];
        let (object, mode, rank) = (entry.object, entry.mode, entry.rank);
        let from = self.visited(object, mode, pass)?.before;
        let from = from.unwrap_or(Rank::FIRST);
        if from >= rank {
            return None;
        }
        let found = self.unseen_between(object, from, rank, mode, family, pass);
        let visited = self.visited(object, mode, pass)?;
        visited.before = Some(found.map_or(rank, |(_, after)| after));
        found.map(|(family, _)| family)
    }

    /// Among those who wait for objects that overlap and came before.
    fn next_ahead_nearby(
        &mut self,
        wait: WaitSlot,
        family: LockerSlot,
        pass: u64,
    ) -> Option<LockerSlot> {
        let entry = &self.waits[wait];
        let (object, mode, rank) = (entry.object, entry.mode, entry.rank);
        self.objects[object].overlaps.as_ref()?;
        let mut visited = *self.visited(object, mode, pass)?;
        if visited.near_before >= Some(rank) {
            return None;
        }
        if visited.near_rank != Some(rank) {
            // Another request for the object was looked at in between.
            visited.near_rank = Some(rank);
            visited.near = None;
        }
        let from = visited.near_before.unwrap_or(Rank::FIRST);
        let mut near = match visited.near {
            Some(near) => Some(near),
            None => self.reach_after(object, Some(object)),
        };
        let found = loop {
            let Some(here) = near else {
                visited.near_before = Some(rank);
                break None;
            };
            visited.near = Some(here);
            if let Some((next, _)) = self.unseen_between(here, from, rank, mode, family, pass) {
                break Some(next);
            }
            near = self.reach_after(object, Some(here));
        };
        *self.visited(object, mode, pass)? = visited;
        found
    }

    /// The first in a queue, from one rank up to another, whom a request in `mode` has to let go before
    /// and whom the pass has not seen; with the rank that comes after it.
    fn unseen_between(
        &self,
        object: ObjectSlot,
        from: Rank,
        to: Rank,
        mode: Mode,
        family: LockerSlot,
        pass: u64,
    ) -> Option<(LockerSlot, Rank)> {
        let rules = self.rules(object);
        let queue = self.objects[object].queue.as_ref()?;
        let (rank, ahead) = queue.order.range(from..to).find(|(_, ahead)| {
            ahead.family != family
                && rules.conflicts(ahead.mode, mode)
                && self.lockers[ahead.family].family.seen_forward != pass
        })?;
        let after = Rank {
            arrival: rank.arrival + 1,
            ..*rank
        };
        Some((ahead.family, after))
    }
}
