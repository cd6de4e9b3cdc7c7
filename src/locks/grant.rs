//! Who gets a lock, and when: the rule of the queue.
//!
//! A request is granted if it conflicts with no lock held outside its family and with no earlier
//! conflicting waiter outside it, on the object or on one that overlaps it. Both are decided from counts
//! by mode, less what the family itself has there, so that neither a long queue nor a crowd of readers
//! makes a request slow.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::Location;

use super::objects::Named;
use super::queue::{Group, HolderKey, Queued, Rank};
use super::slab::{LockSlot, LockerSlot, ObjectSlot};
use super::table::LockEntry;
use super::{Denied, Effect, LimitKind, LockId, Mode, Moment, Table};

impl Table {
    /// Whether a request that arrives now has to wait.
    pub(super) fn must_wait(&self, object: ObjectSlot, family: LockerSlot, mode: Mode) -> bool {
        let group = self.group(object, family);
        self.reach(object).any(|at| {
            self.is_held_against(at, family, mode) || self.is_newest_behind(at, family, group, mode)
        })
    }

    /// Where a request of the family for the object stands in line.
    pub(super) fn group(&self, object: ObjectSlot, family: LockerSlot) -> Group {
        let holds = |at: ObjectSlot| self.objects[at].holders.has_family(family);
        match self.reach(object).any(holds) {
            true => Group::Holder,
            false => Group::Newcomer,
        }
    }

    /// Whether a lock held outside the family on this very object conflicts.
    fn is_held_against(&self, object: ObjectSlot, family: LockerSlot, mode: Mode) -> bool {
        let entry = &self.objects[object];
        self.rules(object).against(mode).any(|held| {
            let count = entry.held[held.index()];
            count > 0 && {
                let locks = entry.holders.of_family(family);
                let own = locks.filter(|(key, _)| key.mode == held).count();
                count as usize > own
            }
        })
    }

    /// Whether a request that arrives now conflicts with one that waits for this very object.
    fn is_newest_behind(
        &self,
        object: ObjectSlot,
        family: LockerSlot,
        group: Group,
        mode: Mode,
    ) -> bool {
        let Some(queue) = &self.objects[object].queue else {
            return false;
        };
        self.rules(object).against(mode).any(|waiting| {
            let ahead = queue.ahead_of_newest(group, waiting) as usize;
            ahead > 0 && {
                let waits = self.lockers[family].family.waits.iter();
                let own = waits.map(|wait| &self.waits[*wait]).filter(|wait| {
                    wait.object == object && wait.mode == waiting && wait.rank.group <= group
                });
                ahead > own.count()
            }
        })
    }

    /// Whether a request that waits for an overlapping object conflicts with an earlier one for this.
    fn is_behind(&self, object: ObjectSlot, family: LockerSlot, rank: Rank, mode: Mode) -> bool {
        let Some(queue) = &self.objects[object].queue else {
            return false;
        };
        let rules = self.rules(object);
        let any_of_mode = |ahead: Mode| queue.counts.iter().any(|group| group[ahead.index()] > 0);
        rules.against(mode).any(any_of_mode)
            && queue
                .order
                .range(..rank)
                .any(|(_, ahead)| ahead.family != family && rules.conflicts(ahead.mode, mode))
    }

    /// Gives the lock.
    pub(super) fn grant(
        &mut self,
        object: ObjectSlot,
        locker: LockerSlot,
        mode: Mode,
        site: &'static Location<'static>,
    ) -> LockId {
        self.stats.grants += 1;
        self.grant_since(object, locker, mode, site, self.now)
    }

    /// Gives a lock that was held, in some way, since then. Requests of the family may move to the front
    /// of the queues; those have to be looked at again then.
    pub(super) fn grant_since(
        &mut self,
        object: ObjectSlot,
        locker: LockerSlot,
        mode: Mode,
        site: &'static Location<'static>,
        since: Moment,
    ) -> LockId {
        let family = self.lockers[locker].root;
        let key = HolderKey {
            family,
            locker,
            mode,
        };
        if let Some(lock) = self.objects[object].holders.find(key) {
            let entry = &mut self.locks[lock];
            entry.count += 1;
            return LockId {
                born: entry.born,
                slot: lock,
            };
        }
        let id = self.add_lock(object, key, site, since);
        let entry = &mut self.objects[object];
        let held_before = entry.holders.has_family(family);
        entry.held[mode.index()] += 1;
        entry.holders.insert(key, id.slot);
        if let Some(order) = &mut self.order {
            order.taken(family, entry.object.namespace_text(), site);
        }
        self.regroup(family, object, held_before);
        id
    }

