//! What a transaction has read, as digests that can be compared with the present.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::ops::{Bound, ControlFlow};

use siphasher::sip128::{Hasher128, SipHasher24};

use super::limits::{TooMuch, WhichSet};
use super::overlay::Span;
use super::place::{At, Place, Slot, TableRef, borrowed};

/// How a read of a key compares with the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is the first, or the key was not recorded because the transaction has written it.
    First,
    /// It answered the same.
    Same,
    /// It answered something else. The first answer stays recorded.
    Changed,
}

/// What of the entries in a range was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Keys and values.
    Entries,
    /// Keys only, as for a count: values may change.
    Keys,
}

/// A range that is being recorded. Means nothing to the sets of another transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RangeId(usize);

/// A 128-bit SipHash-2-4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Digest([u64; 2]);

impl Digest {
    fn of(seed: [u64; 2], value: &[u8]) -> Self {
        Self::finish(SipHasher24::new_with_keys(seed[0], seed[1]).hash(value))
    }

    fn finish(hash: siphasher::sip128::Hash128) -> Self {
        Self([hash.h1, hash.h2])
    }
}

/// The entries of a range, folded into one digest.
#[derive(Clone, Copy)]
struct Fold {
    content: Content,
    hasher: SipHasher24,
    entries: u64,
}

impl Fold {
    fn new(content: Content, seed: [u64; 2]) -> Self {
        Self {
            content,
            hasher: SipHasher24::new_with_keys(seed[0], seed[1]),
            entries: 0,
        }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        self.part(key);
        if self.content == Content::Entries {
            self.part(value);
        }
    }

    /// With its length, so that no two sequences of parts are the same bytes.
    fn part(&mut self, bytes: &[u8]) {
        self.hasher.write(&(bytes.len() as u64).to_le_bytes());
        self.hasher.write(bytes);
    }

    fn digest(&self) -> Digest {
        Digest::finish(self.hasher.finish128())
    }
}

/// A range and what was met in it.
struct RangeRead {
    span: Span,
    fold: Fold,
    /// The key that was met last, in a buffer that is used again for each.
    last: Vec<u8>,
    /// Whether the scan came to the end of the range.
    ended: bool,
}

/// Keys and ranges that were read.
pub(super) struct ReadSet {
    /// What was under the key: `None` if nothing.
    keys: BTreeMap<Slot, Option<Digest>>,
    ranges: Vec<RangeRead>,
    limit: usize,
    seed: [u64; 2],
}

impl ReadSet {
    pub(super) fn new(limit: usize, seed: [u64; 2]) -> Self {
        Self {
            keys: BTreeMap::new(),
            ranges: Vec::new(),
            limit,
            seed,
        }
    }

