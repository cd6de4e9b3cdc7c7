//! The lock table: what can be asked of it, and what it answers.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::locker::LockerEntry;
use super::queue::{Group, HolderKey, ObjectEntry, Queued, Rank};
use super::slab::{LockSlot, LockerSlot, ObjectSlot, Slab, WaitSlot};
use super::{
    Age, Conflict, ConflictKind, ConflictTable, LimitKind, Limits, LockStats, LockerId, LockerSpec,
    Mode, Object, VictimPolicy,
};

/// A point in time: nanoseconds since an instant of the caller's choice, on a clock that never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// How long it is since `earlier`; zero if that is later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Names a waiting request. Never given twice by one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitId {
    pub(super) arrival: u64,
    pub(super) slot: WaitSlot,
}

/// How a table decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableConfig {
    /// The most there may be of lockers, locks and objects. Default 100,000 each.
    pub limits: Limits,
    /// Whether a cycle is looked for when a request blocks. Default true.
    pub detect_on_block: bool,
    /// How victims are chosen. Default [`VictimPolicy::Youngest`].
    pub policy: VictimPolicy,
    /// Which modes conflict. Default [`ConflictTable::standard`].
    pub conflicts: ConflictTable,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            detect_on_block: true,
            policy: VictimPolicy::default(),
            conflicts: ConflictTable::default(),
        }
    }
}

/// A lock that somebody wants.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who wants it.
    pub locker: LockerId,
    /// What is to be locked.
    pub object: &'a Object,
    /// How.
    pub mode: Mode,
    /// The line of code that asks.
    pub site: &'static Location<'static>,
}

/// What a request that does not wait comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// It is granted.
    Granted,
    /// It would have to wait; nothing has changed.
    Blocked,
}

/// Why a request or a locker is refused at once.
#[derive(Debug, Clone)]
pub enum Denied {
    /// The locker has ended, or was a victim and has not released everything yet.
    Ended,
    /// There would be too many.
    Limit {
        /// Of what.
        which: LimitKind,
        /// The limit.
        value: usize,
    },
}

/// Why a waiting request is refused.
#[derive(Debug, Clone)]
pub enum Reason {
    /// Its family was chosen as a victim.
    Deadlock(Arc<Conflict>),
    /// Its deadline has passed.
    Timeout(Arc<Conflict>),
    /// Its locker has ended.
    Ended,
    /// The table is being closed.
    ShuttingDown,
}

/// What follows from a call, for the caller to carry out, in this order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// A waiting request holds its lock now.
    Granted(WaitId),
    /// A waiting request waits no more.
    Refused(WaitId, Reason),
    /// A locker is gone, and everything it held is released.
    Ended(LockerId),
}

/// A held lock.
#[derive(Debug)]
pub(super) struct LockEntry {
    pub object: ObjectSlot,
    pub locker: LockerSlot,
    pub mode: Mode,
    pub count: u64,
    pub site: &'static Location<'static>,
    pub previous: Option<LockSlot>,
    pub next: Option<LockSlot>,
}

/// A waiting request.
#[derive(Debug)]
pub(super) struct WaitEntry {
    pub id: WaitId,
    pub locker: LockerSlot,
    pub object: ObjectSlot,
    pub mode: Mode,
    pub site: &'static Location<'static>,
    pub rank: Rank,
    pub since: Moment,
    pub deadline: Option<Moment>,
}

