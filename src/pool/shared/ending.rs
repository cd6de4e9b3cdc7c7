//! How a pool ends: its runs are joined, and the keeper's stop waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use super::feeding::FedTo;
use crate::error::ShutdownError;
use crate::keeper::stoppables::{RunsOn, Stops};
use crate::pool::supervise::{PoolState, Who};

/// A pool that is over waits so long for async runs that it has dropped just now.
const LINGER: Duration = Duration::from_millis(250);
/// And so long for leases to be given back, which nobody needs for it to be over, and for what is dropped of the application's, which
/// may wait for the end itself: they may go on after that.
const LINGER_FOR_OTHERS: Duration = Duration::from_secs(2);
/// When the keeper stops, workers are told this part of the time before its end, if they were not before.
const TIME_TO_STOP: u32 = 10;

impl Shared {
    /// Forgets runs that have ended, and joins their threads. One that drops its thread-locals still is left to say when it has.
    pub(super) fn reap(&self) {
        let mut joined = Vec::new();
        self.runs.lock().retain(|_, run| {
            let is_over = run.control.ended.load(Ordering::Acquire);
            let may_join = run.thread.is_none() || run.control.gone.load(Ordering::Acquire);
            match is_over && may_join {
                true => joined.extend(run.thread.take()),
                false => return true,
            }
            false
        });
        for thread in joined {
            // It has said how it ended.
            drop(thread.join());
        }
    }

    /// Looks whether the pool is over; answers when to look again.
    pub(super) fn settle(&self) -> Option<Instant> {
        // Held throughout: a pool that failed may be resumed meanwhile.
        let core = self.core.lock();
        let mut since = self.over_since.lock();
        if !core.state().is_over() {
            *since = None;
            return None;
        }
        let is_quiet = core.live(Who::All).1 == 0 && self.runs.lock().is_empty();
        let was_quiet = self.is_quiet.swap(is_quiet, Ordering::AcqRel);
        let now = Instant::now();
        if self.is_settled() {
            // Somebody may wait for the last of what was given up.
            return (is_quiet && !was_quiet).then_some(now);
        }
        let fed_to = self.fed_to_the_end();
        if fed_to == FedTo::NotTold {
            // This turn tells it, and the next one looks again.
            return Some(now);
        }
        let is_fed = fed_to == FedTo::TheEnd;
        let at_rest = self.gates.as_ref().is_none_or(|gates| gates.at_rest());
        let linger = match !is_fed || (is_quiet && !at_rest) {
            true => LINGER_FOR_OTHERS,
            false => LINGER,
        };
        let until = *since.get_or_insert(now) + linger;
        if (is_quiet && at_rest && is_fed) || now >= until {
            self.is_settled.store(true, Ordering::Release);
            return Some(now);
        }
        Some(until)
    }

    /// Blocks until nothing of it runs, or this time has come, or shortly after one that the keeper has told.
    fn wait_until_quiet(&self, until: Instant) {
        let mut told = self.told.lock();
        while !self.is_quiet() {
            let until = told.map_or(until, |told| until.min(told + LINGER));
            if self.turned.wait_until(&mut told, until).timed_out() {
                return;
            }
        }
    }

    /// What of it runs, in words; none if it is over.
    fn what_runs_on(&self) -> Option<Arc<str>> {
        let core = self.core.lock();
        let workers = core.still_there();
        let what = match &*workers {
            [worker] => format!("worker {worker} runs on"),
            [] if !core.state().is_over() => "it is not over".to_owned(),
            // It has said how it ended.
            [] if !self.runs.lock().is_empty() => "a thread has not ended".to_owned(),
            [] => return None,
            workers => format!("workers {workers:?} run on"),
        };
        Some(what.into())
    }

    /// Whether nothing of it runs, and its name is free; it is not resumed then.
    pub(in crate::pool) fn retire_if_quiet(&self) -> bool {
        let mut core = self.core.lock();
        let is_quiet = self.is_quiet();
        if is_quiet {
            core.retire();
        }
        is_quiet
    }

    /// Whether nothing of it is left: it may be forgotten.
    pub(in crate::pool) fn is_gone(&self) -> bool {
        let core = self.core.lock();
        let state = core.state();
        state.is_over()
            && (state != PoolState::Failed || core.is_retired())
            // Whoever waits for that has been told so by a turn: there is none after this.
            && self.is_quiet()
    }
}

impl Stops for Shared {
    fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// What is in a queue is done, unless the pool was paused; other workers are told to stop. The driver keeps the time.
    fn tell(&self, deadline: Instant) {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        // Workers that go on with what is queued are told a little before they are abandoned.
        let notice = now + (left - (left / TIME_TO_STOP).min(self.spec.grace));
        self.change(|core, now| {
            core.retire();
            match core.state() {
                PoolState::Running | PoolState::Draining if self.spec.fed => {
                    core.drain_to(notice, deadline, now);
                }
                _ => core.stop(deadline, now),
            }
        });
        // At once: the driver may be busy with others.
        self.take_nothing_new();
        let mut told = self.told.lock();
        *told = Some(told.map_or(deadline, |told| told.min(deadline)));
        drop(told);
        self.turned.notify_all();
    }

    fn stop(&self, deadline: Instant) -> Result<(), RunsOn> {
        self.wait_until_quiet(deadline + LINGER);
        if let Some(what) = self.what_runs_on() {
            let pool = Arc::clone(&self.name);
            let error = Some(ShutdownError::WorkersRunOn { pool, what });
            return Err(RunsOn { error });
        }
        if let Some(pools) = self.pools.upgrade() {
            pools.forget(self);
        }
        Ok(())
    }
}
