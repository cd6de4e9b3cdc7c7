//! The handle of a pool.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::builder::MOST_WORKERS;
use super::failure::WorkerFailure;
use super::shared::Shared;
use super::stats::PoolStats;
use super::supervise::{PoolState, Supervision};
use crate::error::PoolError;
use crate::inside::{self, Owner, Place};

/// A handle of a pool of workers. Cheap to clone, `Send` and `Sync`.
///
/// Dropping handles does not stop the pool: the keeper owns it, and stops it when it is stopped itself. What a method asks for is
/// asked by the call; a future that it answers only waits, and may be dropped. In a worker of the pool itself, which would wait for
/// itself, the future answers [`PoolError::InsideWorker`] at once; what was asked for happens all the same.
#[derive(Clone)]
pub struct Pool {
    pub(super) shared: Arc<Shared>,
}

impl Pool {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.name()
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> PoolState {
        self.shared.state()
    }

    /// What a person would want to look up.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.shared.stats()
    }

    /// Has so many workers from now on. Those that are missing are started; those that are too many are told to stop, the last number
    /// first.
    ///
    /// # Errors
    ///
    /// [`PoolError::TooManyWorkers`]; [`PoolError::Ended`] when the pool drains, stops or is over.
    pub fn scale(&self, workers: usize) -> Result<(), PoolError> {
        if workers > MOST_WORKERS {
            return Err(PoolError::TooManyWorkers {
                workers,
                limit: MOST_WORKERS,
            });
        }
        self.is_ours()?;
        self.shared
            .scale(workers)
            .map_err(|state| self.ended(state))
    }

    /// Tells all workers to stop, and starts none until [`resume`](Self::resume). The future ends when none runs: after the pool's grace at the
    /// latest, when those that run still are abandoned; or when the pool was resumed meanwhile.
    ///
    /// # Errors
    ///
    /// [`PoolError::Ended`] when the pool drains, stops or is over, also meanwhile.
    pub fn pause(&self) -> impl Future<Output = Result<(), PoolError>> + Send + use<> {
        let asked = self.ask(Supervision::pause);
        let pool = self.clone();
        async move {
            let (asked, may_wait) = asked?;
            asked.map_err(|state| pool.ended(state))?;
            may_wait?;
            let paused = |core: &Supervision| match core.state() {
                PoolState::Pausing => None,
                PoolState::Paused | PoolState::Running | PoolState::Finished => Some(Ok(())),
                state => Some(Err(state)),
            };
            let paused = pool.shared.until(paused).await;
            paused.map_err(|state| pool.ended(state))
        }
    }

    /// Ends a pause, or begins anew after the pool has failed, as if there had been no failure.
    ///
    /// # Errors
    ///
    /// [`PoolError::Ended`] when the pool drains, stops, or is over without having failed; also when it has failed, and was stopped or
    /// replaced by another of its name since.
    pub fn resume(&self) -> Result<(), PoolError> {
        self.is_ours()?;
        self.shared.resume().map_err(|state| self.ended(state))
    }

    /// Has the pool end when its workers have, and answers when it is over: nothing new is taken, and what is there is done. Workers
    /// of a pool that serves jobs end when its queue is empty, others are told to stop. When the deadline has passed, what runs still
    /// is told to stop and has the pool's grace (a pool that serves jobs), or is abandoned (others, which were told before). Where no
    /// worker may run (scaled to 0, or without the lease), nobody does what is queued: it is handed back at once.
    ///
    /// # Errors
    ///
    /// [`PoolError::Failed`] if the pool gave up, now or before; [`PoolError::RunsOn`] if workers that nobody can stop run still.
    pub fn drain(
        &self,
        deadline: Duration,
    ) -> impl Future<Output = Result<(), PoolError>> + Send + use<> {
        let change = |core: &mut Supervision, now: Instant| {
            core.drain(crate::clock::far(now, deadline), now);
            core.life()
        };
        let asked = self.ask(change);
        let pool = self.clone();
        async move {
            let (life, may_wait) = asked?;
            may_wait?;
            pool.over(life).await
        }
    }

    /// Tells all workers to stop, and answers when the pool is over. Workers that have not ended at the deadline are abandoned: async
    /// ones are dropped at their next await, blocking ones run on. A pool that has failed is not resumed any more, and is forgotten.
    ///
    /// # Errors
    ///
    /// [`PoolError::Failed`] if the pool gave up, now or before; [`PoolError::RunsOn`] if workers that nobody can stop run still.
    pub fn stop(
        &self,
        deadline: Duration,
    ) -> impl Future<Output = Result<(), PoolError>> + Send + use<> {
        let change = |core: &mut Supervision, now: Instant| {
            core.stop(crate::clock::far(now, deadline), now);
            core.retire();
            core.life()
        };
        let asked = self.ask(change);
        let pool = self.clone();
        async move {
            let (life, may_wait) = asked?;
            may_wait?;
            pool.over(life).await
        }
    }

    /// Waits until the pool is over, or none of its workers is started again. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`PoolError::Failed`] if the pool gave up, also if it was resumed since; [`PoolError::RunsOn`] if workers that nobody can stop run
    /// still.
    pub fn wait(&self) -> impl Future<Output = Result<(), PoolError>> + Send + use<> {
        let may_wait = self.is_ours().and_then(|()| self.may_wait());
        let life = self.shared.life();
        let pool = self.clone();
        async move {
            may_wait?;
            let ended = |core: &Supervision| {
                let state = core.state();
                let ended = state.is_over() || state == PoolState::Finished;
                (ended || core.life() != life).then_some(state)
            };
            match pool.shared.until(ended).await {
                PoolState::Finished if pool.shared.life() == life => Ok(()),
                _ => pool.over(life).await,
            }
        }
    }

    /// Waits until it is over, or has begun another life than this: then it has failed in this one, whether anybody has seen that or not.
    async fn over(self, life: u64) -> Result<(), PoolError> {
        let shared = &self.shared;
        let (failed, runs_on) = shared
            .until(|core| {
                let state = core.state();
                let has_failed = core.life() != life;
                let failed = has_failed || state == PoolState::Failed;
                let failed = failed.then(|| core.gave_up_over().cloned());
                let runs_on = core.counts().abandoned;
                let is_over = state.is_over() && shared.is_settled();
                (is_over || has_failed).then_some((failed, runs_on))
            })
            .await;
        let name = Arc::clone(self.shared.name());
        match (failed, runs_on) {
            (Some(last), _) => Err(PoolError::Failed {
                name,
                last: last.map(|last| Box::new(WorkerFailure::new(&last))),
            }),
            (None, 0) => Ok(()),
            (None, workers) => Err(PoolError::RunsOn { name, workers }),
        }
    }

    /// Has the core decide something, and says whether what comes of it may be waited for here.
    fn ask<T>(
        &self,
        change: impl FnOnce(&mut Supervision, Instant) -> T,
    ) -> Result<(T, Result<(), PoolError>), PoolError> {
        self.is_ours()?;
        Ok((self.shared.change(change), self.may_wait()))
    }

    /// The threads that would carry out what is asked for belong to the process that started them.
    fn is_ours(&self) -> Result<(), PoolError> {
        match self.shared.forked() {
            true => Err(PoolError::ShuttingDown),
            false => Ok(()),
        }
    }

    /// A worker of the pool would wait for itself (I14).
    fn may_wait(&self) -> Result<(), PoolError> {
        let name = self.shared.name();
        let place = inside::place(|owner| owner == Owner::Env(self.shared.env));
        match place {
            Some(Place::Worker(pool)) if pool == *name => {
                Err(PoolError::InsideWorker { name: pool })
            }
            _ => Ok(()),
        }
    }

    fn ended(&self, state: PoolState) -> PoolError {
        PoolError::Ended {
            name: Arc::clone(self.shared.name()),
            state,
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
