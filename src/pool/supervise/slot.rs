//! One worker number, and what becomes of it.

use std::time::Instant;

use super::effect::RunId;
use super::phase::WorkerState;

/// One worker number.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub state: SlotState,
    /// Its own gate.
    pub open: bool,
    /// Its failures in a row.
    pub row: u32,
    /// How often it was started again.
    pub restarts: u64,
    /// Its next start is a restart.
    pub again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    /// It does not run. It is started as soon as it should run.
    Idle,
    /// The same, but not before this.
    Waiting { due: Instant },
    /// It runs.
    Running {
        run: RunId,
        since: Instant,
        heard: Instant,
        /// When it was found silent last, if it was not heard since.
        silent: Option<Instant>,
    },
    /// It was told to stop, and is abandoned at this time.
    Stopping { run: RunId, by: Instant },
    /// It has ended for good.
    Done,
}

impl Slot {
    pub(super) fn new(open: bool) -> Self {
        Self {
            state: SlotState::Idle,
            open,
            row: 0,
            restarts: 0,
            again: false,
        }
    }

    /// The run that is neither ended nor abandoned.
    pub(super) fn run(&self) -> Option<RunId> {
        match self.state {
            SlotState::Running { run, .. } | SlotState::Stopping { run, .. } => Some(run),
            SlotState::Idle | SlotState::Waiting { .. } | SlotState::Done => None,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.run().is_some()
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.state, SlotState::Stopping { .. })
    }

    pub(super) fn shown(&self) -> WorkerState {
        match self.state {
            SlotState::Idle => WorkerState::Idle,
            SlotState::Waiting { .. } => WorkerState::Waiting,
            SlotState::Running {
                silent: Some(_), ..
            } => WorkerState::Silent,
            SlotState::Running { .. } => WorkerState::Running,
            SlotState::Stopping { .. } => WorkerState::Stopping,
            SlotState::Done => WorkerState::Done,
        }
    }
}
