//! One object: who holds it, and who waits for it in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};

use smallvec::SmallVec;

use super::slab::{LockSlot, LockerSlot, ObjectSlot, WaitSlot};
use super::{Mode, Object};

/// An object that somebody holds or waits for.
#[derive(Debug)]
pub(super) struct ObjectEntry {
    pub object: Object,
    /// Of the object, so that it is computed once.
    pub hash: u64,
    /// Which of the table's conflict tables it goes by.
    pub rules: u16,
    pub holders: Holders,
    /// Held locks by mode.
    pub held: [u32; Mode::COUNT],
    /// Boxed, because most objects have no waiter.
    pub queue: Option<Box<Queue>>,
    /// The other objects that share a key with it; only where ranges are locked.
    #[expect(
        clippy::box_collection,
        reason = "one word in each object, which mostly has none"
    )]
    pub overlaps: Option<Box<BTreeSet<ObjectSlot>>>,
}

impl ObjectEntry {
    #[inline]
    pub(super) fn new(
        object: Object,
        hash: u64,
        rules: u16,
        holder: Option<(HolderKey, LockSlot)>,
    ) -> Self {
        let mut held = [0; Mode::COUNT];
        let holders = match holder {
            Some((key, lock)) => {
                held[key.mode.index()] = 1;
                Holders::One(key, lock)
            }
            None => Holders::Nobody,
        };
        Self {
            object,
            hash,
            rules,
            holders,
            held,
            queue: None,
            overlaps: None,
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        self.queue.is_none() && matches!(self.holders, Holders::Nobody)
    }
}

/// Names one held lock among those of an object; ordered so that a family's locks are side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HolderKey {
    pub family: LockerSlot,
    pub locker: LockerSlot,
    pub mode: Mode,
}

/// The held locks of an object. One holder, the usual case, needs no allocation.
#[derive(Debug)]
pub(super) enum Holders {
    Nobody,
    One(HolderKey, LockSlot),
    Many(BTreeMap<HolderKey, LockSlot>),
}

impl Holders {
    #[inline]
    pub(super) fn insert(&mut self, key: HolderKey, lock: LockSlot) {
        match self {
            Holders::Nobody => *self = Holders::One(key, lock),
            Holders::One(first, first_lock) => {
                *self = Holders::Many(BTreeMap::from([(*first, *first_lock), (key, lock)]));
            }
            Holders::Many(map) => {
                map.insert(key, lock);
            }
        }
    }

    pub(super) fn remove(&mut self, key: HolderKey) -> Option<LockSlot> {
        match self {
            Holders::One(only, lock) if *only == key => {
                let lock = *lock;
                *self = Holders::Nobody;
                Some(lock)
            }
            Holders::Many(map) => {
                let lock = map.remove(&key);
                if map.is_empty() {
                    *self = Holders::Nobody;
                }
                lock
            }
            _ => None,
        }
    }

    #[inline]
    pub(super) fn find(&self, key: HolderKey) -> Option<LockSlot> {
        match self {
            Holders::One(only, lock) if *only == key => Some(*lock),
            Holders::Many(map) => map.get(&key).copied(),
            _ => None,
        }
    }

