//! The lock table: its state, its lockers, and what all of its parts use.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::Location;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::locker::{Family, LockerEntry, TxnDeadline};
use super::order::OrderWatch;
use super::queue::{HolderKey, ObjectEntry, Rank};
use super::ranges::RangeIndex;
use super::slab::{LockSlot, LockerSlot, ObjectSlot, Slab, WaitSlot};
use super::stats::Gauges;
use super::{
    Age, ConflictTable, DeadlockRecord, Denied, Effect, LimitKind, LockConflict, LockStats,
    LockerId, LockerSpec, Mode, Moment, Reason, TableConfig, Text, WaitId,
};

/// A held lock.
#[derive(Debug)]
pub(super) struct LockEntry {
    pub object: ObjectSlot,
    pub locker: LockerSlot,
    pub mode: Mode,
    /// Whether its holder was told that it holds it too long.
    pub overdue: bool,
    /// Tells it from earlier locks of its holder on the object in this mode.
    pub born: u64,
    pub count: u64,
    pub since: Moment,
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
    pub from: Option<Mode>,
    pub site: &'static Location<'static>,
    pub rank: Rank,
    pub since: Moment,
    pub deadline: Option<super::time::WaitDeadline>,
    /// An object that overlaps and barred it when that was last looked at.
    pub barred_by: Option<ObjectSlot>,
}

/// The lock table.
#[derive(Debug)]
pub struct Table {
    pub(super) config: TableConfig,
    /// The latest moment that a call brought.
    pub(super) now: Moment,
    pub(super) lockers: Slab<LockerSlot, LockerEntry>,
    pub(super) objects: Slab<ObjectSlot, ObjectEntry>,
    pub(super) locks: Slab<LockSlot, LockEntry>,
    pub(super) waits: Slab<WaitSlot, WaitEntry>,
    pub(super) hasher: DefaultHashBuilder,
    pub(super) names: HashTable<ObjectSlot>,
    /// The default first, then those of namespaces.
    pub(super) rules: Vec<ConflictTable>,
    /// Namespaces in which a range was locked.
    pub(super) ranged: HashMap<Text, RangeIndex>,
    /// How many pairs of objects overlap.
    pub(super) overlaps: usize,
    /// Objects that somebody waits for.
    pub(super) contended: BTreeSet<ObjectSlot>,
    pub(super) deadlines: BTreeSet<(Moment, WaitId)>,
    /// Held locks by their beginning, while there is a longest time to hold one; without those whose
    /// holder has been told.
    pub(super) holds: BTreeSet<(Moment, LockSlot)>,
    lockers_made: u64,
    ages_given: u64,
    pub(super) arrivals: u64,
    pub(super) locks_made: u64,
    /// The number of the last search of the waits-for graph.
    pub(super) passes: u64,
    /// The last random number.
    pub(super) random: u64,
    /// Families that got a new edge in this call and may have closed a cycle.
    pub(super) suspects: Vec<LockerSlot>,
    /// The family whose request began to wait in this call.
    pub(super) asker: Option<LockerSlot>,
    /// Objects whose queue has to be looked at again in this call.
    pub(super) recheck: Vec<ObjectSlot>,
    /// What is to be told besides, at the end of the call.
    pub(super) events: Vec<Effect>,
    pub(super) order: Option<OrderWatch>,
    pub(super) history: VecDeque<DeadlockRecord>,
    /// When full reports were begun to be counted, and how many there were since.
    pub(super) full_reports: (Moment, u32),
    pub(super) stats: LockStats,
    pub(super) gauges: Gauges,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(config: TableConfig) -> Self {
        let own = config.own_conflicts.iter().map(|(_, table)| *table);
        Self {
            now: Moment::default(),
            lockers: Slab::new(),
            objects: Slab::new(),
            locks: Slab::new(),
            waits: Slab::new(),
            hasher: DefaultHashBuilder::default(),
            names: HashTable::new(),
            rules: std::iter::once(config.conflicts).chain(own).collect(),
            ranged: HashMap::new(),
            overlaps: 0,
            contended: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            holds: BTreeSet::new(),
            lockers_made: 0,
            ages_given: 0,
            arrivals: 0,
            locks_made: 0,
            passes: 0,
            random: config.seed,
            suspects: Vec::new(),
            asker: None,
            recheck: Vec::new(),
            events: Vec::new(),
            order: config.order_warnings.then(OrderWatch::default),
            history: VecDeque::new(),
            full_reports: (Moment::default(), 0),
            stats: LockStats::default(),
            gauges: Gauges::new(config.limits, config.limit_warning),
            config,
        }
    }

