//! What can be locked in the histories, and which modes exclude each other there.
//!
//! Nothing is taken from the code under test: a range is the set of those sample keys that lie in it,
//! and two objects overlap if they share one. The sample has every bound, the key right after each,
//! and keys in between and outside.

use std::ops::Bound;
use std::sync::LazyLock;

use lockkeeper::Mode;

/// An object, as a place in [`Universe::kinds`].
pub type Obj = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Point(&'static str),
    Range(Bound<&'static str>, Bound<&'static str>),
    Prefix(&'static str),
    All,
}

impl Extent {
    fn contains(self, key: &str) -> bool {
        match self {
            Extent::Point(point) => key == point,
            Extent::Range(from, to) => {
                let after = match from {
                    Bound::Included(from) => key >= from,
                    Bound::Excluded(from) => key > from,
                    Bound::Unbounded => true,
                };
                let before = match to {
                    Bound::Included(to) => key <= to,
                    Bound::Excluded(to) => key < to,
                    Bound::Unbounded => true,
                };
                after && before
            }
            Extent::Prefix(prefix) => key.starts_with(prefix),
            Extent::All => true,
        }
    }
}

/// The namespace that goes by the table's own conflicts, and the one with conflicts of its own.
pub const NAMESPACES: [&str; 2] = ["plain", "own"];

const KEYS: [&str; 13] = [
    "", "a", "a\0", "ab", "b", "b\0", "ba", "bz", "c", "c\0", "d", "d\0", "e",
];

/// Points first, since most histories use a few of these.
const OBJECTS: [(u8, Extent); 13] = [
    (0, Extent::Point("a")),
    (0, Extent::Point("b")),
    (0, Extent::Point("c")),
    (0, Extent::Point("d")),
    (0, Extent::Range(Bound::Included("a"), Bound::Included("b"))),
    (0, Extent::Range(Bound::Excluded("b"), Bound::Excluded("d"))),
    (0, Extent::Range(Bound::Included("c"), Bound::Unbounded)),
    (0, Extent::Prefix("b")),
    (0, Extent::All),
    (1, Extent::Point("a")),
    (1, Extent::Point("b")),
    (1, Extent::Range(Bound::Unbounded, Bound::Excluded("b"))),
    (1, Extent::All),
];
pub const COUNT: usize = OBJECTS.len();
/// How many of the objects are points of the first namespace.
pub const POINTS: usize = 4;
/// How many of the objects are in the first namespace.
pub const PLAIN: usize = 9;

type Conflicts = [[bool; Mode::COUNT]; Mode::COUNT];

const X: bool = true;
const O: bool = false;

/// DESIGN's table: held in rows, wanted in columns, in the order of [`Mode::ALL`].
const PLAIN_CONFLICTS: Conflicts = [
    [O, O, O, O, O, X],
    [O, O, X, X, X, X],
    [O, X, O, O, X, X],
    [O, X, O, X, X, X],
    [O, X, X, X, X, X],
    [X, X, X, X, X, X],
];

/// A table that is not symmetric and does not know every mode: who reads lets an intention to write
/// in, but an intention to write keeps readers out.
pub const OWN_MODES: [Mode; 3] = [Mode::Read, Mode::IntentWrite, Mode::Write];
pub const OWN_ROWS: [[bool; 3]; 3] = [[O, O, X], [X, O, X], [X, X, X]];

pub struct Universe {
    pub objects: [(u8, Extent); COUNT],
    pub overlap: [[bool; COUNT]; COUNT],
    conflicts: [Conflicts; 2],
    known: [[bool; Mode::COUNT]; 2],
}

pub static UNIVERSE: LazyLock<Universe> = LazyLock::new(Universe::new);

impl Universe {
    fn new() -> Self {
        let mut overlap = [[false; COUNT]; COUNT];
        for (a, (namespace, one)) in OBJECTS.into_iter().enumerate() {
            for (b, (other_namespace, other)) in OBJECTS.into_iter().enumerate() {
                overlap[a][b] = namespace == other_namespace
                    && KEYS
                        .iter()
                        .any(|key| one.contains(key) && other.contains(key));
            }
        }
        let mut own = [[false; Mode::COUNT]; Mode::COUNT];
        for (held, row) in OWN_MODES.into_iter().zip(OWN_ROWS) {
            for (wanted, conflict) in OWN_MODES.into_iter().zip(row) {
                own[held.index()][wanted.index()] = conflict;
            }
        }
        Self {
            objects: OBJECTS,
            overlap,
            conflicts: [PLAIN_CONFLICTS, own],
            known: [
                [true; Mode::COUNT],
                Mode::ALL.map(|mode| OWN_MODES.contains(&mode)),
            ],
        }
    }

    pub fn knows(&self, object: Obj, mode: Mode) -> bool {
        self.known[usize::from(self.objects[usize::from(object)].0)][mode.index()]
    }

    /// Whether a lock in `wanted` on the one has to wait for a lock in `held` on the other.
    pub fn conflict(&self, (held_on, held): (Obj, Mode), (wanted_on, wanted): (Obj, Mode)) -> bool {
        let (held_on, wanted_on) = (usize::from(held_on), usize::from(wanted_on));
        self.overlap[held_on][wanted_on]
            && self.conflicts[usize::from(self.objects[held_on].0)][held.index()][wanted.index()]
    }

    /// Whether `to` excludes nobody whom `from` does not, and is excluded by nobody who is not by `from`.
    pub fn is_no_stronger(&self, object: Obj, to: Mode, from: Mode) -> bool {
        let table = &self.conflicts[usize::from(self.objects[usize::from(object)].0)];
        (0..Mode::COUNT).all(|other| {
            (!table[to.index()][other] || table[from.index()][other])
                && (!table[other][to.index()] || table[other][from.index()])
        })
    }
}

#[test]
fn ranges_overlap_as_their_bounds_say() {
    let overlaps = |a: usize, b: usize| UNIVERSE.overlap[a][b];
    // [a, b] has both of its ends, (b, d) none, [c, …) its first.
    assert!(overlaps(4, 0) && overlaps(4, 1) && !overlaps(4, 2));
    assert!(!overlaps(5, 1) && overlaps(5, 2) && !overlaps(5, 3));
    assert!(!overlaps(6, 1) && overlaps(6, 2) && overlaps(6, 3));
    // [a, b] and (b, d) share no key; the prefix b shares one with each.
    assert!(!overlaps(4, 5) && overlaps(7, 4) && overlaps(7, 5) && !overlaps(7, 6));
    assert!((0..PLAIN).all(|one| overlaps(8, one) && overlaps(one, 8)));
    assert!(!overlaps(8, 9), "another namespace");
    assert!(overlaps(11, 9) && !overlaps(11, 10));
}
