//! Which objects of a namespace overlap: an index that exists only where ranges are locked.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::Object;
use super::slab::ObjectSlot;

/// The keys and ranges of one namespace that are locked or waited for.
#[derive(Debug, Default)]
pub(super) struct RangeIndex {
    keys: BTreeMap<Object, ObjectSlot>,
    ranges: RangeSet,
}

impl RangeIndex {
    pub(super) fn insert(&mut self, object: Object, slot: ObjectSlot) {
        if object.is_range() {
            self.ranges.insert(object, slot);
        } else {
            self.keys.insert(object, slot);
        }
    }

    pub(super) fn remove(&mut self, object: &Object) {
        if object.is_range() {
            self.ranges.remove(object);
        } else {
            self.keys.remove(object);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.blocks.is_empty()
    }

    /// All that overlap `object`, which may be among them.
    pub(super) fn overlapping(&self, object: &Object) -> Vec<ObjectSlot> {
        let mut found = Vec::new();
        self.ranges.overlapping(object, &mut found);
        if object.is_range() {
            let from = object.first_key();
            let keys = self
                .keys
                .range((Bound::Included(from), Bound::Unbounded))
                .take_while(|(key, _)| object.reaches(key.key()));
            found.extend(keys.map(|(_, slot)| *slot));
        }
        found
    }
}

/// A block is split when it has more ranges.
const MOST_IN_BLOCK: usize = 128;

/// Ranges in their order, in blocks that know how far they reach: a search looks at every block that
/// begins early enough, and into those that also reach far enough.
#[derive(Debug, Default)]
struct RangeSet {
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    /// Never empty.
    ranges: Vec<(Object, ObjectSlot)>,
    /// The one that ends last.
    farthest: Object,
}

impl Block {
    fn new(ranges: Vec<(Object, ObjectSlot)>) -> Option<Self> {
        let farthest = ranges
            .iter()
            .map(|(range, _)| range)
            .reduce(|one, other| if ends_later(other, one) { other } else { one })?
            .clone();
        Some(Self { ranges, farthest })
    }

    fn first(&self) -> Option<&Object> {
        self.ranges.first().map(|(range, _)| range)
    }
}

fn ends_later(one: &Object, other: &Object) -> bool {
    match (one.range_end(), other.range_end()) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(one), Some(other)) => one > other,
    }
}

impl RangeSet {
    /// The block where `range` is or belongs.
    fn block_of(&self, range: &Object) -> usize {
        self.blocks
            .partition_point(|block| block.first().is_some_and(|first| first <= range))
            .saturating_sub(1)
    }

    fn insert(&mut self, range: Object, slot: ObjectSlot) {
        let at = self.block_of(&range);
        let Some(block) = self.blocks.get_mut(at) else {
            self.blocks.extend(Block::new(vec![(range, slot)]));
            return;
        };
        if ends_later(&range, &block.farthest) {
            block.farthest = range.clone();
        }
        let place = block.ranges.partition_point(|(other, _)| *other < range);
        block.ranges.insert(place, (range, slot));
        if block.ranges.len() > MOST_IN_BLOCK {
            let mut lower = std::mem::take(&mut block.ranges);
            let upper = lower.split_off(MOST_IN_BLOCK / 2);
            self.blocks
                .splice(at..=at, [lower, upper].into_iter().filter_map(Block::new));
        }
    }

    fn remove(&mut self, range: &Object) {
        let at = self.block_of(range);
        let Some(block) = self.blocks.get_mut(at) else {
            return;
        };
        let mut ranges = std::mem::take(&mut block.ranges);
        if let Ok(place) = ranges.binary_search_by(|(other, _)| other.cmp(range)) {
            ranges.remove(place);
        }
        if block.farthest != *range && !ranges.is_empty() {
            block.ranges = ranges;
        } else {
            self.blocks.splice(at..=at, Block::new(ranges));
        }
    }

    fn overlapping(&self, object: &Object, found: &mut Vec<ObjectSlot>) {
        let early_enough = |range: &Object| object.reaches(range.key());
        for block in &self.blocks {
            if !block.first().is_some_and(early_enough) {
                break;
            }
            if !block.farthest.reaches(object.key()) {
                continue;
            }
            let ranges = block.ranges.iter();
            found.extend(
                ranges
                    .take_while(|(range, _)| early_enough(range))
                    .filter(|(range, _)| range.reaches(object.key()))
                    .map(|(_, slot)| *slot),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::slab::Slot;
    use super::*;

    /// A key, or a range from one key to another.
    fn object() -> impl Strategy<Value = Object> {
        let key = || any::<u16>().prop_map(|key| (key % 600).to_be_bytes());
        prop_oneof![
            key().prop_map(|key| Object::new("n", key)),
            (key(), key()).prop_map(|(a, b)| {
                Object::range("n", a.min(b)..=a.max(b)).unwrap_or(Object::new("n", a))
            }),
            key().prop_map(|key| Object::range("n", key..).unwrap_or(Object::new("n", key))),
        ]
    }

    proptest! {
        #[test]
        fn finds_exactly_what_overlaps(
            objects in prop::collection::vec(object(), 1..600),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..300),
            asked in prop::collection::vec(object(), 1..20),
        ) {
            let mut left: BTreeMap<Object, ObjectSlot> = BTreeMap::new();
            let mut index = RangeIndex::default();
            for (number, object) in objects.iter().enumerate() {
                if !left.contains_key(object) {
                    let slot = ObjectSlot::from_index(number as u32);
                    left.insert(object.clone(), slot);
                    index.insert(object.clone(), slot);
                }
            }
            for place in removed {
                let object = place.get(&objects);
                if left.remove(object).is_some() {
                    index.remove(object);
                }
            }
            for object in asked {
                // A key does not ask for itself.
                let mut expected: Vec<ObjectSlot> = left
                    .iter()
                    .filter(|(other, _)| other.overlaps(&object))
                    .filter(|(other, _)| object.is_range() || other.is_range())
                    .map(|(_, slot)| *slot)
                    .collect();
                let mut found = index.overlapping(&object);
                expected.sort_unstable();
                found.sort_unstable();
                prop_assert_eq!(found, expected, "{}", object);
            }
            for (object, _) in left {
                index.remove(&object);
            }
            prop_assert!(index.is_empty());
        }
    }
}
