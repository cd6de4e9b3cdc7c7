//! What an interactive transaction has read and what it wants to write.
//!
//! An interactive transaction spans awaits, so LMDB cannot keep these two sets for it: its writes are buffered here until the
//! environment's writer applies them in one go, and of what it read a digest is kept, so that it can be compared with the
//! present at commit. What always holds:
//!
//! - What is refused ([`TooMuch`]) changes nothing, and what is accepted stays within the [`Limits`].
//! - Values that were read are never copied.
//! - Rolling back undoes writes only: what was read has been seen.
//!
//! The sets know no levels of isolation: the caller decides what to record. They know no database either, only a
//! [`TableRef`]; keys and values are bytes.

mod cleared;
mod journal;
mod limits;
mod overlay;
mod place;
mod reads;
#[cfg(test)]
mod tests;
mod writes;

use std::fmt;
use std::ops::Bound;

pub(crate) use journal::{Gone, Mark};
pub use limits::WhichSet;
pub(crate) use limits::{Limits, TooMuch};
pub(crate) use overlay::{Overlaid, Span, Visible};
pub(crate) use place::TableRef;
#[cfg(test)]
use reads::RangeCheck;
pub(crate) use reads::{Check, Content, RangeId, Seen};
pub(crate) use writes::{ENTRY_OVERHEAD, Own, Write};

use reads::ReadSet;
use writes::WriteSet;

/// The read set and the write set of one attempt of one interactive transaction.
pub(crate) struct Sets {
    reads: ReadSet,
    writes: WriteSet,
}

impl Sets {
    /// Two empty sets within `limits`. Digests are keyed by `seed`, which should be random: whoever can choose values must not
    /// be able to choose two with the same digest.
    #[must_use]
    pub(crate) fn new(limits: Limits, seed: [u64; 2]) -> Self {
        Self {
            reads: ReadSet::new(limits.read_entries, seed),
            writes: WriteSet::new(limits.write_bytes),
        }
    }

    /// Remembers that `key` gets `value`, instead of whatever was to become of it before.
    ///
    /// # Errors
    /// [`TooMuch`] when the write set would outgrow its limit.
    pub(crate) fn put<K>(
        &mut self,
        table: TableRef,
        key: K,
        value: impl Into<Box<[u8]>>,
    ) -> Result<(), TooMuch>
    where
        K: AsRef<[u8]> + Into<Box<[u8]>>,
    {
        self.writes.write(table, key, Some(value.into()))
    }

    /// Remembers that `key` goes, whether or not it is there.
    ///
    /// # Errors
    /// [`TooMuch`] when the write set would outgrow its limit: that a key goes has to be remembered too.
    pub(crate) fn delete<K>(&mut self, table: TableRef, key: K) -> Result<(), TooMuch>
    where
        K: AsRef<[u8]> + Into<Box<[u8]>>,
    {
        self.writes.write(table, key, None)
    }

    /// Remembers that every key from `from` to `to` goes, in the order of the table. Own writes in the range are forgotten;
    /// later puts in it are put on top. An empty range, also one whose ends are the wrong way round, is no write.
    ///
    /// # Errors
    /// [`TooMuch`] when the write set would outgrow its limit, which with an open savepoint still holds what is cleared.
    pub(crate) fn clear(
        &mut self,
        table: TableRef,
        from: Bound<Box<[u8]>>,
        to: Bound<Box<[u8]>>,
    ) -> Result<(), TooMuch> {
        self.writes.clear(table, from, to)
    }

