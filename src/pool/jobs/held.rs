//! What the queue keeps of a job.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::id::JobId;
use crate::error::{JobError, JobPanic};

/// The answer of a job, as its submitter gets it.
pub(super) type Answer<J, R, E> = Result<R, JobError<J, E>>;
/// Whether a job was taken: its number, or none if it was dropped since it was the newest.
pub(super) type Taken<J, E> = Result<Option<JobId>, JobError<J, E>>;

pub(super) struct Held<J, R, E> {
    payload: Payload<J>,
    pub reply: Reply<J, R, E>,
    /// How it panicked last.
    pub panic: Option<JobPanic>,
}

/// A job that never began can be handed back; once begun, it is shared with its handler.
enum Payload<J> {
    Fresh(J),
    Shared(Arc<J>),
    /// Only for the moment in which the one becomes the other.
    Moving,
}

/// Who is told what became of it.
pub(super) enum Reply<J, R, E> {
    Answer(oneshot::Sender<Answer<J, R, E>>),
    Taken(oneshot::Sender<Taken<J, E>>),
    Nobody,
}

impl<J, R, E> Held<J, R, E> {
    pub(super) fn new(job: J, reply: Reply<J, R, E>) -> Self {
        Self {
            payload: Payload::Fresh(job),
            reply,
            panic: None,
        }
    }

    /// The job, to be run.
    pub(super) fn share(&mut self) -> Option<Arc<J>> {
        let shared = match std::mem::replace(&mut self.payload, Payload::Moving) {
            Payload::Fresh(job) => Arc::new(job),
            Payload::Shared(job) => job,
            Payload::Moving => return None,
        };
        self.payload = Payload::Shared(Arc::clone(&shared));
        Some(shared)
    }

    /// The job was not run after all. One that never was can be handed back again.
    pub(super) fn unshare(&mut self, job: &mut Option<Arc<J>>) {
        drop(job.take());
        if self.panic.is_some() {
            return;
        }
        self.payload = match std::mem::replace(&mut self.payload, Payload::Moving) {
            Payload::Shared(job) => {
                Arc::try_unwrap(job).map_or_else(Payload::Shared, Payload::Fresh)
            }
            other => other,
        };
    }

    /// The job in quarantine, to be looked at.
    pub(super) fn look(&self) -> Option<Arc<J>> {
        match &self.payload {
            Payload::Shared(job) => Some(Arc::clone(job)),
            Payload::Fresh(_) | Payload::Moving => None,
        }
    }

    /// The reply, for an answer that leaves the job in the quarantine.
    pub(super) fn take_reply(&mut self) -> Reply<J, R, E> {
        std::mem::replace(&mut self.reply, Reply::Nobody)
    }

    /// Tells that the job ended without an answer. `error` makes the error of a job that never began; one that is not begun again has
    /// panicked.
    pub(super) fn end(self, error: impl FnOnce(J) -> JobError<J, E>) {
        let error = match self.payload {
            Payload::Fresh(job) => error(job),
            Payload::Shared(_) | Payload::Moving => match self.panic {
                Some(panic) => JobError::Panicked(panic),
                None => JobError::Interrupted,
            },
        };
        self.reply.fail(error);
    }
}

impl<J, R, E> Reply<J, R, E> {
    /// Whoever waits may be gone: then nobody is told.
    pub(super) fn fail(self, error: JobError<J, E>) {
        match self {
            Self::Answer(reply) => drop(reply.send(Err(error))),
            Self::Taken(reply) => drop(reply.send(Err(error))),
            Self::Nobody => drop(error),
        }
    }

    pub(super) fn answer(self, answer: Result<R, E>) {
        match self {
            Self::Answer(reply) => drop(reply.send(answer.map_err(JobError::Failed))),
            Self::Taken(_) | Self::Nobody => drop(answer),
        }
    }
}
