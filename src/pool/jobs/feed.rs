//! What a pool tells the queue that feeds its workers.

use std::sync::Arc;

use super::id::JobId;
use super::quarantine::QuarantinedJob;
use super::queue::Closed;
use super::shared::{Shared, Todos};
use super::stats::JobStats;
use super::untyped::QuarantineEntry;
use crate::env::quietly;
use crate::error::RetryError;
use crate::pool::seams::{Feed, Rest};
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
        let _inside = self.dropping();
        // It is the application's, and dropped here.
        quietly(|| is_there = Self::discard(self, job).is_some());
        is_there
    }

    fn drain(&self) -> Option<Rest<'_>> {
        self.rest(Self::drain(self))
    }

    fn failed(&self, run: RunId, cause: &Cause) {
        let _inside = self.dropping();
        match cause {
            Cause::Panic { message, location } => {
                self.panicked(run, Arc::clone(message), location.clone());
            }
            _ => self.interrupted(run),
        }
    }

    fn abandoned(&self, run: RunId) {
        let _inside = self.dropping();
        self.interrupted(run);
    }

    fn stands(&self, state: PoolState, last: Option<Arc<str>>) -> Option<Rest<'_>> {
        let todos = match state {
            PoolState::Running | PoolState::Pausing | PoolState::Paused => self.reopen(),
            // Its workers do what is queued, until it is over.
            PoolState::Draining => return None,
            PoolState::Finished => self.close(Closed::Finished, last),
            PoolState::Stopping => self.shut(Closed::Stopped, last),
            PoolState::Failing => self.shut(Closed::Failed, last),
            PoolState::Failed => self.close(Closed::Failed, last),
            PoolState::Drained | PoolState::Stopped => {
                let todos = self.close(Closed::Stopped, last);
                self.forget_clock();
                todos
            }
        };
        self.rest(todos)
    }
}

impl<J, R, E> Shared<J, R, E> {
    fn rest(&self, todos: Todos<J, R, E>) -> Option<Rest<'_>> {
        if todos.is_empty() {
            return None;
        }
        Some(Rest::new(move || {
            let _inside = self.dropping();
            self.finish(todos);
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::clock::Clock;
    use crate::env::EnvId;
    use crate::inside::{Owner, Place, place};
    use crate::pool::jobs::on_full::OnFull;
    use crate::pool::jobs::queue::Rules;
    use crate::pool::jobs::submit::Submit;

    struct Sees(EnvId, flume::Sender<Option<Place>>);

    impl Drop for Sees {
        fn drop(&mut self) {
            let _ = self.1.send(place(|owner| owner == Owner::Env(self.0)));
        }
    }

    #[test]
    fn i14_a_job_that_is_dropped_by_the_pool_is_known_to_be_inside_of_its_keeper() {
        let rules = Rules {
            capacity: 1,
            on_full: OnFull::Refuse,
            quarantine_after: None,
            quarantine_limit: 0,
        };
        let (env, clock) = (EnvId::next(), Clock::start().unwrap());
        let shared = Arc::new(Shared::<_, (), ()>::new("jobs".into(), env, clock, rules));
        let (tell, told) = flume::bounded(1);
        let taken = Submit::new(Arc::clone(&shared), Sees(env, tell)).detach();
        assert!(
            pin!(taken)
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        );
        Feed::stands(&*shared, PoolState::Stopped, None)
            .unwrap()
            .run();
        let seen = told.try_recv().unwrap();
        assert!(matches!(
            seen,
            Some(Place::Callback("a job that is dropped"))
        ));
        assert!(place(|_| true).is_none());
    }
}
