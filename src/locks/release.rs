//! Releasing, weakening and passing on locks, and the end of lockers.

use super::queue::Holders;
use super::slab::{LockSlot, LockerSlot, ObjectSlot};
use super::{Denied, Effect, LimitKind, LockId, LockerId, Mode, Object, Reason, Table, WaitId};

impl Table {
    /// Takes a waiting request back; false if it waits no more.
    pub fn withdraw(&mut self, wait: WaitId, effects: &mut Vec<Effect>) -> bool {
        let Some(entry) = self.waits.get(wait.slot).filter(|entry| entry.id == wait) else {
            return false;
        };
        self.recheck.push(entry.object);
        self.remove_wait(wait.slot);
        self.promote(effects);
        self.finish(effects);
        true
    }

    /// Releases one lock, or takes one from its reference count; false if the locker does not hold it.
    pub fn unlock(
        &mut self,
        locker: LockerId,
        object: &Object,
        mode: Mode,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some((locker, object)) = self.locker(locker).zip(self.known(object)) else {
            return false;
        };
        let held = self.give_up(object, locker, mode);
        self.promote(effects);
        self.finish(effects);
        held
    }

    /// Which of all locks that the locker ever held on the object in this mode it holds now.
    #[must_use]
    pub fn lock_id(&self, locker: LockerId, object: &Object, mode: Mode) -> Option<LockId> {
        let (locker, object) = self.locker(locker).zip(self.known(object))?;
        self.held(locker, object, mode).map(|lock| self.id_of(lock))
    }

    pub(super) fn id_of(&self, lock: LockSlot) -> LockId {
        LockId {
            born: self.locks[lock].born,
            slot: lock,
        }
    }

    /// Whether this very lock is still held.
    #[must_use]
    pub fn is_held(&self, lock: LockId) -> bool {
        let entry = self.locks.get(lock.slot);
        entry.is_some_and(|entry| entry.born == lock.born)
    }

    /// Releases these very locks, or takes one from their reference counts, all at once; false if one of
    /// them is no longer held.
    pub fn unlock_these(
        &mut self,
        locks: impl IntoIterator<Item = Option<LockId>>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let mut all_held = true;
        for lock in locks {
            match lock.filter(|lock| self.is_held(*lock)) {
                Some(lock) => self.take_one(lock.slot),
                None => all_held = false,
            }
        }
        self.promote(effects);
        self.finish(effects);
        all_held
    }

    /// Releases so many references of one lock.
    pub(super) fn unlock_many(
        &mut self,
        locker: LockerId,
        object: &Object,
        mode: Mode,
        count: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some((slot, at)) = self.locker(locker).zip(self.known(object)) else {
            return;
        };
        if let Some(lock) = self.held(slot, at, mode)
            && count > 1
        {
            // All but the last are only counted.
            let held = &mut self.locks[lock].count;
            *held -= (count - 1).min(*held - 1);
        }
        if count > 0 {
            self.give_up(at, slot, mode);
        }
        self.promote(effects);
        self.finish(effects);
    }

    /// Releases all locks of the locker on the object; answers how many there were.
    pub fn unlock_object(
        &mut self,
        locker: LockerId,
        object: &Object,
        effects: &mut Vec<Effect>,
    ) -> usize {
        let Some((locker, object)) = self.locker(locker).zip(self.known(object)) else {
            return 0;
        };
        let family = self.lockers[locker].root;
        let locks = self.objects[object].holders.of_family(family);
        let own: Vec<LockSlot> = locks
            .filter(|(key, _)| key.locker == locker)
            .map(|(_, lock)| lock)
            .collect();
        self.release(&own, effects)
    }

    /// Releases what the locker holds for reading: its intent-read and read locks. Answers how many
    /// there were.
    pub fn release_reads(&mut self, locker: LockerId, effects: &mut Vec<Effect>) -> usize {
        let Some(locker) = self.locker(locker) else {
            return 0;
        };
        let mut reads = self.locks_of(locker);
        reads.retain(|lock| matches!(self.locks[*lock].mode, Mode::IntentRead | Mode::Read));
        self.release(&reads, effects)
    }

    /// Releases all that the locker holds, and answers how many locks there were. What it waits for it
    /// goes on waiting for. A dead locker may ask for locks again afterwards.
    pub fn release_all(&mut self, locker: LockerId, effects: &mut Vec<Effect>) -> usize {
        let Some(locker) = self.locker(locker) else {
            return 0;
        };
        let entry = &mut self.lockers[locker];
        entry.dead = None;
        entry.overdue = None;
        let all = self.locks_of(locker);
        self.release(&all, effects)
    }

