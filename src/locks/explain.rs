//! Puts reports together, from ids, names and call sites: no text is made here.

use std::panic::Location;
use std::time::Duration;

use super::graph::{Blocker, Edge};
use super::queue::{Group, HolderKey, Rank};
use super::slab::{LockSlot, LockerSlot, ObjectSlot, WaitSlot};
use super::{
    Choice, ConflictKind, CycleStep, LockConflict, Mode, Moment, Party, Request, Table,
    VictimPolicy,
};

/// The most owners and waiters that a full report names, and a short one; how many there are it always
/// says. A report is put together while the table stands still.
const MOST_NAMED: usize = 16;
const FEW_NAMED: usize = 1;
/// The most full reports in a second; all others are short, but for those of deadlocks.
const FULL_REPORTS: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

impl Table {
    /// Why a request that does not wait is not granted.
    pub(super) fn explain_refusal(
        &mut self,
        request: &Request<'_>,
        locker: LockerSlot,
    ) -> LockConflict {
        let most = self.most_named();
        let mut asker = self.party(locker, request.mode, request.site, self.now);
        asker.in_the_way = false;
        let mut conflict = blank(ConflictKind::NotAvailable, request.object.clone(), asker);
        let family = self.lockers[locker].root;
        let near: Vec<ObjectSlot> = match self.known(request.object) {
            Some(object) => self.reach(object).collect(),
            // A range that nobody has asked for before; what overlaps it is known all the same.
            None => self.overlapping(request.object),
        };
        let holds = |object: &ObjectSlot| self.objects[*object].holders.has_family(family);
        // It would have been the last of its group.
        let rank = Rank {
            group: match near.iter().any(holds) {
                true => Group::Holder,
                false => Group::Newcomer,
            },
            arrival: u64::MAX,
        };
        for object in near {
            self.name(&mut conflict, object, family, None, rank, most);
        }
        conflict
    }

    /// Why a request still waits.
    pub(super) fn explain_wait(&mut self, kind: ConflictKind, slot: WaitSlot) -> LockConflict {
        let most = match kind {
            // They are kept, and looked at long after; and they are rare beside requests that do not want to wait.
            ConflictKind::Deadlock => MOST_NAMED,
            _ => self.most_named(),
        };
        let wait = &self.waits[slot];
        let (object, family, rank) = (wait.object, self.lockers[wait.locker].root, wait.rank);
        let mut asker = self.waiting_party(slot);
        asker.in_the_way = false;
        let mut conflict = blank(kind, self.objects[object].object.clone(), asker);
        conflict.waited = Some(self.now.since(self.waits[slot].since));
        conflict.timeout = self.waits[slot].deadline.map(|deadline| deadline.timeout);
        self.name_all(&mut conflict, object, family, Some(slot), rank, most);
        conflict
    }

    /// Who holds a lock too long, and who waits for it.
    pub(super) fn explain_hold(&mut self, lock: LockSlot) -> LockConflict {
        let most = self.most_named();
        let entry = &self.locks[lock];
        let (object, family) = (entry.object, self.lockers[entry.locker].root);
        let asker = self.holding_party(lock);
        let object_text = self.objects[object].object.clone();
        let mut conflict = blank(ConflictKind::HeldTooLong, object_text, asker);
        conflict.waited = Some(self.now.since(self.locks[lock].since));
        conflict.timeout = Some(self.config.timeouts.max_hold);
        // Nobody is in the way of who has it.
        self.name_all(&mut conflict, object, family, None, Rank::FIRST, most);
        conflict.owners.clear();
        conflict.owners_total = 0;
        conflict
    }

