//! What a sequence of operations is made of, and what becomes of it.

use super::{Denied, LockId, Mode, Object, Patience, Reason, WaitId};

/// One operation.
#[derive(Debug, Clone)]
pub enum Op {
    /// Lock the object.
    Lock(Object, Mode, Patience),
    /// Change one reference of a lock from the first mode to the second, waiting if need be.
    Upgrade(Object, Mode, Mode, Patience),
    /// Weaken one reference of a lock.
    Downgrade(Object, Mode, Mode),
    /// Release one reference of a lock.
    Unlock(Object, Mode),
    /// Release all locks of the locker on the object.
    UnlockObject(Object),
    /// Release what is held for reading.
    ReleaseReads,
    /// Release everything.
    ReleaseAll,
}

impl Op {
    /// What it takes.
    pub(super) fn target(&self) -> Option<(&Object, Mode)> {
        match self {
            Op::Lock(object, mode, _)
            | Op::Upgrade(object, _, mode, _)
            | Op::Downgrade(object, _, mode) => Some((object, *mode)),
            _ => None,
        }
    }
}

/// What became of one operation.
#[derive(Debug, Clone)]
pub enum OpOutcome {
    /// The lock is granted, or changed.
    Granted,
    /// So many locks, or references of one, were released.
    Released(usize),
    /// It failed.
    Failed(Failure),
    /// It was done, and undone because a later one failed.
    Undone,
    /// An earlier one failed.
    NotReached,
}

/// Why an operation failed.
#[derive(Debug, Clone)]
pub enum Failure {
    /// It was refused at once.
    Denied(Denied),
    /// It waited, and was refused.
    Refused(Reason),
}

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It goes on when this request has been granted or refused.
    Waits(WaitId),
    /// It has come to its end, or failed.
    Done,
}

/// A reference that a sequence took and still holds.
#[derive(Debug)]
pub struct Taken {
    /// What is locked.
    pub object: Object,
    /// How.
    pub mode: Mode,
    /// Which lock it is, as far as that is known.
    pub lock: Option<LockId>,
}
