//! The matrix: which level lets which anomaly happen. The tests show it, and the page about isolation says the same.

use std::fs;

use lockkeeper::Isolation;
use lockkeeper::Isolation::{Optimistic, ReadCommitted, RepeatableRead, Serializable, Snapshot};

/// What may go wrong between transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anomaly {
    DirtyRead,
    FuzzyRead,
    LostUpdate,
    ReadSkew,
    WriteSkew,
    Phantom,
    /// A lost update in spite of `get_for_update`.
    LostForUpdate,
    /// Two each find a range empty, and each put a record into it.
    RangeSkew,
    /// A reader sees a state that no order of the writers has.
    ReadOnly,
}

use Anomaly::{
    DirtyRead, FuzzyRead, LostForUpdate, LostUpdate, Phantom, RangeSkew, ReadOnly, ReadSkew,
    WriteSkew,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// It never happens.
    Never,
    /// It may, and a test shows it.
    Happens,
}

use Cell::{Happens, Never};

/// What the table is about.
pub const ANOMALIES: [Anomaly; 6] = [
    DirtyRead, FuzzyRead, LostUpdate, ReadSkew, WriteSkew, Phantom,
];

pub const MATRIX: [(Isolation, [Cell; 6]); 5] = [
    (Serializable, [Never; 6]),
    (RepeatableRead, [Never, Never, Never, Never, Never, Happens]),
    (
        ReadCommitted,
        [Never, Happens, Happens, Happens, Happens, Happens],
    ),
    (Snapshot, [Never, Never, Never, Never, Happens, Never]),
    (Optimistic, [Never; 6]),
];

/// Three more, which the usual names do not tell apart.
pub const FINER: [Anomaly; 3] = [LostForUpdate, RangeSkew, ReadOnly];

pub const FINER_MATRIX: [(Isolation, [Cell; 3]); 5] = [
    (Serializable, [Never; 3]),
    (RepeatableRead, [Never, Happens, Never]),
    (ReadCommitted, [Never, Happens, Happens]),
    (Snapshot, [Never, Happens, Happens]),
    (Optimistic, [Never; 3]),
];

/// What a level lets happen.
pub fn expected(isolation: Isolation, anomaly: Anomaly) -> Cell {
    let in_table = |rows: &[(Isolation, &[Cell])], columns: &[Anomaly]| {
        let (_, cells) = rows.iter().find(|(level, _)| *level == isolation)?;
        let column = columns.iter().position(|column| *column == anomaly)?;
        cells.get(column).copied()
    };
    let matrix: Vec<_> = MATRIX
        .iter()
        .map(|(level, row)| (*level, &row[..]))
        .collect();
    let finer = FINER_MATRIX.iter();
    let finer: Vec<_> = finer.map(|(level, row)| (*level, &row[..])).collect();
    in_table(&matrix, &ANOMALIES)
        .or_else(|| in_table(&finer, &FINER))
        .unwrap()
}

impl Anomaly {
    /// As the page calls it.
    fn heading(self) -> &'static str {
        match self {
            DirtyRead => "dirty read",
            FuzzyRead => "fuzzy read",
            LostUpdate => "lost update",
            ReadSkew => "read skew",
            WriteSkew => "write skew",
            Phantom => "phantom",
            LostForUpdate => "lost update after `get_for_update`",
            RangeSkew => "write skew over a range",
            ReadOnly => "read-only anomaly",
        }
    }
}

/// The cells of a table of the page that stands between two marks.
fn on_the_page(mark: &str) -> Vec<Vec<String>> {
    let page = fs::read_to_string("docs/isolation.md").unwrap();
    let (_, rest) = page.split_once(&format!("<!-- {mark}: begin")).unwrap();
    let (table, _) = rest.split_once(&format!("<!-- {mark}: end")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with('|'));
    let cells = |row: &str| {
        let row = row.trim().trim_matches('|');
        row.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    rows.filter(|row| !row.starts_with("|---"))
        .map(cells)
        .collect()
}

fn as_written<'r>(
    anomalies: &[Anomaly],
    rows: impl Iterator<Item = (Isolation, &'r [Cell])>,
) -> Vec<Vec<String>> {
    let mut table = vec![vec![String::new()]];
    table[0].extend(anomalies.iter().map(|anomaly| anomaly.heading().to_owned()));
    for (level, cells) in rows {
        let mut row = vec![format!("`{level:?}`")];
        row.extend(cells.iter().map(|cell| match cell {
            Never => "never".to_owned(),
            Happens => "**happens**".to_owned(),
        }));
        table.push(row);
    }
    table
}

#[test]
fn the_page_says_what_the_tests_show() {
    let rows = MATRIX.iter().map(|(level, row)| (*level, &row[..]));
    assert_eq!(on_the_page("matrix"), as_written(&ANOMALIES, rows));
    let rows = FINER_MATRIX.iter().map(|(level, row)| (*level, &row[..]));
    assert_eq!(on_the_page("finer"), as_written(&FINER, rows));
}

#[test]
fn every_level_has_its_rows() {
    let levels = MATRIX.map(|(level, _)| level);
    assert_eq!(levels, Isolation::ALL);
    assert_eq!(FINER_MATRIX.map(|(level, _)| level), Isolation::ALL);
}
