//! Who gets a lock, and when: the rule of the queue.
//!
//! A request is granted if it conflicts with no lock held outside its family and with no earlier
//! conflicting waiter outside it. Both are decided from counts by mode, less what the family itself
//! has there, so that neither a long queue nor a crowd of readers makes a request slow.

use std::panic::Location;

use super::queue::{Group, HolderKey, Rank};
use super::slab::{LockSlot, LockerSlot, ObjectSlot};
use super::table::{Effect, LockEntry};
use super::{Mode, Table};

impl Table {
    /// Whether a request that arrives now has to wait.
    pub(super) fn must_wait(&self, object: ObjectSlot, family: LockerSlot, mode: Mode) -> bool {
        if self.is_held_against(object, family, mode) {
            return true;
        }
        let entry = &self.objects[object];
        let Some(queue) = &entry.queue else {
            return false;
        };
        let group = match entry.holders.has_family(family) {
            true => Group::Holder,
            false => Group::Newcomer,
        };
        Mode::ALL
            .into_iter()
            .filter(|waiting| self.config.conflicts.conflicts(*waiting, mode))
            .any(|waiting| {
                let ahead = queue.ahead_of_newest(group, waiting);
                // All waits of a family on one object are in one group, and all of them arrived before.
                ahead > 0
                    && ahead as usize
                        > self
                            .waits_of(family, object)
                            .filter(|m| *m == waiting)
                            .count()
            })
    }

    /// Whether a lock held outside the family conflicts.
    pub(super) fn is_held_against(
        &self,
        object: ObjectSlot,
        family: LockerSlot,
        mode: Mode,
    ) -> bool {
        let entry = &self.objects[object];
        Mode::ALL
            .into_iter()
            .filter(|held| self.config.conflicts.conflicts(*held, mode))
            .any(|held| {
                let count = entry.held[held.index()];
                count > 0 && {
                    let own = entry
                        .holders
                        .of_family(family)
                        .filter(|(key, _)| key.mode == held)
                        .count();
                    count as usize > own
                }
            })
    }

    fn waits_of(&self, family: LockerSlot, object: ObjectSlot) -> impl Iterator<Item = Mode> {
        let waits = self.lockers[family]
            .waits
            .iter()
            .map(|wait| &self.waits[*wait]);
        waits
            .filter(move |wait| wait.object == object)
            .map(|wait| wait.mode)
    }

    /// Gives the lock. True if requests of the family have moved to the front of the object's queue,
    /// so that the queue has to be looked at again.
    pub(super) fn grant(
        &mut self,
        object: ObjectSlot,
        locker: LockerSlot,
        mode: Mode,
        site: &'static Location<'static>,
    ) -> bool {
        self.stats.grants += 1;
        let family = self.lockers[locker].root;
        let key = HolderKey {
            family,
            locker,
            mode,
        };
        if let Some(lock) = self.objects[object].holders.find(key) {
            self.locks[lock].count += 1;
            return false;
        }
        let next = self.lockers[locker].locks;
        let lock = self.locks.insert(LockEntry {
            object,
            locker,
            mode,
            count: 1,
            site,
            previous: None,
            next,
        });
        if let Some(next) = next {
            self.locks[next].previous = Some(lock);
        }
        let owner = &mut self.lockers[locker];
        owner.locks = Some(lock);
        owner.lock_count += 1;
        let entry = &mut self.objects[object];
        entry.held[mode.index()] += 1;
        entry.holders.insert(key, lock);
        self.regroup(family, object)
    }

    /// Takes a lock from its holder, whatever its count. Who waits for it is not looked at.
    pub(super) fn drop_lock(&mut self, lock: LockSlot) {
        let Some(entry) = self.locks.remove(lock) else {
            return;
        };
        match entry.previous {
            Some(previous) => self.locks[previous].next = entry.next,
            None => self.lockers[entry.locker].locks = entry.next,
        }
        if let Some(next) = entry.next {
            self.locks[next].previous = entry.previous;
        }
        let owner = &mut self.lockers[entry.locker];
        owner.lock_count -= 1;
        let family = owner.root;
        let object = &mut self.objects[entry.object];
        object.held[entry.mode.index()] -= 1;
        object.holders.remove(HolderKey {
            family,
            locker: entry.locker,
            mode: entry.mode,
        });
        self.regroup(family, entry.object);
        self.count_locks();
    }

