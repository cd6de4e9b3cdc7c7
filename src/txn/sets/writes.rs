//! What a transaction wants to write.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::ops::Bound;

use super::cleared::{Cleared, ClearedRanges};
use super::journal::{Gone, Journal, Mark, Undo, clear_cost};
use super::limits::{TooMuch, WhichSet};
use super::place::{At, Place, Slot, TableRef, between, borrowed, is_empty};

/// What a write costs beside the bytes of its key and value: its place in the map.
pub(crate) const ENTRY_OVERHEAD: usize = 64;

const _: () = assert!(size_of::<(Slot, Entry)>() <= ENTRY_OVERHEAD);

/// What a transaction itself has made of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own<'a> {
    /// Nothing: the database has the answer.
    Untouched,
    /// It has put this value.
    Put(&'a [u8]),
    /// It has deleted it, or cleared a range that has it.
    Gone,
}

/// One write, to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write<'a> {
    /// Delete every key in the range, by the order of the table. Not empty, and apart from all others.
    Clear {
        /// Where.
        table: TableRef,
        /// Where the range begins.
        from: Bound<&'a [u8]>,
        /// Where it ends.
        to: Bound<&'a [u8]>,
    },
    /// Put a value.
    Put {
        /// Where.
        table: TableRef,
        /// Under this key.
        key: &'a [u8],
        /// What.
        value: &'a [u8],
    },
    /// Delete a key, which may not be there.
    Delete {
        /// Where.
        table: TableRef,
        /// Which.
        key: &'a [u8],
    },
}

/// What is to become of a key.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its new value; `None` if it goes.
    pub(super) value: Option<Box<[u8]>>,
    /// The latest open mark at the time, see [`journal`](super::journal).
    pub(super) since: u64,
}

/// Bytes of a write.
pub(super) fn cost(slot: &Slot, entry: Option<&Entry>) -> usize {
    let value = entry.and_then(|entry| entry.value.as_ref());
    ENTRY_OVERHEAD + slot.key.len() + value.map_or(0, |value| value.len())
}

/// Bytes of a cleared range.
pub(super) fn range_cost(range: &Cleared) -> usize {
    ENTRY_OVERHEAD + range.key_bytes()
}

/// The buffered writes: by key, on top of the ranges that are cleared.
#[derive(Debug)]
pub(super) struct WriteSet {
    entries: BTreeMap<Slot, Entry>,
    cleared: ClearedRanges,
    journal: Journal,
    /// Of `entries` and `cleared`.
    bytes: usize,
    limit: usize,
}

