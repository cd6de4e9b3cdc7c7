//! Who must come before whom, and the search for a circle in it.
//!
//! Time has nodes of its own: one for the end of each transaction, in order, each before the next. A transaction leads to
//! its own end, and the last end before another begins leads to that one: so there are few edges, however many did not overlap.

use std::collections::VecDeque;

use super::anomaly::{Anomaly, Kind};
use crate::history::{History, Key};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It wrote the next version.
    Ww,
    /// It read what the other wrote.
    Wr,
    /// The other replaced what it read.
    Rw,
    /// The same, where only a scan had looked.
    RwScan,
    /// It had ended before the other began.
    Time,
}

impl Why {
    pub fn rw(scanned: bool) -> Self {
        if scanned { Self::RwScan } else { Self::Rw }
    }

    fn is_rw(self) -> bool {
        matches!(self, Self::Rw | Self::RwScan)
    }
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    to: usize,
    why: Why,
    key: Key,
}

pub struct Graph<'a> {
    history: &'a History,
    edges: Vec<Vec<Edge>>,
}

/// Which edges count in one search.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    wr: bool,
    rw: bool,
    time: bool,
}

impl Allowed {
    fn has(self, edge: &Edge) -> bool {
        match edge.why {
            Why::Ww => true,
            Why::Wr => self.wr,
            Why::Rw | Why::RwScan => self.rw,
            Why::Time => self.time,
        }
    }
}

/// A large broken history has cycles without number: it is enough to look from so many places for a short one.
const STARTS: usize = 500;

impl<'a> Graph<'a> {
    /// Who comes before whom in time; the rest is added by [`edge`](Self::edge).
    pub fn new(history: &'a History, taken: &[bool]) -> Self {
        let txns = history.txns.len();
        let took_part = || (0..txns).filter(|id| taken[*id]);
        let mut ends: Vec<(u64, usize)> = took_part()
            .filter_map(|id| Some((history.answered(id)?, id)))
            .collect();
        ends.sort_unstable();
        let mut graph = Self {
            history,
            edges: vec![Vec::new(); txns + ends.len()],
        };
        for (place, (_, id)) in ends.iter().enumerate() {
            graph.time(*id, txns + place);
            if place + 1 < ends.len() {
                graph.time(txns + place, txns + place + 1);
            }
        }
        for id in took_part() {
            let before = ends.partition_point(|(end, _)| *end < history.txns[id].begin);
            if let Some(last) = before.checked_sub(1) {
                graph.time(txns + last, id);
            }
        }
        graph
    }

    pub fn edge(&mut self, from: usize, to: usize, why: Why, key: Key) {
        if from != to {
            self.edges[from].push(Edge { to, why, key });
        }
    }

    /// How many edges come from what was read and written.
    pub fn edges(&self) -> usize {
        let all = self.edges.iter().flatten();
        all.filter(|edge| edge.why != Why::Time).count()
    }

    /// Answers the plainest cycle there is.
    pub fn acyclic(&self) -> Result<(), Box<Anomaly>> {
        for time in [false, true] {
            for (wr, rw) in [(false, false), (true, false), (true, true)] {
                let allowed = Allowed { wr, rw, time };
                let rings = self.knots(allowed);
                if let Some(cycle) = self.cycle(allowed, &rings) {
                    return Err(self.anomaly(&cycle));
                }
            }
        }
        Ok(())
    }

    fn time(&mut self, from: usize, to: usize) {
        // Edges of time have no key; whichever is written here is never shown.
        self.edge(from, to, Why::Time, Key::List(0));
    }

    /// For each node the number of its strongly connected component, or none if it is alone in it (Tarjan's search,
    /// with a stack of its own).
    fn knots(&self, allowed: Allowed) -> Vec<Option<usize>> {
        let nodes = self.edges.len();
        let (mut found, mut low) = (vec![usize::MAX; nodes], vec![0; nodes]);
        let mut open = vec![false; nodes];
        let (mut path, mut calls) = (Vec::new(), Vec::new());
        let (mut count, mut knots, mut named) = (0, vec![None; nodes], 0);
        for root in 0..nodes {
            if found[root] != usize::MAX {
                continue;
            }
            calls.push((root, 0));
            while let Some((node, next)) = calls.pop() {
                if next == 0 {
                    (found[node], low[node], open[node]) = (count, count, true);
                    count += 1;
                    path.push(node);
                }
                let rest = self.edges[node].iter().enumerate().skip(next);
                let mut rest = rest.filter(|(_, edge)| allowed.has(edge));
                let child = rest.find_map(|(place, edge)| {
                    if found[edge.to] == usize::MAX {
                        return Some((place, edge.to));
                    }
                    if open[edge.to] {
                        low[node] = low[node].min(found[edge.to]);
                    }
                    None
                });
                if let Some((place, child)) = child {
                    calls.push((node, place + 1));
                    calls.push((child, 0));
                    continue;
                }
                if let Some((parent, _)) = calls.last() {
                    low[*parent] = low[*parent].min(low[node]);
                }
                if low[node] == found[node] {
                    let start = path.iter().rposition(|other| *other == node);
                    let knot = path.split_off(start.unwrap_or(0));
                    for member in &knot {
                        open[*member] = false;
                        knots[*member] = (knot.len() > 1).then_some(named);
                    }
                    named += 1;
                }
            }
        }
        knots
    }

