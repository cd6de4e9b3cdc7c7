//! The quarantine: jobs that panicked too often, until somebody decides about them.

use std::collections::VecDeque;

use super::{Closed, JobId};

/// What is put aside, in the order in which it was. It has a bound: what finds it full is not put aside, and nothing that was is lost
/// to it. A job that is retried keeps its place until it is done.
#[derive(Debug)]
pub(in crate::pool::jobs) struct Aside<T> {
    limit: usize,
    /// Places of jobs that are being retried.
    kept: usize,
    jobs: VecDeque<Put<T>>,
}

#[derive(Debug)]
pub(super) struct Put<T> {
    id: JobId,
    pub held: T,
    pub panics: u32,
}

/// Why a job is not retried. It stays where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pool::jobs) enum RetryRefused {
    Unknown,
    Full { capacity: usize },
    Closed(Closed),
}

impl<T> Aside<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: 0,
            jobs: VecDeque::new(),
        }
    }

    /// Puts a job aside, or gives it back if there is no place.
    pub(super) fn put(&mut self, id: JobId, held: T, panics: u32) -> Result<(), T> {
        if self.jobs.len() + self.kept >= self.limit {
            return Err(held);
        }
        self.jobs.push_back(Put { id, held, panics });
        Ok(())
    }

    /// Puts a job that was retried into the place that was kept for it.
    pub(super) fn put_back(&mut self, id: JobId, held: T, panics: u32) {
        self.kept = self.kept.saturating_sub(1);
        self.jobs.push_back(Put { id, held, panics });
    }

    /// A job is done; if it came from here, its place is free.
    pub(super) fn leave(&mut self, was_retry: bool) {
        self.kept = self.kept.saturating_sub(usize::from(was_retry));
    }

    pub(super) fn get(&self, id: JobId) -> Option<&Put<T>> {
        self.jobs.iter().find(|put| put.id == id)
    }

    pub(super) fn get_mut(&mut self, id: JobId) -> Option<&mut T> {
        let put = self.jobs.iter_mut().find(|put| put.id == id)?;
        Some(&mut put.held)
    }

    /// Takes a job out and keeps its place.
    pub(super) fn retry(&mut self, id: JobId) -> Option<Put<T>> {
        let put = self.discard(id)?;
        self.kept += 1;
        Some(put)
    }

    pub(super) fn discard(&mut self, id: JobId) -> Option<Put<T>> {
        let at = self.jobs.iter().position(|put| put.id == id)?;
        self.jobs.remove(at)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (JobId, &T, u32)> {
        self.jobs.iter().map(|put| (put.id, &put.held, put.panics))
    }
}
