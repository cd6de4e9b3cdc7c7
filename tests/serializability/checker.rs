//! Says whether a history is strictly serialisable: whether one order of its committed transactions explains all that they
//! read, and keeps those apart that did not overlap in time.
//!
//! Nothing is guessed. Lists show in which order they were written, registers are written only by those who have read
//! what they replace, and every element and value has one writer: so the versions of each key are known, and with them who
//! must come before whom. There is such an order if and only if these demands have no cycle. The names of anomalies are
//! those of Adya's thesis; the idea to use lists is Elle's.

mod anomaly;
mod graph;
mod reads;
mod versions;

pub use anomaly::{Anomaly, Kind};

use crate::history::{History, Outcome};
use graph::Graph;
use reads::Seen;

/// What a history that passed consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Transactions that took part: committed, or of an unknown outcome and seen by others.
    pub taken: usize,
    /// Demands that one goes before another because of what they read and wrote.
    pub edges: usize,
}

/// Checks a history.
///
/// # Errors
/// An [`Anomaly`] if no order explains it: the first that was found, the plainest kind first.
pub fn check(history: &History) -> Result<Summary, Box<Anomaly>> {
    let seen = Seen::of(history)?;
    let taken = seen.taken(history)?;
    let mut graph = Graph::new(history, &taken);
    versions::lists(history, &seen, &taken, &mut graph)?;
    versions::registers(history, &seen, &taken, &mut graph)?;
    let edges = graph.edges();
    graph.acyclic()?;
    let taken = taken.iter().filter(|taken| **taken).count();
    Ok(Summary { taken, edges })
}

/// Whether a transaction may have happened at all.
fn possible(outcome: Outcome) -> bool {
    outcome != Outcome::Aborted
}
