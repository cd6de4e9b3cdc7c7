//! Submitting a job, and waiting for its answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::held::{Answer, Held, Reply, Taken};
use super::id::JobId;
use super::queue::Watch;
use super::shared::Shared;
use crate::clock::{Sleep, block_on, far};
use crate::error::JobError;

/// A job that is being submitted: a future that ends with its answer.
///
/// It does nothing until it is polled. Dropped, the job is given up: what has not begun never does, also not again after a panic; what
/// has begun runs on, and nobody hears of its answer.
#[must_use = "a job is submitted when this is polled"]
pub struct Submit<J, R, E> {
    shared: Arc<Shared<J, R, E>>,
    job: Option<J>,
    deadline: Option<Instant>,
    sent: Option<Sent<Answer<J, R, E>>>,
}

/// A job that is being submitted: a future that ends when it is queued. See [`Submit::detach`].
#[must_use = "a job is submitted when this is polled"]
pub struct Detached<J, R, E> {
    shared: Arc<Shared<J, R, E>>,
    job: Option<J>,
    deadline: Option<Instant>,
    sent: Option<Sent<Taken<J, E>>>,
}

struct Sent<T> {
    id: JobId,
    reply: oneshot::Receiver<T>,
    sleep: Option<Sleep>,
}

impl<J, R, E> Submit<J, R, E> {
    pub(super) fn new(shared: Arc<Shared<J, R, E>>, job: J) -> Self {
        Self {
            shared,
            job: Some(job),
            deadline: None,
            sent: None,
        }
    }

    /// The time from now on within which the job has to begin, and its submitter is answered: a job that has not begun until then
    /// never does ([`JobError::DeadlinePassed`]), of one that runs its submitter hears no more ([`JobError::RunsOn`]). Default: none.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(far(Instant::now(), deadline));
        self
    }

    /// Does not wait for the answer: the future ends when the job is queued, with its number; with `None` if it was dropped at once
    /// ([`OnFull::DropNewest`](crate::OnFull::DropNewest)). From then on it needs nobody to wait for it. Dropped
    /// before, the job is given up.
    ///
    /// It is not done for all that if its deadline passes before it begins, if a newer one takes its place
    /// ([`OnFull::DropOldest`](crate::OnFull::DropOldest)), or if the pool stops, fails or has no worker left. Nobody is told then but
    /// the log, as a warning, and the counts of the pool; the job is dropped, perhaps on the thread that serves all pools of the keeper: its `Drop` must not block.
    ///
    /// Polled by a worker of the same pool, it waits for no place: see [`JobError::InsideWorker`].
    pub fn detach(mut self) -> Detached<J, R, E> {
        Detached {
            shared: Arc::clone(&self.shared),
            job: self.job.take(),
            deadline: self.deadline,
            sent: None,
        }
    }

    /// Submits it and waits for its answer on the calling thread, which is parked meanwhile: for threads, and never to be called in
    /// an async task, let alone a worker's.
    ///
    /// # Errors
    ///
    /// See [`JobError`].
    pub fn blocking(self) -> Result<R, JobError<J, E>> {
        block_on(self)
    }
}

impl<J, R, E> Detached<J, R, E> {
    /// Submits it, and waits on the calling thread until it is queued. For threads.
    ///
    /// # Errors
    ///
    /// See [`JobError`].
    pub fn blocking(self) -> Result<Option<JobId>, JobError<J, E>> {
        block_on(self)
    }
}

impl<T> Sent<T> {
    /// Waits for the reply, and lets time pass for the job.
    fn poll<J, R, E>(&mut self, shared: &Shared<J, R, E>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            if let Poll::Ready(reply) = Pin::new(&mut self.reply).poll(cx) {
                return Poll::Ready(reply.ok());
            }
            if self.sleep.is_none() {
                self.sleep = shared.sleep(self.id);
            }
            let Some(sleep) = &mut self.sleep else {
                return Poll::Pending;
            };
            std::task::ready!(Pin::new(sleep).poll(cx));
            // It may have another deadline by now: it has got its place.
            self.sleep = None;
            shared.tick();
        }
    }
}

impl<J, E> Sent<Taken<J, E>> {
    /// What has become of it at once: a worker of the pool itself does not wait for a place, which may be for itself to free.
    /// Nothing if another thread is about to say so.
    fn now<R>(&mut self, shared: &Shared<J, R, E>) -> Option<Taken<J, E>> {
        if let Ok(taken) = self.reply.try_recv() {
            return Some(taken);
        }
        // It leaves the queue, unless it has got its place in this moment.
        shared.gone(self.id);
        match self.reply.try_recv() {
            Ok(Err(JobError::Stopped { job })) => Some(Err(JobError::InsideWorker { job })),
            Ok(taken) => Some(taken),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(JobError::Interrupted)),
        }
    }
}

// Nothing in them is pinned.
impl<J, R, E> Unpin for Submit<J, R, E> {}
impl<J, R, E> Unpin for Detached<J, R, E> {}

impl<J, R, E> Future for Submit<J, R, E> {
    type Output = Result<R, JobError<J, E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(job) = this.job.take() {
            if this.shared.is_forked() {
                return Poll::Ready(Err(JobError::Stopped { job }));
            }
            if this.shared.is_inside() {
                return Poll::Ready(Err(JobError::InsideWorker { job }));
            }
            let (sender, reply) = oneshot::channel();
            let held = Held::new(job, Reply::Answer(sender));
            let id = this.shared.submit(this.deadline, Watch::Answer, held);
            let sleep = None;
            this.sent = Some(Sent { id, reply, sleep });
        }
        let Some(sent) = &mut this.sent else {
            // Polled after its end.
            return Poll::Pending;
        };
        let answer = std::task::ready!(sent.poll(&this.shared, cx));
        this.sent = None;
        Poll::Ready(answer.unwrap_or(Err(JobError::Interrupted)))
    }
}

impl<J, R, E> Future for Detached<J, R, E> {
    type Output = Result<Option<JobId>, JobError<J, E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(job) = this.job.take() {
            if this.shared.is_forked() {
                return Poll::Ready(Err(JobError::Stopped { job }));
            }
            let (sender, reply) = oneshot::channel();
            let held = Held::new(job, Reply::Taken(sender));
            let id = this.shared.submit(this.deadline, Watch::Place, held);
            let sleep = None;
            let mut sent = Sent { id, reply, sleep };
            if this.shared.is_inside()
                && let Some(taken) = sent.now(&this.shared)
            {
                return Poll::Ready(taken);
            }
            this.sent = Some(sent);
        }
        let Some(sent) = &mut this.sent else {
            return Poll::Pending;
        };
        let taken = std::task::ready!(sent.poll(&this.shared, cx));
        this.sent = None;
        Poll::Ready(taken.unwrap_or(Err(JobError::Interrupted)))
    }
}

impl<J, R, E> Drop for Submit<J, R, E> {
    fn drop(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.shared.gone(sent.id);
        }
    }
}

impl<J, R, E> Drop for Detached<J, R, E> {
    fn drop(&mut self) {
        if let Some(sent) = self.sent.take() {
            // Queued already, if this comes too late.
            self.shared.gone(sent.id);
        }
    }
}