    /// Gives a lock on an object that nobody holds or waits for, and that overlaps no other: its entry is made
    /// as it then is.
    pub(super) fn grant_unknown(
        &mut self,
        named: Named<'_>,
        locker: LockerSlot,
        mode: Mode,
        site: &'static Location<'static>,
    ) -> Result<LockId, Denied> {
        self.check(LimitKind::Objects)?;
        self.stats.grants += 1;
        let family = self.lockers[locker].root;
        let key = HolderKey {
            family,
            locker,
            mode,
        };
        let id = self.add_lock(self.objects.next_slot(), key, site, self.now);
        self.insert_object(named, Some((key, id.slot)));
        if let Some(order) = &mut self.order {
            order.taken(family, named.object.namespace_text(), site);
        }
        self.suspect_if_waiting(family);
        Ok(id)
    }

    /// A new lock, in the list of its locker.
    #[inline]
    fn add_lock(
        &mut self,
        object: ObjectSlot,
        key: HolderKey,
        site: &'static Location<'static>,
        since: Moment,
    ) -> LockId {
        let HolderKey {
            family,
            locker,
            mode,
        } = key;
        let next = self.lockers[locker].locks;
        self.locks_made += 1;
        let born = self.locks_made;
        let slot = self.locks.insert(LockEntry {
            object,
            locker,
            mode,
            overdue: false,
            born,
            count: 1,
            since,
            site,
            previous: None,
            next,
        });
        if let Some(next) = next {
            self.locks[next].previous = Some(slot);
        }
        let owner = &mut self.lockers[locker];
        owner.locks = Some(slot);
        owner.lock_count += 1;
        let root = match family == locker {
            true => &mut owner.family,
            false => &mut self.lockers[family].family,
        };
        root.locks += 1;
        root.write_locks += usize::from(mode.is_write());
        if !self.config.timeouts.max_hold.is_zero() {
            self.holds.insert((since, slot));
        }
        LockId { born, slot }
    }

    /// Takes a lock from its holder, whatever its count. Who waits for it is not looked at.
    pub(super) fn drop_lock(&mut self, lock: LockSlot) {
        let (object, key) = self.remove_lock(lock);
        let entry = &mut self.objects[object];
        entry.held[key.mode.index()] -= 1;
        entry.holders.remove(key);
        let holds_still = entry.holders.has_family(key.family);
        self.regroup(key.family, object, holds_still);
    }

    /// Takes a lock from its holder, and forgets its object: it is the only one there, nobody waits for the
    /// object and none overlaps it.
    pub(super) fn drop_only_lock(&mut self, lock: LockSlot) {
        let (object, key) = self.remove_lock(lock);
        self.suspect_if_waiting(key.family);
        self.forget(object);
    }

    /// Takes a lock out of the list of its locker; its object still knows it.
    #[inline]
    fn remove_lock(&mut self, lock: LockSlot) -> (ObjectSlot, HolderKey) {
        let entry = &self.locks[lock];
        let (object, locker, mode) = (entry.object, entry.locker, entry.mode);
        let (previous, next) = (entry.previous, entry.next);
        let (since, overdue) = (entry.since, entry.overdue);
        self.locks.discard(lock);
        if let Some(next) = next {
            self.locks[next].previous = previous;
        }
        if let Some(previous) = previous {
            self.locks[previous].next = next;
        }
        let owner = &mut self.lockers[locker];
        if previous.is_none() {
            owner.locks = next;
        }
        owner.lock_count -= 1;
        if overdue
            && let Some(told) = &owner.overdue
            && told.object == self.objects[object].object
        {
            owner.overdue = None;
        }
        let family = owner.root;
        let root = match family == locker {
            true => &mut owner.family,
            false => &mut self.lockers[family].family,
        };
        root.locks -= 1;
        root.write_locks -= usize::from(mode.is_write());
        if !self.holds.is_empty() {
            self.holds.remove(&(since, lock));
        }
        if let Some(order) = &mut self.order {
            order.released(family, self.objects[object].object.namespace_text());
        }
        let key = HolderKey {
            family,
            locker,
            mode,
        };
        (object, key)
    }

