//! What is told of a worker that failed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::supervise::{Cause, FailureNote};
use crate::error::brief;

/// A worker that failed: which, when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WorkerFailure {
    /// The worker's number.
    pub worker: usize,
    /// How often it had been started again before.
    pub restarts: u64,
    /// When, by the wall clock as it is now.
    pub at: SystemTime,
    /// What kind of failure it was.
    pub kind: FailureKind,
    /// What the worker said: the error with its sources, or the message of the panic. At most 2 KiB.
    pub message: Arc<str>,
    /// Where it panicked: file, line and column. It is not known when the application has replaced the panic hook since the first
    /// pool was started.
    pub location: Option<Arc<str>>,
    /// Whether it counts among the restarts of which the pool allows only so many. What happens to a worker that was told to stop
    /// does not.
    pub counted: bool,
}

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// It returned an error.
    Error,
    /// It panicked.
    Panic,
    /// It gave no heartbeat for so long, and was replaced.
    Silence,
    /// It returned without an error, but is permanent.
    Returned,
    /// It could not be started: the system has no thread left.
    NotStarted,
}

impl FailureKind {
    /// Its name in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Silence => "silence",
            Self::Returned => "returned",
            Self::NotStarted => "not_started",
        }
    }
}

impl WorkerFailure {
    pub(super) fn new(note: &FailureNote) -> Self {
        let (kind, message, location) = match &note.cause {
            Cause::Error(message) => (FailureKind::Error, Arc::clone(message), None),
            Cause::Panic { message, location } => {
                (FailureKind::Panic, Arc::clone(message), location.clone())
            }
            Cause::Silence(silence) => {
                let message = format!("no heartbeat for {}", brief(*silence)).into();
                (FailureKind::Silence, message, None)
            }
            Cause::Returned => {
                let message = "it returned, and is permanent".into();
                (FailureKind::Returned, message, None)
            }
            Cause::NotStarted(message) => (FailureKind::NotStarted, Arc::clone(message), None),
        };
        let ago = Instant::now().saturating_duration_since(note.at);
        Self {
            worker: note.worker,
            restarts: note.restarts,
            at: before_now(ago),
            kind,
            message,
            location,
            counted: note.counted,
        }
    }
}

fn before_now(ago: Duration) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(ago).unwrap_or(now)
}

impl fmt::Display for WorkerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.worker)?;
        match (self.kind, &self.location) {
            (FailureKind::Panic, Some(location)) => {
                write!(f, " panicked at {location}: {}", self.message)
            }
            (FailureKind::Panic, None) => write!(f, " panicked: {}", self.message),
            (FailureKind::Error, _) => write!(f, " failed: {}", self.message),
            (FailureKind::NotStarted, _) => write!(f, " was not started: {}", self.message),
            (FailureKind::Silence | FailureKind::Returned, _) => write!(f, ": {}", self.message),
        }
    }
}
