//! The waits-for graph, and how its cycles are found and broken.
//!
//! Nodes are families. A family that waits has an edge to each family that holds a conflicting lock
//! on the object or one that overlaps it, and to each that waits there before it for a conflicting one.
//! What dead lockers hold makes no edge: it is about to be released. The edges follow from holders and
//! queues and are stored nowhere: with ten thousand waiters on one object there would be
//! fifty million of them. A search remembers for each object and mode how far it has looked instead,
//! so that a whole pass looks at each holder and each waiter once for each mode.

use super::queue::{HolderKey, Queued};
use super::slab::{LockSlot, LockerSlot, ObjectSlot, WaitSlot};
use super::{LockerId, Table};

/// Why one family cannot go on before another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    /// The request that waits.
    pub wait: WaitSlot,
    /// Who is in its way.
    pub blocker: Blocker,
}

/// What keeps a request waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocker {
    Lock(LockSlot),
    Wait(WaitSlot),
}

/// What a search makes room for at first: most see no more families.
const FEW: usize = 16;

impl Table {
    /// Whether the family is on a cycle. Looks forward and backward in turns, and ends as soon as
    /// either direction is exhausted: the usual request has one holder before it that waits for
    /// nobody, or nobody behind it.
    pub(super) fn is_on_cycle(&mut self, family: LockerSlot) -> bool {
        if self.lockers[family].family.waits.is_empty() {
            return false;
        }
        let pass = self.new_pass();
        self.see_forward(family, pass);
        let mut behind = self.right_behind(family, pass);
        if behind.len() == 1 {
            return false;
        }
        let mut visited_behind = 1;
        let mut path = vec![family];
        loop {
            let Some(&here) = path.last() else {
                return false;
            };
            match self.next_forward(here, pass) {
                Some(next) if self.lockers[next].family.seen_backward == pass => return true,
                Some(next) => path.push(next),
                None => {
                    path.pop();
                }
            }
            let Some(&next) = behind.get(visited_behind) else {
                // All who wait for the family are known: it is on a cycle if it waits for one of them. Those
                // that have been seen are none of them.
                while let Some(next) = self.next_forward(family, pass) {
                    if self.lockers[next].family.seen_backward == pass {
                        return true;
                    }
                }
                return false;
            };
            visited_behind += 1;
            let known = behind.len();
            self.visit_backward(next, pass, &mut behind);
            if behind
                .iter()
                .skip(known)
                .any(|new| self.lockers[*new].family.seen_forward == pass)
            {
                return true;
            }
        }
    }

    /// All who are on a cycle with the family, itself included; and a shortest cycle through it.
    pub(super) fn knot_of(&mut self, family: LockerSlot) -> (Vec<LockerSlot>, Vec<Edge>) {
        let pass = self.new_pass();
        let mut members = self.right_behind(family, pass);
        let cycle = self.wave(family, pass, true);
        members.retain(|member| self.lockers[*member].family.seen_forward == pass);
        self.all_behind(&mut members, 1, pass);
        (members, cycle)
    }

    /// Whether others wait for what the locker waits for, or for what its family holds: then its wait delays more than
    /// itself.
    pub fn waits_among_others(&self, locker: LockerId) -> bool {
        let Some(slot) = self.locker(locker) else {
            return false;
        };
        let family = self.lockers[slot].root;
        let is_other = |queued: &Queued| queued.family != family;
        let others_wait_for = |object: ObjectSlot| {
            let queue = self.objects[object].queue.as_ref();
            queue.is_some_and(|queue| queue.order.values().any(is_other))
        };
        let waits = self.lockers[family].family.waits.iter();
        if (waits.map(|wait| self.waits[*wait].object)).any(others_wait_for) {
            return true;
        }
        self.subtree(family).into_iter().any(|member| {
            let mut lock = self.lockers[member].locks;
            while let Some(slot) = lock {
                let entry = &self.locks[slot];
                if self.reach(entry.object).any(others_wait_for) {
                    return true;
                }
                lock = entry.next;
            }
            false
        })
    }

    /// The family, and those who wait for it.
    fn right_behind(&mut self, family: LockerSlot, pass: u64) -> Vec<LockerSlot> {
        self.lockers[family].family.seen_backward = pass;
        let mut found = Vec::with_capacity(FEW);
        found.push(family);
        self.visit_backward(family, pass, &mut found);
        found
    }

    /// Adds those behind the members from `done` on who have been seen forward in this pass. Nobody else
    /// can lead from one of them to another.
    fn all_behind(&mut self, members: &mut Vec<LockerSlot>, mut done: usize, pass: u64) {
        while let Some(&here) = members.get(done) {
            let known = members.len();
            self.visit_backward(here, pass, members);
            let mut kept = known;
            for at in known..members.len() {
                if self.lockers[members[at]].family.seen_forward == pass {
                    members.swap(kept, at);
                    kept += 1;
                }
            }
            members.truncate(kept);
            done += 1;
        }
    }