    /// How `value` compares with what is recorded; `None` if nothing is.
    pub(super) fn compare(
        &self,
        table: TableRef,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Option<Seen> {
        let first = self.keys.get(&At::key(table, key) as &dyn Place)?;
        let now = value.map(|value| Digest::of(self.seed, value));
        Some(if *first == now {
            Seen::Same
        } else {
            Seen::Changed
        })
    }

    /// Records a key that is not recorded yet.
    pub(super) fn record(
        &mut self,
        table: TableRef,
        key: Box<[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), TooMuch> {
        self.admit()?;
        let digest = value.map(|value| Digest::of(self.seed, value));
        self.keys.insert(Slot { table, key }, digest);
        Ok(())
    }

    pub(super) fn begin_range(&mut self, span: Span, content: Content) -> Result<RangeId, TooMuch> {
        self.admit()?;
        self.ranges.push(RangeRead {
            span,
            fold: Fold::new(content, self.seed),
            last: Vec::new(),
            ended: false,
        });
        Ok(RangeId(self.ranges.len() - 1))
    }

    pub(super) fn extend_range(&mut self, id: RangeId, key: &[u8], value: &[u8]) {
        let range = self.ranges.get_mut(id.0);
        debug_assert!(range.is_some(), "a range of other sets");
        if let Some(range) = range {
            debug_assert!(!range.ended, "an entry after the end of the range");
            range.fold.add(key, value);
            range.last.clear();
            range.last.extend_from_slice(key);
        }
    }

    pub(super) fn end_range(&mut self, id: RangeId) {
        let range = self.ranges.get_mut(id.0);
        debug_assert!(range.is_some(), "a range of other sets");
        if let Some(range) = range {
            range.ended = true;
        }
    }

    fn admit(&self) -> Result<(), TooMuch> {
        if self.len() < self.limit {
            return Ok(());
        }
        Err(TooMuch {
            which: WhichSet::ReadSet,
            limit: self.limit,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len() + self.ranges.len()
    }

    pub(super) fn checks(&self) -> impl Iterator<Item = Check<'_>> {
        let keys = self.keys.iter().map(|(slot, digest)| {
            Check::Key(KeyCheck {
                table: slot.table,
                key: &slot.key,
                digest: *digest,
                seed: self.seed,
            })
        });
        let ranges = self.ranges.iter();
        let ranges = ranges.filter(|range| range.ended || range.fold.entries > 0);
        keys.chain(ranges.map(|range| Check::Range(RangeCheck::new(range, self.seed))))
    }
}

/// Something that was read, to be compared with the present.
#[derive(Clone, Copy)]
pub(crate) enum Check<'a> {
    /// A key.
    Key(KeyCheck<'a>),
    /// A range.
    Range(RangeCheck<'a>),
}

/// A key that was read.
#[derive(Clone, Copy)]
pub(crate) struct KeyCheck<'a> {
    /// Where.
    pub(crate) table: TableRef,
    /// Which.
    pub(crate) key: &'a [u8],
    digest: Option<Digest>,
    seed: [u64; 2],
}

impl KeyCheck<'_> {
    /// Whether `value`, `None` for nothing, is what was read.
    #[must_use]
    pub(crate) fn agrees(&self, value: Option<&[u8]>) -> bool {
        match (self.digest, value) {
            (None, None) => true,
            (Some(digest), Some(value)) => digest == Digest::of(self.seed, value),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

/// The part of a range that was read.
#[derive(Clone, Copy)]
pub(crate) struct RangeCheck<'a> {
    /// Where.
    pub(crate) table: TableRef,
    /// Where the part begins by the order of the table, whatever the direction.
    pub(crate) from: Bound<&'a [u8]>,
    /// Where it ends.
    pub(crate) to: Bound<&'a [u8]>,
    /// Whether it has to be read from `to` to `from`.
    pub(crate) reverse: bool,
    /// What of the entries counts.
    pub(crate) content: Content,
    digest: Digest,
    entries: u64,
    seed: [u64; 2],
}

impl<'a> RangeCheck<'a> {
    fn new(range: &'a RangeRead, seed: [u64; 2]) -> Self {
        let span = &range.span;
        let (mut from, mut to) = (borrowed(&span.from), borrowed(&span.to));
        if !range.ended {
            let far = if span.reverse { &mut from } else { &mut to };
            *far = Bound::Included(&range.last);
        }
        Self {
            table: span.table,
            from,
            to,
            reverse: span.reverse,
            content: range.fold.content,
            digest: range.fold.digest(),
            entries: range.fold.entries,
            seed,
        }
    }

    /// Takes the present entries of the part, one by one.
    #[must_use]
    pub(crate) fn fold(&self) -> RangeFold {
        RangeFold {
            fold: Fold::new(self.content, self.seed),
            digest: self.digest,
            expected: self.entries,
            more: false,
        }
    }
}

/// A comparison of a range with the present that is under way.
#[derive(Clone)]
pub(crate) struct RangeFold {
    fold: Fold,
    digest: Digest,
    expected: u64,
    /// Whether there were more.
    more: bool,
}

impl RangeFold {
    /// Takes the next entry. [`Break`](ControlFlow::Break) when there are more than were read: it cannot agree any more.
    pub(crate) fn entry(&mut self, key: &[u8], value: &[u8]) -> ControlFlow<()> {
        if self.fold.entries >= self.expected {
            self.more = true;
            return ControlFlow::Break(());
        }
        self.fold.add(key, value);
        ControlFlow::Continue(())
    }

    /// Whether the entries that were taken are those that were read.
    #[must_use]
    pub(crate) fn agrees(&self) -> bool {
        !self.more && self.fold.entries == self.expected && self.fold.digest() == self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn a_digest_is_the_one_of_the_reference_implementation() {
        let seed = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let reference = [0xe6a8_25ba_047f_81a3, 0x9302_55c7_1472_f66d];
        assert_eq!(Digest::of(seed, b""), Digest(reference));
        assert_ne!(Digest::of([1, 2], b"x"), Digest::of([1, 3], b"x"));
    }
}
