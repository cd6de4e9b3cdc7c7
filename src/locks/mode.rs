//! Lock modes, and which of them exclude each other.

use std::fmt;
use std::str::FromStr;

/// How an object is locked.
///
/// The intention modes are for hierarchies (a table, then its records): an intention on the whole says
/// that parts of it are locked one by one, so that a lock on the whole has to wait for them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[non_exhaustive]
#[repr(u8)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Parts of the object will be read under locks of their own.
    IntentRead = 0,
    /// Parts of the object will be changed under locks of their own.
    IntentWrite = 1,
    /// Shared with other readers.
    Read = 2,
    /// Read now, perhaps written later: shared with readers, but not with another who may write. Two
    /// who both read and then both want to write would be a deadlock; with this mode the second waits.
    Update = 3,
    /// The whole is read, and parts of it will be changed under locks of their own.
    ReadIntentWrite = 4,
    /// Exclusive.
    Write = 5,
}

impl Mode {
    /// Every mode, in the order of [`Mode::index`].
    pub const ALL: [Mode; 6] = [
        Mode::IntentRead,
        Mode::IntentWrite,
        Mode::Read,
        Mode::Update,
        Mode::ReadIntentWrite,
        Mode::Write,
    ];
    /// How many modes there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The mode's place in [`Mode::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether the mode announces a change: intent-write, read-with-intent-write and write.
    ///
    /// These are the locks that the victim policies about write locks count.
    #[must_use]
    pub const fn is_write(self) -> bool {
        matches!(
            self,
            Mode::IntentWrite | Mode::ReadIntentWrite | Mode::Write
        )
    }

    /// The mode's name: `intent-read`, `intent-write`, `read`, `update`, `read-intent-write`, `write`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::IntentRead => "intent-read",
            Mode::IntentWrite => "intent-write",
            Mode::Read => "read",
            Mode::Update => "update",
            Mode::ReadIntentWrite => "read-intent-write",
            Mode::Write => "write",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No lock mode has this name; the error lists those there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no lock mode; there are intent-read, intent-write, read, update, read-intent-write, write"
)]
pub struct UnknownModeName(pub String);

impl FromStr for Mode {
    type Err = UnknownModeName;

    fn from_str(name: &str) -> Result<Self, UnknownModeName> {
        Mode::ALL
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| UnknownModeName(name.to_owned()))
    }
}

/// A set of modes, a bit for each.
pub(super) type Modes = u8;

/// Which wanted mode conflicts with which held one, as data: a row for each held mode, a column for
/// each wanted one (what Berkeley DB sets with `set_lk_conflicts`).
///
/// The same table decides between two waiters, the earlier one in the place of the holder. It need not
/// be symmetric, and need not know every mode: a request in a mode that the table does not know is
/// refused.
///
/// ```
/// use lockkeeper::{ConflictTable, Mode};
///
/// // Many may read, one may append beside them, nobody may do both.
/// let journal = ConflictTable::new(
///     &[Mode::Read, Mode::Write],
///     &[&[false, false], &[false, true]],
/// )?;
/// assert!(!journal.conflicts(Mode::Write, Mode::Read));
/// assert!(ConflictTable::new(&[Mode::Read, Mode::Write], &[&[false]]).is_err());
/// # Ok::<(), lockkeeper::ConflictTableError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConflictTable {
    known: Modes,
    // For each held mode the wanted ones that conflict, and the other way round. The queue asks this
    // several times for each request.
    rows: [Modes; Mode::COUNT],
    columns: [Modes; Mode::COUNT],
}

/// Why a conflict table cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConflictTableError {
    /// There is not one row for each mode.
    #[error(
        "the conflict table names {modes} modes and has {rows} rows; it needs one row for each"
    )]
    Rows {
        /// How many modes are named.
        modes: usize,
        /// How many rows there are.
        rows: usize,
    },
    /// A row does not have one column for each mode.
    #[error(
        "the row of {mode} in the conflict table has {columns} columns; it needs one for each of the {modes} modes"
    )]
    Columns {
        /// Whose row.
        mode: Mode,
        /// How many modes are named.
        modes: usize,
        /// How many columns the row has.
        columns: usize,
    },
    /// A mode is named twice.
    #[error("the conflict table names {0} twice")]
    Twice(Mode),
    /// No mode is named.
    #[error("the conflict table names no mode")]
    Empty,
}

