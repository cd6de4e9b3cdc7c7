//! Lock modes, and which of them exclude each other.

use std::fmt;

/// How an object is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Mode {
    /// Shared with other readers.
    Read = 0,
    /// Exclusive.
    Write = 1,
}

impl Mode {
    /// Every mode, in the order of [`Mode::index`].
    pub const ALL: [Mode; 2] = [Mode::Read, Mode::Write];
    /// How many modes there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The mode's place in [`Mode::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether the mode announces a change of the object.
    #[must_use]
    pub const fn is_write(self) -> bool {
        matches!(self, Mode::Write)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Read => "read",
            Mode::Write => "write",
        })
    }
}

/// Which wanted mode conflicts with which held one, as data: a row for each held mode, a column for
/// each wanted one.
///
/// The same table decides between two waiters, the earlier one in the place of the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConflictTable {
    // A bit for each wanted mode. The queue logic asks this several times for each request.
    rows: [u8; Mode::COUNT],
}

impl ConflictTable {
    /// A table from rows (held) and columns (wanted), both in the order of [`Mode::ALL`]; `true` is a
    /// conflict.
    #[must_use]
    pub fn from_rows(rows: [[bool; Mode::COUNT]; Mode::COUNT]) -> Self {
        let pack = |row: [bool; Mode::COUNT]| {
            row.iter().enumerate().fold(0, |bits, (column, conflict)| {
                bits | (u8::from(*conflict) << column)
            })
        };
        Self {
            rows: rows.map(pack),
        }
    }

    /// Readers share, a writer is alone. This is the default.
    #[must_use]
    pub fn read_write() -> Self {
        Self::from_rows([[false, true], [true, true]])
    }

    /// Whether a lock wanted in mode `wanted` has to wait for one held in mode `held`.
    #[must_use]
    pub fn conflicts(&self, held: Mode, wanted: Mode) -> bool {
        self.rows[held.index()] & (1 << wanted.index()) != 0
    }
}

impl Default for ConflictTable {
    fn default() -> Self {
        Self::read_write()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readers_share() {
        let table = ConflictTable::default();
        for held in Mode::ALL {
            for wanted in Mode::ALL {
                let expected = held.is_write() || wanted.is_write();
                assert_eq!(
                    table.conflicts(held, wanted),
                    expected,
                    "{held} against {wanted}"
                );
            }
        }
    }

    #[test]
    fn rows_are_held_and_columns_wanted() {
        let table = ConflictTable::from_rows([[false, true], [false, false]]);
        assert!(table.conflicts(Mode::Read, Mode::Write));
        assert!(!table.conflicts(Mode::Write, Mode::Read));
    }
}
