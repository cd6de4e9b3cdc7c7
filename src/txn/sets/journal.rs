//! How writes are undone: what they replaced, from the oldest open savepoint on.
//!
//! Marks are numbered upwards and never again, and a write carries the number of the latest open mark at its time. So one
//! comparison tells whether the journal has something for its key since that mark, and each key costs at most once for each
//! open savepoint, however often it is written.

use thiserror::Error;

use super::cleared::Cleared;
use super::place::Slot;
use super::writes::{Entry, cost};

/// A savepoint of one transaction's sets. Means nothing in others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark(u64);

/// The savepoint is gone: it was released, or an earlier one was released or rolled back to. The remedy is to go back to
/// the earlier one, or to set a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the savepoint is gone")]
pub(crate) struct Gone;

/// How to undo one change.
#[derive(Debug)]
pub(super) enum Undo {
    /// A key was written.
    Write {
        slot: Slot,
        /// What was to become of it before.
        was: Option<Entry>,
    },
    /// A range was cleared.
    Clear {
        /// The writes in it that were forgotten, as far as no earlier entry since the same mark has their key.
        dropped: Vec<(Slot, Entry)>,
        /// Where the range is, and which ranges it took the place of; `None` if it was cleared already.
        range: Option<(usize, Vec<Cleared>)>,
    },
}

impl Undo {
    /// Bytes that are kept for it.
    fn bytes(&self) -> usize {
        match self {
            Self::Write { slot, was } => cost(slot, was.as_ref()),
            Self::Clear { dropped, range } => {
                let writes = dropped.iter().map(|(slot, entry)| cost(slot, Some(entry)));
                let ranges = range.iter().flat_map(|(_, replaced)| replaced);
                clear_cost(writes.sum(), ranges)
            }
        }
    }
}

/// Bytes that are kept for a clear that dropped so many and replaced these.
pub(super) fn clear_cost<'a>(dropped: usize, replaced: impl Iterator<Item = &'a Cleared>) -> usize {
    let ranges: usize = replaced.map(super::writes::range_cost).sum();
    super::ENTRY_OVERHEAD + dropped + ranges
}

/// An open savepoint.
#[derive(Clone, Copy, Debug)]
struct Open {
    mark: u64,
    /// Entries that the journal had.
    at: usize,
}

/// The journal and the open savepoints. Without one, nothing is recorded.
#[derive(Debug, Default)]
pub(super) struct Journal {
    undos: Vec<Undo>,
    /// In the order in which they were set, so by number.
    open: Vec<Open>,
    last_mark: u64,
    bytes: usize,
}

impl Journal {
    /// Bytes of what is kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number that writes carry now. 0 without an open savepoint, when nothing has to be recorded.
    pub(super) fn now(&self) -> u64 {
        self.open.last().map_or(0, |open| open.mark)
    }

    /// Whether what a write of the time `since` says has to be kept when it is replaced.
    pub(super) fn wants(&self, since: u64) -> bool {
        since < self.now()
    }

    pub(super) fn push(&mut self, undo: Undo) {
        self.bytes += undo.bytes();
        self.undos.push(undo);
    }

    pub(super) fn savepoint(&mut self) -> Mark {
        self.last_mark += 1;
        self.open.push(Open {
            mark: self.last_mark,
            at: self.undos.len(),
        });
        Mark(self.last_mark)
    }

    /// Forgets the marks after `mark`. Answers how many entries the journal had at it.
    pub(super) fn back_to(&mut self, mark: Mark) -> Result<usize, Gone> {
        let (position, open) = self.find(mark)?;
        self.open.truncate(position + 1);
        Ok(open.at)
    }

    /// The latest entry, if there are more than `len`.
    pub(super) fn pop_beyond(&mut self, len: usize) -> Option<Undo> {
        if self.undos.len() <= len {
            return None;
        }
        let undo = self.undos.pop()?;
        self.bytes -= undo.bytes();
        Some(undo)
    }

    /// Forgets `mark` and the later ones, and what no remaining mark needs.
    pub(super) fn release(&mut self, mark: Mark) -> Result<(), Gone> {
        let (position, released) = self.find(mark)?;
        self.open.truncate(position);
        if self.open.is_empty() {
            self.undos.clear();
            self.bytes = 0;
            return Ok(());
        }

        let now = self.now();
        let since_then = self.undos.split_off(released.at.min(self.undos.len()));
        for mut undo in since_then {
            self.bytes -= undo.bytes();
            match &mut undo {
                // An earlier entry since the mark that remains has this key, and has the last word.
                Undo::Write { was: Some(was), .. } if was.since >= now => continue,
                Undo::Write { .. } => {}
                Undo::Clear { dropped, .. } => dropped.retain(|(_, entry)| entry.since < now),
            }
            self.push(undo);
        }
        Ok(())
    }

    fn find(&self, mark: Mark) -> Result<(usize, Open), Gone> {
        let found = self.open.binary_search_by_key(&mark.0, |open| open.mark);
        let position = found.map_err(|_| Gone)?;
        let open = self.open.get(position).ok_or(Gone)?;
        Ok((position, *open))
    }
}
