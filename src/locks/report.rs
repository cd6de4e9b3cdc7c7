//! What is told about a conflict: who holds, who waits, and for a deadlock the whole cycle.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::{Age, LockerId, Mode, Object, Text};

/// What kind of conflict it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConflictKind {
    /// The asker was on a cycle of waits, and was chosen to break it.
    Deadlock,
    /// The asker's wait has reached its deadline.
    Timeout,
    /// The asker did not want to wait.
    NotAvailable,
}

/// Somebody who holds a lock or waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// The locker.
    pub locker: LockerId,
    /// Its name, if it has one.
    pub name: Option<Text>,
    /// The mode it holds or asks for.
    pub mode: Mode,
    /// Its age; smaller is older.
    pub age: Age,
    /// The line of code that asked for the lock.
    pub site: &'static Location<'static>,
    /// The line of code that made the locker.
    pub began: &'static Location<'static>,
}

/// `transfer (locker 7, age 5)`.
impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (locker {}, age {})", self.locker, self.age),
            None => write!(f, "locker {} (age {})", self.locker, self.age),
        }
    }
}

/// One edge of a cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CycleStep {
    /// Who waits.
    pub waiter: Party,
    /// For what.
    pub object: Object,
    /// Who is in the way; the waiter of the next step is of the same family.
    pub blocker: Party,
    /// Whether the blocker holds the object; if not, it waits for it too, and came first.
    pub held: bool,
}

/// Why a lock was not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conflict {
    /// The kind.
    pub kind: ConflictKind,
    /// What was to be locked.
    pub object: Object,
    /// Who asked, in which mode, and from which line.
    pub asker: Party,
    /// Who holds the object in a mode that conflicts; at most 16 are named.
    pub owners: Vec<Party>,
    /// How many they are.
    pub owners_total: usize,
    /// Who else waits for the object, in the order of the queue; at most 16 are named.
    pub waiters: Vec<Party>,
    /// How many they are.
    pub waiters_total: usize,
    /// For a timeout: how long the request waited.
    pub waited: Option<Duration>,
    /// For a timeout: how long it was allowed to wait.
    pub timeout: Option<Duration>,
    /// For a deadlock: the cycle; the first step's waiter is the victim, who asks here.
    pub cycle: Vec<CycleStep>,
    /// For a deadlock: the families of the cycle that are older than the victim. It should begin
    /// again only when they have ended.
    pub older: Vec<LockerId>,
}

impl Conflict {
    /// The mode that was asked for.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.asker.mode
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asker = &self.asker;
        write!(
            f,
            "{asker} asked for {} of {} at {}",
            asker.mode, self.object, asker.site
        )?;
        match self.kind {
            ConflictKind::Deadlock => {
                write!(
                    f,
                    " and was chosen to break a cycle of {}:",
                    self.cycle.len()
                )?;
                for step in &self.cycle {
                    let (waiter, blocker) = (&step.waiter, &step.blocker);
                    let how = if step.held {
                        "held for"
                    } else {
                        "asked for before to"
                    };
                    write!(
                        f,
                        "\n  {waiter} waits to {} {} at {}\n    {how} {} by {blocker} at {}",
                        waiter.mode, step.object, waiter.site, blocker.mode, blocker.site
                    )?;
                }
                return Ok(());
            }
            ConflictKind::Timeout => {
                let waited = self.waited.unwrap_or_default();
                let timeout = self.timeout.unwrap_or_default();
                write!(
                    f,
                    " and waited {waited:.1?} of the {timeout:.1?} it may wait for a lock"
                )?;
            }
            ConflictKind::NotAvailable => f.write_str(" and did not want to wait")?,
        }
        list(f, "held for", &self.owners, self.owners_total)?;
        list(f, "waited for, to", &self.waiters, self.waiters_total)
    }
}

fn list(f: &mut fmt::Formatter<'_>, what: &str, parties: &[Party], total: usize) -> fmt::Result {
    for party in parties {
        write!(f, "\n  {what} {} by {party} at {}", party.mode, party.site)?;
    }
    match total.saturating_sub(parties.len()) {
        0 => Ok(()),
        more => write!(f, "\n  {what} … by {more} more"),
    }
}

/// What a full pass of the detector found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DetectReport {
    /// How many requests were waiting.
    pub waiting: usize,
    /// A report for each victim, with the cycle that it broke.
    pub victims: Vec<Arc<Conflict>>,
    /// How long the pass took. The table itself leaves it zero: it has no clock.
    pub took: Duration,
}