impl ConflictTable {
    /// A table for these modes: for each, in the same order, a row that says which wanted modes
    /// conflict with it when it is held.
    ///
    /// # Errors
    /// [`ConflictTableError`] if the table is not square, names a mode twice, or names none.
    pub fn new(modes: &[Mode], rows: &[&[bool]]) -> Result<Self, ConflictTableError> {
        if modes.is_empty() {
            return Err(ConflictTableError::Empty);
        }
        if modes.len() != rows.len() {
            return Err(ConflictTableError::Rows {
                modes: modes.len(),
                rows: rows.len(),
            });
        }
        let mut table = Self {
            known: 0,
            rows: [0; Mode::COUNT],
            columns: [0; Mode::COUNT],
        };
        for mode in modes {
            if table.knows(*mode) {
                return Err(ConflictTableError::Twice(*mode));
            }
            table.known |= 1 << mode.index();
        }
        for (held, row) in modes.iter().zip(rows) {
            if row.len() != modes.len() {
                return Err(ConflictTableError::Columns {
                    mode: *held,
                    modes: modes.len(),
                    columns: row.len(),
                });
            }
            for (wanted, conflict) in modes.iter().zip(*row) {
                if *conflict {
                    table.set(*held, *wanted);
                }
            }
        }
        Ok(table)
    }

    /// A table from the pairs that conflict, either of them held; all modes are known.
    const fn symmetric(pairs: &[(Mode, Mode)], known: Modes) -> Self {
        let mut table = Self {
            known,
            rows: [0; Mode::COUNT],
            columns: [0; Mode::COUNT],
        };
        let mut at = 0;
        while at < pairs.len() {
            let (a, b) = pairs[at];
            table.set(a, b);
            table.set(b, a);
            at += 1;
        }
        table
    }

    /// The usual table: readers share, a writer is alone, intentions share among themselves. This is
    /// the default.
    ///
    /// | held \ wanted | intent-read | intent-write | read | update | read-intent-write | write |
    /// |---|---|---|---|---|---|---|
    /// | intent-read | | | | | | x |
    /// | intent-write | | | x | x | x | x |
    /// | read | | x | | | x | x |
    /// | update | | x | | x | x | x |
    /// | read-intent-write | | x | x | x | x | x |
    /// | write | x | x | x | x | x | x |
    #[must_use]
    pub const fn standard() -> Self {
        use Mode::{IntentRead, IntentWrite, Read, ReadIntentWrite, Update, Write};
        Self::symmetric(
            &[
                (IntentWrite, Read),
                (IntentWrite, Update),
                (IntentWrite, ReadIntentWrite),
                (Read, ReadIntentWrite),
                (Update, Update),
                (Update, ReadIntentWrite),
                (ReadIntentWrite, ReadIntentWrite),
                (Write, IntentRead),
                (Write, IntentWrite),
                (Write, Read),
                (Write, Update),
                (Write, ReadIntentWrite),
                (Write, Write),
            ],
            (1 << Mode::COUNT) - 1,
        )
    }

    /// One writer at a time among many readers, as Berkeley DB's Concurrent Data Store has it: who
    /// will write takes intent-write, which shares with readers, and write only while it changes
    /// something. It knows read, intent-write and write.
    #[must_use]
    pub const fn single_writer() -> Self {
        use Mode::{IntentWrite, Read, Write};
        Self::symmetric(
            &[
                (Read, Write),
                (Write, Write),
                (Write, IntentWrite),
                (IntentWrite, IntentWrite),
            ],
            1 << Read as u8 | 1 << IntentWrite as u8 | 1 << Write as u8,
        )
    }

    const fn set(&mut self, held: Mode, wanted: Mode) {
        self.rows[held.index()] |= 1 << wanted.index();
        self.columns[wanted.index()] |= 1 << held.index();
    }

    /// Whether the table knows the mode.
    #[must_use]
    pub const fn knows(&self, mode: Mode) -> bool {
        self.known & (1 << mode.index()) != 0
    }