    /// Weakens a lock: one reference of it changes its mode, without a wait.
    ///
    /// # Errors
    /// [`Denied::NotHeld`], [`Denied::NotWeaker`], [`Denied::UnknownMode`]; [`Denied::Ended`] and
    /// [`Denied::Dead`] as for requests.
    pub fn downgrade(
        &mut self,
        locker: LockerId,
        object: &Object,
        from: Mode,
        to: Mode,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Denied> {
        let (slot, object) = self.add_weaker(locker, object, from, to, false)?;
        let overdue = self.lockers[slot].overdue.clone();
        self.give_up(object, slot, from);
        // What is to be told of the lock is still to be told.
        self.lockers[slot].overdue = overdue;
        self.promote(effects);
        self.finish(effects);
        Ok(())
    }

    /// Gives the weaker mode beside the stronger one, which is to be given up: now, or it stays for a while.
    ///
    /// # Errors
    /// As [`downgrade`](Self::downgrade).
    pub(super) fn add_weaker(
        &mut self,
        locker: LockerId,
        object: &Object,
        from: Mode,
        to: Mode,
        stays: bool,
    ) -> Result<(LockerSlot, ObjectSlot), Denied> {
        let locker = self.usable(locker)?;
        let object = self.known(object).ok_or(Denied::NotHeld)?;
        let lock = self.held(locker, object, from).ok_or(Denied::NotHeld)?;
        let rules = self.rules(object);
        if !rules.knows(to) {
            return Err(Denied::UnknownMode(to));
        }
        if !rules.is_no_stronger(to, from) {
            return Err(Denied::NotWeaker { from, to });
        }
        let (site, since) = (self.locks[lock].site, self.locks[lock].since);
        let overdue = self.locks[lock].overdue;
        let is_new = self.held(locker, object, to).is_none();
        if is_new && (stays || self.locks[lock].count > 1) {
            self.check(LimitKind::Locks)?;
        }
        self.stats.downgrades += 1;
        let weaker = self.grant_since(object, locker, to, site, since).slot;
        if is_new && overdue {
            self.locks[weaker].overdue = true;
            self.holds.remove(&(since, weaker));
        }
        Ok((locker, object))
    }

    /// Undoes a grant that nobody has seen, also of a dead locker: the lock goes back to the mode it was
    /// upgraded from, if there was one. False if others bar the way back; then the lock stays as it is.
    pub fn take_back(
        &mut self,
        locker: LockerId,
        object: &Object,
        mode: Mode,
        from: Option<Mode>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some((slot, at)) = self.locker(locker).zip(self.known(object)) else {
            return true;
        };
        let (Some(from), Some(lock)) = (from, self.held(slot, at, mode)) else {
            self.unlock(locker, object, mode, effects);
            return true;
        };
        let family = self.lockers[slot].root;
        if !self.rules(at).is_no_stronger(from, mode) && self.must_wait(at, family, from) {
            return false;
        }
        let (site, since) = (self.locks[lock].site, self.locks[lock].since);
        self.grant_since(at, slot, from, site, since);
        self.give_up(at, slot, mode);
        self.promote(effects);
        self.finish(effects);
        true
    }

    /// Lets a dead locker that holds nothing ask for locks again.
    pub(super) fn revive(&mut self, locker: LockerId) {
        if let Some(slot) = self.locker(locker)
            && self.lockers[slot].locks.is_none()
        {
            self.lockers[slot].dead = None;
            self.lockers[slot].overdue = None;
        }
    }

    /// How many references the locker holds in this mode.
    pub(super) fn references(&self, locker: LockerId, object: &Object, mode: Mode) -> u64 {
        self.locker(locker)
            .zip(self.known(object))
            .and_then(|(locker, object)| self.held(locker, object, mode))
            .map_or(0, |lock| self.locks[lock].count)
    }

    /// What the locker holds: object, mode and references.
    pub(super) fn held_by(&self, locker: LockerId) -> Vec<(Object, Mode, u64)> {
        let Some(locker) = self.locker(locker) else {
            return Vec::new();
        };
        let locks = self.locks_of(locker).into_iter();
        locks
            .map(|lock| {
                let entry = &self.locks[lock];
                let object = self.objects[entry.object].object.clone();
                (object, entry.mode, entry.count)
            })
            .collect()
    }

    /// Ends a child and gives its locks, and those of its children, to its parent. A root is ended as by
    /// [`end`](Self::end).
    ///
    /// # Errors
    /// [`Denied::Dead`] if it, or one of its children, was aborted: then nothing changes.
    /// [`Denied::Ended`] if it had ended before.
    pub fn commit(&mut self, locker: LockerId, effects: &mut Vec<Effect>) -> Result<(), Denied> {
        let slot = self.usable(locker)?;
        let all = self.subtree(slot);
        if let Some(conflict) = all.iter().find_map(|one| self.lockers[*one].dead.clone()) {
            return Err(Denied::Dead(conflict));
        }
        let Some(parent) = self.lockers[slot].parent else {
            self.end(locker, effects);
            return Ok(());
        };
        self.refuse_waits(&all, &Reason::Ended, effects);
        for &one in all.iter().rev() {
            let overdue = self.lockers[one].overdue.take();
            for lock in self.locks_of(one) {
                self.pass_on(lock, parent);
            }
            let heir = &mut self.lockers[parent].overdue;
            *heir = heir.take().or(overdue);
            self.remove_locker(one, effects);
        }
        self.promote(effects);
        self.finish(effects);
        Ok(())
    }

    /// Ends a locker and its children: their waits are refused, their locks released. False if it had
    /// ended before.
    pub fn end(&mut self, id: LockerId, effects: &mut Vec<Effect>) -> bool {
        let Some(locker) = self.locker(id) else {
            return false;
        };
        if self.lockers[locker].children.is_empty() {
            self.end_one(locker, effects);
        } else {
            let all = self.subtree(locker);
            self.refuse_waits(&all, &Reason::Ended, effects);
            for one in all.into_iter().rev() {
                self.end_one(one, effects);
            }
        }
        self.suspects
            .retain(|family| self.lockers.get(*family).is_some());
        self.promote(effects);
        self.finish(effects);
        true
    }

    /// Ends a locker without children.
    fn end_one(&mut self, locker: LockerSlot, effects: &mut Vec<Effect>) {
        if !self.family_of(locker).waits.is_empty() {
            self.refuse_waits(&[locker], &Reason::Ended, effects);
        }
        while let Some(lock) = self.lockers[locker].locks {
            self.let_go(lock);
        }
        self.remove_locker(locker, effects);
    }

    /// Takes the waits of these lockers, of one family, out of their queues; who waits behind them is
    /// looked at later. All are out before any queue is looked at, so that none is granted on the way.
    pub(super) fn refuse_waits(
        &mut self,
        lockers: &[LockerSlot],
        reason: &Reason,
        effects: &mut Vec<Effect>,
    ) {
        let Some(&first) = lockers.first() else {
            return;
        };
        let waits = self.family_of(first).waits.clone();
        for wait in waits {
            let entry = &self.waits[wait];
            if lockers.contains(&entry.locker) {
                effects.push(Effect::Refused(entry.id, reason.clone()));
                self.recheck.push(entry.object);
                self.remove_wait(wait);
            }
        }
    }

    fn release(&mut self, locks: &[LockSlot], effects: &mut Vec<Effect>) -> usize {
        for &lock in locks {
            self.let_go(lock);
        }
        self.promote(effects);
        self.finish(effects);
        locks.len()
    }

    /// Takes one from a lock's count, and the lock when none is left; false if it is not held. Who waits
    /// for the object is to be looked at.
    pub(super) fn give_up(&mut self, object: ObjectSlot, locker: LockerSlot, mode: Mode) -> bool {
        let Some(lock) = self.held(locker, object, mode) else {
            return false;
        };
        self.take_one(lock);
        true
    }

    fn take_one(&mut self, lock: LockSlot) {
        let count = &mut self.locks[lock].count;
        *count -= 1;
        if *count == 0 {
            self.let_go(lock);
        }
    }

    /// Drops a lock. Its object is forgotten if nobody is left, or else to be looked at again.
    fn let_go(&mut self, lock: LockSlot) {
        let object = self.locks[lock].object;
        let entry = &self.objects[object];
        if entry.queue.is_some() || entry.overlaps.is_some() {
            self.drop_lock(lock);
            self.recheck.push(object);
        } else if let Holders::One(..) = entry.holders {
            self.drop_only_lock(lock);
        } else {
            self.drop_lock(lock);
            self.forget_unused(object);
        }
    }

    /// The locks of a locker, the latest first.
    fn locks_of(&self, locker: LockerSlot) -> Vec<LockSlot> {
        let mut all = Vec::with_capacity(self.lockers[locker].lock_count);
        let mut next = self.lockers[locker].locks;
        while let Some(lock) = next {
            all.push(lock);
            next = self.locks[lock].next;
        }
        all
    }

    /// Gives a lock to another locker of the family, with all of its count.
    fn pass_on(&mut self, lock: LockSlot, heir: LockerSlot) {
        let entry = &self.locks[lock];
        let (object, mode, count) = (entry.object, entry.mode, entry.count);
        let (site, since, overdue) = (entry.site, entry.since, entry.overdue);
        // The heir has it before the other loses it, so that the family holds the object all the time.
        let inherited = self.grant_since(object, heir, mode, site, since).slot;
        self.drop_lock(lock);
        let entry = &mut self.locks[inherited];
        entry.count += count - 1;
        entry.overdue |= overdue;
        if entry.overdue {
            self.holds.remove(&(self.locks[inherited].since, inherited));
        }
        self.recheck.push(object);
    }
}