    /// What the family holds or where it stands has changed: if it waits, that can close a cycle.
    #[inline]
    fn suspect_if_waiting(&mut self, family: LockerSlot) -> bool {
        if self.lockers[family].family.waits.is_empty() {
            return false;
        }
        if self.suspects.last() != Some(&family) {
            self.suspects.push(family);
        }
        true
    }

    /// Puts the family's requests where they belong, now that it holds the object or no longer does; or
    /// it holds it in other modes.
    fn regroup(&mut self, family: LockerSlot, object: ObjectSlot, other_modes: bool) {
        if !self.suspect_if_waiting(family) {
            return;
        }
        let entry = &self.objects[object];
        if other_modes || (entry.queue.is_none() && entry.overlaps.is_none()) {
            return;
        }
        for at in 0..self.lockers[family].family.waits.len() {
            let wait = self.lockers[family].family.waits[at];
            let entry = &self.waits[wait];
            let (waited_for, rank) = (entry.object, entry.rank);
            let touches = waited_for == object
                || self.objects[object]
                    .overlaps
                    .as_ref()
                    .is_some_and(|overlaps| overlaps.contains(&waited_for));
            if !touches {
                continue;
            }
            let group = self.group(waited_for, family);
            if rank.group == group {
                continue;
            }
            if let Some(queue) = &mut self.objects[waited_for].queue
                && let Some(queued) = queue.remove(rank)
            {
                let rank = Rank { group, ..rank };
                queue.insert(rank, queued);
                self.waits[wait].rank = rank;
                self.recheck.push(waited_for);
            }
        }
    }

    /// Grants what can be granted to those who wait for the objects that have changed, or for objects
    /// that overlap them; and forgets the changed ones if nobody is left.
    pub(super) fn promote(&mut self, effects: &mut Vec<Effect>) {
        if self.recheck.is_empty() {
            return;
        }
        let mut changed = Vec::new();
        while !self.recheck.is_empty() {
            changed.append(&mut self.recheck);
            changed.sort_unstable();
            changed.dedup();
            // One that was let go after it had been noted is forgotten already.
            changed.retain(|object| self.objects.get(*object).is_some());
            self.walk(&changed, effects);
        }
        for object in changed {
            self.forget_unused(object);
        }
    }

    /// One walk along the queues, merged in the order of rank. It ends early when a grant has changed
    /// who stands where.
    fn walk(&mut self, changed: &[ObjectSlot], effects: &mut Vec<Effect>) {
        let mut waited_for: Vec<ObjectSlot> = match changed {
            [one] if self.objects[*one].overlaps.is_none() => vec![*one],
            _ => {
                let reached = changed.iter().flat_map(|object| self.reach(*object));
                let mut all: Vec<_> = reached.collect();
                all.sort_unstable();
                all.dedup();
                all
            }
        };
        waited_for.retain(|object| self.objects[*object].queue.is_some());
        let mut lanes: Vec<Lane> = waited_for
            .into_iter()
            .map(|object| self.lane(object))
            .collect();
        let mut line = Line::default();
        for (number, lane) in lanes.iter().enumerate() {
            if let Some((rank, _)) = self.next_in(lane.object, Rank::FIRST) {
                line.push(rank, number);
            }
        }
        while let Some((rank, number)) = line.pop() {
            let Some(lane) = lanes.get_mut(number) else {
                return;
            };
            let Some((_, queued)) = self.next_in(lane.object, rank) else {
                continue;
            };
            lane.left[queued.mode.index()] -= 1;
            let barred = self.is_barred(lane, rank, queued);
            if let Err(by) = barred {
                self.waits[queued.wait].barred_by = by;
                let passed = &mut lane.passed[queued.mode.index()];
                *passed = passed.and(queued.family);
                if self.none_can_pass(lane, rank) {
                    continue;
                }
            } else {
                let wait = &self.waits[queued.wait];
                let (id, locker, site, from) = (wait.id, wait.locker, wait.site, wait.from);
                let object = lane.object;
                self.remove_wait(queued.wait);
                effects.push(Effect::Granted(id));
                self.grant(object, locker, queued.mode, site);
                if let Some(from) = from {
                    self.give_up(object, locker, from);
                }
                if !self.recheck.is_empty() {
                    return;
                }
            }
            let next = Rank {
                arrival: rank.arrival + 1,
                ..rank
            };
            if let Some((rank, _)) = self.next_in(lane.object, next) {
                line.push(rank, number);
            }
        }
    }

