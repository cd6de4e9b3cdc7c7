//! The state of a pool's supervision, and what can be asked of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::effect::{Cause, Effect, FailureNote, RunId};
use super::group::Group;
use super::phase::{PoolState, WorkerState};
use super::slot::{Slot, SlotState};
use super::spec::{Gating, Spec};
use super::window::Window;
use crate::backoff::RetryRng;

/// So many failures are kept.
pub(super) const KEPT_FAILURES: usize = 16;

/// The supervision of one pool. See the module.
#[derive(Debug, Clone)]
pub struct Supervision {
    pub(super) spec: Spec,
    pub(super) phase: Phase,
    /// How many workers there should be; there may be more slots while the last ones end.
    pub(super) target: usize,
    pub(super) slots: Vec<Slot>,
    /// The gate of all.
    pub(super) open: bool,
    pub(super) group: Option<Group>,
    pub(super) window: Window,
    pub(super) rng: RetryRng,
    pub(super) abandoned: BTreeMap<RunId, usize>,
    pub(super) failures: VecDeque<Arc<FailureNote>>,
    pub(super) totals: Totals,
    pub(super) effects: Vec<Effect>,
    /// Nobody starts anything any more.
    pub(super) retired: bool,
    /// How often it has begun anew.
    pub(super) life: u64,
    /// Over what it gave up last.
    pub(super) gave_up_over: Option<Arc<FailureNote>>,
    next_run: u64,
}

/// What the pool is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Paused,
    /// Workers end by themselves until then, and are abandoned at the end.
    Draining {
        by: Instant,
        end: Instant,
    },
    /// Workers are told to stop; what has not ended by then is abandoned.
    Stopping {
        by: Option<Instant>,
        then: Last,
    },
    Over(Last),
}

/// How a pool is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Drained,
    Stopped,
    Failed,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub restarts: u64,
    pub failures: u64,
    pub silences: u64,
    pub abandoned: u64,
    pub ended_late: u64,
}

/// How many workers are where, and what has happened since the start of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Run, the silent ones included.
    pub running: usize,
    /// Run, and were not heard for too long.
    pub silent: usize,
    /// Told to stop, and run still.
    pub stopping: usize,
    /// Wait for their restart.
    pub waiting: usize,
    /// Should not run now.
    pub idle: usize,
    /// Ended for good.
    pub done: usize,
    /// Runs that were abandoned and have not ended.
    pub abandoned: usize,
    /// Starts after a failure, one's own or of one's group.
    pub restarts: u64,
    /// Failures, those included that were not followed by a restart.
    pub failures: u64,
    /// Workers found silent.
    pub silences: u64,
    /// Runs that were ever abandoned.
    pub abandoned_total: u64,
    /// Abandoned runs that ended after all.
    pub ended_late: u64,
}

/// All workers, or one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// All.
    All,
    /// The one of this number.
    One(usize),
}

impl Supervision {
    /// The supervision of a pool, whose workers are to be started: what has to be done for it is among the effects.
    pub fn start(spec: Spec, now: Instant) -> Self {
        let mut new = Self {
            phase: Phase::Running,
            target: 0,
            slots: Vec::new(),
            open: spec.gating != Gating::All,
            group: None,
            window: Window::new(spec.restarts, spec.within),
            rng: RetryRng::new(spec.seed),
            abandoned: BTreeMap::new(),
            failures: VecDeque::new(),
            totals: Totals::default(),
            effects: Vec::new(),
            retired: false,
            life: 0,
            gave_up_over: None,
            next_run: 0,
            spec,
        };
        new.set_target(new.spec.workers);
        new.settle(now);
        new
    }

