//! Puts reports together, from ids, names and call sites: no text is made here.

use std::panic::Location;

use super::graph::Edge;
use super::queue::HolderKey;
use super::slab::{LockerSlot, ObjectSlot, WaitSlot};
use super::table::{Moment, Request};
use super::{
    Conflict, ConflictKind, CycleStep, HeldLock, LockSnapshot, LockStats, Mode, Party, Table,
    WaitingLock,
};

/// The most owners and waiters that a report names; how many there are it always says. A report is
/// put together while the table stands still.
const MOST_NAMED: usize = 16;

impl Table {
    /// Why the request is not granted at once. `None` if nothing is known of the locker or the object.
    #[must_use]
    pub fn explain_refusal(&mut self, request: Request<'_>) -> Option<Conflict> {
        self.stats.not_available += 1;
        let locker = self.locker(request.locker)?;
        let object = *self.names.get(request.object)?;
        let asker = self.party(locker, request.mode, request.site);
        Some(self.conflict(ConflictKind::NotAvailable, object, locker, asker, None))
    }

    /// Why a request still waits.
    pub(super) fn explain_wait(
        &self,
        kind: ConflictKind,
        slot: WaitSlot,
        now: Option<Moment>,
    ) -> Conflict {
        let wait = &self.waits[slot];
        let asker = self.party(wait.locker, wait.mode, wait.site);
        let mut conflict = self.conflict(kind, wait.object, wait.locker, asker, Some(slot));
        conflict.waited = now.map(|now| now.since(wait.since));
        conflict.timeout = wait.deadline.map(|deadline| deadline.since(wait.since));
        conflict
    }

    /// The report of a deadlock: the victim is the one whose request the first edge is about.
    pub(super) fn explain_deadlock(&self, cycle: &[Edge]) -> Option<Conflict> {
        let first = cycle.first()?;
        let mut conflict = self.explain_wait(ConflictKind::Deadlock, first.wait, None);
        let victim = &self.lockers[self.lockers[self.waits[first.wait].locker].root];
        for edge in cycle {
            let wait = &self.waits[edge.wait];
            conflict.cycle.push(CycleStep {
                waiter: self.party(wait.locker, wait.mode, wait.site),
                object: self.objects[wait.object].object.clone(),
                blocker: self.party(edge.blocker, edge.mode, edge.site),
                held: edge.held,
            });
            let root = &self.lockers[self.lockers[wait.locker].root];
            if (root.age, root.id) < (victim.age, victim.id) {
                conflict.older.push(root.id);
            }
        }
        Some(conflict)
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> LockStats {
        let mut stats = self.stats;
        stats.lockers.limit = self.config.limits.lockers;
        stats.locks.limit = self.config.limits.locks;
        stats.objects.limit = self.config.limits.objects;
        stats
    }

    /// How many requests wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.stats.waiting
    }

    /// How many cycles have been broken.
    #[must_use]
    pub fn deadlocks(&self) -> u64 {
        self.stats.deadlocks
    }

    /// Everything that is held and waited for.
    #[must_use]
    pub fn snapshot(&self) -> LockSnapshot {
        let mut snapshot = LockSnapshot::default();
        for (_, entry) in self.objects.iter() {
            for (key, lock) in entry.holders.iter() {
                snapshot.held.push(HeldLock {
                    object: entry.object.clone(),
                    locker: self.lockers[key.locker].id,
                    mode: key.mode,
                    count: self.locks[lock].count,
                });
            }
            let queue = entry.queue.iter().flat_map(|queue| queue.order.values());
            snapshot.waiting.extend(queue.map(|queued| WaitingLock {
                object: entry.object.clone(),
                locker: self.lockers[self.waits[queued.wait].locker].id,
                mode: queued.mode,
            }));
        }
        snapshot
            .held
            .sort_by(|a, b| (&a.object, a.locker, a.mode).cmp(&(&b.object, b.locker, b.mode)));
        // Stable: the order within one queue stays.
        snapshot.waiting.sort_by(|a, b| a.object.cmp(&b.object));
        snapshot.lockers = self.lockers.iter().map(|(_, entry)| entry.id).collect();
        snapshot.lockers.sort_unstable();
        snapshot
    }

    fn conflict(
        &self,
        kind: ConflictKind,
        object: ObjectSlot,
        locker: LockerSlot,
        asker: Party,
        own_wait: Option<WaitSlot>,
    ) -> Conflict {
        let entry = &self.objects[object];
        let family = self.lockers[locker].root;
        let in_the_way = |key: &HolderKey| {
            key.family != family && self.config.conflicts.conflicts(key.mode, asker.mode)
        };
        let owners: Vec<Party> = entry
            .holders
            .iter()
            .filter(|(key, _)| in_the_way(key))
            .take(MOST_NAMED)
            .map(|(key, lock)| self.party(key.locker, key.mode, self.locks[lock].site))
            .collect();
        let queue = || entry.queue.iter().flat_map(|queue| queue.order.values());
        let waiters: Vec<Party> = queue()
            .filter(|queued| Some(queued.wait) != own_wait)
            .take(MOST_NAMED)
            .map(|queued| {
                let wait = &self.waits[queued.wait];
                self.party(wait.locker, wait.mode, wait.site)
            })
            .collect();
        let owners_total = Mode::ALL
            .into_iter()
            .filter(|held| self.config.conflicts.conflicts(*held, asker.mode))
            .map(|held| {
                let own = entry
                    .holders
                    .of_family(family)
                    .filter(|(key, _)| key.mode == held)
                    .count();
                entry.held[held.index()] as usize - own
            })
            .sum();
        let waiting = entry.queue.as_ref().map_or(0, |queue| queue.order.len());
        Conflict {
            kind,
            object: entry.object.clone(),
            asker,
            owners,
            owners_total,
            waiters,
            waiters_total: waiting - usize::from(own_wait.is_some()),
            waited: None,
            timeout: None,
            cycle: Vec::new(),
            older: Vec::new(),
        }
    }

    fn party(&self, locker: LockerSlot, mode: Mode, site: &'static Location<'static>) -> Party {
        let entry = &self.lockers[locker];
        Party {
            locker: entry.id,
            name: entry.name.clone(),
            mode,
            age: entry.age,
            site,
            began: entry.site,
        }
    }
}
