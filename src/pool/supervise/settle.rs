//! After each change: who should not run is told to stop, who should is started, and a pool that has nothing left is over.

use std::time::Instant;

use super::effect::Effect;
use super::slot::{Slot, SlotState};
use super::spec::{Restart, Strategy};
use super::supervision::{Phase, Supervision};

impl Supervision {
    pub(super) fn settle(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        self.stop_unwanted(now);
        self.drop_slots();
        self.end_group(now);
        self.start_wanted(now);
        self.end(now);
    }

    fn stop_unwanted(&mut self, now: Instant) {
        let one_by_one = self.spec.strategy != Strategy::OneForOne;
        let mut one_stops = self.slots.iter().any(Slot::is_stopping);
        for worker in (0..self.slots.len()).rev() {
            if self.wanted(worker) {
                continue;
            }
            let urgent = !one_by_one || self.shut_out(worker);
            if urgent || !one_stops {
                self.tell(worker, self.time_to_stop(now));
                one_stops |= self.slots.get(worker).is_some_and(Slot::is_stopping);
            }
        }
    }

    /// Until when a worker has that is told to stop now. Where they are told one after another, each has an equal part of the time
    /// that is left.
    pub(super) fn time_to_stop(&self, now: Instant) -> Instant {
        let Phase::Stopping { by: Some(by), .. } = self.phase else {
            return crate::clock::far(now, self.spec.grace);
        };
        if self.spec.strategy == Strategy::OneForOne {
            return by;
        }
        let running = self.slots.iter().filter(|slot| slot.is_live()).count();
        let running = u32::try_from(running).unwrap_or(u32::MAX).max(1);
        crate::clock::far(now, by.saturating_duration_since(now) / running)
    }

    /// Tells a worker to stop, if it runs; one that was told already has no longer than this.
    pub(super) fn tell(&mut self, worker: usize, until: Instant) {
        let Some(slot) = self.slots.get_mut(worker) else {
            return;
        };
        match &mut slot.state {
            SlotState::Running { run, .. } => {
                let run = *run;
                slot.state = SlotState::Stopping { run, by: until };
                self.effects.push(Effect::Stop { run });
            }
            SlotState::Stopping { by, .. } => *by = until.min(*by),
            SlotState::Idle | SlotState::Waiting { .. } | SlotState::Done => {}
        }
    }

    /// The last slots go when they are too many and nothing runs in them.
    fn drop_slots(&mut self) {
        while self.slots.len() > self.target
            && self.slots.last().is_some_and(|slot| !slot.is_live())
        {
            self.slots.pop();
        }
    }

    fn end_group(&mut self, now: Instant) {
        let Some(group) = self.group else { return };
        if now < group.due || self.any_live_from(group.from) {
            return;
        }
        self.group = None;
        for slot in self.slots.iter_mut().skip(group.from) {
            slot.again = true;
            if slot.state == SlotState::Done && self.spec.restart != Restart::Temporary {
                slot.state = SlotState::Idle;
            }
        }
    }

    fn start_wanted(&mut self, now: Instant) {
        for worker in 0..self.slots.len() {
            if !self.wanted(worker) {
                continue;
            }
            let due = match self.slots.get(worker).map(|slot| slot.state) {
                Some(SlotState::Idle) => true,
                Some(SlotState::Waiting { due }) => now >= due,
                _ => false,
            };
            if due {
                self.begin(worker, now);
            }
        }
    }

    fn begin(&mut self, worker: usize, now: Instant) {
        let run = self.next_run();
        let Some(slot) = self.slots.get_mut(worker) else {
            return;
        };
        if std::mem::take(&mut slot.again) {
            slot.restarts += 1;
            self.totals.restarts += 1;
        }
        slot.state = SlotState::Running {
            run,
            since: now,
            heard: now,
            silent: None,
        };
        self.effects.push(Effect::Start {
            worker,
            run,
            restarts: slot.restarts,
        });
    }

    fn end(&mut self, _: Instant) {
        let live = self.slots.iter().any(Slot::is_live);
        let over = match self.phase {
            Phase::Stopping { then, .. } if !live => Some(then),
            Phase::Draining { .. } if !live && !self.has_more_to_do() => {
                Some(super::supervision::Last::Drained)
            }
            _ => None,
        };
        if let Some(last) = over {
            self.phase = Phase::Over(last);
            self.effects.push(Effect::Over);
        }
    }

    /// Whether a drain has to wait for workers that are to be started again.
    fn has_more_to_do(&self) -> bool {
        (self.group.is_some() && self.open)
            || (0..self.slots.len()).any(|worker| self.eligible(worker))
    }
}