    /// What has to be done, in order. It is told once.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`tick`](Self::tick) has something to do, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        if matches!(self.phase, Phase::Over(_)) {
            return None;
        }
        let whole = match self.phase {
            Phase::Draining { by, .. } => Some(by),
            Phase::Stopping { by, .. } => by,
            Phase::Running | Phase::Paused | Phase::Over(_) => None,
        };
        let group = self
            .group
            .filter(|group| !self.any_live_from(group.from))
            .map(|group| group.due);
        let of_slots = (0..self.slots.len()).filter_map(|worker| self.deadline_of(worker));
        whole.into_iter().chain(group).chain(of_slots).min()
    }

    fn deadline_of(&self, worker: usize) -> Option<Instant> {
        match self.slots.get(worker)?.state {
            SlotState::Waiting { due } => self.wanted(worker).then_some(due),
            SlotState::Stopping { by, .. } => Some(by),
            SlotState::Running { heard, silent, .. } => {
                let (limit, _) = self.spec.heartbeat?;
                Some(crate::clock::far(silent.unwrap_or(heard), limit))
            }
            SlotState::Idle | SlotState::Done => None,
        }
    }

    /// Where the pool is.
    pub fn state(&self) -> PoolState {
        let live = self.slots.iter().any(Slot::is_live);
        match self.phase {
            Phase::Running if self.is_finished() => PoolState::Finished,
            Phase::Running => PoolState::Running,
            Phase::Paused if live => PoolState::Pausing,
            Phase::Paused => PoolState::Paused,
            Phase::Draining { .. } => PoolState::Draining,
            Phase::Stopping { then, .. } => match then {
                Last::Drained => PoolState::Draining,
                Last::Stopped => PoolState::Stopping,
                Last::Failed => PoolState::Failing,
            },
            Phase::Over(Last::Drained) => PoolState::Drained,
            Phase::Over(Last::Stopped) => PoolState::Stopped,
            Phase::Over(Last::Failed) => PoolState::Failed,
        }
    }

    fn is_finished(&self) -> bool {
        let done = |slot: &Slot| slot.state == SlotState::Done;
        self.target > 0 && self.group.is_none() && self.slots.iter().all(done)
    }

    /// Where each worker is, by number.
    pub fn workers(&self) -> impl Iterator<Item = WorkerState> + '_ {
        self.slots.iter().enumerate().map(|(worker, slot)| {
            let in_group = self.group.is_some_and(|group| worker >= group.from);
            match slot.shown() {
                WorkerState::Idle | WorkerState::Done if in_group => WorkerState::Waiting,
                shown => shown,
            }
        })
    }

    /// How many there should be.
    pub fn target(&self) -> usize {
        self.target
    }

    /// How many are where, and what has happened.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            abandoned: self.abandoned.len(),
            restarts: self.totals.restarts,
            failures: self.totals.failures,
            silences: self.totals.silences,
            abandoned_total: self.totals.abandoned,
            ended_late: self.totals.ended_late,
            ..Counts::default()
        };
        for state in self.workers() {
            let of_state = match state {
                WorkerState::Running => &mut counts.running,
                WorkerState::Silent => {
                    counts.running += 1;
                    &mut counts.silent
                }
                WorkerState::Stopping => &mut counts.stopping,
                WorkerState::Waiting => &mut counts.waiting,
                WorkerState::Idle => &mut counts.idle,
                WorkerState::Done => &mut counts.done,
            };
            *of_state += 1;
        }
        counts
    }

    /// The last failures, the oldest first.
    pub fn failures(&self) -> impl DoubleEndedIterator<Item = &Arc<FailureNote>> {
        self.failures.iter()
    }

    /// How often it has begun anew after it had failed. Whoever waits in one life for its end, and sees the next, has seen it fail.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// The failure that was too much, when it gave up last.
    pub fn gave_up_over(&self) -> Option<&Arc<FailureNote>> {
        self.gave_up_over.as_ref()
    }

    /// How many of these run, and how many of their runs were abandoned and run still.
    pub fn live(&self, who: Who) -> (usize, usize) {
        let is_meant = |worker: usize| match who {
            Who::All => true,
            Who::One(one) => one == worker,
        };
        let slots = self.slots.iter().enumerate();
        let live = slots.filter(|(worker, slot)| is_meant(*worker) && slot.is_live());
        let abandoned = self.abandoned.values().filter(|worker| is_meant(**worker));
        (live.count(), abandoned.count())
    }

    /// Those runs.
    pub fn runs(&self, who: Who) -> Vec<RunId> {
        let is_meant = |worker: usize| match who {
            Who::All => true,
            Who::One(one) => one == worker,
        };
        let slots = self.slots.iter().enumerate();
        let live = slots.filter_map(|(worker, slot)| slot.run().filter(|_| is_meant(worker)));
        let abandoned = self.abandoned.iter();
        let abandoned = abandoned.filter_map(|(run, worker)| is_meant(*worker).then_some(*run));
        live.chain(abandoned).collect()
    }

    /// The workers whose runs were abandoned and have not ended, in the order of their starts.
    pub fn abandoned(&self) -> impl Iterator<Item = usize> + '_ {
        self.abandoned.values().copied()
    }

    /// The workers that run, or whose runs were abandoned and have not ended, by number.
    pub fn still_there(&self) -> Vec<usize> {
        let slots = self.slots.iter().enumerate();
        let live = slots.filter_map(|(worker, slot)| slot.is_live().then_some(worker));
        let mut all: Vec<_> = live.chain(self.abandoned()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether this worker should run, were it not for its group.
    pub(super) fn eligible(&self, worker: usize) -> bool {
        let phase = matches!(self.phase, Phase::Running | Phase::Draining { .. });
        let slot = self.slots.get(worker);
        let slot = slot.is_some_and(|slot| slot.open && slot.state != SlotState::Done);
        phase && self.open && worker < self.target && slot
    }

    /// Whether this worker should run.
    pub(super) fn wanted(&self, worker: usize) -> bool {
        self.eligible(worker) && self.group.is_none_or(|group| worker < group.from)
    }

    pub(super) fn any_live_from(&self, from: usize) -> bool {
        self.slots.iter().skip(from).any(Slot::is_live)
    }

    pub(super) fn slot_of(&self, run: RunId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.run() == Some(run))
    }

    pub(super) fn next_run(&mut self) -> RunId {
        self.next_run += 1;
        RunId(self.next_run)
    }

    pub(super) fn set_target(&mut self, workers: usize) {
        self.target = workers;
        let open = self.spec.gating != Gating::Each;
        while self.slots.len() < workers {
            self.slots.push(Slot::new(open));
        }
    }

    /// Keeps a failure, and tells of it.
    pub(super) fn note(
        &mut self,
        worker: usize,
        cause: Cause,
        counted: bool,
        now: Instant,
    ) -> Arc<FailureNote> {
        let restarts = self.slots.get(worker).map_or(0, |slot| slot.restarts);
        let note = Arc::new(FailureNote {
            worker,
            restarts,
            at: now,
            cause,
            counted,
        });
        if self.failures.len() == KEPT_FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back(Arc::clone(&note));
        self.totals.failures += 1;
        self.effects.push(Effect::Failed(Arc::clone(&note)));
        note
    }
}