/// The lock table.
#[derive(Debug)]
pub struct Table {
    pub(super) config: TableConfig,
    pub(super) lockers: Slab<LockerSlot, LockerEntry>,
    pub(super) objects: Slab<ObjectSlot, ObjectEntry>,
    pub(super) locks: Slab<LockSlot, LockEntry>,
    pub(super) waits: Slab<WaitSlot, WaitEntry>,
    pub(super) names: HashMap<Object, ObjectSlot>,
    /// Objects that somebody waits for.
    pub(super) contended: BTreeSet<ObjectSlot>,
    deadlines: BTreeSet<(Moment, WaitId)>,
    lockers_made: u64,
    ages_given: u64,
    arrivals: u64,
    /// The number of the last search of the waits-for graph.
    pub(super) passes: u64,
    /// Families that got a new edge in this call and may have closed a cycle.
    pub(super) suspects: Vec<LockerSlot>,
    pub(super) stats: LockStats,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(config: TableConfig) -> Self {
        Self {
            config,
            lockers: Slab::new(),
            objects: Slab::new(),
            locks: Slab::new(),
            waits: Slab::new(),
            names: HashMap::new(),
            contended: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            lockers_made: 0,
            ages_given: 0,
            arrivals: 0,
            passes: 0,
            suspects: Vec::new(),
            stats: LockStats::default(),
        }
    }

    /// Makes a locker.
    ///
    /// # Errors
    /// [`Denied::Limit`] when there are too many.
    pub fn begin(&mut self, spec: LockerSpec) -> Result<LockerId, Denied> {
        self.check(LimitKind::Lockers)?;
        self.lockers_made += 1;
        let age = spec.age.unwrap_or_else(|| {
            self.ages_given += 1;
            Age(self.ages_given)
        });
        let slot = self.lockers.next_slot();
        let id = LockerId {
            number: self.lockers_made,
            slot,
        };
        self.lockers.insert(LockerEntry {
            id,
            root: slot,
            age,
            priority: spec.priority,
            name: spec.name,
            site: spec.site,
            locks: None,
            lock_count: 0,
            aborted: false,
            waits: Vec::new(),
            seen_forward: 0,
            seen_backward: 0,
        });
        self.stats.lockers.set(self.lockers.len());
        Ok(id)
    }

    /// The locker's age, if it exists.
    #[must_use]
    pub fn age(&self, locker: LockerId) -> Option<Age> {
        self.locker(locker).map(|slot| self.lockers[slot].age)
    }

    /// Whether the locker exists.
    #[must_use]
    pub fn is_live(&self, locker: LockerId) -> bool {
        self.locker(locker).is_some()
    }