    /// Puts the family's requests on the object where they belong, now that it holds the object or no
    /// longer does. True if any moved.
    fn regroup(&mut self, family: LockerSlot, object: ObjectSlot) -> bool {
        if self.lockers[family].waits.is_empty() {
            return false;
        }
        // What it holds or where it stands has changed while it waits: that can close a cycle.
        self.suspects.push(family);
        let entry = &mut self.objects[object];
        let Some(queue) = &mut entry.queue else {
            return false;
        };
        let group = match entry.holders.has_family(family) {
            true => Group::Holder,
            false => Group::Newcomer,
        };
        let mut moved = false;
        for wait in &self.lockers[family].waits {
            let wait = &mut self.waits[*wait];
            if wait.object == object
                && wait.rank.group != group
                && let Some(queued) = queue.remove(wait.rank)
            {
                wait.rank.group = group;
                queue.insert(wait.rank, queued);
                moved = true;
            }
        }
        moved
    }

    /// Grants what can be granted to those who wait for the object, and forgets it if nobody is left.
    pub(super) fn promote(&mut self, object: ObjectSlot, effects: &mut Vec<Effect>) {
        while self.promote_in_order(object, effects) {}
        self.forget_unused(object);
    }

    /// One walk along the queue; true if a grant has changed its order.
    fn promote_in_order(&mut self, object: ObjectSlot, effects: &mut Vec<Effect>) -> bool {
        let Some(queue) = self
            .objects
            .get(object)
            .and_then(|entry| entry.queue.as_ref())
        else {
            return false;
        };
        let mut left = [0; Mode::COUNT];
        for mode in Mode::ALL {
            left[mode.index()] = queue.ahead_of_newest(Group::Newcomer, mode);
        }
        let mut passed = [Passed::Nobody; Mode::COUNT];
        let mut next = Rank::FIRST;
        loop {
            let Some(queue) = &self.objects[object].queue else {
                return false;
            };
            let Some((&rank, &queued)) = queue.order.range(next..).next() else {
                return false;
            };
            next = Rank {
                arrival: rank.arrival + 1,
                ..rank
            };
            left[queued.mode.index()] -= 1;
            let is_behind = Mode::ALL.into_iter().any(|ahead| {
                self.config.conflicts.conflicts(ahead, queued.mode)
                    && passed[ahead.index()].holds_back(queued.family)
            });
            if is_behind || self.is_held_against(object, queued.family, queued.mode) {
                let passed_here = &mut passed[queued.mode.index()];
                *passed_here = passed_here.and(queued.family);
                if self.none_can_pass(object, rank, &left, &passed) {
                    return false;
                }
            } else {
                let wait = &self.waits[queued.wait];
                let (id, locker, site) = (wait.id, wait.locker, wait.site);
                self.remove_wait(queued.wait);
                effects.push(Effect::Granted(id));
                let moved = self.grant(object, locker, queued.mode, site);
                self.count_locks();
                if moved {
                    return true;
                }
            }
        }
    }

    /// Whether nobody behind `rank` can be granted, so that the walk can end: what makes a release on
    /// an object with a long queue cheap.
    fn none_can_pass(
        &self,
        object: ObjectSlot,
        rank: Rank,
        left: &[u32; Mode::COUNT],
        passed: &[Passed; Mode::COUNT],
    ) -> bool {
        let entry = &self.objects[object];
        let waits_again = |family: LockerSlot| {
            let waits = self.lockers[family]
                .waits
                .iter()
                .map(|wait| &self.waits[*wait]);
            waits
                .filter(|wait| wait.object == object && wait.rank > rank)
                .count()
                > 0
        };
        Mode::ALL
            .into_iter()
            .filter(|mode| left[mode.index()] > 0)
            .all(|mode| {
                Mode::ALL
                    .into_iter()
                    .filter(|other| self.config.conflicts.conflicts(*other, mode))
                    .any(|other| {
                        // Behind a newcomer are only newcomers, and none of those has a family that holds the object.
                        let held = rank.group == Group::Newcomer && entry.held[other.index()] > 0;
                        held || match passed[other.index()] {
                            Passed::Nobody => false,
                            Passed::One(family) => !waits_again(family),
                            Passed::Several => true,
                        }
                    })
            })
    }
}

/// The families of those that a walk along the queue left waiting.
#[derive(Debug, Clone, Copy)]
enum Passed {
    Nobody,
    One(LockerSlot),
    Several,
}

impl Passed {
    fn and(self, family: LockerSlot) -> Self {
        match self {
            Passed::Nobody => Passed::One(family),
            Passed::One(one) if one == family => self,
            _ => Passed::Several,
        }
    }

    /// Whether somebody of another family is among them.
    fn holds_back(self, family: LockerSlot) -> bool {
        match self {
            Passed::Nobody => false,
            Passed::One(one) => one != family,
            Passed::Several => true,
        }
    }
}