    /// What the transaction itself has made of `key`.
    #[must_use]
    pub(crate) fn own(&self, table: TableRef, key: &[u8]) -> Own<'_> {
        self.writes.own(table, key)
    }

    /// All writes in an order in which they can be applied: first the ranges that are cleared, then puts and deletes by table
    /// and key.
    pub(crate) fn writes(&self) -> impl Iterator<Item = Write<'_>> {
        self.writes.iter()
    }

    /// Whether there is nothing to apply.
    #[must_use]
    pub(crate) fn is_read_only(&self) -> bool {
        self.writes.is_empty()
    }

    /// Bytes of the writes that would be applied now: keys, values and [`ENTRY_OVERHEAD`] for each write.
    #[must_use]
    pub(crate) fn write_bytes(&self) -> usize {
        self.writes.bytes()
    }

    /// Bytes that are kept only to roll back to open savepoints, counted in the same way; 0 when none is open. Together with
    /// [`write_bytes`](Self::write_bytes) they stay within [`Limits::write_bytes`].
    #[must_use]
    pub(crate) fn kept_bytes(&self) -> usize {
        self.writes.kept_bytes()
    }

    /// Remembers what the database has under `key`, `None` if nothing, and compares it with what was read there first. A key
    /// that the transaction has written is not recorded, unless it was read before.
    ///
    /// # Errors
    /// [`TooMuch`] when it would be one entry too many.
    pub(crate) fn read<K>(
        &mut self,
        table: TableRef,
        key: K,
        value: Option<&[u8]>,
    ) -> Result<Seen, TooMuch>
    where
        K: AsRef<[u8]> + Into<Box<[u8]>>,
    {
        if let Some(seen) = self.reads.compare(table, key.as_ref(), value) {
            return Ok(seen);
        }
        if !matches!(self.writes.own(table, key.as_ref()), Own::Untouched) {
            return Ok(Seen::First);
        }
        self.reads.record(table, key.into(), value)?;
        Ok(Seen::First)
    }

    /// Begins to record what a scan of `span` meets. However long it becomes, it is one entry of the read set.
    ///
    /// # Errors
    /// [`TooMuch`] when it would be one entry too many.
    pub(crate) fn begin_range(&mut self, span: Span, content: Content) -> Result<RangeId, TooMuch> {
        self.reads.begin_range(span, content)
    }

    /// Adds the next entry of the *database*, in the direction of the scan: the record then covers the range from its start to
    /// this key. Entries that own writes hide or replace belong to it as well.
    pub(crate) fn extend_range(&mut self, id: RangeId, key: &[u8], value: &[u8]) {
        self.reads.extend_range(id, key, value);
    }

    /// The database has no further entry in the range: the record covers all of it.
    pub(crate) fn end_range(&mut self, id: RangeId) {
        self.reads.end_range(id);
    }

    /// Entries of the read set: keys and ranges.
    #[must_use]
    pub(crate) fn read_entries(&self) -> usize {
        self.reads.len()
    }

    /// Everything that was read, to be compared with the present: keys by table and key, then ranges in the order in which
    /// they were begun. A range of which nothing was met is left out.
    pub(crate) fn checks(&self) -> impl Iterator<Item = Check<'_>> {
        self.reads.checks()
    }

    /// What the transaction sees of a part of a scan: see [`Overlaid`].
    ///
    /// `base` are the next entries of the database in `span`, in the direction of the scan; they reach from its start to the
    /// last of them, or to its end if `base_end`. No entry and no end is nothing reached: `span` comes back as it was.
    /// For keys only, the values may be `()`.
    #[must_use]
    pub(crate) fn overlay<K, V>(
        &self,
        span: Span,
        base: impl IntoIterator<Item = (K, V)>,
        base_end: bool,
    ) -> Overlaid<'_, K, V>
    where
        K: AsRef<[u8]>,
    {
        overlay::overlay(&self.writes, span, base, base_end)
    }

    /// Marks the present state of the writes. From here on what they replace is kept, until the mark is released.
    #[must_use]
    pub(crate) fn savepoint(&mut self) -> Mark {
        self.writes.savepoint()
    }

    /// Undoes all writes since `mark`, which stays usable. Later marks are gone. What was read stays.
    ///
    /// # Errors
    /// [`Gone`] when the mark was released, or an earlier one was released or rolled back to; nothing changes.
    pub(crate) fn rollback_to(&mut self, mark: Mark) -> Result<(), Gone> {
        self.writes.rollback_to(mark)
    }

    /// Forgets `mark` and all later ones; their writes become those of the mark before.
    ///
    /// # Errors
    /// [`Gone`] as for [`rollback_to`](Self::rollback_to).
    pub(crate) fn release(&mut self, mark: Mark) -> Result<(), Gone> {
        self.writes.release(mark)
    }
}

impl fmt::Debug for Sets {
    /// Sizes only: keys and values are the application's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sets")
            .field("read_entries", &self.read_entries())
            .field("write_bytes", &self.write_bytes())
            .field("kept_bytes", &self.kept_bytes())
            .finish_non_exhaustive()
    }
}
