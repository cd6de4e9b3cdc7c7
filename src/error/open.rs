//! The first and the last error of a keeper: it could not be opened, or it did not stop in order.
//!
//! They are met once, by whoever starts and stops the process, and name what that person has to change outside of it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{ActorPanicked, Name, Site, body_name, brief};
use crate::config::ConfigError;
use crate::env::Occupant;
use crate::leases::LeaseName;

/// The keeper could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is not possible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The environment is open in this process already. Remedy: clone the keeper that has it.
    #[error("{} is open in this process already", .path.display())]
    AlreadyOpen {
        /// The folder.
        path: PathBuf,
    },
    /// The folder cannot be made, read or written.
    #[error("{}: {source}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system answered.
        source: io::Error,
    },
    /// The path exists and is not a folder.
    #[error("{} is not a folder", .path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The data file is not LMDB's, or of another version.
    #[error("{} is not an LMDB environment of this version: {source}", .path.display())]
    NotLmdb {
        /// The data file.
        path: PathBuf,
        /// What LMDB answered.
        source: heed::Error,
    },
    /// Another process with the same process id, in another pid namespace, has the environment. Remedy: one pid namespace for
    /// all containers that share the volume (`--pid=container:…`, `shareProcessNamespace`), or one container for each folder.
    #[error(
        "a process with the same pid in another pid namespace has {} open; let the containers share a pid namespace",
        .path.display()
    )]
    SamePidInOtherNamespace {
        /// The folder.
        path: PathBuf,
    },
    /// `no_lock` allows one process, and another one has the folder.
    #[error("{} is used by another process, which `no_lock` excludes", .path.display())]
    OtherProcess {
        /// The folder.
        path: PathBuf,
    },
    /// `in_current_system` was asked for on a thread without an actix system.
    #[error(
        "there is no actix `System` on this thread; leave out `in_current_system()` to get one"
    )]
    NoSystem,
    /// An actor panicked while it was started; what had been started before was ended again.
    #[error(transparent)]
    ActorPanicked(ActorPanicked),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[source] io::Error),
    /// LMDB refused.
    #[error("{} could not be opened: {source}", .path.display())]
    Lmdb {
        /// The folder.
        path: PathBuf,
        /// What heed answered.
        source: heed::Error,
    },
}

/// The keeper did not stop in order, or not yet.
///
/// A stop that was begun goes on: what is named here ends the environment and its thread when it ends itself, and another
/// [`shutdown`](crate::Keeper::shutdown) waits for that.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// A body runs on; its thread and the environment stay until it returns.
    #[error("the body of {} has been running for {} and cannot be stopped", body_name(name.as_deref(), site), brief(*.since))]
    BodyRunsOn {
        /// The name of its transaction.
        name: Name,
        /// Where that was asked for.
        site: Site,
        /// How long it has been running.
        since: Duration,
    },
    /// Views run on, or copies; the environment stays until they return.
    #[error("{} cannot be stopped", named(.views))]
    ViewsRunOn {
        /// Which, the oldest first.
        views: Vec<Occupant>,
    },
    /// Workers of a pool run on, and keep their threads.
    #[error("the pool {pool:?} has not ended: {what}")]
    WorkersRunOn {
        /// The name of the pool.
        pool: Arc<str>,
        /// Who runs on.
        what: Arc<str>,
    },
    /// Everything has ended, but the store did not say in time that it had these leases back, or a worker ran on under them, and
    /// they were not given back: others get them when they expire.
    #[error("leases that may be held in the store until they expire: {}", named(.names))]
    LeasesMaybeHeld {
        /// Their names.
        names: Vec<LeaseName>,
    },
    /// The process was forked: what the keeper has belongs to the parent, and nothing was touched.
    #[error("the process was forked after the environment was opened")]
    Forked,
    /// Asked for inside a body or the closure of an interactive transaction, which would wait for itself; nothing was begun.
    /// Remedy: after it, or in a task of its own.
    #[error("asked for inside a body, which would wait for itself")]
    InsideBody,
    /// Asked for inside a worker, for which the stop has to wait; nothing was begun. Remedy: in a task or a thread that is no
    /// worker.
    #[error("asked for inside a worker of the pool {pool:?}, which would wait for itself")]
    InsideWorker {
        /// The name of the pool.
        pool: Arc<str>,
    },
    /// Asked for inside a handler or a listener, or where a pool or its jobs are dropped, for which the stop has to wait; nothing was
    /// begun. Remedy: in a task or a thread of its own, which the handler may start. A thread of the pools (a task that a worker has
    /// spawned) may not block for it, but may await it.
    #[error("asked for inside {what}, which would wait for itself")]
    InsideHandler {
        /// What kind of handler.
        what: &'static str,
    },
    /// The system had no thread left to stop the keeper on; nothing was begun.
    #[error("no thread to stop the keeper on")]
    Thread(#[source] Arc<io::Error>),
    /// Something else did not end in time.
    #[error("{what} did not end in time")]
    TimedOut {
        /// What it was.
        what: &'static str,
    },
    /// More than one of these.
    #[error("{}", named(.0))]
    Several(Vec<ShutdownError>),
}

fn named(what: &[impl std::fmt::Display]) -> String {
    let names: Vec<_> = what.iter().map(ToString::to_string).collect();
    names.join(", ")
}

impl OpenError {
    /// Whether the same call, made again a little later, may well succeed: whoever has the folder may give it back.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::AlreadyOpen { .. } | Self::OtherProcess { .. })
    }
}

impl ShutdownError {
    /// Whether the same call, made again a little later, may well succeed: what runs on may have ended.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::BodyRunsOn { .. }
            | Self::ViewsRunOn { .. }
            | Self::WorkersRunOn { .. }
            | Self::Thread(_)
            | Self::TimedOut { .. } => true,
            Self::Several(errors) => errors.iter().all(Self::is_retryable),
            Self::LeasesMaybeHeld { .. }
            | Self::Forked
            | Self::InsideBody
            | Self::InsideWorker { .. }
            | Self::InsideHandler { .. } => false,
        }
    }
}