    /// The report of a deadlock, for the victim whose request the first edge is about.
    pub(super) fn explain_deadlock(
        &mut self,
        victim: LockerSlot,
        cycle: &[Edge],
        policy: VictimPolicy,
        asked: bool,
        candidates: usize,
    ) -> Option<LockConflict> {
        let first = cycle.first()?;
        let mut conflict = self.explain_wait(ConflictKind::Deadlock, first.wait);
        conflict.timeout = None;
        conflict.cycle.reserve_exact(cycle.len());
        let root = &self.lockers[self.lockers[victim].root];
        let own = (root.age, root.id);
        for edge in cycle {
            let wait = &self.waits[edge.wait];
            let object = self.objects[wait.object].object.clone();
            let (blocker, held) = match edge.blocker {
                Blocker::Lock(lock) => (self.holding_party(lock), true),
                Blocker::Wait(wait) => (self.waiting_party(wait), false),
            };
            let root = &self.lockers[self.lockers[wait.locker].root];
            if (root.age, root.id) < own {
                conflict.older.push(root.id);
            }
            conflict.cycle.push(CycleStep {
                waiter: self.waiting_party(edge.wait),
                object,
                blocker,
                held,
            });
        }
        conflict.choice = Some(Choice {
            policy,
            asked,
            candidates,
            victim: self.lockers[victim].id,
        });
        Some(conflict)
    }

    /// A report is full unless there were many in the last second: ten thousand waits can end at once.
    fn most_named(&mut self) -> usize {
        let (begun, count) = &mut self.full_reports;
        if self.now.since(*begun) >= SECOND {
            (*begun, *count) = (self.now, 0);
        }
        *count += 1;
        match *count > FULL_REPORTS {
            true => FEW_NAMED,
            false => MOST_NAMED,
        }
    }

    fn name_all(
        &self,
        conflict: &mut LockConflict,
        object: ObjectSlot,
        family: LockerSlot,
        own_wait: Option<WaitSlot>,
        own_rank: Rank,
        most: usize,
    ) {
        for near in self.reach(object) {
            self.name(conflict, near, family, own_wait, own_rank, most);
        }
    }

    /// Names those who hold this very object against the asker, and those who wait for it.
    fn name(
        &self,
        conflict: &mut LockConflict,
        object: ObjectSlot,
        family: LockerSlot,
        own_wait: Option<WaitSlot>,
        own_rank: Rank,
        most: usize,
    ) {
        let entry = &self.objects[object];
        let rules = self.rules(object);
        let wanted = conflict.asker.mode;
        let in_the_way =
            |key: &HolderKey| key.family != family && rules.conflicts(key.mode, wanted);
        let all: u32 = rules
            .against(wanted)
            .map(|held| entry.held[held.index()])
            .sum();
        let own = entry.holders.of_family(family);
        let own = own
            .filter(|(key, _)| rules.conflicts(key.mode, wanted))
            .count();
        let owners = all as usize - own;
        conflict.owners_total += owners;
        let room = most.saturating_sub(conflict.owners.len()).min(owners);
        // A pass can abort a hundred thousand at once: no report has room for more than it names.
        conflict.owners.reserve_exact(room);
        let owners = entry.holders.iter().filter(|(key, _)| in_the_way(key));
        let owners = owners.take(room).map(|(_, lock)| self.holding_party(lock));
        conflict.owners.extend(owners);
        let Some(queue) = &entry.queue else {
            return;
        };
        let is_own = own_wait.is_some_and(|wait| self.waits[wait].object == object);
        let others = queue.order.len() - usize::from(is_own);
        conflict.waiters_total += others;
        let room = most.saturating_sub(conflict.waiters.len()).min(others);
        conflict.waiters.reserve_exact(room);
        let others = queue.order.values();
        let others = others.filter(|queued| Some(queued.wait) != own_wait);
        let others = others.take(room).map(|queued| {
            let mut party = self.waiting_party(queued.wait);
            let rank = self.waits[queued.wait].rank;
            party.in_the_way =
                queued.family != family && rules.conflicts(queued.mode, wanted) && rank < own_rank;
            party
        });
        conflict.waiters.extend(others);
    }

    fn holding_party(&self, lock: LockSlot) -> Party {
        let entry = &self.locks[lock];
        self.party(entry.locker, entry.mode, entry.site, entry.since)
    }