    /// Whether a lock wanted in mode `wanted` has to wait for one held in mode `held`.
    #[must_use]
    pub const fn conflicts(&self, held: Mode, wanted: Mode) -> bool {
        self.rows[held.index()] & (1 << wanted.index()) != 0
    }

    /// Whether `to` excludes nobody whom `from` does not exclude, and is excluded by nobody: then a lock
    /// can be downgraded from the one to the other without a wait.
    #[must_use]
    pub const fn is_no_stronger(&self, to: Mode, from: Mode) -> bool {
        self.rows[to.index()] & !self.rows[from.index()] == 0
            && self.columns[to.index()] & !self.columns[from.index()] == 0
    }

    /// The held modes that keep `wanted` waiting.
    pub(super) fn against(&self, wanted: Mode) -> impl Iterator<Item = Mode> + use<> {
        let column = self.columns[wanted.index()];
        Mode::ALL
            .into_iter()
            .filter(move |held| column & (1 << held.index()) != 0)
    }
}

impl Default for ConflictTable {
    fn default() -> Self {
        Self::standard()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mode::{IntentRead, IntentWrite, Read, Update, Write};

    #[test]
    fn the_standard_table_is_the_one_of_the_docs() {
        let expected = [
            [0, 0, 0, 0, 0, 1],
            [0, 0, 1, 1, 1, 1],
            [0, 1, 0, 0, 1, 1],
            [0, 1, 0, 1, 1, 1],
            [0, 1, 1, 1, 1, 1],
            [1, 1, 1, 1, 1, 1],
        ];
        let table = ConflictTable::default();
        for (held, row) in Mode::ALL.into_iter().zip(expected) {
            for (wanted, conflict) in Mode::ALL.into_iter().zip(row) {
                assert_eq!(
                    table.conflicts(held, wanted),
                    conflict == 1,
                    "{held} held, {wanted} wanted"
                );
                let against: Vec<Mode> = table.against(wanted).collect();
                assert_eq!(against.contains(&held), conflict == 1);
            }
        }
    }

    #[test]
    fn rows_are_held_and_columns_wanted() {
        let table = ConflictTable::new(&[Read, Write], &[&[false, true], &[false, false]]).unwrap();
        assert!(table.conflicts(Read, Write));
        assert!(!table.conflicts(Write, Read));
        assert!(!table.knows(Update));
    }

    #[test]
    fn a_table_that_is_not_square_is_refused() {
        use ConflictTableError as E;
        let (no, yes): (&[bool], &[bool]) = (&[false, false], &[true, true]);
        assert_eq!(ConflictTable::new(&[], &[]), Err(E::Empty));
        assert_eq!(
            ConflictTable::new(&[Read, Write], &[no]),
            Err(E::Rows { modes: 2, rows: 1 })
        );
        assert_eq!(
            ConflictTable::new(&[Read, Write], &[no, &[true]]),
            Err(E::Columns {
                mode: Write,
                modes: 2,
                columns: 1
            })
        );
        assert_eq!(
            ConflictTable::new(&[Read, Read], &[no, yes]),
            Err(E::Twice(Read))
        );
    }

    #[test]
    fn only_what_excludes_less_is_a_downgrade() {
        let table = ConflictTable::standard();
        for (from, to, can) in [
            (Write, Read, true),
            (Write, IntentRead, true),
            (Update, Read, true),
            (Mode::ReadIntentWrite, IntentWrite, true),
            (Mode::ReadIntentWrite, Update, true),
            (Read, Read, true),
            (Read, Update, false),
            (Read, IntentWrite, false),
            (IntentWrite, Read, false),
            (Read, Write, false),
        ] {
            assert_eq!(table.is_no_stronger(to, from), can, "{from} to {to}");
        }
    }

    #[test]
    fn modes_are_read_back_from_their_names() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        let error = "exclusive".parse::<Mode>().unwrap_err();
        assert!(
            error.to_string().contains("read-intent-write"),
            "{error} lists the modes"
        );
    }

    #[test]
    fn the_single_writer_shares_with_readers_until_it_writes() {
        let table = ConflictTable::single_writer();
        assert!(!table.conflicts(IntentWrite, Read));
        assert!(table.conflicts(IntentWrite, IntentWrite));
        assert!(table.conflicts(Read, Write));
        assert!(!table.knows(Update));
    }
}
