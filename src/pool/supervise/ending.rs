//! What happens to workers: they end, are heard, fall silent, and run out of time.

use std::time::{Duration, Instant};

use super::effect::{Cause, Effect, End, FailureNote, RunId};
use super::group::Group;
use super::phase::WorkerState;
use super::slot::SlotState;
use super::spec::{OnSilence, Restart, Strategy};
use super::supervision::{Last, Phase, Supervision};
use std::sync::Arc;

impl Supervision {
    /// A run has ended. One that is not known, or has ended before, is ignored.
    pub fn ended(&mut self, run: RunId, end: End, now: Instant) {
        let Some(worker) = self.slot_of(run) else {
            if let Some(worker) = self.abandoned.remove(&run) {
                self.totals.ended_late += 1;
                self.effects.push(Effect::EndedLate { worker, run });
            }
            return;
        };
        let wanted = self.wanted(worker);
        let draining = matches!(self.phase, Phase::Draining { .. });
        let Some(slot) = self.slots.get_mut(worker) else {
            return;
        };
        let before = std::mem::replace(&mut slot.state, SlotState::Idle);
        let asked = matches!(before, SlotState::Stopping { .. }) || !wanted;
        match (end, asked) {
            (End::Normal, true) => {}
            (End::Failed(cause), true) => drop(self.note(worker, cause, false, now)),
            (End::Normal, false) if draining || self.spec.restart != Restart::Permanent => {
                slot.state = SlotState::Done;
                slot.row = 0;
            }
            (End::Normal, false) => self.failed(worker, before, Cause::Returned, now),
            (End::Failed(cause), false) => self.failed(worker, before, cause, now),
        }
        self.settle(now);
    }

    /// A worker was heard at this time.
    pub fn beat(&mut self, run: RunId, at: Instant) {
        self.listen_to(|other| (other == run).then_some(at));
    }

    /// Asks for each run when it was heard.
    pub fn listen_to(&mut self, mut at: impl FnMut(RunId) -> Option<Instant>) {
        for (worker, slot) in self.slots.iter_mut().enumerate() {
            let SlotState::Running {
                run, heard, silent, ..
            } = &mut slot.state
            else {
                continue;
            };
            let Some(at) = at(*run).filter(|at| *at > *heard) else {
                continue;
            };
            *heard = at;
            if silent.take().is_some() {
                let run = *run;
                self.effects.push(Effect::HeardAgain { worker, run });
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        self.expire(now);
        self.listen(now);
        self.settle(now);
    }

    /// What has run out of time.
    pub(super) fn expire(&mut self, now: Instant) {
        if let Phase::Draining { by, end } = self.phase
            && now >= by
        {
            self.phase = Phase::Stopping {
                by: Some(end),
                then: Last::Stopped,
            };
        }
        let all = matches!(self.phase, Phase::Stopping { by: Some(by), .. } if now >= by);
        for worker in (0..self.slots.len()).rev() {
            let Some(slot) = self.slots.get_mut(worker) else {
                continue;
            };
            let late = match slot.state {
                SlotState::Stopping { run, by } if all || now >= by => run,
                SlotState::Running { run, .. } if all => {
                    self.effects.push(Effect::Stop { run });
                    run
                }
                _ => continue,
            };
            slot.state = SlotState::Idle;
            self.abandon(worker, late, false);
            if let Phase::Stopping { then, .. } = &mut self.phase
                && *then == Last::Drained
            {
                *then = Last::Stopped;
            }
        }
    }

    fn listen(&mut self, now: Instant) {
        let Some((limit, on_silence)) = self.spec.heartbeat else {
            return;
        };
        for worker in 0..self.slots.len() {
            let wanted = self.wanted(worker);
            let Some(slot) = self.slots.get_mut(worker) else {
                continue;
            };
            let before = slot.state;
            let SlotState::Running {
                run, heard, silent, ..
            } = &mut slot.state
            else {
                continue;
            };
            let (run, silence) = (*run, now.saturating_duration_since(*heard));
            let known = silent.is_some();
            if now.saturating_duration_since(silent.unwrap_or(*heard)) < limit {
                continue;
            }
            *silent = Some(now);
            if !known {
                self.totals.silences += 1;
                self.effects.push(Effect::Silent {
                    worker,
                    run,
                    silence,
                });
            }
            // One that waits for its turn to be stopped has its grace then.
            if on_silence == OnSilence::Replace && wanted {
                slot.state = SlotState::Idle;
                self.abandon(worker, run, true);
                self.failed(worker, before, Cause::Silence(silence), now);
            }
        }
    }

    fn abandon(&mut self, worker: usize, run: RunId, silent: bool) {
        self.abandoned.insert(run, worker);
        self.totals.abandoned += 1;
        self.effects.push(Effect::Abandon {
            worker,
            run,
            silent,
        });
    }

    /// A worker that should have gone on has failed; its slot is idle.
    fn failed(&mut self, worker: usize, before: SlotState, cause: Cause, now: Instant) {
        let temporary = self.spec.restart == Restart::Temporary;
        let note = self.note(worker, cause, !temporary, now);
        if temporary {
            if let Some(slot) = self.slots.get_mut(worker) {
                slot.state = SlotState::Done;
            }
            return;
        }
        match self.window.count(now) {
            Err(restarts) => self.give_up(restarts, note),
            Ok(()) => self.start_again(worker, before, now),
        }
    }

    fn start_again(&mut self, worker: usize, before: SlotState, now: Instant) {
        let lasted = match before {
            SlotState::Running { since, .. } => now.saturating_duration_since(since),
            _ => Duration::ZERO,
        };
        let calm = self.spec.calm();
        let random = self.rng.next_unit();
        let Some(slot) = self.slots.get_mut(worker) else {
            return;
        };
        if lasted > calm {
            slot.row = 0;
        }
        let delay = self.spec.backoff.delay(slot.row, random);
        slot.row = slot.row.saturating_add(1);
        slot.again = true;
        let due = crate::clock::far(now, delay);
        let from = match self.spec.strategy {
            Strategy::OneForOne => {
                slot.state = SlotState::Waiting { due };
                None
            }
            Strategy::OneForAll => Some(0),
            Strategy::RestForOne => Some(worker),
        };
        if let Some(from) = from {
            self.group = Some(Group { from, due }.merged(self.group));
        }
        self.effects.push(Effect::Restarts { worker, delay });
    }

    fn give_up(&mut self, restarts: u32, last: Arc<FailureNote>) {
        self.group = None;
        for slot in &mut self.slots {
            if slot.shown() == WorkerState::Waiting {
                slot.state = SlotState::Idle;
            }
        }
        self.phase = Phase::Stopping {
            by: None,
            then: Last::Failed,
        };
        self.gave_up_over = Some(Arc::clone(&last));
        self.effects.push(Effect::GaveUp { restarts, last });
    }
}