impl WriteSet {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            cleared: ClearedRanges::default(),
            journal: Journal::default(),
            bytes: 0,
            limit,
        }
    }

    pub(super) fn write<K>(
        &mut self,
        table: TableRef,
        key: K,
        value: Option<Box<[u8]>>,
    ) -> Result<(), TooMuch>
    where
        K: AsRef<[u8]> + Into<Box<[u8]>>,
    {
        let entry = Entry {
            value,
            since: self.journal.now(),
        };
        if let Some((slot, was)) = self.find(table, key.as_ref()) {
            let bytes = self.bytes - cost(slot, Some(was)) + cost(slot, Some(&entry));
            let keep = self.journal.wants(was.since);
            self.admit(bytes, if keep { cost(slot, Some(was)) } else { 0 })?;
            // The key as it stands in the map: a table may hold different bytes for the same key.
            let kept = keep.then(|| slot.clone());
            self.bytes = bytes;
            self.replace(At::key(table, key.as_ref()), entry, kept);
            return Ok(());
        }

        let slot = Slot {
            table,
            key: key.into(),
        };
        let bytes = self.bytes + cost(&slot, Some(&entry));
        let keep = entry.since > 0;
        self.admit(bytes, if keep { cost(&slot, None) } else { 0 })?;
        self.bytes = bytes;
        if keep {
            self.journal.push(Undo::Write {
                slot: slot.clone(),
                was: None,
            });
        }
        self.entries.insert(slot, entry);
        Ok(())
    }

    /// Overwrites the entry that is `at`, and keeps what it was if there is a slot to `keep` it under.
    fn replace(&mut self, at: At<'_>, entry: Entry, keep: Option<Slot>) {
        if let Some(here) = self.entries.get_mut(&at as &dyn Place) {
            let was = std::mem::replace(here, entry);
            if let Some(slot) = keep {
                self.journal.push(Undo::Write {
                    slot,
                    was: Some(was),
                });
            }
        }
    }

    pub(super) fn clear(
        &mut self,
        table: TableRef,
        from: Bound<Box<[u8]>>,
        to: Bound<Box<[u8]>>,
    ) -> Result<(), TooMuch> {
        if is_empty(table, borrowed(&from), borrowed(&to)) {
            return Ok(());
        }
        let inside = between(&self.entries, table, borrowed(&from), borrowed(&to));
        let (mut forgotten, mut forgotten_bytes, mut kept_bytes) = (Vec::new(), 0, 0);
        for (slot, entry) in inside {
            forgotten_bytes += cost(slot, Some(entry));
            if self.journal.wants(entry.since) {
                kept_bytes += cost(slot, Some(entry));
            }
            forgotten.push(slot.clone());
        }
        let plan = self.cleared.plan(Cleared { table, from, to });
        if plan.is_none() && forgotten.is_empty() {
            return Ok(());
        }

        let replaced = plan
            .as_ref()
            .map_or(&[][..], |plan| self.cleared.replaced(plan));
        let union_bytes = plan.as_ref().map_or(0, |plan| range_cost(&plan.union));
        let bytes = self.bytes - forgotten_bytes - replaced.iter().map(range_cost).sum::<usize>()
            + union_bytes;
        let keep = self.journal.now() > 0;
        self.admit(
            bytes,
            if keep {
                clear_cost(kept_bytes, replaced.iter())
            } else {
                0
            },
        )?;

        self.bytes = bytes;
        let mut dropped = Vec::new();
        for slot in forgotten {
            if let Some(entry) = self.entries.remove(&slot)
                && self.journal.wants(entry.since)
            {
                dropped.push((slot, entry));
            }
        }
        let range = plan.map(|plan| self.cleared.carry_out(plan));
        if keep {
            self.journal.push(Undo::Clear { dropped, range });
        }
        Ok(())
    }

    pub(super) fn savepoint(&mut self) -> Mark {
        self.journal.savepoint()
    }

    pub(super) fn rollback_to(&mut self, mark: Mark) -> Result<(), Gone> {
        let len = self.journal.back_to(mark)?;
        while let Some(undo) = self.journal.pop_beyond(len) {
            match undo {
                Undo::Write { slot, was } => self.restore(slot, was),
                Undo::Clear { dropped, range } => {
                    if let Some((at, replaced)) = range {
                        self.bytes += replaced.iter().map(range_cost).sum::<usize>();
                        let union = self.cleared.undo(at, replaced);
                        self.bytes -= union.as_ref().map_or(0, range_cost);
                    }
                    for (slot, entry) in dropped {
                        self.restore(slot, Some(entry));
                    }
                }
            }
        }
        Ok(())
    }

    fn restore(&mut self, slot: Slot, was: Option<Entry>) {
        if let Some((slot, entry)) = self.entries.remove_entry(&slot) {
            self.bytes -= cost(&slot, Some(&entry));
        }
        if let Some(entry) = was {
            self.bytes += cost(&slot, Some(&entry));
            self.entries.insert(slot, entry);
        }
    }

    pub(super) fn release(&mut self, mark: Mark) -> Result<(), Gone> {
        self.journal.release(mark)
    }

    /// Whether the set may hold `bytes`, and the journal `more` than it does.
    fn admit(&self, bytes: usize, more: usize) -> Result<(), TooMuch> {
        if bytes + self.journal.bytes() + more <= self.limit {
            return Ok(());
        }
        Err(TooMuch {
            which: WhichSet::WriteSet,
            limit: self.limit,
        })
    }

    fn find(&self, table: TableRef, key: &[u8]) -> Option<(&Slot, &Entry)> {
        self.entries
            .get_key_value(&At::key(table, key) as &dyn Place)
    }

    pub(super) fn own(&self, table: TableRef, key: &[u8]) -> Own<'_> {
        match self.find(table, key) {
            Some((_, entry)) => entry.value.as_deref().map_or(Own::Gone, Own::Put),
            None if self.is_cleared(table, key) => Own::Gone,
            None => Own::Untouched,
        }
    }

    /// Whether `key` is in a range that is cleared. A put on top of it may be there all the same.
    pub(super) fn is_cleared(&self, table: TableRef, key: &[u8]) -> bool {
        self.cleared.covers(table, key)
    }

    /// The keyed writes in a range.
    pub(super) fn between(
        &self,
        table: TableRef,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Range<'_, Slot, Entry> {
        between(&self.entries, table, from, to)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Write<'_>> {
        let clears = self.cleared.iter().map(|range| Write::Clear {
            table: range.table,
            from: borrowed(&range.from),
            to: borrowed(&range.to),
        });
        let keyed = self.entries.iter().map(|(slot, entry)| {
            let (table, key) = (slot.table, &*slot.key);
            match &entry.value {
                Some(value) => Write::Put { table, key, value },
                None => Write::Delete { table, key },
            }
        });
        clears.chain(keyed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.cleared.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.journal.bytes()
    }
}
