//! Where something is: a table and a key in it, in an order that the table brings along.
//!
//! The order is part of the table, and so is not known to the type of the key. [`Place`] lets a map of owned [`Slot`]s be
//! searched by a borrowed key, whatever the order is, without an allocation.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::fmt;
use std::ops::Bound;

/// A database as the sets see it. Equal by `id` alone: whoever makes them gives one id one order.
#[derive(Clone, Copy)]
pub(crate) struct TableRef {
    /// Tells the tables of an environment apart.
    pub(crate) id: u64,
    /// The order of its keys: total, and the one that the database has.
    pub(crate) order: fn(&[u8], &[u8]) -> Ordering,
}

impl TableRef {
    /// A table in LMDB's default order: bytewise, and the shorter one first.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn bytewise(id: u64) -> Self {
        Self {
            id,
            order: Ord::cmp,
        }
    }
}

impl PartialEq for TableRef {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for TableRef {}

impl fmt::Debug for TableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TableRef").field(&self.id).finish()
    }
}

/// An owned place: the key of the maps.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) table: TableRef,
    pub(super) key: Box<[u8]>,
}

/// A point on the line of a table's keys.
#[derive(Clone, Copy)]
pub(super) enum Edge<'a> {
    /// Before all keys.
    Start,
    /// At this one.
    Key(&'a [u8]),
    /// After all keys.
    End,
}

/// What can be compared with a [`Slot`].
pub(super) trait Place {
    fn parts(&self) -> (TableRef, Edge<'_>);
}

impl Place for Slot {
    fn parts(&self) -> (TableRef, Edge<'_>) {
        (self.table, Edge::Key(&self.key))
    }
}

/// A place by reference, to search with.
pub(super) struct At<'a>(pub(super) TableRef, pub(super) Edge<'a>);

impl<'a> At<'a> {
    pub(super) fn key(table: TableRef, key: &'a [u8]) -> Self {
        Self(table, Edge::Key(key))
    }
}

impl Place for At<'_> {
    fn parts(&self) -> (TableRef, Edge<'_>) {
        (self.0, self.1)
    }
}

impl<'a> Borrow<dyn Place + 'a> for Slot {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((table, mine), (their_table, theirs)) = (self.parts(), other.parts());
        table
            .id
            .cmp(&their_table.id)
            .then_with(|| match (mine, theirs) {
                (Edge::Key(mine), Edge::Key(theirs)) => (table.order)(mine, theirs),
                (Edge::Start, Edge::Start) | (Edge::End, Edge::End) => Ordering::Equal,
                (Edge::Start, _) | (_, Edge::End) => Ordering::Less,
                (Edge::End, _) | (_, Edge::Start) => Ordering::Greater,
            })
    }
}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Place + '_ {}

impl Ord for Slot {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = || (self.table.order)(&self.key, &other.key);
        self.table.id.cmp(&other.table.id).then_with(by_key)
    }
}

impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Slot {}

/// What `map` has in a range of `table`; nothing if the range is empty.
pub(super) fn between<'m, V>(
    map: &'m BTreeMap<Slot, V>,
    table: TableRef,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
) -> Range<'m, Slot, V> {
    // The map panics on such a range.
    if map.is_empty() || is_empty(table, from, to) {
        return Range::default();
    }
    let (first, last);
    let from: Bound<&dyn Place> = match from {
        Bound::Unbounded => Bound::Excluded(&At(table, Edge::Start)),
        Bound::Included(key) => {
            first = At::key(table, key);
            Bound::Included(&first)
        }
        Bound::Excluded(key) => {
            first = At::key(table, key);
            Bound::Excluded(&first)
        }
    };
    let to: Bound<&dyn Place> = match to {
        Bound::Unbounded => Bound::Excluded(&At(table, Edge::End)),
        Bound::Included(key) => {
            last = At::key(table, key);
            Bound::Included(&last)
        }
        Bound::Excluded(key) => {
            last = At::key(table, key);
            Bound::Excluded(&last)
        }
    };
    map.range::<dyn Place + '_, _>((from, to))
}

/// Whether no key can be in the range.
pub(super) fn is_empty(table: TableRef, from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    let (Some((first, from_is_in)), Some((last, to_is_in))) = (end(from), end(to)) else {
        return false;
    };
    match (table.order)(first, last) {
        Ordering::Less => false,
        Ordering::Equal => !(from_is_in && to_is_in),
        Ordering::Greater => true,
    }
}

/// The key of a bound, and whether it belongs to the range.
pub(super) fn end(bound: Bound<&[u8]>) -> Option<(&[u8], bool)> {
    match bound {
        Bound::Included(key) => Some((key, true)),
        Bound::Excluded(key) => Some((key, false)),
        Bound::Unbounded => None,
    }
}

/// A bound by reference.
pub(super) fn borrowed(bound: &Bound<Box<[u8]>>) -> Bound<&[u8]> {
    bound.as_ref().map(AsRef::as_ref)
}
