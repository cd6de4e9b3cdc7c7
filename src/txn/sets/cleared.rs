//! The ranges that a transaction has cleared: in order, and so far apart that no two could be one.

use std::cmp::Ordering;
use std::ops::{Bound, Range};

use super::place::{TableRef, borrowed, end};

/// A range of a table that is cleared. Not empty.
#[derive(Clone, Debug)]
pub(super) struct Cleared {
    pub(super) table: TableRef,
    pub(super) from: Bound<Box<[u8]>>,
    pub(super) to: Bound<Box<[u8]>>,
}

impl Cleared {
    /// Bytes of its two ends.
    pub(super) fn key_bytes(&self) -> usize {
        let len = |bound: &Bound<Box<[u8]>>| end(borrowed(bound)).map_or(0, |(key, _)| key.len());
        len(&self.from) + len(&self.to)
    }

    /// Whether it ends before `key` or is of an earlier table.
    fn is_before(&self, table: TableRef, key: &[u8]) -> bool {
        match self.table.id.cmp(&table.id) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => end(borrowed(&self.to)).is_some_and(|(last, is_in)| {
                let ordering = (table.order)(last, key);
                ordering.is_lt() || (ordering.is_eq() && !is_in)
            }),
        }
    }

    fn begins_at_or_before(&self, table: TableRef, key: &[u8]) -> bool {
        self.table == table
            && end(borrowed(&self.from)).is_none_or(|(first, is_in)| {
                let ordering = (table.order)(first, key);
                ordering.is_lt() || (ordering.is_eq() && is_in)
            })
    }

    /// Whether `other` lies in it.
    fn contains(&self, other: &Self) -> bool {
        let order = self.table.order;
        lower(order, borrowed(&self.from), borrowed(&other.from)).is_le()
            && upper(order, borrowed(&self.to), borrowed(&other.to)).is_ge()
    }
}

/// All that is cleared. By table and place; no two overlap or touch.
#[derive(Debug, Default)]
pub(super) struct ClearedRanges(Vec<Cleared>);

impl ClearedRanges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Cleared> {
        self.0.iter()
    }

    /// Whether `key` is in one of them.
    pub(super) fn covers(&self, table: TableRef, key: &[u8]) -> bool {
        let at = self.0.partition_point(|range| range.is_before(table, key));
        let range = self.0.get(at);
        range.is_some_and(|range| range.begins_at_or_before(table, key))
    }

    /// What adding `new` would do. `None` if all of it is cleared already.
    pub(super) fn plan(&self, new: Cleared) -> Option<Plan> {
        let id = new.table.id;
        let order = new.table.order;
        let start = self.0.partition_point(|range| {
            let ends_before = !reaches(order, borrowed(&range.to), borrowed(&new.from));
            range.table.id < id || (range.table.id == id && ends_before)
        });
        let rest = self.0.get(start..).unwrap_or_default();
        let joined = rest.iter().take_while(|range| {
            range.table.id == id && reaches(order, borrowed(&new.to), borrowed(&range.from))
        });
        let end = start + joined.count();

        let replaced = self.0.get(start..end).unwrap_or_default();
        let mut union = new.clone();
        if let (Some(first), Some(last)) = (replaced.first(), replaced.last()) {
            if first.contains(&new) {
                return None;
            }
            if lower(order, borrowed(&first.from), borrowed(&new.from)).is_lt() {
                union.from = first.from.clone();
            }
            if upper(order, borrowed(&last.to), borrowed(&new.to)).is_gt() {
                union.to = last.to.clone();
            }
        }
        Some(Plan {
            at: start..end,
            union,
        })
    }

    /// The ranges that a plan replaces.
    pub(super) fn replaced(&self, plan: &Plan) -> &[Cleared] {
        self.0.get(plan.at.clone()).unwrap_or_default()
    }

    /// Carries out a plan that was made of this very state. Answers where the union is now and what it replaced.
    pub(super) fn carry_out(&mut self, plan: Plan) -> (usize, Vec<Cleared>) {
        let at = plan.at.start;
        (at, self.0.splice(plan.at, [plan.union]).collect())
    }

    /// Undoes what [`carry_out`](Self::carry_out) did when it was the last change. Answers the union.
    pub(super) fn undo(&mut self, at: usize, replaced: Vec<Cleared>) -> Option<Cleared> {
        let here = at..(at + 1).min(self.0.len());
        self.0.splice(here, replaced).next()
    }
}

/// How a new range joins those that are there.
#[derive(Debug)]
pub(super) struct Plan {
    at: Range<usize>,
    /// The one range that takes the place of those it overlaps or touches.
    pub(super) union: Cleared,
}

/// Whether a range that ends at `to` overlaps or touches one that begins at `from`, if it does not begin after its end.
fn reaches(order: fn(&[u8], &[u8]) -> Ordering, to: Bound<&[u8]>, from: Bound<&[u8]>) -> bool {
    let (Some((last, to_is_in)), Some((first, from_is_in))) = (end(to), end(from)) else {
        return true;
    };
    match order(last, first) {
        Ordering::Less => false,
        Ordering::Equal => to_is_in || from_is_in,
        Ordering::Greater => true,
    }
}

/// Compares two bounds at which ranges begin.
fn lower(order: fn(&[u8], &[u8]) -> Ordering, a: Bound<&[u8]>, b: Bound<&[u8]>) -> Ordering {
    match (end(a), end(b)) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some((a, a_is_in)), Some((b, b_is_in))) => order(a, b).then(b_is_in.cmp(&a_is_in)),
    }
}

/// Compares two bounds at which ranges end.
fn upper(order: fn(&[u8], &[u8]) -> Ordering, a: Bound<&[u8]>, b: Bound<&[u8]>) -> Ordering {
    match (end(a), end(b)) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some((a, a_is_in)), Some((b, b_is_in))) => order(a, b).then(a_is_in.cmp(&b_is_in)),
    }
}