    fn waiting_party(&self, wait: WaitSlot) -> Party {
        let entry = &self.waits[wait];
        self.party(entry.locker, entry.mode, entry.site, entry.since)
    }

    fn party(
        &self,
        locker: LockerSlot,
        mode: Mode,
        site: &'static Location<'static>,
        since: Moment,
    ) -> Party {
        let entry = &self.lockers[locker];
        Party {
            locker: entry.id,
            name: entry.name.clone(),
            mode,
            age: entry.age,
            in_the_way: true,
            lasting: self.now.since(since),
            site,
            began: entry.site,
        }
    }
}

fn blank(kind: ConflictKind, object: super::Object, asker: Party) -> LockConflict {
    LockConflict {
        kind,
        object,
        asker,
        owners: Vec::new(),
        owners_total: 0,
        waiters: Vec::new(),
        waiters_total: 0,
        waited: None,
        timeout: None,
        cycle: Vec::new(),
        older: Vec::new(),
        choice: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Effect, LockerId, LockerSpec, Object, Patience, TableConfig, Text};
    use super::*;

    const OTHERS: usize = 3;

    fn asks(table: &mut Table, now: Moment, locker: LockerId, object: &Object) -> Vec<Effect> {
        let request = Request {
            locker,
            object,
            mode: Mode::Write,
            from: None,
            site: Location::caller(),
        };
        let mut effects = Vec::new();
        let asked = table.request(now, request, Patience::Forever, &mut effects);
        assert!(asked.is_ok());
        effects
    }

    /// Two lockers of this name close a cycle, while others wait for one of the objects; the report.
    fn deadlock(
        table: &mut Table,
        now: Moment,
        name: &Text,
        objects: &[Object; 2],
    ) -> Arc<LockConflict> {
        let mut lockers = Vec::new();
        for _ in 0..2 + OTHERS {
            let spec = LockerSpec::new().name(name.clone());
            lockers.extend(table.begin(now, spec));
        }
        let [a, b] = objects;
        asks(table, now, lockers[0], a);
        asks(table, now, lockers[1], b);
        for other in &lockers[2..] {
            asks(table, now, *other, a);
        }
        asks(table, now, lockers[0], b);
        let effects = asks(table, now, lockers[1], a);
        let mut effects = effects.into_iter();
        let told = effects.find_map(|effect| match effect {
            Effect::Doomed(_, conflict) => Some(conflict),
            _ => None,
        });
        for locker in lockers {
            table.end(locker, &mut Vec::new());
        }
        told.unwrap()
    }

    fn objects() -> [Object; 2] {
        // Too long to be kept in place.
        ["a", "b"].map(|key| Object::new("accounts", key.repeat(100)))
    }

    #[test]
    fn a_report_shares_names_and_keys_and_makes_no_text() {
        let name: Arc<str> = "transfer".into();
        let objects = objects();
        let mut table = Table::new(TableConfig::default());
        let text = Text::Shared(Arc::clone(&name));
        let told = deadlock(&mut table, Moment(1), &text, &objects);
        let steps = told.cycle.iter();
        let parties = steps.flat_map(|step| [&step.waiter, &step.blocker]);
        for party in parties.chain([&told.asker]) {
            let Some(Text::Shared(own)) = &party.name else {
                panic!("{party} has a name of its own");
            };
            assert!(Arc::ptr_eq(own, &name));
        }
        for object in told
            .cycle
            .iter()
            .map(|step| &step.object)
            .chain([&told.object])
        {
            assert!(
                objects
                    .iter()
                    .any(|known| known.key().as_ptr() == object.key().as_ptr())
            );
        }
    }

    #[test]
    fn every_deadlock_is_told_in_full_however_many_there_are_in_a_second() {
        let mut table = Table::new(TableConfig::default());
        for _ in 0..100 {
            let told = deadlock(&mut table, Moment(1), &"transfer".into(), &objects());
            assert_eq!((told.cycle.len(), told.waiters_total), (2, OTHERS));
            assert_eq!((told.owners.len(), told.waiters.len()), (1, OTHERS));
        }
    }
}
