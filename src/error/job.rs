//! How a job ends that has no answer.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{ActorPanicked, ErrorClass, brief};
use crate::pool::{JobId, OnFull};

/// How a job of a [`JobPool`](crate::JobPool) ended that was not answered by its handler, or answered with an error of its own, `E`.
///
/// A job that never began is handed back.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum JobError<J, E> {
    /// The handler said no. The worker goes on.
    #[error("the handler answered an error")]
    Failed(E),
    /// The queue was full: at once under [`OnFull::Refuse`], or for all the time that it was to wait ([`OnFull::Wait`]). Never begun.
    /// Submit it later, or make the queue longer, or the workers more.
    #[error("the queue of the pool is full ({capacity} jobs){}", for_so_long(*.waited))]
    Full {
        /// The job.
        job: J,
        /// How many jobs may be queued.
        capacity: usize,
        /// How long it has waited for a place.
        waited: Duration,
    },
    /// The queue was full, and the pool drops jobs then. Never begun.
    #[error("the queue of the pool was full, and the {} job was dropped", which(*.on_full))]
    Dropped {
        /// The job.
        job: J,
        /// What the pool does: [`OnFull::DropOldest`] or [`OnFull::DropNewest`].
        on_full: OnFull,
    },
    /// The job's deadline passed before it began; it never will.
    #[error("the deadline of the job passed before it began, after {}", brief(*.waited))]
    DeadlinePassed {
        /// The job.
        job: J,
        /// The time since it was submitted.
        waited: Duration,
    },
    /// The job's deadline passed while it ran. It runs on; what it answers, nobody hears. Give it longer, or have the handler look at
    /// [`Job::deadline`](crate::Job::deadline).
    #[error("the deadline of the job passed while it ran")]
    RunsOn,
    /// The handler panicked, as often as it may (once, without a quarantine), or the job was not begun again after a panic: its
    /// deadline passed, the pool stopped, or it was dropped from the queue. What it did before the panic is done.
    #[error(transparent)]
    Panicked(JobPanic),
    /// The job had begun, and its worker was given up under it: the pool was stopped and it did not end in time, it was silent for too
    /// long, or a lease was lost. Nobody knows how far it came. Make handlers idempotent, and submit it again.
    #[error("the job was interrupted: its worker was given up")]
    Interrupted,
    /// The pool is drained or stopped, or its keeper is. Never begun.
    #[error("the pool takes no jobs any more")]
    Stopped {
        /// The job.
        job: J,
    },
    /// The pool has given up: its workers failed too often ([`PoolState::Failed`](crate::PoolState::Failed)). Never begun. It can be
    /// submitted again when the pool was resumed.
    #[error("the pool has failed{}", because(.last.as_deref()))]
    PoolFailed {
        /// The job.
        job: J,
        /// The last failure of a worker.
        last: Option<Arc<str>>,
    },
    /// Submitted by a worker of the pool itself, which would wait for itself: for the answer, or, detached, for a place in the queue. Never begun.
    /// Submit it to another pool, or detached, or in a task of its own.
    #[error("a worker of the pool would wait for itself")]
    InsideWorker {
        /// The job.
        job: J,
    },
    /// All workers have ended and none is started again, by the restart type of the pool
    /// ([`PoolState::Finished`](crate::PoolState::Finished)). Never begun. Scale the pool up.
    #[error("the pool has no worker left")]
    NoWorkers {
        /// The job.
        job: J,
    },
}

/// A handler that panicked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct JobPanic {
    /// What it said.
    pub message: Arc<str>,
    /// Where: file, line and column; not known when the application has replaced the panic hook.
    pub location: Option<Arc<str>>,
    /// When, by the wall clock.
    pub at: SystemTime,
    /// How often the job has panicked, this time included.
    pub panics: u32,
    /// Whether the job was put aside, and under which number.
    pub quarantined: Option<JobId>,
}

impl fmt::Display for JobPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the handler panicked")?;
        if let Some(location) = &self.location {
            write!(f, " at {location}")?;
        }
        write!(f, ": {}", self.message)?;
        if self.panics > 1 {
            write!(f, " ({} times)", self.panics)?;
        }
        match self.quarantined {
            Some(id) => write!(f, "; {id} is in quarantine"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for JobPanic {}

impl<J, E> JobError<J, E> {
    /// The job, if it never began.
    pub fn into_job(self) -> Option<J> {
        match self {
            Self::Full { job, .. }
            | Self::Dropped { job, .. }
            | Self::DeadlinePassed { job, .. }
            | Self::Stopped { job }
            | Self::PoolFailed { job, .. }
            | Self::InsideWorker { job }
            | Self::NoWorkers { job } => Some(job),
            Self::Failed(_) | Self::RunsOn | Self::Panicked(_) | Self::Interrupted => None,
        }
    }

    /// The handler's own error, or all else unchanged.
    ///
    /// # Errors
    ///
    /// What is not the handler's own.
    pub fn into_failed(self) -> Result<E, Self> {
        match self {
            Self::Failed(error) => Ok(error),
            other => Err(other),
        }
    }

    /// Whether the same job, submitted again a little later, may well succeed, and is safe to submit: it never began, and the pool is
    /// there.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Full { .. } | Self::Dropped { .. } | Self::DeadlinePassed { .. }
        )
    }

    /// What kind of error this is. [`RunsOn`](Self::RunsOn) and [`Interrupted`](Self::Interrupted) are
    /// [`MaybeCommitted`](ErrorClass::MaybeCommitted): nobody knows what the job has done.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Failed(_) => ErrorClass::Abort,
            Self::Full { .. } | Self::Dropped { .. } => ErrorClass::Overloaded,
            Self::DeadlinePassed { .. } => ErrorClass::OutOfTime,
            Self::InsideWorker { .. } => ErrorClass::BadConfig,
            Self::RunsOn | Self::Interrupted => ErrorClass::MaybeCommitted,
            Self::Panicked(_) => ErrorClass::Panic,
            Self::Stopped { .. } | Self::PoolFailed { .. } | Self::NoWorkers { .. } => {
                ErrorClass::ShuttingDown
            }
        }
    }
}

