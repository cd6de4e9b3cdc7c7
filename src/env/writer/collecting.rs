//! From the queue to a batch: who is in it, who waits for company, and who is held back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use super::Writer;
use crate::config::Durability;
use crate::env::shared::{Command, UpdateTask};

impl Writer {
    /// Collects a batch behind what was held back, and behind `first`, and commits it.
    pub(super) fn update(&mut self, first: Option<UpdateTask>) {
        let shared = Arc::clone(&self.shared);
        let _busy = shared.first.busy();
        let most = self.shared.config.batch();
        let holds = shared.first.holds(self.shared.config.queue());
        let mut batch = Vec::new();
        if !holds {
            batch.extend(std::iter::from_fn(|| shared.first.let_go()).take(most));
        }
        if let Some(first) = first {
            self.waiting.push_front(Command::Update(first));
        }
        self.take_queued(&mut batch, most, holds);
        if batch.is_empty() {
            // All of them are held back.
            return;
        }
        let before = batch.len();
        if self.waiting.is_empty()
            && let Some((expected, limit)) = self.gather.wait_for(before)
        {
            let expected = expected.min(most);
            let until = Instant::now() + limit;
            // Yielding, not parking: a parked receiver would cost each sender a system call.
            while before + self.commands.len() < expected && Instant::now() < until {
                thread::yield_now();
            }
            self.take_queued(&mut batch, most, holds);
            self.gather.waited(before, batch.len());
        }
        self.run_collected(batch);
    }

    /// Runs and commits a batch.
    fn run_collected(&mut self, batch: Vec<UpdateTask>) {
        self.shared
            .counters
            .queued
            .fetch_sub(batch.len(), Ordering::Relaxed);
        let bodies = batch.len();
        let started = Instant::now();
        self.run_batch(batch);
        tracing::trace!(target: "lockkeeper", bodies, elapsed = ?started.elapsed(), "batch");
        self.gather.answered(bodies, self.commands.len());
        if self.shared.config.durability() == Durability::NoSync && self.unsynced_since.is_none() {
            self.unsynced_since = Some(Instant::now());
        }
        self.grow_ahead();
    }

    /// Takes updates from the queue, up to the first command that is something else.
    fn take_queued(&mut self, batch: &mut Vec<UpdateTask>, most: usize, holds: bool) {
        while batch.len() < most {
            let next = match self.waiting.pop_front() {
                Some(next) => Ok(next),
                None => self.commands.try_recv(),
            };
            match next {
                Ok(Command::Update(task)) if holds => {
                    batch.extend(self.shared.first.hold_back(task));
                }
                Ok(Command::Update(task)) => batch.push(task),
                Ok(other) => {
                    self.waiting.push_front(other);
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Runs all that is held back, before something that must not overtake it.
    pub(super) fn let_all_go(&mut self) {
        let shared = Arc::clone(&self.shared);
        let _busy = shared.first.busy();
        let most = self.shared.config.batch();
        while self.shared.poison.event().is_none() && !self.is_stopping() {
            let held = std::iter::from_fn(|| self.shared.first.let_go());
            let batch: Vec<_> = held.take(most).collect();
            if batch.is_empty() {
                return;
            }
            self.run_collected(batch);
        }
    }

    /// Whether updates are held back that have to go on.
    pub(super) fn held_is_due(&self) -> bool {
        let due = self.shared.first.due();
        due.is_some_and(|due| due <= Instant::now())
    }
}
