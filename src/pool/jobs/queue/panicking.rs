//! What becomes of a job that panicked.

use std::time::Instant;

use super::{Closed, Entry, JobId, Queue, RetryRefused, Stage, Watch};

/// What becomes of a job that panicked; with what it was submitted with, if this is its end.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::pool::jobs) enum AfterPanic<T> {
    /// It is queued again, behind the others.
    Again,
    /// It was put aside.
    Aside,
    /// It was to be put aside, and there was no place.
    NoRoom(T),
    /// It is over.
    Over(T),
    /// It had been given up before.
    Unknown,
}

impl<T> Queue<T> {
    /// A job that runs has panicked.
    pub(in crate::pool::jobs) fn panicked(&mut self, now: Instant, id: JobId) -> AfterPanic<T> {
        self.tick(now);
        let Some(mut entry) = self.take_running(id) else {
            return AfterPanic::Unknown;
        };
        entry.in_a_row += 1;
        entry.panics += 1;
        self.counts.panics += 1;
        let Some(most) = self.rules.quarantine_after else {
            return AfterPanic::Over(entry.held);
        };
        if entry.in_a_row >= most {
            let room = match entry.is_retry {
                true => {
                    self.aside.put_back(id, entry.held, entry.panics);
                    Ok(())
                }
                false => self.aside.put(id, entry.held, entry.panics),
            };
            match room {
                Ok(()) => {
                    self.counts.put_aside += 1;
                    AfterPanic::Aside
                }
                Err(held) => {
                    self.counts.not_put_aside += 1;
                    AfterPanic::NoRoom(held)
                }
            }
        } else if self.is_wanted(entry.watch, entry.deadline, now) {
            self.jobs.insert(id, entry);
            self.enqueue(id);
            AfterPanic::Again
        } else if entry.is_retry {
            self.aside.put_back(id, entry.held, entry.panics);
            AfterPanic::Aside
        } else {
            AfterPanic::Over(entry.held)
        }
    }

    fn is_wanted(&self, watch: Watch, deadline: Option<Instant>, now: Instant) -> bool {
        watch != Watch::Gone
            && deadline.is_none_or(|deadline| now < deadline)
            && self.closed.is_none_or(|closed| closed == Closed::Draining)
    }

    /// Has a job that was put aside begun again, behind what is queued. Nobody waits for it, and its panics count anew.
    pub(in crate::pool::jobs) fn retry(
        &mut self,
        now: Instant,
        id: JobId,
    ) -> Result<(), RetryRefused> {
        self.tick(now);
        if self.aside.get(id).is_none() {
            return Err(RetryRefused::Unknown);
        }
        if let Some(closed) = self.closed {
            return Err(RetryRefused::Closed(closed));
        }
        if !self.has_place() {
            return Err(RetryRefused::Full {
                capacity: self.rules.capacity,
            });
        }
        let Some(put) = self.aside.retry(id) else {
            return Err(RetryRefused::Unknown);
        };
        self.counts.retried += 1;
        self.jobs.insert(
            id,
            Entry {
                held: put.held,
                submitted: now,
                deadline: None,
                watch: Watch::Nobody,
                stage: Stage::Waiting { until: now },
                in_a_row: 0,
                panics: put.panics,
                is_retry: true,
                timer: None,
                place: 0,
            },
        );
        self.enqueue(id);
        Ok(())
    }

    /// Takes a job out of the quarantine for good.
    pub(in crate::pool::jobs) fn discard(&mut self, id: JobId) -> Option<(T, u32)> {
        self.aside.discard(id).map(|put| (put.held, put.panics))
    }

    /// What a job that is put aside was submitted with.
    pub(in crate::pool::jobs) fn aside_mut(&mut self, id: JobId) -> Option<&mut T> {
        self.aside.get_mut(id)
    }

    /// What was put aside, the longest there first, each with how often it panicked in all.
    pub(in crate::pool::jobs) fn aside(&self) -> impl Iterator<Item = (JobId, &T, u32)> {
        self.aside.iter()
    }
}