    /// A short cycle within the knots. If reads of what is replaced count, one with a single such read, if there is one.
    fn cycle(&self, allowed: Allowed, knots: &[Option<usize>]) -> Option<Vec<(usize, Edge)>> {
        let starts = || {
            let nodes = (0..self.edges.len()).filter(|node| knots[*node].is_some());
            let edges =
                nodes.flat_map(|node| self.edges[node].iter().map(move |edge| (node, *edge)));
            let inside = edges.filter(|(node, edge)| knots[*node] == knots[edge.to]);
            let counts = inside.filter(|(_, edge)| match allowed.rw {
                true => edge.why.is_rw(),
                false => allowed.has(edge) && edge.why != Why::Time,
            });
            counts.take(STARTS)
        };
        let shortest = |back: Allowed| {
            let mut best: Option<Vec<(usize, Edge)>> = None;
            for (from, edge) in starts() {
                let Some(path) = self.path(edge.to, from, back, knots) else {
                    continue;
                };
                if best.as_ref().is_none_or(|best| path.len() + 1 < best.len()) {
                    best = Some([(from, edge)].into_iter().chain(path).collect());
                }
                if best.as_ref().is_some_and(|best| best.len() == 2) {
                    break;
                }
            }
            best
        };
        let single = shortest(Allowed {
            rw: false,
            ..allowed
        });
        single.or_else(|| allowed.rw.then(|| shortest(allowed)).flatten())
    }

    /// The shortest path between two nodes of one knot.
    fn path(
        &self,
        from: usize,
        to: usize,
        allowed: Allowed,
        knots: &[Option<usize>],
    ) -> Option<Vec<(usize, Edge)>> {
        let mut came: std::collections::HashMap<usize, (usize, Edge)> = Default::default();
        let mut next = VecDeque::from([from]);
        while let Some(node) = next.pop_front() {
            if node == to {
                let mut path = Vec::new();
                let mut here = to;
                while here != from {
                    let step = came.get(&here)?;
                    path.push(*step);
                    here = step.0;
                }
                path.reverse();
                return Some(path);
            }
            for edge in &self.edges[node] {
                let inside = knots[edge.to] == knots[from] && edge.to != from;
                if inside && allowed.has(edge) && !came.contains_key(&edge.to) {
                    came.insert(edge.to, (node, *edge));
                    next.push_back(edge.to);
                }
            }
        }
        None
    }

    fn anomaly(&self, cycle: &[(usize, Edge)]) -> Box<Anomaly> {
        let txns = self.history.txns.len();
        let rws = cycle.iter().filter(|(_, edge)| edge.why.is_rw()).count();
        let wrs = cycle.iter().any(|(_, edge)| edge.why == Why::Wr);
        let kind = match (rws, wrs) {
            (0, false) => Kind::G0,
            (0, true) => Kind::G1c,
            (1, _) => Kind::GSingle,
            _ => Kind::G2,
        };
        let mut text = String::from("a cycle:");
        let named: Vec<usize> = cycle.iter().map(|(node, _)| *node).collect();
        for (place, (from, Edge { to, why, key })) in cycle.iter().enumerate() {
            if *from >= txns {
                continue;
            }
            let step = match why {
                Why::Ww => format!("T{from} wrote {key} before T{to}"),
                Why::Wr => format!("T{from} wrote what T{to} read in {key}"),
                Why::Rw => format!("T{from} read {key} as it was before T{to} wrote it"),
                Why::RwScan => format!("T{from} scanned {key} as it was before T{to} wrote it"),
                Why::Time => {
                    let later = named.iter().cycle().skip(place + 1);
                    let next = later.take(named.len()).find(|node| **node < txns);
                    format!("T{from} had ended before T{} began", next.unwrap_or(from))
                }
            };
            text.push_str("\n  ");
            text.push_str(&step);
        }
        let members: Vec<usize> = named.into_iter().filter(|node| *node < txns).collect();
        for id in &members {
            text.push_str(&format!("\n  T{id}: {}", self.history.txns[*id]));
        }
        let mut anomaly = Anomaly::new(kind, members, text);
        anomaly.real_time = cycle.iter().any(|(_, edge)| edge.why == Why::Time);
        anomaly
    }
}
