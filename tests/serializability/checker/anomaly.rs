//! What is wrong with a history, told so that a person can follow it.

use std::fmt;

/// Adya's names, and those of what shows without a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The history does not keep the checker's rules: the test is wrong, not the store.
    Malformed,
    /// A scan answered keys outside its range, twice, or out of order.
    BadScan,
    /// A transaction does not see what it has read or written itself.
    Internal,
    /// Something was read that nobody wrote.
    Invented,
    /// G1a: what an aborted transaction wrote was read.
    AbortedRead,
    /// G1b: what a transaction itself replaced later was read.
    IntermediateRead,
    /// An element is in a list twice.
    Duplicate,
    /// Two reads of a list cannot both be beginnings of one list.
    IncompatibleOrder,
    /// A committed append is in no list, though the list was read later.
    LostAppend,
    /// A cycle of writes alone.
    G0,
    /// A cycle of writes and of reads of what was written.
    G1c,
    /// A cycle with one read of what is replaced later, such as a lost update or a read skew.
    GSingle,
    /// A cycle with several of them, such as a write skew or a phantom.
    G2,
}

/// One thing that no order explains.
#[derive(Debug, Clone)]
pub struct Anomaly {
    pub kind: Kind,
    /// Whether only the order in time makes it one: the history is serialisable, but not strictly.
    pub real_time: bool,
    /// The transactions of the cycle in order, or those that show it.
    pub txns: Vec<usize>,
    pub(super) text: String,
}

impl Anomaly {
    pub(super) fn new(kind: Kind, txns: Vec<usize>, text: String) -> Box<Self> {
        Box::new(Self {
            kind,
            real_time: false,
            txns,
            text,
        })
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, text, .. } = self;
        let when = if self.real_time { ", in real time" } else { "" };
        write!(f, "{kind:?}{when}: {text}")
    }
}
