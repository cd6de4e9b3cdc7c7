//! The waits-for graph, and how its cycles are found and broken.
//!
//! Nodes are families. A family that waits has an edge to each family that holds a conflicting lock
//! on the object, and to each that waits there before it for a conflicting one. The edges follow from
//! holders and queues and are stored nowhere: with ten thousand waiters on one object there would be
//! fifty million of them. A search remembers for each object and mode how far it has looked instead,
//! so that a whole pass looks at each holder and each waiter once for each mode.

use std::panic::Location;
use std::sync::Arc;

use super::queue::Rank;
use super::slab::{LockerSlot, ObjectSlot, WaitSlot};
use super::table::{Effect, Reason};
use super::{Candidate, Conflict, DetectReport, Mode, Table};

/// Why one family cannot go on before another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    /// The request that waits.
    pub wait: WaitSlot,
    /// Who is in its way, in which mode, asked for where, and whether it holds or waits.
    pub blocker: LockerSlot,
    pub mode: Mode,
    pub site: &'static Location<'static>,
    pub held: bool,
}

impl Table {
    /// Looks at the whole graph and breaks every cycle in it.
    pub fn detect(&mut self, effects: &mut Vec<Effect>) -> DetectReport {
        self.stats.detections += 1;
        let mut work: Vec<LockerSlot> = Vec::new();
        for (_, wait) in self.waits.iter() {
            work.push(self.lockers[wait.locker].root);
        }
        let mut report = DetectReport {
            waiting: work.len(),
            ..DetectReport::default()
        };
        loop {
            work.sort_unstable_by_key(|family| self.lockers[*family].id);
            work.dedup();
            let knots = self.knots(&work);
            if knots.is_empty() {
                break;
            }
            work.clear();
            for members in knots {
                report.victims.extend(self.abort_one(&members, effects));
                work.extend(members);
            }
            // Grants on the way may have changed the order of queues.
            work.append(&mut self.suspects);
        }
        self.settle(effects);
        report
    }

    /// Breaks the cycles that this call closed, if cycles are looked for when a request blocks.
    pub(super) fn settle(&mut self, effects: &mut Vec<Effect>) {
        while let Some(family) = self.suspects.pop() {
            if !self.config.detect_on_block {
                self.suspects.clear();
                return;
            }
            while self.is_on_cycle(family) {
                let members = self.knot_of(family);
                if self.abort_one(&members, effects).is_none() {
                    break;
                }
            }
        }
    }

    /// Makes one of the families that are on cycles with each other a victim. Its requests leave the
    /// graph, and with them its edges, so the cycles through it are broken; its locks stay until
    /// whoever owns it releases them.
    fn abort_one(
        &mut self,
        members: &[LockerSlot],
        effects: &mut Vec<Effect>,
    ) -> Option<Arc<Conflict>> {
        let candidates: Vec<Candidate> = members
            .iter()
            .map(|family| {
                let entry = &self.lockers[*family];
                Candidate {
                    locker: entry.id,
                    priority: entry.priority,
                    age: entry.age,
                    locks: entry.lock_count,
                    write_locks: 0,
                    expired: false,
                }
            })
            .collect();
        let victim = self.config.policy.choose(&candidates, 0)?.locker.slot;
        let cycle = self.shortest_cycle(victim);
        let conflict = Arc::new(self.explain_deadlock(&cycle)?);
        self.stats.deadlocks += 1;
        self.lockers[victim].aborted = true;
        let waits = self.lockers[victim].waits.clone();
        let objects: Vec<_> = waits.iter().map(|wait| self.waits[*wait].object).collect();
        for wait in waits {
            effects.push(Effect::Refused(
                self.waits[wait].id,
                Reason::Deadlock(Arc::clone(&conflict)),
            ));
            self.remove_wait(wait);
        }
        for object in objects {
            self.promote(object, effects);
        }
        Some(conflict)
    }

