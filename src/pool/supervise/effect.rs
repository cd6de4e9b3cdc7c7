//! What the core is told, and what it decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// Names one run of a worker, from its start to its end. Never given twice in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It returned, or was dropped when it was to be.
    Normal,
    /// It failed.
    Failed(Cause),
}

/// Why a worker failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It returned an error: its text, with those of its sources.
    Error(Arc<str>),
    /// It panicked.
    Panic {
        /// What it said.
        message: Arc<str>,
        /// Where: file, line, column.
        location: Option<Arc<str>>,
    },
    /// It gave no heartbeat for so long, and is replaced.
    Silence(Duration),
    /// A permanent worker ended normally.
    Returned,
    /// It could not be started.
    NotStarted(Arc<str>),
}

/// A failure that was noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureNote {
    /// The worker.
    pub worker: usize,
    /// Its restarts before this run.
    pub restarts: u64,
    /// When.
    pub at: Instant,
    /// Why.
    pub cause: Cause,
    /// Whether it counts: it happened to a worker that nobody had told to stop, and led to a restart or to the end of the pool.
    pub counted: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start a worker.
    Start {
        /// Its number.
        worker: usize,
        /// This run.
        run: RunId,
        /// How often it was started again before, this time included.
        restarts: u64,
    },
    /// Tell it to stop.
    Stop {
        /// The run.
        run: RunId,
    },
    /// Drop it (async), or wait for it no more (blocking).
    Abandon {
        /// The worker.
        worker: usize,
        /// The run.
        run: RunId,
        /// It was silent, or did not stop in its time.
        silent: bool,
    },
    /// An abandoned run has ended after all.
    EndedLate {
        /// The worker.
        worker: usize,
        /// The run.
        run: RunId,
    },
    /// A worker has given no heartbeat for so long.
    Silent {
        /// The worker.
        worker: usize,
        /// The run.
        run: RunId,
        /// For how long.
        silence: Duration,
    },
    /// A silent worker was heard again.
    HeardAgain {
        /// The worker.
        worker: usize,
        /// The run.
        run: RunId,
    },
    /// A failure was noted.
    Failed(Arc<FailureNote>),
    /// It is followed by a restart after this delay, at the earliest.
    Restarts {
        /// The worker that failed.
        worker: usize,
        /// After this.
        delay: Duration,
    },
    /// Workers are to end when there is nothing left to do.
    Drain,
    /// The pool gives up: so many restarts were too many.
    GaveUp {
        /// How many, the one that is not made included.
        restarts: u32,
        /// The last failure.
        last: Arc<FailureNote>,
    },
    /// The pool is over: see its state.
    Over,
}
