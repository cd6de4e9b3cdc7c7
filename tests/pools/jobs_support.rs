//! Jobs for the tests, and a handler that does as they say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockkeeper::{Job, JobError, JobPool, Keeper, PoolBuilder};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::support::{LONG, quick, until};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Do {
    Echo(u32),
    Fail,
    Panic,
    /// Panics so often, and is answered then.
    PanicTimes(u32),
    /// Panics until it is told otherwise.
    PanicUntilMended,
    /// Runs until the test lets it go on.
    Hold(u32),
}

#[derive(Debug, PartialEq, Eq)]
pub struct No;

pub type Jobs = JobPool<Do, u32, No>;
pub type Answer = Result<u32, JobError<Do, No>>;

/// What the handler and the test share.
#[derive(Clone)]
pub struct Stage {
    begun: Arc<Mutex<Vec<Do>>>,
    go_on: Arc<Semaphore>,
    mended: Arc<AtomicBool>,
}

impl Stage {
    pub fn new() -> Self {
        Self {
            begun: Arc::default(),
            go_on: Arc::new(Semaphore::new(0)),
            mended: Arc::default(),
        }
    }

    /// What has begun, in order.
    pub fn begun(&self) -> Vec<Do> {
        self.begun.lock().clone()
    }

    /// Waits until this has begun.
    #[track_caller]
    pub fn until_begun(&self, job: Do) {
        until("the job begins", || self.begun.lock().contains(&job));
    }

    /// Lets one that holds go on.
    pub fn let_go(&self) {
        self.go_on.add_permits(1);
    }

    pub fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }

    async fn run(self, job: Job<Do>) -> Result<u32, No> {
        self.begun.lock().push(*job);
        match *job {
            Do::Echo(n) => Ok(n),
            Do::Fail => Err(No),
            Do::Panic => panic!("it burns"),
            Do::PanicTimes(times) if job.attempt() <= times => panic!("attempt {}", job.attempt()),
            Do::PanicTimes(times) => Ok(times),
            Do::PanicUntilMended if !self.mended.load(Ordering::SeqCst) => panic!("broken"),
            Do::PanicUntilMended => Ok(0),
            Do::Hold(n) => {
                self.go_on.acquire().await.unwrap().forget();
                Ok(n)
            }
        }
    }

    pub fn serve(&self, builder: PoolBuilder) -> Jobs {
        let stage = self.clone();
        builder.serve(move |job| stage.clone().run(job)).unwrap()
    }
}

/// One worker, which may panic as often as it likes.
pub fn patient(keeper: &Keeper, name: &'static str) -> PoolBuilder {
    quick(keeper, name).intensity(1_000_000, LONG)
}

/// Waits for an answer, which has to come.
pub async fn soon<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, answer).await.expect("an answer")
}

/// Waits until so many are queued.
#[track_caller]
pub fn until_queued(jobs: &Jobs, queued: usize, waiting: usize) {
    until("they are queued", || {
        let stats = jobs.job_stats();
        (stats.queued, stats.waiting) == (queued, waiting)
    });
}

/// Submits in a task.
pub fn send(jobs: &Jobs, job: Do) -> tokio::task::JoinHandle<Answer> {
    tokio::spawn(jobs.submit(job))
}

pub const MS: Duration = Duration::from_millis(1);