    /// The strongly connected parts, of two families or more, that can be reached from `roots`: one
    /// walk forward for the order in which families are finished, one backward in the opposite order.
    pub(super) fn knots(&mut self, roots: &[LockerId]) -> Vec<Vec<LockerSlot>> {
        let pass = self.new_pass();
        let mut finished = Vec::new();
        for root in roots.iter().map(|root| root.slot) {
            if self.lockers[root].family.seen_forward == pass {
                continue;
            }
            self.see_forward(root, pass);
            let mut path = vec![root];
            while let Some(&here) = path.last() {
                match self.next_forward(here, pass) {
                    Some(next) => path.push(next),
                    None => {
                        path.pop();
                        finished.push(here);
                    }
                }
            }
        }
        let mut knots = Vec::new();
        let mut members = Vec::with_capacity(FEW);
        while let Some(root) = finished.pop() {
            if self.lockers[root].family.seen_backward == pass {
                continue;
            }
            self.lockers[root].family.seen_backward = pass;
            members.clear();
            members.push(root);
            self.all_behind(&mut members, 0, pass);
            if members.len() > 1 {
                knots.push(members.clone());
            }
        }
        knots
    }

    /// A shortest cycle through a family that is on one: each edge leads to the family of the next.
    pub(super) fn shortest_cycle(&mut self, family: LockerSlot) -> Vec<Edge> {
        let pass = self.new_pass();
        self.right_behind(family, pass);
        self.wave(family, pass, false)
    }

    /// Looks forward in all directions at once until it comes to somebody right behind the family, so that
    /// the cycle is a shortest; goes on to see everyone ahead if that is wanted.
    fn wave(&mut self, family: LockerSlot, pass: u64, everyone: bool) -> Vec<Edge> {
        self.see_forward(family, pass);
        // Each with the place, in this list, of who led to it.
        let mut found: Vec<(LockerSlot, Option<usize>)> = Vec::with_capacity(FEW);
        found.push((family, None));
        let mut cycle = Vec::new();
        let mut at = 0;
        while let Some(&(here, before)) = found.get(at) {
            let is_behind = at > 0 && self.lockers[here].family.seen_backward == pass;
            if is_behind && cycle.is_empty() {
                cycle.extend(self.edge(here, family));
                let (mut to, mut place) = (here, before);
                while let Some((from, before)) = place.and_then(|place| found.get(place)).copied() {
                    cycle.extend(self.edge(from, to));
                    (to, place) = (from, before);
                }
                cycle.reverse();
                if !everyone {
                    break;
                }
            }
            self.visit_forward(here, pass, |next| found.push((next, Some(at))));
            at += 1;
        }
        cycle
    }

    /// The edge from one family to another, if there is one.
    fn edge(&self, from: LockerSlot, to: LockerSlot) -> Option<Edge> {
        let waits = &self.lockers[from].family.waits;
        waits.iter().find_map(|&wait| {
            let blocker = self.blockers_of(wait, to).next()?;
            Some(Edge { wait, blocker })
        })
    }

    /// What the family has that keeps a request of another one waiting: locks first, then waits.
    pub(super) fn blockers_of(
        &self,
        wait: WaitSlot,
        family: LockerSlot,
    ) -> impl Iterator<Item = Blocker> + use<'_> {
        let entry = &self.waits[wait];
        let own = self.lockers[entry.locker].root == family;
        let rules = *self.rules(entry.object);
        let locks = self
            .reach(entry.object)
            .flat_map(move |object| self.objects[object].holders.of_family(family))
            .filter(move |(key, _)| rules.conflicts(key.mode, entry.mode) && self.is_alive(*key))
            .map(|(_, lock)| Blocker::Lock(lock));
        let waits = self.lockers[family].family.waits.iter();
        let waits = waits.copied().filter(move |other| {
            let other = &self.waits[*other];
            other.rank < entry.rank
                && rules.conflicts(other.mode, entry.mode)
                && (other.object == entry.object || self.overlap(other.object, entry.object))
        });
        locks.chain(waits.map(Blocker::Wait)).filter(move |_| !own)
    }

    pub(super) fn overlap(&self, one: ObjectSlot, other: ObjectSlot) -> bool {
        let overlaps = &self.objects[one].overlaps;
        overlaps.as_ref().is_some_and(|all| all.contains(&other))
    }

    /// Whether a lock is held by a locker that has not been aborted.
    pub(super) fn is_alive(&self, key: HolderKey) -> bool {
        self.lockers[key.locker].dead.is_none()
    }

    fn new_pass(&mut self) -> u64 {
        self.passes += 1;
        self.passes
    }
}
