//! What is told about a conflict: who holds, who waits, and for a deadlock the whole cycle.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{Age, LockerId, Mode, Moment, Object, Text, VictimPolicy};

/// What kind of conflict it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum ConflictKind {
    /// The asker was on a cycle of waits, and was chosen to break it.
    Deadlock,
    /// The asker has waited for the lock as long as it may.
    LockTimeout,
    /// The time of the asker's transaction was over while it waited.
    TransactionTimeout,
    /// The asker did not want to wait.
    NotAvailable,
    /// The asker holds the lock longer than it may.
    HeldTooLong,
}

/// Somebody who holds a lock or waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Party {
    /// The locker.
    pub locker: LockerId,
    /// Its name, if it has one.
    pub name: Option<Text>,
    /// The mode it holds or asks for.
    pub mode: Mode,
    /// Its age; smaller is older.
    pub age: Age,
    /// Whether it is in the asker's way: it holds a conflicting lock, or came before with a conflicting
    /// request.
    pub in_the_way: bool,
    /// How long it has held the lock, or waited for it, when the report was made; exact to a few
    /// milliseconds.
    pub lasting: Duration,
    /// The line of code that asked for the lock.
    #[serde(serialize_with = "site")]
    pub site: &'static Location<'static>,
    /// The line of code that made the locker.
    #[serde(serialize_with = "site")]
    pub began: &'static Location<'static>,
}

/// A line of code as `file:line:column`.
pub(super) fn site<S: Serializer>(
    site: &&'static Location<'static>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(site)
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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

/// Why the victim of a deadlock was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Choice {
    /// The policy that decided among those of the lowest priority.
    pub policy: VictimPolicy,
    /// Whether it was the victim's request that closed the cycle.
    pub asked: bool,
    /// How many families were on cycles with each other.
    pub candidates: usize,
    /// The locker that was aborted, with its children.
    pub victim: LockerId,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.policy {
            VictimPolicy::Default if self.asked => "the one whose request closed the cycle,",
            VictimPolicy::Default | VictimPolicy::Youngest => "the youngest",
            VictimPolicy::Oldest => "the oldest",
            VictimPolicy::Expire => "one that was past its time, or else the youngest,",
            VictimPolicy::MaxLocks => "the one with the most locks",
            VictimPolicy::MinLocks => "the one with the fewest locks",
            VictimPolicy::MaxWrite => "the one with the most write locks",
            VictimPolicy::MinWrite => "the one with the fewest write locks",
            VictimPolicy::Random => "one by chance",
        };
        write!(
            f,
            "locker {} was chosen as {what} of the lowest priority among {} (policy {})",
            self.victim, self.candidates, self.policy
        )
    }
}

/// Why a lock was not granted, in full (what Berkeley DB JE's `LockConflictException` carries, and more).
///
/// `Display` prints it for a person; [`to_json`](Self::to_json) and [`to_graphviz`](Self::to_graphviz)
/// for programs. Of many owners or waiters at most 16 are named; if there are more than ten reports in a
/// second, those that are not about a deadlock name only the first of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LockConflict {
    /// The kind.
    pub kind: ConflictKind,
    /// What was to be locked.
    pub object: Object,
    /// Who asked, in which mode, and from which line; for a lock that is held too long, who holds it.
    pub asker: Party,
    /// Who holds the object, or one that overlaps it, in a mode that conflicts; at most 16 are named.
    pub owners: Vec<Party>,
    /// How many they are.
    pub owners_total: usize,
    /// Who else waits for the object, in the order of the queue; at most 16 are named.
    pub waiters: Vec<Party>,
    /// How many they are.
    pub waiters_total: usize,
    /// How long the request had waited; for a lock that is held too long, how long it was held.
    pub waited: Option<Duration>,
    /// For a timeout, how long the wait or the transaction was allowed to last; for a lock that is held
    /// too long, how long it may be held.
    pub timeout: Option<Duration>,
    /// For a deadlock: the cycle; the first step's waiter is of the family that was chosen.
    pub cycle: Vec<CycleStep>,
    /// For a deadlock: the families of the cycle that are older than the victim. It should begin
    /// again only when they have ended.
    pub older: Vec<LockerId>,
    /// For a deadlock: why this victim.
    pub choice: Option<Choice>,
}

impl LockConflict {
    /// The mode that was asked for.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.asker.mode
    }

    /// The report as JSON, on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A plain structure of strings and numbers: it can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The report as a graph for Graphviz: an arrow from each who waits to whoever is in the way.
    #[must_use]
    pub fn to_graphviz(&self) -> String {
        super::graphviz::conflict(self)
    }
}

impl fmt::Display for LockConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asker = &self.asker;
        let waited = self.waited.unwrap_or_default();
        let timeout = self.timeout.unwrap_or_default();
        if self.kind == ConflictKind::HeldTooLong {
            write!(
                f,
                "{asker} has held {} of {} for {waited:.1?}, longer than the {timeout:.1?} it may, since {}",
                asker.mode, self.object, asker.site
            )?;
            return list(f, "waits", &self.waiters, self.waiters_total);
        }
        write!(
            f,
            "{asker} asked for {} of {} at {}",
            asker.mode, self.object, asker.site
        )?;
        match self.kind {
            ConflictKind::Deadlock => return self.show_cycle(f),
            ConflictKind::LockTimeout => write!(
                f,
                " and waited {waited:.1?} of the {timeout:.1?} it may wait for a lock"
            )?,
            ConflictKind::TransactionTimeout => write!(
                f,
                " and had waited {waited:.1?} when the {timeout:.1?} of its transaction were over"
            )?,
            ConflictKind::NotAvailable => f.write_str(" and did not want to wait")?,
            ConflictKind::HeldTooLong => {}
        }
        list(f, "held", &self.owners, self.owners_total)?;
        list(f, "waits", &self.waiters, self.waiters_total)
    }
}

impl LockConflict {
    fn show_cycle(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.cycle.len();
        write!(f, " and was chosen to break a cycle of {steps}:")?;
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
        match &self.choice {
            Some(choice) => write!(f, "\n  {choice}"),
            None => Ok(()),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, how: &str, parties: &[Party], total: usize) -> fmt::Result {
    for party in parties {
        let (mode, lasting, site) = (party.mode, party.lasting, party.site);
        match how {
            "held" => write!(
                f,
                "\n  held for {mode} by {party} for {lasting:.1?} at {site}"
            )?,
            _ => write!(
                f,
                "\n  waited for, to {mode}, by {party} for {lasting:.1?} at {site}"
            )?,
        }
    }
    let more = total.saturating_sub(parties.len());
    match (more, how) {
        (0, _) => Ok(()),
        (more, "held") => write!(f, "\n  held by {more} more"),
        (more, _) => write!(f, "\n  waited for by {more} more"),
    }
}

/// A deadlock of the past.
#[derive(Debug, Clone)]
pub struct DeadlockRecord {
    /// When it was broken.
    pub at: Moment,
    /// The report, with the cycle and why this victim was chosen.
    pub conflict: Arc<LockConflict>,
}

/// What a full pass of the detector found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DetectReport {
    /// How many requests were waiting.
    pub waiting: usize,
    /// A report for each victim, with the cycle that it broke.
    pub victims: Vec<Arc<LockConflict>>,
    /// How long the pass took. The table itself leaves it zero: it has no clock.
    pub took: Duration,
}
