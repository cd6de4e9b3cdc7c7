//! A picture of the whole table at one moment.

use std::collections::{BTreeMap, HashMap};
use std::panic::Location;
use std::time::Duration;

use serde::Serialize;

use super::graphviz::Graph;
use super::queue::Rank;
use super::report::site;
use super::{Age, ConflictTable, DeadlockRecord, LockerId, Mode, Object, Table, Text};

/// A held lock in a [`LockSnapshot`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HeldLock {
    /// The object.
    pub object: Object,
    /// Who holds it.
    pub locker: LockerId,
    /// In which mode.
    pub mode: Mode,
    /// How many times it was taken and not yet released.
    pub count: u64,
    /// For how long; exact to a few milliseconds.
    pub lasting: Duration,
    /// The line of code that asked for it.
    #[serde(serialize_with = "site")]
    pub site: &'static Location<'static>,
}

/// A waiting request in a [`LockSnapshot`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WaitingLock {
    /// The object.
    pub object: Object,
    /// Who waits.
    pub locker: LockerId,
    /// For which mode.
    pub mode: Mode,
    /// For how long; exact to a few milliseconds.
    pub lasting: Duration,
    /// The line of code that asks.
    #[serde(serialize_with = "site")]
    pub site: &'static Location<'static>,
    #[serde(skip)]
    rank: Rank,
}

/// A locker in a [`LockSnapshot`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LockerInfo {
    /// Its id.
    pub locker: LockerId,
    /// The root of its family; itself for a root.
    pub family: LockerId,
    /// Its parent, for a child.
    pub parent: Option<LockerId>,
    /// Its name, if it has one.
    pub name: Option<Text>,
    /// Its age; smaller is older.
    pub age: Age,
    /// Its priority.
    pub priority: u32,
    /// How many locks it holds itself.
    pub locks: usize,
    /// Whether it was aborted and has not released everything yet.
    pub dead: bool,
    /// The line of code that made it.
    #[serde(serialize_with = "site")]
    pub began: &'static Location<'static>,
}

/// One family cannot go on before another: an edge of the waits-for graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WaitsFor {
    /// The locker that waits.
    pub waiter: LockerId,
    /// For what.
    pub object: Object,
    /// In which mode.
    pub mode: Mode,
    /// The locker in its way.
    pub blocker: LockerId,
    /// Whether that one holds the object, or one that overlaps it; if not, it waits too, and came first.
    pub held: bool,
}

/// Everything the table holds at one moment (Berkeley DB's `db_stat -C`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct LockSnapshot {
    /// Held locks, ordered by object, locker and mode.
    pub held: Vec<HeldLock>,
    /// Waiting requests, ordered by object, and for each object in the order of its queue.
    pub waiting: Vec<WaitingLock>,
    /// Lockers that exist, in the order in which they were made.
    pub lockers: Vec<LockerInfo>,
    #[serde(skip)]
    conflicts: ConflictTable,
    #[serde(skip)]
    own_conflicts: Vec<(Text, ConflictTable)>,
}

impl LockSnapshot {
    /// Puts everything in order. The table only copies: it stands still no longer than that takes.
    #[must_use]
    pub(crate) fn sorted(mut self) -> Self {
        self.held
            .sort_by(|a, b| (&a.object, a.locker, a.mode).cmp(&(&b.object, b.locker, b.mode)));
        self.waiting
            .sort_by(|a, b| (&a.object, a.rank).cmp(&(&b.object, b.rank)));
        self.lockers.sort_by_key(|info| info.locker);
        self
    }

    /// By object: who holds it, and who waits for it in which order.
    #[must_use]
    pub fn by_object(&self) -> BTreeMap<&Object, (Vec<&HeldLock>, Vec<&WaitingLock>)> {
        let mut all: BTreeMap<&Object, (Vec<&HeldLock>, Vec<&WaitingLock>)> = BTreeMap::new();
        for held in &self.held {
            all.entry(&held.object).or_default().0.push(held);
        }
        for waiting in &self.waiting {
            all.entry(&waiting.object).or_default().1.push(waiting);
        }
        all
    }

    /// By locker: what it holds, and what it waits for. Lockers with neither are there too.
    #[must_use]
    pub fn by_locker(&self) -> BTreeMap<LockerId, (Vec<&HeldLock>, Vec<&WaitingLock>)> {
        let mut all: BTreeMap<LockerId, (Vec<&HeldLock>, Vec<&WaitingLock>)> = self
            .lockers
            .iter()
            .map(|info| (info.locker, Default::default()))
            .collect();
        for held in &self.held {
            all.entry(held.locker).or_default().0.push(held);
        }
        for waiting in &self.waiting {
            all.entry(waiting.locker).or_default().1.push(waiting);
        }
        all
    }