    /// Whether the family is on a cycle. Looks forward and backward in turns, and ends as soon as
    /// either direction is exhausted: the usual request has one holder before it that waits for
    /// nobody, or nobody behind it.
    fn is_on_cycle(&mut self, family: LockerSlot) -> bool {
        if self.lockers[family].waits.is_empty() {
            return false;
        }
        let pass = self.new_pass();
        self.lockers[family].seen_forward = pass;
        self.lockers[family].seen_backward = pass;
        let mut behind = Vec::new();
        self.visit_backward(family, pass, &mut behind);
        let mut visited_behind = 0;
        let mut path = vec![family];
        loop {
            let Some(&here) = path.last() else {
                return false;
            };
            match self.next_forward(here, pass) {
                Some(next) if self.lockers[next].seen_backward == pass => return true,
                Some(next) => path.push(next),
                None => {
                    path.pop();
                }
            }
            let Some(&next) = behind.get(visited_behind) else {
                // All who wait for the family are known: it is on a cycle if it waits for one of them.
                return behind
                    .iter()
                    .any(|other| self.edge(family, *other).is_some());
            };
            visited_behind += 1;
            let known = behind.len();
            self.visit_backward(next, pass, &mut behind);
            if behind
                .iter()
                .skip(known)
                .any(|new| self.lockers[*new].seen_forward == pass)
            {
                return true;
            }
        }
    }

    /// All who are on a cycle with the family, itself included.
    fn knot_of(&mut self, family: LockerSlot) -> Vec<LockerSlot> {
        let pass = self.new_pass();
        self.lockers[family].seen_forward = pass;
        self.lockers[family].seen_backward = pass;
        let mut ahead = vec![family];
        let mut done = 0;
        while let Some(&here) = ahead.get(done) {
            while let Some(next) = self.next_forward(here, pass) {
                ahead.push(next);
            }
            done += 1;
        }
        let mut behind = vec![family];
        done = 0;
        while let Some(&here) = behind.get(done) {
            self.visit_backward(here, pass, &mut behind);
            done += 1;
        }
        behind.retain(|other| self.lockers[*other].seen_forward == pass);
        behind
    }

