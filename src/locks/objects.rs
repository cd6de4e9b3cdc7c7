//! The objects that somebody holds or waits for, by name, and which of them overlap.

use std::hash::{BuildHasher, Hasher};
use std::ops::Bound;

use super::queue::{HolderKey, ObjectEntry};
use super::ranges::RangeIndex;
use super::slab::{LockSlot, ObjectSlot};
use super::{ConflictTable, Denied, LimitKind, Mode, Object, Table};

/// The most namespaces whose index of keys and ranges is kept when it is empty: building one anew looks
/// at every object of the table.
const MOST_EMPTY_INDEXES: usize = 1024;

/// An object by its name, with what is found out about it once.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub object: &'a Object,
    pub hash: u64,
    pub rules: u16,
}

impl Table {
    pub(super) fn hash(&self, object: &Object) -> u64 {
        let mut state = self.hasher.build_hasher();
        object.digest(&mut state);
        state.finish()
    }

    pub(super) fn find(&self, object: &Object, hash: u64) -> Option<ObjectSlot> {
        self.names
            .find(hash, |slot| self.objects[*slot].object == *object)
            .copied()
    }

    /// The object, if anybody holds or waits for it.
    pub(super) fn known(&self, object: &Object) -> Option<ObjectSlot> {
        self.find(object, self.hash(object))
    }

    /// Which conflict table the namespace goes by.
    pub(super) fn rules_for(&self, object: &Object) -> u16 {
        let own = &self.config.own_conflicts;
        own.iter()
            .position(|(namespace, _)| namespace == object.namespace_text())
            .map_or(0, |at| at as u16 + 1)
    }

    /// Whether a lock in one mode excludes all whom one in the other mode would exclude.
    #[must_use]
    pub fn covers(&self, object: &Object, mode: Mode, other: Mode) -> bool {
        let rules = self.rules_at(self.rules_for(object));
        rules.knows(mode) && rules.knows(other) && rules.is_no_stronger(other, mode)
    }

    pub(super) fn rules_at(&self, rules: u16) -> &ConflictTable {
        // Every entry's number was given by `rules_for`.
        self.rules
            .get(usize::from(rules))
            .unwrap_or(&self.config.conflicts)
    }

    pub(super) fn rules(&self, object: ObjectSlot) -> &ConflictTable {
        self.rules_at(self.objects[object].rules)
    }

    /// The object's entry, made if need be.
    pub(super) fn intern(&mut self, object: &Object, hash: u64) -> Result<ObjectSlot, Denied> {
        match self.find(object, hash) {
            Some(slot) => Ok(slot),
            None => self.intern_new(object, hash),
        }
    }

    /// An entry for an object that has none.
    pub(super) fn intern_new(&mut self, object: &Object, hash: u64) -> Result<ObjectSlot, Denied> {
        self.check(LimitKind::Objects)?;
        let near = self.near_when_linked(object)?;
        let rules = self.rules_for(object);
        let named = Named {
            object,
            hash,
            rules,
        };
        let slot = self.insert_object(named, None);
        if let Some(near) = near {
            self.link(object, slot, near);
        }
        Ok(slot)
    }

    /// Whether no other object can overlap this one.
    pub(super) fn is_apart(&self, object: &Object) -> bool {
        self.ranged.is_empty() && !object.is_range()
    }

    /// The entry of an object that has none, with the only lock on it.
    #[inline]
    pub(super) fn insert_object(
        &mut self,
        named: Named<'_>,
        holder: Option<(HolderKey, LockSlot)>,
    ) -> ObjectSlot {
        let Named {
            object,
            hash,
            rules,
        } = named;
        let slot = self
            .objects
            .insert(ObjectEntry::new(object.clone(), hash, rules, holder));
        let objects = &self.objects;
        self.names
            .insert_unique(hash, slot, |slot| objects[*slot].hash);
        slot
    }

    /// Forgets an object that nobody holds or waits for.
    pub(super) fn forget_unused(&mut self, slot: ObjectSlot) {
        if self.objects.get(slot).is_some_and(ObjectEntry::is_unused) {
            self.forget(slot);
        }
    }

    /// Forgets an object.
    #[inline]
    pub(super) fn forget(&mut self, slot: ObjectSlot) {
        let hash = self.objects[slot].hash;
        if let Ok(name) = self.names.find_entry(hash, |other| *other == slot) {
            name.remove();
        }
        if self.ranged.is_empty() {
            self.objects.discard(slot);
        } else if let Some(entry) = self.objects.remove(slot) {
            self.unlink(&entry, slot);
        }
    }

    /// What a new object will overlap, if there is room for so many pairs; `None` where no ranges are locked.
    fn near_when_linked(&mut self, object: &Object) -> Result<Option<Vec<ObjectSlot>>, Denied> {
        let namespace = object.namespace_text();
        if object.is_range() && !self.ranged.contains_key(namespace) {
            let mut index = RangeIndex::default();
            for (other, entry) in self.objects.iter() {
                if entry.object.namespace_text() == namespace {
                    index.insert(entry.object.clone(), other);
                }
            }
            self.ranged.insert(namespace.clone(), index);
        }
        let Some(index) = self.ranged.get(namespace) else {
            return Ok(None);
        };
        let near = index.overlapping(object);
        let value = self.config.limits.of(LimitKind::Overlaps);
        if self.overlaps + near.len() > value {
            self.stats.limits_met += 1;
            let which = LimitKind::Overlaps;
            return Err(Denied::Limit { which, value });
        }
        Ok(Some(near))
    }

