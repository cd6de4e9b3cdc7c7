//! What can be looked up about the jobs of a pool.

use serde::Serialize;

/// The statistics of a pool's jobs. Counters count from its start, each when that is decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct JobStats {
    /// Jobs that are queued now; those that panicked and are to begin again included.
    pub queued: usize,
    /// Most jobs that are queued.
    pub capacity: usize,
    /// Submitters that wait for a place in the queue now.
    pub waiting: usize,
    /// Jobs that run now.
    pub running: usize,
    /// Jobs in quarantine now.
    pub quarantined: usize,
    /// Jobs that were submitted, the refused ones included.
    pub submitted: u64,
    /// Runs that were begun, repetitions after a panic included.
    pub begun: u64,
    /// Jobs that were answered well.
    pub done: u64,
    /// Jobs that were answered with the handler's error.
    pub failed: u64,
    /// Panics of the handler.
    pub panics: u64,
    /// Jobs for which there was no place.
    pub refused: u64,
    /// Jobs that were dropped, the oldest or the newest.
    pub dropped: u64,
    /// Jobs whose deadline passed before they began.
    pub expired: u64,
    /// Jobs whose deadline passed while they ran.
    pub ran_over: u64,
    /// Jobs that were not begun since nobody waited for them any more.
    pub gone: u64,
    /// Jobs that never began since the pool was drained, stopped, or had failed.
    pub stopped: u64,
    /// Jobs whose worker was given up under them.
    pub interrupted: u64,
    /// Jobs that were put aside, each time that happened.
    pub put_aside: u64,
    /// Jobs that were to be put aside, and found the quarantine full.
    pub not_put_aside: u64,
    /// Jobs in quarantine that were begun again by hand.
    pub retried: u64,
}
