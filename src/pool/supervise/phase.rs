//! The states of a pool and of a worker, as people see them.

use std::fmt;

/// Where a pool is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PoolState {
    /// Its workers run, or will: some may wait for a restart, or for a lease.
    Running,
    /// Its workers were told to pause, and some run still.
    Pausing,
    /// No worker runs until the pool is resumed.
    Paused,
    /// It takes nothing new, and ends when its workers have.
    Draining,
    /// Its workers were told to stop, and some run still.
    Stopping,
    /// It has given up; workers run still, and were told to stop.
    Failing,
    /// All workers have ended, and by its restart type none is started again. Scaled up, it runs again.
    Finished,
    /// It was drained: all workers have ended in their own time.
    Drained,
    /// It was stopped, or its drain was cut short.
    Stopped,
    /// It gave up: more restarts than its intensity allows. Resumed, it begins anew.
    Failed,
}

impl PoolState {
    /// Whether it is over: nothing runs, and nothing will, unless it failed and is resumed.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Drained | Self::Stopped | Self::Failed)
    }

    /// Its name in logs and statistics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Failing => "failing",
            Self::Finished => "finished",
            Self::Drained => "drained",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for PoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkerState {
    /// It runs.
    Running,
    /// It runs, and has given no heartbeat for too long.
    Silent,
    /// It was told to stop, and runs still.
    Stopping,
    /// It is started again after a delay, or with its group.
    Waiting,
    /// It does not run: the pool is paused or over, or its gate is closed (a lease that is not held).
    Idle,
    /// It has ended, and is not started again.
    Done,
}
