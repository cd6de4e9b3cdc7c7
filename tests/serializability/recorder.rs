//! Writes down what each attempt of a transaction asked for and was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::history::{Op, Outcome, Txn};

/// The moments of a history, and numbers for what is written in it.
#[derive(Debug, Default)]
pub struct Clock {
    moments: AtomicU64,
    numbers: AtomicU64,
}

impl Clock {
    pub fn now(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }

    /// A number that was not given before.
    fn fresh(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

/// One transaction, with all of its attempts.
#[derive(Clone)]
pub struct Recorder(Arc<Recorded>);

struct Recorded {
    clock: Arc<Clock>,
    attempts: Mutex<Attempts>,
}

struct Attempts {
    /// Before the transaction, or the next attempt of it, could begin.
    mark: u64,
    all: Vec<Entry>,
}

struct Entry {
    begin: u64,
    end: u64,
    completed: bool,
    ops: Vec<Op>,
}

/// One attempt; it ends when it is dropped.
pub struct Attempt {
    recorded: Arc<Recorded>,
    entry: Entry,
}

impl Recorder {
    pub fn new(clock: &Arc<Clock>) -> Self {
        Self(Arc::new(Recorded {
            attempts: Mutex::new(Attempts {
                mark: clock.now(),
                all: Vec::new(),
            }),
            clock: Arc::clone(clock),
        }))
    }

    /// Another attempt begins; those before have been undone.
    pub fn attempt(&self) -> Attempt {
        let entry = Entry {
            begin: self.0.attempts.lock().mark,
            end: 0,
            completed: false,
            ops: Vec::new(),
        };
        Attempt {
            recorded: Arc::clone(&self.0),
            entry,
        }
    }

    /// Whether the last attempt came to the end of its body, so that it may be committed.
    pub fn completed(&self) -> bool {
        let attempts = self.0.attempts.lock();
        attempts.all.last().is_some_and(|last| last.completed)
    }

    /// All attempts, of which the others than the last were undone. What came of the last is known if anybody was told;
    /// if not, it may be committed if it came to its end.
    ///
    /// To be asked when everything has been read for the last time: somebody may still run what nobody waits for.
    pub fn end(self, session: usize, told: Option<Outcome>, now: u64) -> Vec<Txn> {
        let outcome = told.unwrap_or(match self.completed() {
            true => Outcome::Unknown,
            false => Outcome::Aborted,
        });
        let entries = std::mem::take(&mut self.0.attempts.lock().all);
        let last = entries.len().saturating_sub(1);
        let txns = entries.into_iter().enumerate().map(|(place, entry)| Txn {
            session,
            begin: entry.begin,
            end: if place == last { now } else { entry.end },
            outcome: if place == last {
                outcome
            } else {
                Outcome::Aborted
            },
            ops: entry.ops,
        });
        txns.collect()
    }
}

impl Attempt {
    pub fn fresh(&self) -> u64 {
        self.recorded.clock.fresh()
    }

    pub fn note(&mut self, op: Op) {
        self.entry.ops.push(op);
    }

    /// The body ends well: from here on it may be committed.
    pub fn complete(mut self) {
        self.entry.completed = true;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut attempts = self.recorded.attempts.lock();
        let now = self.recorded.clock.now();
        attempts.mark = now;
        let entry = Entry {
            begin: self.entry.begin,
            end: now,
            completed: self.entry.completed,
            ops: std::mem::take(&mut self.entry.ops),
        };
        attempts.all.push(entry);
    }
}