    /// The strongly connected parts, of two families or more, that can be reached from `roots`: one
    /// walk forward for the order in which families are finished, one backward in the opposite order.
    fn knots(&mut self, roots: &[LockerSlot]) -> Vec<Vec<LockerSlot>> {
        let pass = self.new_pass();
        let mut finished = Vec::new();
        for &root in roots {
            if self.lockers[root].seen_forward == pass {
                continue;
            }
            self.lockers[root].seen_forward = pass;
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
        while let Some(root) = finished.pop() {
            if self.lockers[root].seen_backward == pass {
                continue;
            }
            self.lockers[root].seen_backward = pass;
            let mut members = vec![root];
            let mut done = 0;
            while let Some(&here) = members.get(done) {
                let known = members.len();
                self.visit_backward(here, pass, &mut members);
                let mut kept = known;
                for at in known..members.len() {
                    if self.lockers[members[at]].seen_forward == pass {
                        members.swap(kept, at);
                        kept += 1;
                    }
                }
                members.truncate(kept);
                done += 1;
            }
            if members.len() > 1 {
                knots.push(members);
            }
        }
        knots
    }

    /// A shortest cycle through a family that is on one: each edge leads to the family of the next.
    fn shortest_cycle(&mut self, family: LockerSlot) -> Vec<Edge> {
        let pass = self.new_pass();
        self.lockers[family].seen_forward = pass;
        // Each with the place, in this list, of who led to it.
        let mut found: Vec<(LockerSlot, Option<usize>)> = vec![(family, None)];
        let mut at = 0;
        while let Some(&(here, _)) = found.get(at) {
            if let Some(last) = self.edge(here, family) {
                let mut edges = vec![last];
                let (mut to, mut place) = (here, found.get(at).and_then(|step| step.1));
                while let Some((from, before)) = place.and_then(|place| found.get(place)).copied() {
                    edges.extend(self.edge(from, to));
                    (to, place) = (from, before);
                }
                edges.reverse();
                return edges;
            }
            while let Some(next) = self.next_forward(here, pass) {
                found.push((next, Some(at)));
            }
            at += 1;
        }
        Vec::new()
    }

    /// The edge from one family to another, if there is one.
    fn edge(&self, from: LockerSlot, to: LockerSlot) -> Option<Edge> {
        if from == to {
            return None;
        }
        self.lockers[from].waits.iter().find_map(|&slot| {
            let wait = &self.waits[slot];
            let conflicts = |other| self.config.conflicts.conflicts(other, wait.mode);
            let mut holders = self.objects[wait.object].holders.of_family(to);
            if let Some((_, lock)) = holders.find(|(key, _)| conflicts(key.mode)) {
                let lock = &self.locks[lock];
                return Some(Edge {
                    wait: slot,
                    blocker: lock.locker,
                    mode: lock.mode,
                    site: lock.site,
                    held: true,
                });
            }
            let mut waits = self.lockers[to]
                .waits
                .iter()
                .map(|other| &self.waits[*other]);
            waits
                .find(|other| {
                    other.object == wait.object && other.rank < wait.rank && conflicts(other.mode)
                })
                .map(|other| Edge {
                    wait: slot,
                    blocker: other.locker,
                    mode: other.mode,
                    site: other.site,
                    held: false,
                })
        })
    }

    fn new_pass(&mut self) -> u64 {
        self.passes += 1;
        self.passes
    }

    /// A family that this one waits for and that the pass has not seen yet; it is seen now.
    fn next_forward(&mut self, family: LockerSlot, pass: u64) -> Option<LockerSlot> {
        for at in 0..self.lockers[family].waits.len() {
            let wait = &self.waits[self.lockers[family].waits[at]];
            let (mode, rank) = (wait.mode, wait.rank);
            let entry = &mut self.objects[wait.object];
            let Some(queue) = &mut entry.queue else {
                continue;
            };
            let visited = &mut queue.visited[mode.index()];
            if visited.forward_pass != pass {
                visited.forward_pass = pass;
                visited.holder = None;
                visited.holders_done = false;
                visited.before = None;
            }
            while !visited.holders_done {
                let Some((key, _)) = entry.holders.after(visited.holder) else {
                    visited.holders_done = true;
                    break;
                };
                visited.holder = Some(key);
                if key.family != family && self.config.conflicts.conflicts(key.mode, mode) {
                    let other = &mut self.lockers[key.family];
                    if other.seen_forward != pass {
                        other.seen_forward = pass;
                        return Some(key.family);
                    }
                }
            }
            let from = visited.before.unwrap_or(Rank::FIRST);
            if from >= rank {
                continue;
            }
            for (&ahead, queued) in queue.order.range(from..rank) {
                visited.before = Some(Rank {
                    arrival: ahead.arrival + 1,
                    ..ahead
                });
                if queued.family != family && self.config.conflicts.conflicts(queued.mode, mode) {
                    let other = &mut self.lockers[queued.family];
                    if other.seen_forward != pass {
                        other.seen_forward = pass;
                        return Some(queued.family);
                    }
                }
            }
            visited.before = Some(rank);
        }
        None
    }

    /// All who wait for the family and that the pass has not seen yet; they are seen now.
    fn visit_backward(&mut self, family: LockerSlot, pass: u64, found: &mut Vec<LockerSlot>) {
        // Whichever is shorter: its locks, or the objects that anybody waits for.
        if self.contended.len() < self.lockers[family].lock_count {
            let contended: Vec<ObjectSlot> = self.contended.iter().copied().collect();
            for object in contended {
                let held: Vec<Mode> = self.objects[object]
                    .holders
                    .of_family(family)
                    .map(|(key, _)| key.mode)
                    .collect();
                for mode in held {
                    self.visit_behind(object, mode, Rank::FIRST, family, pass, found);
                }
            }
        } else {
            let mut lock = self.lockers[family].locks;
            while let Some(slot) = lock {
                let entry = &self.locks[slot];
                lock = entry.next;
                let (object, mode) = (entry.object, entry.mode);
                if self.objects[object].queue.is_some() {
                    self.visit_behind(object, mode, Rank::FIRST, family, pass, found);
                }
            }
        }
        for at in 0..self.lockers[family].waits.len() {
            let wait = &self.waits[self.lockers[family].waits[at]];
            let (object, mode, rank) = (wait.object, wait.mode, wait.rank);
            let behind = Rank {
                arrival: rank.arrival + 1,
                ..rank
            };
            self.visit_behind(object, mode, behind, family, pass, found);
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
        let Some(queue) = &mut self.objects[object].queue else {
            return;
        };
        let visited = &mut queue.visited[mode.index()];
        if visited.backward_pass != pass {
            visited.backward_pass = pass;
            visited.from = None;
        }
        let visit = |queued: &super::queue::Queued| {
            if queued.family != family && self.config.conflicts.conflicts(mode, queued.mode) {
                let other = &mut self.lockers[queued.family];
                if other.seen_backward != pass {
                    other.seen_backward = pass;
                    found.push(queued.family);
                }
            }
        };
        match visited.from {
            Some(end) if start >= end => return,
            Some(end) => queue
                .order
                .range(start..end)
                .map(|(_, queued)| queued)
                .for_each(visit),
            None => queue
                .order
                .range(start..)
                .map(|(_, queued)| queued)
                .for_each(visit),
        }
        visited.from = Some(start);
    }
}