    /// Makes the object and those that overlap it known to each other.
    fn link(&mut self, object: &Object, slot: ObjectSlot, near: Vec<ObjectSlot>) {
        if let Some(index) = self.ranged.get_mut(object.namespace_text()) {
            index.insert(object.clone(), slot);
        }
        if near.is_empty() {
            return;
        }
        self.overlaps += near.len();
        for &other in &near {
            let overlaps = &mut self.objects[other].overlaps;
            overlaps.get_or_insert_default().insert(slot);
        }
        self.objects[slot].overlaps = Some(Box::new(near.into_iter().collect()));
    }

    fn unlink(&mut self, entry: &ObjectEntry, slot: ObjectSlot) {
        let namespace = entry.object.namespace_text();
        let many = self.ranged.len() > MOST_EMPTY_INDEXES;
        if let Some(index) = self.ranged.get_mut(namespace) {
            index.remove(&entry.object);
            if many && index.is_empty() {
                self.ranged.remove(namespace);
            }
        }
        self.overlaps -= entry.overlaps.as_ref().map_or(0, |overlaps| overlaps.len());
        for other in entry.overlaps.iter().flat_map(|overlaps| overlaps.iter()) {
            let overlaps = &mut self.objects[*other].overlaps;
            if let Some(others) = overlaps {
                others.remove(&slot);
                if others.is_empty() {
                    *overlaps = None;
                }
            }
        }
    }

    /// Whether no range has been locked, so that no two objects overlap.
    pub(super) fn has_no_ranges(&self) -> bool {
        self.ranged.is_empty()
    }

    /// What is locked or waited for and overlaps the object, which nobody has locked.
    pub(super) fn overlapping(&self, object: &Object) -> Vec<ObjectSlot> {
        let index = self.ranged.get(object.namespace_text());
        index.map_or_else(Vec::new, |index| index.overlapping(object))
    }

    /// The object and all that overlap it.
    pub(super) fn reach(&self, object: ObjectSlot) -> impl Iterator<Item = ObjectSlot> + use<'_> {
        let overlaps = self.objects[object].overlaps.as_deref();
        std::iter::once(object).chain(overlaps.into_iter().flatten().copied())
    }

    /// The next one of [`reach`](Self::reach), for walks that change the table on their way.
    pub(super) fn reach_after(
        &self,
        object: ObjectSlot,
        last: Option<ObjectSlot>,
    ) -> Option<ObjectSlot> {
        let Some(last) = last else {
            return Some(object);
        };
        let overlaps = self.objects[object].overlaps.as_deref()?;
        if last == object {
            return overlaps.first().copied();
        }
        let after = (Bound::Excluded(last), Bound::Unbounded::<ObjectSlot>);
        overlaps.range(after).next().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::super::{Attempt, LimitInUse, Limits, LockerSpec, Moment, Request, TableConfig};
    use super::*;

    #[test]
    fn pairs_that_overlap_have_a_limit_that_grows_with_that_of_objects() {
        let limits = Limits {
            objects: 200,
            ..Limits::default()
        };
        let mut table = Table::new(TableConfig {
            limits,
            ..TableConfig::default()
        });
        let Ok(locker) = table.begin(Moment(0), LockerSpec::new()) else {
            panic!("there is room");
        };
        let lock = |table: &mut Table, object: &Object| {
            let request = Request {
                locker,
                object,
                mode: Mode::Read,
                from: None,
                site: Location::caller(),
            };
            table.try_lock(request, &mut Vec::new())
        };
        let range = |from: u32| Object::range("n", from.to_be_bytes()..).unwrap();
        let mut taken = 0;
        let refused = loop {
            match lock(&mut table, &range(taken)) {
                Ok(_) => taken += 1,
                Err(denied) => break denied,
            }
        };
        let (which, value) = (LimitKind::Overlaps, 200 * 64);
        assert!(
            matches!(refused, Denied::Limit { which: w, value: v } if (w, v) == (which, value))
        );
        // One more would have made 12,880.
        let stats = table.stats();
        let used = (stats.locks.now, stats.objects.now, stats.overlaps);
        assert_eq!((taken, used), (160, (160, 160, 12_720)));
        assert_eq!(stats.limits_met, 1);
        // What overlaps nothing has room, and so has the same range again.
        for other in [Object::new("m", "a"), range(7)] {
            assert!(matches!(lock(&mut table, &other), Ok(Attempt::Granted)));
        }
        let limit = |objects| Limits { objects, ..limits };
        let in_use = LimitInUse {
            which: LimitKind::Objects,
            asked: 190,
            used: 199,
        };
        assert_eq!(table.set_limits(limit(190)), Err(in_use));
        assert_eq!(table.set_limits(limit(202)), Ok(()));
        assert!(lock(&mut table, &range(taken)).is_ok());
        table.end(locker, &mut Vec::new());
        assert_eq!(table.stats().overlaps, 0);
    }
}
