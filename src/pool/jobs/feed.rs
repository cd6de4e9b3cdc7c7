//! What a pool tells the queue that feeds its workers.

use std::sync::Arc;

use super::queue::Closed;
use super::shared::Shared;
use super::stats::JobStats;
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