/// Jobs need not be printable.
impl<J, E: fmt::Debug> fmt::Debug for JobError<J, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            Self::Full {
                capacity, waited, ..
            } => f
                .debug_struct("Full")
                .field("capacity", capacity)
                .field("waited", waited)
                .finish_non_exhaustive(),
            Self::Dropped { on_full, .. } => f
                .debug_struct("Dropped")
                .field("on_full", on_full)
                .finish_non_exhaustive(),
            Self::DeadlinePassed { waited, .. } => f
                .debug_struct("DeadlinePassed")
                .field("waited", waited)
                .finish_non_exhaustive(),
            Self::RunsOn => f.write_str("RunsOn"),
            Self::Panicked(panic) => f.debug_tuple("Panicked").field(panic).finish(),
            Self::Interrupted => f.write_str("Interrupted"),
            Self::Stopped { .. } => f.debug_struct("Stopped").finish_non_exhaustive(),
            Self::PoolFailed { last, .. } => f
                .debug_struct("PoolFailed")
                .field("last", last)
                .finish_non_exhaustive(),
            Self::InsideWorker { .. } => f.debug_struct("InsideWorker").finish_non_exhaustive(),
            Self::NoWorkers { .. } => f.debug_struct("NoWorkers").finish_non_exhaustive(),
        }
    }
}

/// Why a job in quarantine was not begun again. It stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetryError {
    /// No such job is in quarantine: it was dropped, or is being retried, or was never put there.
    #[error("{0} is not in quarantine")]
    Unknown(JobId),
    /// The queue is full. Try again later.
    #[error("the queue of the pool is full ({capacity} jobs)")]
    Full {
        /// How many jobs may be queued.
        capacity: usize,
    },
    /// The pool begins nothing any more.
    #[error("the pool takes no jobs any more")]
    Stopped,
    /// There is no pool of this name.
    #[error("there is no pool {name:?}")]
    NoSuchPool {
        /// The name.
        name: Arc<str>,
    },
    /// The actor that was asked has panicked, and goes on.
    #[error(transparent)]
    ActorPanicked(ActorPanicked),
}

impl RetryError {
    /// Whether the same may go better later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

fn for_so_long(waited: Duration) -> String {
    match waited.is_zero() {
        true => String::new(),
        false => format!(", and was for {}", brief(waited)),
    }
}

fn which(on_full: OnFull) -> &'static str {
    match on_full {
        OnFull::DropOldest => "oldest",
        _ => "newest",
    }
}

fn because(last: Option<&str>) -> String {
    last.map(|last| format!(": {last}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither can be printed, cloned or compared.
    struct Opaque;

    #[test]
    fn what_never_began_is_handed_back_and_nothing_else() {
        let waited = Duration::from_millis(1500);
        let capacity = 3;
        let table: [(JobError<u8, Opaque>, Option<u8>, bool); 10] = [
            (
                JobError::Full {
                    job: 1,
                    capacity,
                    waited,
                },
                Some(1),
                true,
            ),
            (
                JobError::Dropped {
                    job: 2,
                    on_full: OnFull::DropOldest,
                },
                Some(2),
                true,
            ),
            (JobError::DeadlinePassed { job: 3, waited }, Some(3), true),
            (JobError::Stopped { job: 4 }, Some(4), false),
            (JobError::PoolFailed { job: 5, last: None }, Some(5), false),
            (JobError::NoWorkers { job: 6 }, Some(6), false),
            (JobError::InsideWorker { job: 7 }, Some(7), false),
            (JobError::RunsOn, None, false),
            (JobError::Interrupted, None, false),
            (JobError::Failed(Opaque), None, false),
        ];
        for (error, job, is_retryable) in table {
            assert_eq!(error.is_retryable(), is_retryable, "{error}");
            assert_eq!(error.into_job(), job);
        }
    }

    #[test]
    fn the_text_says_what_happened() {
        let waited = Duration::from_millis(1500);
        let full: JobError<Opaque, u8> = JobError::Full {
            job: Opaque,
            capacity: 3,
            waited,
        };
        assert_eq!(
            full.to_string(),
            "the queue of the pool is full (3 jobs), and was for 1s 500ms"
        );
        let panicked: JobError<Opaque, u8> = JobError::Panicked(JobPanic {
            message: "no".into(),
            location: Some("src/main.rs:1:2".into()),
            at: SystemTime::UNIX_EPOCH,
            panics: 2,
            quarantined: Some(JobId(7)),
        });
        assert_eq!(
            panicked.to_string(),
            "the handler panicked at src/main.rs:1:2: no (2 times); job 7 is in quarantine"
        );
        assert!(format!("{panicked:?}").contains("src/main.rs"));
    }
}
