//! What people, and leases, want of a pool.

use std::time::Instant;

use super::effect::Effect;
use super::phase::PoolState;
use super::slot::{Slot, SlotState};
use super::spec::Gating;
use super::supervision::{Last, Phase, Supervision, Who};

impl Supervision {
    /// So many workers from now on: those that are missing are started, those that are too many are told to stop, the last number
    /// first.
    ///
    /// # Errors
    ///
    /// The pool's state, when it stops or is over.
    pub fn scale(&mut self, workers: usize, now: Instant) -> Result<(), PoolState> {
        self.not_ending()?;
        self.set_target(workers);
        self.settle(now);
        Ok(())
    }

    /// Tells all workers to stop, and starts none until [`resume`](Self::resume).
    ///
    /// # Errors
    ///
    /// The pool's state, when it drains, stops or is over.
    pub fn pause(&mut self, now: Instant) -> Result<(), PoolState> {
        self.not_ending()?;
        self.phase = Phase::Paused;
        self.settle(now);
        Ok(())
    }

    /// Ends a pause; begins anew after the pool has failed, as if there had been no failure.
    ///
    /// # Errors
    ///
    /// The pool's state, when it drains, stops, is over without having failed, or was [retired](Self::retire).
    pub fn resume(&mut self, now: Instant) -> Result<(), PoolState> {
        if self.retired {
            return Err(self.state());
        }
        if self.phase == Phase::Over(Last::Failed) {
            // The one that failed was drained, not the one that begins now.
            self.effects.retain(|effect| *effect != Effect::Drain);
            self.life += 1;
            self.window.clear();
            for slot in &mut self.slots {
                slot.row = 0;
                slot.state = SlotState::Idle;
            }
        } else {
            self.not_ending()?;
        }
        self.phase = Phase::Running;
        self.settle(now);
        Ok(())
    }

    /// If it has failed, or does, it is not resumed any more: nobody would start its workers.
    pub fn retire(&mut self) {
        self.retired = true;
    }

    /// Whether it was [retired](Self::retire).
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// Ends the pool when its workers have: those that are fed end by themselves, the others are told to stop. A pause ends, so
    /// that what is left to do is done. At `by` those that are fed are told to stop, and the others abandoned. A pool that is over,
    /// or gives up, is left as it is.
    pub fn drain(&mut self, by: Instant, now: Instant) {
        self.drain_to(by, crate::clock::far(by, self.spec.grace), now);
    }

    /// Like [`drain`](Self::drain), but those that are fed are abandoned at `end`, and not when their grace has passed.
    pub fn drain_to(&mut self, by: Instant, end: Instant, now: Instant) {
        match &mut self.phase {
            Phase::Running | Phase::Paused if self.spec.fed => {
                self.phase = Phase::Draining { by, end };
                self.effects.push(Effect::Drain);
            }
            Phase::Running | Phase::Paused => {
                self.phase = Phase::Stopping {
                    by: Some(by),
                    then: Last::Drained,
                };
            }
            Phase::Draining {
                by: notice,
                end: last,
            } => {
                *notice = by.min(*notice);
                *last = end.min(*last);
            }
            Phase::Stopping { by: before, .. } => {
                *before = Some(before.map_or(by, |before| before.min(by)));
            }
            Phase::Over(_) => return,
        }
        self.expire(now);
        self.settle(now);
    }

    /// Ends the pool: all workers are told to stop, and those that have not ended by then are abandoned. A pool that is over is left
    /// as it is, and one that gives up has failed all the same.
    pub fn stop(&mut self, by: Instant, now: Instant) {
        let (before, then) = match self.phase {
            Phase::Running | Phase::Paused => (None, Last::Stopped),
            // It was to end by then anyway.
            Phase::Draining { end, .. } => (Some(end), Last::Stopped),
            Phase::Stopping { by, then } => (by, then),
            Phase::Over(_) => return,
        };
        let by = before.map_or(by, |before| before.min(by));
        self.phase = Phase::Stopping {
            by: Some(by),
            then: match then {
                Last::Failed => Last::Failed,
                Last::Drained | Last::Stopped => Last::Stopped,
            },
        };
        let until = self.time_to_stop(now);
        for worker in 0..self.slots.len() {
            if self.slots.get(worker).is_some_and(Slot::is_stopping) {
                self.tell(worker, until);
            }
        }
        self.expire(now);
        self.settle(now);
    }

    /// Opens a gate: those behind it are started. A pool without gates has none to open or close.
    pub fn open_gate(&mut self, who: Who, now: Instant) {
        match who {
            Who::All => self.open = true,
            Who::One(worker) => {
                if let Some(slot) = self.slots.get_mut(worker) {
                    slot.open = true;
                }
            }
        }
        self.settle(now);
    }

    /// Closes a gate: those behind it are told to stop at once, whatever the strategy, and are abandoned at `by` or when their grace
    /// has passed, whichever comes first.
    pub fn close_gate(&mut self, who: Who, by: Instant, now: Instant) {
        if self.spec.gating == Gating::None {
            return;
        }
        let by = by.min(crate::clock::far(now, self.spec.grace));
        match who {
            Who::All => self.open = false,
            Who::One(worker) => {
                if let Some(slot) = self.slots.get_mut(worker) {
                    slot.open = false;
                }
            }
        }
        for worker in (0..self.slots.len()).rev() {
            if who == Who::All || who == Who::One(worker) {
                self.tell(worker, by);
            }
        }
        self.expire(now);
        self.settle(now);
    }

    /// Whether the gate of this worker is closed.
    pub(super) fn shut_out(&self, worker: usize) -> bool {
        self.spec.gating != Gating::None
            && (!self.open || self.slots.get(worker).is_some_and(|slot| !slot.open))
    }

    fn not_ending(&self) -> Result<(), PoolState> {
        match self.phase {
            Phase::Running | Phase::Paused => Ok(()),
            Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Over(_) => Err(self.state()),
        }
    }
}
