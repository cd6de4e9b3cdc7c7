//! What a sequence of operations took and still holds.

use super::{LockId, Mode, Object, Op, OpOutcome, Taken};

/// What has become of one operation.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// It took a reference that is still held: of this lock, as far as that is known.
    Holds(Option<LockId>),
    /// It has taken nothing, or it is gone again.
    Came(OpOutcome),
}

/// A lock that has another mode by this operation; its object stays where it is meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changed {
    pub op: usize,
    pub lock: Option<LockId>,
}

/// The references that a sequence took and that are still held, with its operations as they stood.
#[derive(Debug, Default)]
pub struct Held {
    pub(super) ops: Vec<Op>,
    pub(super) steps: Vec<Step>,
    pub(super) changed: Vec<Changed>,
}

impl Held {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.locks().next().is_none()
    }

    /// Which locks they are, as far as that is known: one entry for each reference.
    pub fn locks(&self) -> impl Iterator<Item = Option<LockId>> {
        let taken = self.steps.iter().filter_map(|step| match step {
            Step::Holds(lock) => Some(*lock),
            Step::Came(_) => None,
        });
        taken.chain(self.changed.iter().map(|changed| changed.lock))
    }

    /// What is locked and how, in the order of [`locks`](Self::locks).
    pub fn iter(&self) -> impl Iterator<Item = (&Object, Mode)> {
        let steps = self.steps.iter().zip(&self.ops);
        let taken = steps.filter_map(|(step, op)| match step {
            Step::Holds(_) => op.target(),
            Step::Came(_) => None,
        });
        let changed = self.changed.iter();
        taken.chain(changed.filter_map(|changed| self.ops.get(changed.op)?.target()))
    }

    /// The same, one by one.
    pub fn each(&self) -> impl Iterator<Item = Taken> {
        let each = self.iter().zip(self.locks());
        each.map(|((object, mode), lock)| Taken {
            object: object.clone(),
            mode,
            lock,
        })
    }
}