    /// An empty table in the place of this one, whose numbers go on after those of this one.
    #[must_use]
    pub fn anew(&self, config: TableConfig) -> Self {
        Self {
            now: self.now,
            lockers_made: self.lockers_made,
            ages_given: self.ages_given,
            arrivals: self.arrivals,
            locks_made: self.locks_made,
            history: self.history.clone(),
            stats: self.stats,
            ..Self::new(config)
        }
    }

    /// Tells the table the time; it never goes back. Calls that bring a moment do the same.
    pub fn tell_time(&mut self, now: Moment) {
        self.now = self.now.max(now);
    }

    /// Makes a locker.
    ///
    /// # Errors
    /// [`Denied::Limit`] when there are too many.
    pub fn begin(&mut self, now: Moment, spec: LockerSpec) -> Result<LockerId, Denied> {
        self.tell_time(now);
        self.make_locker(None, spec)
    }

    /// Makes a locker that shares with its family.
    ///
    /// # Errors
    /// [`Denied`] when there are too many, or when the parent has ended or is dead.
    pub fn begin_child(
        &mut self,
        now: Moment,
        parent: LockerId,
        spec: LockerSpec,
    ) -> Result<LockerId, Denied> {
        self.tell_time(now);
        let parent = self.usable(parent)?;
        self.make_locker(Some(parent), spec)
    }

    fn make_locker(
        &mut self,
        parent: Option<LockerSlot>,
        spec: LockerSpec,
    ) -> Result<LockerId, Denied> {
        self.check(LimitKind::Lockers)?;
        self.lockers_made += 1;
        let slot = self.lockers.next_slot();
        let id = LockerId {
            number: self.lockers_made,
            slot,
        };
        let (root, age, priority, default_txn) = match parent {
            Some(parent) => {
                self.lockers[parent].children.push(slot);
                let root = self.lockers[parent].root;
                let (age, priority) = (self.lockers[root].age, self.lockers[root].priority);
                (root, age, priority, None)
            }
            None => {
                let age = spec.age.unwrap_or_else(|| {
                    self.ages_given += 1;
                    Age(self.ages_given)
                });
                (slot, age, spec.priority, Some(self.config.timeouts.txn))
            }
        };
        let txn = spec
            .txn_timeout
            .or(default_txn)
            .filter(|timeout| !timeout.is_zero())
            .and_then(|timeout| {
                let at = self.now.after(timeout)?;
                Some(TxnDeadline { at, timeout })
            });
        self.lockers.insert(LockerEntry {
            id,
            root,
            parent,
            children: Vec::new(),
            age,
            priority,
            name: spec.name,
            site: spec.site,
            lock_timeout: spec.lock_timeout,
            txn,
            locks: None,
            lock_count: 0,
            dead: None,
            overdue: None,
            family: Family::default(),
        });
        self.count(LimitKind::Lockers);
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
        self.finish(effects);
    }

    /// The end of every call that may have changed what waits: breaks the cycles it closed, and hands
    /// out what else is to be told.
    pub(super) fn finish(&mut self, effects: &mut Vec<Effect>) {
        self.settle(effects);
        self.count_use();
        self.take_events(effects);
    }

    /// Hands out what is to be told besides; calls that have effects do it themselves.
    pub fn take_events(&mut self, effects: &mut Vec<Effect>) {
        effects.append(&mut self.events);
    }

    pub(super) fn locker(&self, id: LockerId) -> Option<LockerSlot> {
        self.lockers
            .get(id.slot)
            .filter(|entry| entry.id == id)
            .map(|_| id.slot)
    }

    /// Whether the locker may ask for something.
    ///
    /// # Errors
    /// [`Denied::Ended`], [`Denied::Dead`].
    pub fn check_usable(&self, locker: LockerId) -> Result<(), Denied> {
        self.usable(locker).map(|_| ())
    }