    fn lane(&self, object: ObjectSlot) -> Lane {
        let mut left = [0; Mode::COUNT];
        if let Some(queue) = &self.objects[object].queue {
            for mode in Mode::ALL {
                left[mode.index()] = queue.ahead_of_newest(Group::Newcomer, mode);
            }
        }
        Lane {
            object,
            left,
            passed: [Passed::Nobody; Mode::COUNT],
        }
    }

    fn next_in(&self, object: ObjectSlot, from: Rank) -> Option<(Rank, Queued)> {
        let queue = self.objects[object].queue.as_ref()?;
        let (rank, queued) = queue.order.range(from..).next()?;
        Some((*rank, *queued))
    }

    /// Whether a request can be granted; if not, it may say which overlapping object bars it. That is asked
    /// first the next time: a range over many keys would otherwise look at all of them at each release.
    fn is_barred(&self, lane: &Lane, rank: Rank, queued: Queued) -> Result<(), Option<ObjectSlot>> {
        let (object, family, mode) = (lane.object, queued.family, queued.mode);
        let mut against = self.rules(object).against(mode);
        if against.any(|ahead| lane.passed[ahead.index()].holds_back(family))
            || self.is_held_against(object, family, mode)
        {
            return Err(None);
        }
        let Some(overlaps) = &self.objects[object].overlaps else {
            return Ok(());
        };
        let bars = |near: &ObjectSlot| {
            self.is_held_against(*near, family, mode) || self.is_behind(*near, family, rank, mode)
        };
        let last = self.waits[queued.wait].barred_by;
        let barred_by = last
            .filter(|last| overlaps.contains(last) && bars(last))
            .or_else(|| overlaps.iter().rev().copied().find(bars));
        match barred_by {
            Some(by) => Err(Some(by)),
            None => Ok(()),
        }
    }

    /// Whether nobody behind `rank` can be granted, so that the walk along this queue can end: what makes
    /// a release on an object with a long queue cheap.
    fn none_can_pass(&self, lane: &Lane, rank: Rank) -> bool {
        let entry = &self.objects[lane.object];
        let waits_again = |family: LockerSlot| {
            let waits = self.lockers[family].family.waits.iter();
            waits
                .map(|wait| &self.waits[*wait])
                .any(|wait| wait.object == lane.object && wait.rank > rank)
        };
        let rules = self.rules(lane.object);
        Mode::ALL
            .into_iter()
            .filter(|mode| lane.left[mode.index()] > 0)
            .all(|mode| {
                rules.against(mode).any(|other| {
                    // Behind a newcomer are only newcomers, and none of those has a family that holds the object.
                    let held = rank.group == Group::Newcomer && entry.held[other.index()] > 0;
                    held || match lane.passed[other.index()] {
                        Passed::Nobody => false,
                        Passed::One(family) => !waits_again(family),
                        Passed::Several => true,
                    }
                })
            })
    }
}

/// One queue in a walk.
struct Lane {
    object: ObjectSlot,
    /// How many are still to be looked at, by mode.
    left: [u32; Mode::COUNT],
    /// Who was left waiting, by mode.
    passed: [Passed; Mode::COUNT],
}

/// Who comes next in a walk, of the first in each lane. The usual walk has one lane, and needs no heap.
#[derive(Default)]
struct Line {
    one: Option<(Rank, usize)>,
    others: BinaryHeap<Reverse<(Rank, usize)>>,
}

impl Line {
    fn push(&mut self, rank: Rank, lane: usize) {
        let later = match self.one.take() {
            Some(one) if one < (rank, lane) => {
                self.one = Some(one);
                (rank, lane)
            }
            other => {
                self.one = Some((rank, lane));
                match other {
                    Some(other) => other,
                    None => return,
                }
            }
        };
        self.others.push(Reverse(later));
    }

    fn pop(&mut self) -> Option<(Rank, usize)> {
        let next = self.one.take();
        self.one = self.others.pop().map(|Reverse(next)| next);
        next
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
