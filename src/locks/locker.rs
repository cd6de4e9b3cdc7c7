//! Who holds or waits for locks.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::slab::{LockSlot, LockerSlot, WaitSlot};
use super::{LockConflict, Moment, Text};

/// The priority of a locker that does not say otherwise.
pub const DEFAULT_PRIORITY: u32 = 100;

/// Names a locker. Never given twice by one table; it names, it does not own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockerId {
    // The order of comparison: the number first, and it alone is shown.
    pub(super) number: u64,
    pub(super) slot: LockerSlot,
}

impl LockerId {
    /// The locker's number: 1 for the first that the table knew, and so on.
    #[must_use]
    pub fn number(self) -> u64 {
        self.number
    }
}

impl serde::Serialize for LockerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.number)
    }
}

impl fmt::Display for LockerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

impl fmt::Debug for LockerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockerId({})", self.number)
    }
}

/// When the first attempt of a transaction began, as a sequence number: smaller is older.
///
/// A transaction that is run again passes the age of its first attempt on, and so gets older than
/// all that came later, until it is nobody's victim any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Age(pub(super) u64);

impl Age {
    /// The sequence number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a new locker is like, as the table wants to know it.
#[derive(Debug, Clone)]
pub struct LockerSpec {
    /// What reports call it.
    pub name: Option<Text>,
    /// The age of an earlier attempt; `None` makes it the youngest of all.
    pub age: Option<Age>,
    /// Those with the lowest priority are chosen as victims first. Default
    /// [`DEFAULT_PRIORITY`] (100). A family has that of its root.
    pub priority: u32,
    /// How long its requests wait that do not say otherwise, its children's too; zero is for ever.
    /// `None`: as the table's `lock_timeout` says.
    pub lock_timeout: Option<Duration>,
    /// How long it may take in all, from now, before its waits end; zero is for ever. `None`: for a root
    /// as the table's `txn_timeout` says, for a child as long as its parent.
    pub txn_timeout: Option<Duration>,
    /// The line of code that asked for it.
    pub site: &'static Location<'static>,
}

impl LockerSpec {
    /// A nameless locker of default priority, younger than all others, asked for by the caller's line.
    #[track_caller]
    #[must_use]
    pub fn new() -> Self {
        Self {
            name: None,
            age: None,
            priority: DEFAULT_PRIORITY,
            lock_timeout: None,
            txn_timeout: None,
            site: Location::caller(),
        }
    }

    /// Gives it a name, for reports.
    #[must_use]
    pub fn name(mut self, name: impl Into<Text>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Gives it the age of an earlier attempt; `None` makes it the youngest.
    #[must_use]
    pub fn age(mut self, age: Option<Age>) -> Self {
        self.age = age;
        self
    }

    /// Sets the priority (default 100).
    #[must_use]
    pub fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// Sets how long its requests wait that do not say otherwise; zero is for ever (default: the
    /// table's `lock_timeout`).
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = Some(timeout);
        self
    }

    /// Sets how long it may take in all before its waits end; zero is for ever (default: the table's
    /// `txn_timeout`).
    #[must_use]
    pub fn txn_timeout(mut self, timeout: Duration) -> Self {
        self.txn_timeout = Some(timeout);
        self
    }
}

impl Default for LockerSpec {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

/// A locker as the table keeps it. What is said to belong to the family is kept by its root.
#[derive(Debug)]
pub(super) struct LockerEntry {
    pub id: LockerId,
    /// The root of its family; its own slot for a root.
    pub root: LockerSlot,
    pub parent: Option<LockerSlot>,
    /// In the order in which they were made.
    pub children: Vec<LockerSlot>,
    /// Of the family.
    pub age: Age,
    pub priority: u32,
    pub name: Option<Text>,
    pub site: &'static Location<'static>,
    pub lock_timeout: Option<Duration>,
    pub txn: Option<TxnDeadline>,
    /// The head of the list of its held locks.
    pub locks: Option<LockSlot>,
    pub lock_count: usize,
    /// Why it may ask for nothing until it has released everything.
    pub dead: Option<Arc<LockConflict>>,
    /// What its next request is told, once.
    pub overdue: Option<Arc<LockConflict>>,
    pub family: Family,
}

/// The deadline of everything a locker does.
#[derive(Debug, Clone, Copy)]
pub(super) struct TxnDeadline {
    pub at: Moment,
    pub timeout: Duration,
}

/// What is kept for a family as a whole, by its root.
#[derive(Debug, Default)]
pub(super) struct Family {
    /// Its waiting requests, earliest first.
    pub waits: SmallVec<[WaitSlot; 2]>,
    pub locks: usize,
    pub write_locks: usize,
    /// The searches that came by last, forward and backward.
    pub seen_forward: u64,
    pub seen_backward: u64,
    /// How many of its waits have led that forward search to everyone they can lead to.
    pub waits_done: usize,
}
