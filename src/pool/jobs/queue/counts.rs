//! What a queue counts.

use super::End;

/// Each is counted when it is decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::pool::jobs) struct Counts {
    pub submitted: u64,
    /// Runs that were begun, repetitions included.
    pub begun: u64,
    pub done: u64,
    pub failed: u64,
    /// Panics, not jobs.
    pub panics: u64,
    pub refused: u64,
    pub dropped: u64,
    pub expired: u64,
    /// Whose deadline passed while they ran.
    pub ran_over: u64,
    pub gone: u64,
    pub closed: u64,
    pub interrupted: u64,
    pub put_aside: u64,
    /// That were to be put aside, and for which there was no place.
    pub not_aside: u64,
    pub retried: u64,
}

impl Counts {
    pub(super) fn ended(&mut self, end: End) {
        let count = match end {
            End::Full { .. } => &mut self.refused,
            End::Oldest | End::Newest => &mut self.dropped,
            End::Expired { .. } => &mut self.expired,
            End::Gone => &mut self.gone,
            End::Closed(_) => &mut self.closed,
            End::Interrupted => &mut self.interrupted,
            // Its panics are counted.
            End::NotAgain => return,
        };
        *count += 1;
    }
}
