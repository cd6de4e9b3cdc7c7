//! heed with the plainest group commit: one thread, drain the queue, one transaction.
//!
//! Whoever comes while the bodies run has to wait for the next batch: the callers fall into two
//! halves that take turns. One can also look at the queue again after each body, which makes the
//! batches larger; that is `group-late`, measured when it is asked for.
//!
//! No body is isolated from the others, so one that fails has no way back: the error benches leave
//! this system out.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use heed::{Env, RwTxn};
use tokio::sync::oneshot;

use super::by_hand::{self, Table};
use crate::load::{Batches, Updates};
use crate::memory::Stalls;
use crate::work::{Failure, Op, Outcome, Safety};

type Body = Box<dyn FnOnce(&mut RwTxn<'_>) -> Result<Outcome, Failure> + Send>;

struct Job {
    body: Body,
    reply: oneshot::Sender<Result<Outcome, Failure>>,
}

/// Until when a caller still gets into a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Until the transaction begins.
    First,
    /// Until the last body has run.
    Late,
}

#[derive(Clone)]
pub struct Group {
    env: Env,
    table: Table,
    jobs: flume::Sender<Job>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    batches: AtomicU64,
    bodies: AtomicU64,
}

impl Group {
    /// The thread ends when the last clone is dropped.
    pub fn open(dir: &Path, safety: Safety, entry: Entry) -> Result<Self, Failure> {
        let (env, table) = by_hand::open(dir, safety)?;
        let (jobs, queue) = flume::unbounded();
        let counts = Arc::new(Counts::default());
        let (writer_env, writer_counts) = (env.clone(), Arc::clone(&counts));
        std::thread::Builder::new()
            .name("group-commit".into())
            .spawn(move || write(&writer_env, &queue, entry, &writer_counts))?;
        Ok(Self {
            env,
            table,
            jobs,
            counts,
        })
    }

    fn send(&self, body: Body) -> Result<oneshot::Receiver<Result<Outcome, Failure>>, Failure> {
        let (reply, answer) = oneshot::channel();
        self.jobs
            .send(Job { body, reply })
            .map_err(|_| "the group commit thread is gone")?;
        Ok(answer)
    }
}

/// Takes what is there, runs it in one transaction, commits, answers; until all senders are gone.
fn write(env: &Env, queue: &flume::Receiver<Job>, entry: Entry, counts: &Counts) {
    while let Ok(first) = queue.recv() {
        let mut jobs: VecDeque<Job> = std::iter::once(first).chain(queue.drain()).collect();
        let mut replies = Vec::with_capacity(jobs.len());
        let committed = env
            .write_txn()
            .map_err(Failure::from)
            .and_then(|mut txn| {
                while let Some(job) = jobs.pop_front() {
                    replies.push((job.reply, (job.body)(&mut txn)));
                    if entry == Entry::Late && jobs.is_empty() {
                        jobs.extend(queue.drain());
                    }
                }
                Ok(txn.commit()?)
            })
            .map_err(|e| e.to_string());
        counts.batches.fetch_add(1, Ordering::Relaxed);
        counts
            .bodies
            .fetch_add(replies.len() as u64, Ordering::Relaxed);
        for (reply, outcome) in replies {
            let answer = committed.clone().map_err(Failure::from).and(outcome);
            // A caller that went away needs no answer.
            let _ = reply.send(answer);
        }
    }
}

impl Updates for Group {
    async fn update(&self, op: Op) -> Result<Outcome, Failure> {
        let table = self.table;
        self.send(Box::new(move |txn| by_hand::body(table, txn, op)))?
            .await?
    }

    async fn batches(&self) -> Result<Option<Batches>, Failure> {
        Ok(Some(Batches {
            batches: self.counts.batches.load(Ordering::Relaxed),
            bodies: self.counts.bodies.load(Ordering::Relaxed),
        }))
    }

    fn total(&self) -> Result<u64, Failure> {
        by_hand::total(&self.env, self.table)
    }
}

impl Stalls for Group {
    fn stall(&self, until: Receiver<()>) -> Result<(), Failure> {
        // Nobody waits for this one: the thread holds it until `until` is dropped.
        drop(self.send(Box::new(move |_| {
            let _ = until.recv();
            Ok(Outcome::Committed)
        }))?);
        Ok(())
    }
}