    /// The locker, if it and its ancestors may ask for something.
    #[inline]
    pub(super) fn usable(&self, id: LockerId) -> Result<LockerSlot, Denied> {
        let entry = self.lockers.get(id.slot).filter(|entry| entry.id == id);
        let Some(entry) = entry else {
            return Err(Denied::Ended);
        };
        if entry.parent.is_none() && entry.dead.is_none() {
            return Ok(id.slot);
        }
        let slot = id.slot;
        match self.death_of(slot) {
            Some(conflict) => Err(Denied::Dead(Arc::clone(conflict))),
            None => Ok(slot),
        }
    }

    fn death_of(&self, locker: LockerSlot) -> Option<&Arc<LockConflict>> {
        self.with_ancestors(locker)
            .find_map(|slot| self.lockers[slot].dead.as_ref())
    }

    /// The locker and its ancestors, the root last.
    pub(super) fn with_ancestors(
        &self,
        locker: LockerSlot,
    ) -> impl Iterator<Item = LockerSlot> + use<'_> {
        std::iter::successors(Some(locker), |slot| self.lockers[*slot].parent)
    }

    /// The locker and all that descend from it, parents before their children.
    pub(super) fn subtree(&self, top: LockerSlot) -> Vec<LockerSlot> {
        let mut all = vec![top];
        let mut done = 0;
        while let Some(&slot) = all.get(done) {
            all.extend_from_slice(&self.lockers[slot].children);
            done += 1;
        }
        all
    }

    pub(super) fn family_of(&self, locker: LockerSlot) -> &Family {
        &self.lockers[self.lockers[locker].root].family
    }

    pub(super) fn remove_locker(&mut self, slot: LockerSlot, effects: &mut Vec<Effect>) {
        let Some(entry) = self.lockers.get(slot) else {
            return;
        };
        let (id, parent) = (entry.id, entry.parent);
        self.lockers.discard(slot);
        if let Some(parent) = parent
            && self.lockers.get(parent).is_some()
        {
            let children = &mut self.lockers[parent].children;
            // The last one ends first, mostly.
            if let Some(at) = children.iter().rposition(|child| *child == slot) {
                children.remove(at);
            }
        }
        self.count(LimitKind::Lockers);
        effects.push(Effect::Ended(id));
    }

    /// Refuses one more of `which` at its limit.
    pub(super) fn check(&mut self, which: LimitKind) -> Result<(), Denied> {
        let value = self.config.limits.of(which);
        if self.in_use(which) < value {
            return Ok(());
        }
        self.stats.limits_met += 1;
        Err(Denied::Limit { which, value })
    }

    pub(super) fn in_use(&self, which: LimitKind) -> usize {
        match which {
            LimitKind::Lockers => self.lockers.len(),
            LimitKind::Locks => self.locks.len() + self.waits.len(),
            LimitKind::Objects => self.objects.len(),
            LimitKind::Overlaps => self.overlaps,
        }
    }

    /// Takes a request out of everything that knows of it. Who waits behind it is not looked at.
    pub(super) fn remove_wait(&mut self, slot: WaitSlot) {
        let Some(entry) = self.waits.remove(slot) else {
            return;
        };
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline.at, entry.id));
        }
        let root = self.lockers[entry.locker].root;
        let waits = &mut self.lockers[root].family.waits;
        match waits.last() == Some(&slot) {
            true => drop(waits.pop()),
            false => {
                if let Some(at) = waits.iter().position(|wait| *wait == slot) {
                    waits.remove(at);
                }
            }
        }
        let object = &mut self.objects[entry.object];
        if let Some(queue) = &mut object.queue {
            queue.remove(entry.rank);
            if queue.order.is_empty() {
                object.queue = None;
                self.contended.remove(&entry.object);
            }
        }
    }

    /// The lock that the locker holds on the object in this mode.
    pub(super) fn held(
        &self,
        locker: LockerSlot,
        object: ObjectSlot,
        mode: Mode,
    ) -> Option<LockSlot> {
        let family = self.lockers[locker].root;
        self.objects[object].holders.find(HolderKey {
            family,
            locker,
            mode,
        })
    }
}