    /// Grants the lock if that needs no wait.
    ///
    /// # Errors
    /// [`Denied`] when the locker has ended or a limit is met.
    pub fn try_lock(
        &mut self,
        request: Request<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<Attempt, Denied> {
        let locker = self.usable(request.locker)?;
        let family = self.lockers[locker].root;
        if let Some(&object) = self.names.get(request.object) {
            let key = HolderKey {
                family,
                locker,
                mode: request.mode,
            };
            if let Some(lock) = self.objects[object].holders.find(key) {
                self.locks[lock].count += 1;
                self.stats.grants += 1;
                return Ok(Attempt::Granted);
            }
            if self.must_wait(object, family, request.mode) {
                return Ok(Attempt::Blocked);
            }
            self.check(LimitKind::Locks)?;
            if self.grant(object, locker, request.mode, request.site) {
                self.promote(object, effects);
            }
            self.settle(effects);
        } else {
            self.check(LimitKind::Locks)?;
            let object = self.intern(request.object)?;
            self.grant(object, locker, request.mode, request.site);
        }
        self.count_locks();
        Ok(Attempt::Granted)
    }

    /// Grants the lock, or queues the request: `None` is granted. A queued request may be refused by
    /// an effect of this very call, as the victim of the cycle that it closed.
    ///
    /// # Errors
    /// [`Denied`] when the locker has ended or a limit is met.
    pub fn request(
        &mut self,
        now: Moment,
        request: Request<'_>,
        deadline: Option<Moment>,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<WaitId>, Denied> {
        if self.try_lock(request, effects)? == Attempt::Granted {
            return Ok(None);
        }
        let locker = self.usable(request.locker)?;
        self.check(LimitKind::Locks)?;
        let object = self.intern(request.object)?;
        let family = self.lockers[locker].root;
        self.arrivals += 1;
        let group = match self.objects[object].holders.has_family(family) {
            true => Group::Holder,
            false => Group::Newcomer,
        };
        let rank = Rank {
            group,
            arrival: self.arrivals,
        };
        let id = WaitId {
            arrival: self.arrivals,
            slot: self.waits.next_slot(),
        };
        let wait = self.waits.insert(WaitEntry {
            id,
            locker,
            object,
            mode: request.mode,
            site: request.site,
            rank,
            since: now,
            deadline,
        });
        self.lockers[family].waits.push(wait);
        let queue = self.objects[object].queue.get_or_insert_default();
        queue.insert(
            rank,
            Queued {
                wait,
                family,
                mode: request.mode,
            },
        );
        self.contended.insert(object);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, id));
        }
        self.stats.waits += 1;
        self.count_locks();
        self.suspects.push(family);
        self.settle(effects);
        Ok(Some(id))
    }

    /// Takes a waiting request back; false if it waits no more.
    pub fn withdraw(&mut self, wait: WaitId, effects: &mut Vec<Effect>) -> bool {
        let Some(entry) = self.waits.get(wait.slot).filter(|entry| entry.id == wait) else {
            return false;
        };
        let object = entry.object;
        self.remove_wait(wait.slot);
        self.promote(object, effects);
        self.settle(effects);
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
        let (Some(locker), Some(&object)) = (self.locker(locker), self.names.get(object)) else {
            return false;
        };
        let family = self.lockers[locker].root;
        let Some(lock) = self.objects[object].holders.find(HolderKey {
            family,
            locker,
            mode,
        }) else {
            return false;
        };
        self.locks[lock].count -= 1;
        if self.locks[lock].count == 0 {
            self.drop_lock(lock);
            self.promote(object, effects);
            self.settle(effects);
        }
        true
    }

    /// Releases all that the locker holds. What it waits for it goes on waiting for. A victim may
    /// ask for locks again afterwards.
    pub fn release_all(&mut self, locker: LockerId, effects: &mut Vec<Effect>) {
        let Some(locker) = self.locker(locker) else {
            return;
        };
        let mut contended = Vec::new();
        while let Some(lock) = self.lockers[locker].locks {
            let object = self.locks[lock].object;
            self.drop_lock(lock);
            if self.objects[object].queue.is_some() {
                contended.push(object);
            } else {
                self.forget_unused(object);
            }
        }
        for object in contended {
            self.promote(object, effects);
        }
        let family = self.lockers[locker].root;
        self.lockers[family].aborted = false;
        self.settle(effects);
    }

    /// Ends a locker: its waits are refused, its locks released. False if it had ended before.
    pub fn end(&mut self, id: LockerId, effects: &mut Vec<Effect>) -> bool {
        let Some(locker) = self.locker(id) else {
            return false;
        };
        let waits = self.lockers[locker].waits.clone();
        let objects: Vec<_> = waits.iter().map(|wait| self.waits[*wait].object).collect();
        // All are taken out before a queue is looked at, so that none of them is granted on the way.
        for wait in waits {
            effects.push(Effect::Refused(self.waits[wait].id, Reason::Ended));
            self.remove_wait(wait);
        }
        for object in objects {
            self.promote(object, effects);
        }
        self.release_all(id, effects);
        self.lockers.remove(locker);
        self.stats.lockers.set(self.lockers.len());
        effects.push(Effect::Ended(id));
        true
    }

    /// Refuses the requests whose deadline has passed, at most `most` of them, so that a caller can
    /// let others in between; true if there are more.
    pub fn expire(&mut self, now: Moment, most: usize, effects: &mut Vec<Effect>) -> bool {
        for _ in 0..most {
            let Some(wait) = self.next_expired(now) else {
                break;
            };
            let entry = &self.waits[wait.slot];
            let object = entry.object;
            let conflict = self.explain_wait(ConflictKind::Timeout, wait.slot, Some(now));
            self.remove_wait(wait.slot);
            self.stats.timeouts += 1;
            effects.push(Effect::Refused(wait, Reason::Timeout(Arc::new(conflict))));
            self.promote(object, effects);
        }
        self.settle(effects);
        self.next_expired(now).is_some()
    }

    /// When [`expire`](Self::expire) has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Refuses everything that waits: the table is being closed.
    pub fn refuse_all(&mut self, effects: &mut Vec<Effect>) {
        let mut waits: Vec<WaitId> = self.waits.iter().map(|(_, entry)| entry.id).collect();
        waits.sort_unstable();
        // All are taken out before anything else, so that none of them is granted on the way.
        for wait in &waits {
            let object = self.waits[wait.slot].object;
            self.remove_wait(wait.slot);
            self.forget_unused(object);
            effects.push(Effect::Refused(*wait, Reason::ShuttingDown));
        }
    }

    fn next_expired(&self, now: Moment) -> Option<WaitId> {
        self.deadlines
            .first()
            .filter(|(deadline, _)| *deadline <= now)
            .map(|(_, wait)| *wait)
    }

    pub(super) fn locker(&self, id: LockerId) -> Option<LockerSlot> {
        self.lockers
            .get(id.slot)
            .filter(|entry| entry.id == id)
            .map(|_| id.slot)
    }

    fn usable(&self, id: LockerId) -> Result<LockerSlot, Denied> {
        let slot = self.locker(id).ok_or(Denied::Ended)?;
        match self.lockers[self.lockers[slot].root].aborted {
            true => Err(Denied::Ended),
            false => Ok(slot),
        }
    }

    /// Refuses one more of `which` at its limit.
    fn check(&mut self, which: LimitKind) -> Result<(), Denied> {
        let limits = &self.config.limits;
        let (used, value) = match which {
            LimitKind::Lockers => (self.lockers.len(), limits.lockers),
            LimitKind::Locks => (self.locks.len() + self.waits.len(), limits.locks),
            LimitKind::Objects => (self.objects.len(), limits.objects),
        };
        if used < value {
            return Ok(());
        }
        self.stats.limits_met += 1;
        Err(Denied::Limit { which, value })
    }

    fn intern(&mut self, object: &Object) -> Result<ObjectSlot, Denied> {
        if let Some(&slot) = self.names.get(object) {
            return Ok(slot);
        }
        self.check(LimitKind::Objects)?;
        let slot = self.objects.insert(ObjectEntry::new(object.clone()));
        self.names.insert(object.clone(), slot);
        self.stats.objects.set(self.objects.len());
        Ok(slot)
    }

    /// Forgets an object that nobody holds or waits for.
    pub(super) fn forget_unused(&mut self, slot: ObjectSlot) {
        if !self.objects.get(slot).is_some_and(ObjectEntry::is_unused) {
            return;
        }
        if let Some(entry) = self.objects.remove(slot)
            && let Entry::Occupied(name) = self.names.entry(entry.object)
        {
            name.remove();
        }
        self.stats.objects.set(self.objects.len());
    }

    /// Takes a request out of everything that knows of it. Who waits behind it is not looked at.
    pub(super) fn remove_wait(&mut self, slot: WaitSlot) {
        let Some(entry) = self.waits.remove(slot) else {
            return;
        };
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, entry.id));
        }
        let family = self.lockers[entry.locker].root;
        self.lockers[family].waits.retain(|wait| *wait != slot);
        let object = &mut self.objects[entry.object];
        if let Some(queue) = &mut object.queue {
            queue.remove(entry.rank);
            if queue.order.is_empty() {
                object.queue = None;
                self.contended.remove(&entry.object);
            }
        }
        self.count_locks();
    }

    pub(super) fn count_locks(&mut self) {
        self.stats.waiting = self.waits.len();
        self.stats.locks.set(self.locks.len() + self.waits.len());
    }
}