    /// The holder that comes next after `last`, or the first.
    pub(super) fn after(&self, last: Option<HolderKey>) -> Option<(HolderKey, LockSlot)> {
        match self {
            Holders::Nobody => None,
            Holders::One(key, lock) => last.is_none_or(|last| last < *key).then_some((*key, *lock)),
            Holders::Many(map) => {
                let from = last.map_or(Bound::Unbounded, Bound::Excluded);
                map.range((from, Bound::Unbounded))
                    .next()
                    .map(|(key, lock)| (*key, *lock))
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (HolderKey, LockSlot)> {
        let (one, many) = match self {
            Holders::Nobody => (None, None),
            Holders::One(key, lock) => (Some((*key, *lock)), None),
            Holders::Many(map) => (None, Some(map.iter().map(|(key, lock)| (*key, *lock)))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// The locks that one family holds.
    pub(super) fn of_family(
        &self,
        family: LockerSlot,
    ) -> impl Iterator<Item = (HolderKey, LockSlot)> {
        let (one, many) = match self {
            Holders::Nobody => (None, None),
            Holders::One(key, lock) => ((key.family == family).then_some((*key, *lock)), None),
            Holders::Many(map) => {
                let first = HolderKey {
                    family,
                    locker: LockerSlot::MIN,
                    mode: Mode::ALL[0],
                };
                let last = HolderKey {
                    family,
                    locker: LockerSlot::MAX,
                    mode: Mode::ALL[Mode::COUNT - 1],
                };
                (
                    None,
                    Some(map.range(first..=last).map(|(key, lock)| (*key, *lock))),
                )
            }
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(super) fn has_family(&self, family: LockerSlot) -> bool {
        self.of_family(family).next().is_some()
    }
}

/// A request's place in the queue: those of families that hold the object come first, then by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub group: Group,
    /// Arrival; one sequence for the whole table, so for each namespace too.
    pub arrival: u64,
}

impl Rank {
    pub(super) const FIRST: Self = Self {
        group: Group::Holder,
        arrival: 0,
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// The family holds the object already.
    Holder,
    Newcomer,
}

/// What the queue itself has to know of a waiting request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued {
    pub wait: WaitSlot,
    pub family: LockerSlot,
    pub mode: Mode,
}

/// Those who wait for an object.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub order: Order,
    /// How many wait, by group and mode: tells in constant time whether a newcomer has to wait.
    pub counts: [[u32; Mode::COUNT]; 2],
    /// How far searches of the waits-for graph have been in the queue, by the mode they asked for. Mostly
    /// there is one.
    visited: SmallVec<[(Mode, Visited); 1]>,
}

impl Queue {
    pub(super) fn insert(&mut self, rank: Rank, queued: Queued) {
        self.counts[rank.group as usize][queued.mode.index()] += 1;
        self.order.insert(rank, queued);
    }

    pub(super) fn remove(&mut self, rank: Rank) -> Option<Queued> {
        let queued = self.order.remove(rank)?;
        self.counts[rank.group as usize][queued.mode.index()] -= 1;
        Some(queued)
    }

    /// Where searches for requests in `mode` have been.
    pub(super) fn visited(&mut self, mode: Mode) -> &mut Visited {
        let known = self.visited.iter().position(|(of, _)| *of == mode);
        let at = known.unwrap_or_else(|| {
            self.visited.push((mode, Visited::default()));
            self.visited.len() - 1
        });
        &mut self.visited[at].1
    }

    /// How many in `mode` come before a request that arrives now in `group`.
    pub(super) fn ahead_of_newest(&self, group: Group, mode: Mode) -> u32 {
        let [holders, newcomers] = self.counts.map(|group| group[mode.index()]);
        match group {
            Group::Holder => holders,
            Group::Newcomer => holders + newcomers,
        }
    }
}

/// Waiting requests by rank. A single one, the usual case, needs no allocation.
#[derive(Debug, Default)]
pub(super) enum Order {
    #[default]
    Nobody,
    One(Rank, Queued),
    Many(BTreeMap<Rank, Queued>),
}

impl Order {
    fn insert(&mut self, rank: Rank, queued: Queued) {
        match self {
            Order::Nobody => *self = Order::One(rank, queued),
            Order::One(first, waiting) => {
                *self = Order::Many(BTreeMap::from([(*first, *waiting), (rank, queued)]));
            }
            Order::Many(map) => {
                map.insert(rank, queued);
            }
        }
    }

    fn remove(&mut self, rank: Rank) -> Option<Queued> {
        match self {
            Order::One(only, queued) if *only == rank => {
                let queued = *queued;
                *self = Order::Nobody;
                Some(queued)
            }
            Order::Many(map) => {
                let queued = map.remove(&rank);
                if map.is_empty() {
                    *self = Order::Nobody;
                }
                queued
            }
            _ => None,
        }
    }

    pub(super) fn range(
        &self,
        ranks: impl RangeBounds<Rank>,
    ) -> impl Iterator<Item = (&Rank, &Queued)> {
        let (one, many) = match self {
            Order::Nobody => (None, None),
            Order::One(rank, queued) => (ranks.contains(rank).then_some((rank, queued)), None),
            Order::Many(map) => (None, Some(map.range(ranks))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Queued> {
        self.range(..).map(|(_, queued)| queued)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Order::Nobody => 0,
            Order::One(..) => 1,
            Order::Many(map) => map.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Order::Nobody)
    }
}

/// Where the searches of one pass have been for the waiters of one object and mode, so that a pass looks
/// at each holder and waiter once for each mode, however many wait here. What it has passed is known to
/// the pass, so it need not look again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Visited {
    pub forward_pass: u64,
    /// The object, this or one that overlaps, whose holders are being looked at, and the last of them.
    pub object: Option<ObjectSlot>,
    pub holder: Option<HolderKey>,
    pub holders_done: bool,
    /// Waiters for this object before this one have been looked at.
    pub before: Option<Rank>,
    /// Waiters for objects that overlap, before this one, have been looked at.
    pub near_before: Option<Rank>,
    /// Up to where they are being looked at, and the object that was come to.
    pub near_rank: Option<Rank>,
    pub near: Option<ObjectSlot>,
    pub backward_pass: u64,
    /// Waiters from this one on have been looked at.
    pub from: Option<Rank>,
}

impl Visited {
    /// As it is in this pass: a search forward that is new has been nowhere.
    pub(super) fn in_pass(&mut self, pass: u64) -> &mut Self {
        if self.forward_pass != pass {
            *self = Self {
                forward_pass: pass,
                backward_pass: self.backward_pass,
                from: self.from,
                ..Self::default()
            };
        }
        self
    }
}
