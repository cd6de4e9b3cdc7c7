//! The steps of a history.
//!
//! A step names its locker by its slot, so that a history from which steps are taken out still means the
//! same.

use lockkeeper::{Mode, VictimPolicy};

use super::calls::{Patience, Spec};
use super::model::Model;
use super::universe::Obj;
use super::words::{Slot, Time, Timeouts};

/// Roots have the first slots, children the others.
pub const ROOTS: Slot = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// In a slot that is empty; `age_of` is the slot whose locker's age it gets.
    Begin {
        slot: Slot,
        parent: Option<Slot>,
        age_of: Option<Slot>,
        spec: Spec,
    },
    Request {
        slot: Slot,
        object: Obj,
        mode: Mode,
        from: Option<Mode>,
        /// Without one it is only tried.
        patience: Option<Patience>,
    },
    Downgrade {
        slot: Slot,
        object: Obj,
        from: Mode,
        to: Mode,
    },
    Unlock {
        slot: Slot,
        object: Obj,
        mode: Mode,
    },
    /// A lock that somebody holds, by its place among all.
    UnlockHeld(u8),
    DowngradeHeld(u8, Mode),
    UpgradeHeld(u8, Mode, Option<Patience>),
    /// A dead locker releases everything, or ends.
    Bury(u8, bool),
    UnlockObject {
        slot: Slot,
        object: Obj,
    },
    ReleaseReads(Slot),
    ReleaseAll(Slot),
    Commit(Slot),
    End(Slot),
    /// The wait that is so many places back from the latest.
    Withdraw(u8),
    /// So long, then what is due expires, so many at a time.
    Advance(Time, usize),
    Detect(VictimPolicy),
    SetDetect(bool, VictimPolicy),
    SetTimeouts(Timeouts),
    /// So many above what is in use, or under it.
    SetLimits([i8; 3]),
}

impl Step {
    /// The step with what it takes from the state of the model put in; none if it means nothing now.
    pub fn resolve(self, model: &Model) -> Option<Step> {
        let held = |pick: u8| {
            let count = model.held.len();
            (count > 0).then(|| model.held[usize::from(pick) % count])
        };
        Some(match self {
            Step::UnlockHeld(pick) => {
                let held = held(pick)?;
                Step::Unlock {
                    slot: held.locker,
                    object: held.object,
                    mode: held.mode,
                }
            }
            Step::DowngradeHeld(pick, to) => {
                let held = held(pick)?;
                Step::Downgrade {
                    slot: held.locker,
                    object: held.object,
                    from: held.mode,
                    to,
                }
            }
            Step::UpgradeHeld(pick, mode, patience) => {
                let held = held(pick)?;
                Step::Request {
                    slot: held.locker,
                    object: held.object,
                    mode,
                    from: Some(held.mode),
                    patience,
                }
            }
            Step::Bury(pick, end) => {
                let dead: Vec<Slot> = model
                    .live()
                    .filter(|slot| model.death(*slot).is_some())
                    .collect();
                let slot = *dead.get(usize::from(pick) % dead.len().max(1))?;
                match end {
                    true => Step::End(slot),
                    false => Step::ReleaseAll(slot),
                }
            }
            // Mostly somebody comes to ask; sometimes one who has ended asks.
            Step::Request { slot, object, .. }
                if model.lockers[usize::from(slot)].is_none() && (slot + object) % 8 != 0 =>
            {
                let parent = match slot < ROOTS {
                    true => None,
                    false => Some(model.live().next()?),
                };
                Step::Begin {
                    slot,
                    parent,
                    age_of: None,
                    spec: Spec {
                        priority: 100,
                        lock_timeout: None,
                        txn_timeout: None,
                    },
                }
            }
            Step::Begin { slot, .. } if model.lockers[usize::from(slot)].is_some() => return None,
            step => step,
        })
    }
}
