//! The waits-for graph, and how its cycles are found and broken.
//!
//! Nodes are families. A family that waits has an edge to each family that holds a conflicting lock
//! on the object or one that overlaps it, and to each that waits there before it for a conflicting one.
//! What dead lockers hold makes no edge: it is about to be released. The edges follow from holders and
//! queues and are stored nowhere: with ten thousand waiters on one object there would be
//! fifty million of them. A search remembers for each object and mode how far it has looked instead,
//! so that a whole pass looks at each holder and each waiter once for each mode.

use std::ops::Bound;

use super::queue::{HolderKey, Queued, Rank, Visited};
use super::slab::{LockSlot, LockerSlot, ObjectSlot, WaitSlot};
use super::{LockerId, Mode, Table};

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
            while let Some(next) = self.next_forward(here, pass) {
                found.push((next, Some(at)));
            }
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

    fn overlap(&self, one: ObjectSlot, other: ObjectSlot) -> bool {
        let overlaps = &self.objects[one].overlaps;
        overlaps.as_ref().is_some_and(|all| all.contains(&other))
    }

    /// Whether a lock is held by a locker that has not been aborted.
    fn is_alive(&self, key: HolderKey) -> bool {
        self.lockers[key.locker].dead.is_none()
    }

    fn new_pass(&mut self) -> u64 {
        self.passes += 1;
        self.passes
    }

    /// A family that this one waits for and that the pass has not seen yet; it is seen now.
    fn next_forward(&mut self, family: LockerSlot, pass: u64) -> Option<LockerSlot> {
        // A wait that has led to everyone it can lead to is not looked at again.
        loop {
            let entry = &self.lockers[family].family;
            let &wait = entry.waits.get(entry.waits_done)?;
            let found = self
                .next_holder(wait, family, pass)
                .or_else(|| self.next_ahead(wait, family, pass))
                .or_else(|| self.next_ahead_nearby(wait, family, pass));
            if let Some(next) = found {
                self.see_forward(next, pass);
                return Some(next);
            }
            self.lockers[family].family.waits_done += 1;
        }
    }

    /// A walk forward comes by a family.
    fn see_forward(&mut self, family: LockerSlot, pass: u64) {
        let entry = &mut self.lockers[family].family;
        entry.seen_forward = pass;
        entry.waits_done = 0;
    }

    /// Where this pass has been for requests like this one.
    fn visited(&mut self, object: ObjectSlot, mode: Mode, pass: u64) -> Option<&mut Visited> {
        let queue = self.objects[object].queue.as_mut()?;
        Some(queue.visited(mode).in_pass(pass))
    }

    /// Among those who hold what the request waits for.
    fn next_holder(&mut self, wait: WaitSlot, family: LockerSlot, pass: u64) -> Option<LockerSlot> {
        let (waited_for, mode) = (self.waits[wait].object, self.waits[wait].mode);
        if self.objects[waited_for].overlaps.is_none() {
            return self.next_holder_of(waited_for, mode, family, pass);
        }
        let mut visited = *self.visited(waited_for, mode, pass)?;
        if visited.holders_done {
            return None;
        }
        let rules = *self.rules(waited_for);
        let mut object = visited.object.unwrap_or(waited_for);
        let found = loop {
            if let Some((key, _)) = self.objects[object].holders.after(visited.holder) {
                visited.holder = Some(key);
                if key.family != family
                    && rules.conflicts(key.mode, mode)
                    && self.lockers[key.family].family.seen_forward != pass
                    && self.is_alive(key)
                {
                    break Some(key.family);
                }
            } else if let Some(next) = self.reach_after(waited_for, Some(object)) {
                object = next;
                visited.holder = None;
            } else {
                visited.holders_done = true;
                break None;
            }
        };
        visited.object = Some(object);
        *self.visited(waited_for, mode, pass)? = visited;
        found
    }

    /// The same for an object that no other overlaps.
    fn next_holder_of(
        &mut self,
        object: ObjectSlot,
        mode: Mode,
        family: LockerSlot,
        pass: u64,
    ) -> Option<LockerSlot> {
        let rules = *self.rules(object);
        let entry = &mut self.objects[object];
        let queue = entry.queue.as_mut()?;
        let visited = queue.visited(mode).in_pass(pass);
        if visited.holders_done {
            return None;
        }
        while let Some((key, _)) = entry.holders.after(visited.holder) {
            visited.holder = Some(key);
            if key.family != family
                && rules.conflicts(key.mode, mode)
                && self.lockers[key.family].family.seen_forward != pass
                && self.lockers[key.locker].dead.is_none()
            {
                return Some(key.family);
            }
        }
        visited.holders_done = true;
        None
    }

    /// Among those who wait for the same object and came before.
    fn next_ahead(&mut self, wait: WaitSlot, family: LockerSlot, pass: u64) -> Option<LockerSlot> {
        let entry = &self.waits[wait];
        let (object, mode, rank) = (entry.object, entry.mode, entry.rank);
        let from = self.visited(object, mode, pass)?.before;
        let from = from.unwrap_or(Rank::FIRST);
        if from >= rank {
            return None;
        }
        let found = self.unseen_between(object, from, rank, mode, family, pass);
        let visited = self.visited(object, mode, pass)?;
        visited.before = Some(found.map_or(rank, |(_, after)| after));
        found.map(|(family, _)| family)
    }

    /// Among those who wait for objects that overlap and came before.
    fn next_ahead_nearby(
        &mut self,
        wait: WaitSlot,
        family: LockerSlot,
        pass: u64,
    ) -> Option<LockerSlot> {
        let entry = &self.waits[wait];
        let (object, mode, rank) = (entry.object, entry.mode, entry.rank);
        self.objects[object].overlaps.as_ref()?;
        let mut visited = *self.visited(object, mode, pass)?;
        if visited.near_before >= Some(rank) {
            return None;
        }
        if visited.near_rank != Some(rank) {
            // Another request for the object was looked at in between.
            visited.near_rank = Some(rank);
            visited.near = None;
        }
        let from = visited.near_before.unwrap_or(Rank::FIRST);
        let mut near = match visited.near {
            Some(near) => Some(near),
            None => self.reach_after(object, Some(object)),
        };
        let found = loop {
            let Some(here) = near else {
                visited.near_before = Some(rank);
                break None;
            };
            visited.near = Some(here);
            if let Some((next, _)) = self.unseen_between(here, from, rank, mode, family, pass) {
                break Some(next);
            }
            near = self.reach_after(object, Some(here));
        };
        *self.visited(object, mode, pass)? = visited;
        found
    }

    /// The first in a queue, from one rank up to another, whom a request in `mode` has to let go before
    /// and whom the pass has not seen; with the rank that comes after it.
    fn unseen_between(
        &self,
        object: ObjectSlot,
        from: Rank,
        to: Rank,
        mode: Mode,
        family: LockerSlot,
        pass: u64,
    ) -> Option<(LockerSlot, Rank)> {
        let rules = self.rules(object);
        let queue = self.objects[object].queue.as_ref()?;
        let (rank, ahead) = queue.order.range(from..to).find(|(_, ahead)| {
            ahead.family != family
                && rules.conflicts(ahead.mode, mode)
                && self.lockers[ahead.family].family.seen_forward != pass
        })?;
        let after = Rank {
            arrival: rank.arrival + 1,
            ..*rank
        };
        Some((ahead.family, after))
    }

    /// All who wait for the family and that the pass has not seen yet; they are seen now.
    fn visit_backward(&mut self, family: LockerSlot, pass: u64, found: &mut Vec<LockerSlot>) {
        let entry = &self.lockers[family].family;
        // Whichever is shorter: its locks, or the objects that anybody waits for.
        // (A contended object that others overlap leads to all of those.)
        if self.contended.len() < entry.locks && self.has_no_ranges() {
            let mut last = None;
            while let Some(object) = self.next_contended(last) {
                last = Some(object);
                let held: Vec<Mode> = self
                    .reach(object)
                    .flat_map(|near| self.objects[near].holders.of_family(family))
                    .filter(|(key, _)| self.is_alive(*key))
                    .map(|(key, _)| key.mode)
                    .collect();
                for mode in held {
                    self.visit_behind(object, mode, Rank::FIRST, family, pass, found);
                }
            }
        } else if self.lockers[family].children.is_empty() {
            self.visit_behind_locks(family, family, pass, found);
        } else {
            for locker in self.subtree(family) {
                self.visit_behind_locks(locker, family, pass, found);
            }
        }
        for at in 0..self.lockers[family].family.waits.len() {
            let wait = &self.waits[self.lockers[family].family.waits[at]];
            let (object, mode, rank) = (wait.object, wait.mode, wait.rank);
            let behind = Rank {
                arrival: rank.arrival + 1,
                ..rank
            };
            self.visit_all_behind(object, mode, behind, family, pass, found);
        }
    }

    /// Those who wait for what one locker of the family holds.
    fn visit_behind_locks(
        &mut self,
        locker: LockerSlot,
        family: LockerSlot,
        pass: u64,
        found: &mut Vec<LockerSlot>,
    ) {
        if self.lockers[locker].dead.is_some() {
            return;
        }
        let mut lock = self.lockers[locker].locks;
        while let Some(slot) = lock {
            let entry = &self.locks[slot];
            lock = entry.next;
            let (object, mode) = (entry.object, entry.mode);
            self.visit_all_behind(object, mode, Rank::FIRST, family, pass, found);
        }
    }

    fn next_contended(&self, last: Option<ObjectSlot>) -> Option<ObjectSlot> {
        let after = (
            last.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        self.contended.range(after).next().copied()
    }

    /// Those behind in the queues of the object and of all that overlap it.
    fn visit_all_behind(
        &mut self,
        object: ObjectSlot,
        mode: Mode,
        start: Rank,
        family: LockerSlot,
        pass: u64,
        found: &mut Vec<LockerSlot>,
    ) {
        let overlaps = self.objects[object].overlaps.as_ref();
        if overlaps.is_some_and(|overlaps| overlaps.len() > self.contended.len()) {
            let mut last = None;
            while let Some(waited_for) = self.next_contended(last) {
                last = Some(waited_for);
                if waited_for == object || self.overlap(object, waited_for) {
                    self.visit_behind(waited_for, mode, start, family, pass, found);
                }
            }
            return;
        }
        let mut last = None;
        while let Some(near) = self.reach_after(object, last) {
            last = Some(near);
            self.visit_behind(near, mode, start, family, pass, found);
        }
    }

    /// Those from `start` on in the queue whom a lock in `mode`, held or waited for, keeps waiting.
    fn visit_behind(
        &mut self,
        object: ObjectSlot,
        mode: Mode,
        start: Rank,
        family: LockerSlot,
        pass: u64,
        found: &mut Vec<LockerSlot>,
    ) {
        let rules = *self.rules(object);
        let Some(queue) = &mut self.objects[object].queue else {
            return;
        };
        let visited = queue.visited(mode);
        if visited.backward_pass != pass {
            visited.backward_pass = pass;
            visited.from = None;
        }
        let end = visited.from.map_or(Bound::Unbounded, Bound::Excluded);
        if visited.from.is_some_and(|end| start >= end) {
            return;
        }
        visited.from = Some(start);
        for (_, queued) in queue.order.range((Bound::Included(start), end)) {
            if queued.family != family && rules.conflicts(mode, queued.mode) {
                let other = &mut self.lockers[queued.family].family;
                if other.seen_backward != pass {
                    other.seen_backward = pass;
                    found.push(queued.family);
                }
            }
        }
    }
}
