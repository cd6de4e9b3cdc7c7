//! What a pool tells the queue that feeds its workers.

use std::sync::Arc;

use super::id::JobId;
use super::quarantine::QuarantinedJob;
use super::queue::Closed;
use super::shared::Shared;
use super::stats::JobStats;
use super::untyped::QuarantineEntry;
use crate::env::quietly;
use crate::error::RetryError;
use crate::pool::seams::{Abandoned, Feed};
use crate::pool::supervise::{Cause, PoolState, RunId};

impl<J, R, E> Feed for Shared<J, R, E>
where
    J: Send + Sync + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    fn stats(&self) -> JobStats {
        Self::stats(self)
    }

    fn quarantined(&self) -> Vec<QuarantineEntry> {
        let entry = |put: QuarantinedJob<J>| QuarantineEntry::new(put.id, put.panic);
        Self::quarantined(self).into_iter().map(entry).collect()
    }

    fn retry(&self, job: JobId) -> Result<(), RetryError> {
        Self::retry(self, job)
    }

    fn discard(&self, job: JobId) -> bool {
        let mut is_there = false;
        // It is the application's, and dropped here.
        quietly(|| is_there = Self::discard(self, job).is_some());
        is_there
    }

    fn drain(&self) {
        Self::drain(self);
    }

    fn failed(&self, _: usize, run: RunId, cause: &Cause) {
        match cause {
            Cause::Panic { message, location } => {
                self.panicked(run, Arc::clone(message), location.clone());
            }
            _ => self.interrupted(run),
        }
    }

    fn abandoned(&self, _: usize, run: RunId, _: Abandoned) {
        self.interrupted(run);
    }

    fn stands(&self, state: PoolState, last: Option<Arc<str>>) {
        match state {
            PoolState::Running | PoolState::Pausing | PoolState::Paused => self.reopen(),
            // Its workers do what is queued, until it is over.
            PoolState::Draining => {}
            PoolState::Finished => self.close(Closed::Finished, last),
            PoolState::Stopping => self.shut(Closed::Stopped, last),
            PoolState::Failing => self.shut(Closed::Failed, last),
            PoolState::Failed => self.close(Closed::Failed, last),
            PoolState::Drained | PoolState::Stopped => {
                self.close(Closed::Stopped, last);
                self.forget_clock();
            }
        }
    }
}
