//! What is told when a part of the runtime itself panics.
//!
//! The panics of what an application brings along, bodies and handlers, have errors of their own: this one names the keeper's part.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// A part of the runtime: an actor, or a thread that belongs to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Part {
    /// The environment actor.
    Environment,
    /// The supervisor actor, which takes transactions as messages.
    Supervisor,
    /// The lock table: its actor, its clock, and the table itself.
    LockTable,
    /// The lease actor, and the thread that serves the leases.
    Leases,
    /// The worker-pool actor.
    WorkerPool,
    /// The writer thread.
    Writer,
    /// A reader thread.
    Reader,
    /// A thread that holds a snapshot over awaits.
    SnapshotHolder,
}

impl Part {
    /// In a word, for metrics and logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Supervisor => "supervisor",
            Self::LockTable => "lock_table",
            Self::Leases => "leases",
            Self::WorkerPool => "worker_pool",
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::SnapshotHolder => "snapshot_holder",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "environment actor",
            Self::Supervisor => "supervisor actor",
            Self::LockTable => "lock table",
            Self::Leases => "lease actor",
            Self::WorkerPool => "worker-pool actor",
            Self::Writer => "writer thread",
            Self::Reader => "reader thread",
            Self::SnapshotHolder => "thread that holds a snapshot",
        })
    }
}

/// A part of the runtime panicked over what was asked of it: a defect of this crate, or of something that it calls, such as a
/// subscriber of the log or a recorder of metrics. What was asked was not done; the part goes on, and what was queued behind is
/// served. Remedy: report it, with the message and the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("the {part} panicked: {message}")]
#[non_exhaustive]
pub struct ActorPanicked {
    /// Which part.
    pub part: Part,
    /// The message of the panic.
    pub message: Arc<str>,
}

impl ActorPanicked {
    pub(crate) fn new(part: Part, message: impl Into<Arc<str>>) -> Self {
        Self {
            part,
            message: message.into(),
        }
    }
}