    /// The edges of the waits-for graph, at most `most` of them: ten thousand who wait for one object to
    /// write it make fifty million.
    #[must_use]
    pub fn waits_for(&self, most: usize) -> Vec<WaitsFor> {
        let info: HashMap<LockerId, &LockerInfo> = self
            .lockers
            .iter()
            .map(|info| (info.locker, info))
            .collect();
        let family = |locker| info.get(&locker).map(|info| info.family);
        let is_dead = |locker| info.get(&locker).is_some_and(|info| info.dead);
        let mut edges = Vec::new();
        for waiting in &self.waiting {
            let rules = self.rules(waiting.object.namespace());
            let is_in_the_way = |object: &Object, locker: LockerId, mode: Mode| {
                family(locker) != family(waiting.locker)
                    && rules.conflicts(mode, waiting.mode)
                    && object.overlaps(&waiting.object)
            };
            let holders = self
                .held
                .iter()
                .filter(|held| is_in_the_way(&held.object, held.locker, held.mode))
                .filter(|held| !is_dead(held.locker))
                .map(|held| (held.locker, true));
            let earlier = self
                .waiting
                .iter()
                .filter(|other| other.rank < waiting.rank)
                .filter(|other| is_in_the_way(&other.object, other.locker, other.mode))
                .map(|other| (other.locker, false));
            for (blocker, held) in holders.chain(earlier) {
                if edges.len() == most {
                    return edges;
                }
                edges.push(WaitsFor {
                    waiter: waiting.locker,
                    object: waiting.object.clone(),
                    mode: waiting.mode,
                    blocker,
                    held,
                });
            }
        }
        edges
    }

    /// The snapshot as JSON, on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A plain structure of strings and numbers: it can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The waits-for graph for Graphviz, with at most `most` arrows.
    #[must_use]
    pub fn to_graphviz(&self, most: usize) -> String {
        let mut graph = Graph::default();
        for info in &self.lockers {
            let name = info.name.as_ref().map_or("locker", Text::as_str);
            let label = format!("{name} {}\n{}", info.locker, info.began);
            graph.node(info.locker, &label);
        }
        for edge in self.waits_for(most) {
            let label = format!("{} {}", edge.mode, edge.object);
            graph.edge(edge.waiter, edge.blocker, &label, edge.held);
        }
        graph.finish()
    }

    fn rules(&self, namespace: &str) -> &ConflictTable {
        let own = self.own_conflicts.iter();
        own.clone()
            .find(|(own, _)| own.as_str() == namespace)
            .map_or(&self.conflicts, |(_, table)| table)
    }
}

impl Table {
    /// Everything that is held and waited for.
    #[must_use]
    pub fn snapshot(&self) -> LockSnapshot {
        self.copy().sorted()
    }

    /// The same, in no order.
    pub(crate) fn copy(&self) -> LockSnapshot {
        let id = |slot| self.lockers[slot].id;
        let held = self.locks.iter().map(|(_, lock)| HeldLock {
            object: self.objects[lock.object].object.clone(),
            locker: id(lock.locker),
            mode: lock.mode,
            count: lock.count,
            lasting: self.now.since(lock.since),
            site: lock.site,
        });
        let waiting = self.waits.iter().map(|(_, wait)| WaitingLock {
            object: self.objects[wait.object].object.clone(),
            locker: id(wait.locker),
            mode: wait.mode,
            lasting: self.now.since(wait.since),
            site: wait.site,
            rank: wait.rank,
        });
        let lockers = self.lockers.iter().map(|(_, entry)| LockerInfo {
            locker: entry.id,
            family: id(entry.root),
            parent: entry.parent.map(id),
            name: entry.name.clone(),
            age: entry.age,
            priority: entry.priority,
            locks: entry.lock_count,
            dead: entry.dead.is_some(),
            began: entry.site,
        });
        LockSnapshot {
            held: held.collect(),
            waiting: waiting.collect(),
            lockers: lockers.collect(),
            conflicts: self.config.conflicts,
            own_conflicts: self.config.own_conflicts.clone(),
        }
    }

    /// The last 64 deadlocks, the oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<DeadlockRecord> {
        self.history.iter().cloned().collect()
    }
}
