//! Several operations, in order.

use super::Wait;
use crate::error::LockError;
use crate::locks::{Mode, Object, Op, Patience};

/// Operations of one locker, done in their order (Berkeley DB's `lock_vec`): by message with
/// [`LockMany`](super::LockMany), in place with [`Locker::run`](crate::Locker::run).
///
/// What is asked for is taken at once, and held while later requests wait. By default all is done or
/// nothing: if one operation fails, exactly what the earlier ones changed is restored. What is released
/// could not be taken back, so releases and downgrades take effect when the last request has been
/// granted. With [`stop_at_first_error`](Self::stop_at_first_error) each takes effect at once, and what was
/// done before an error stays done.
///
/// ```
/// use lockkeeper::{LockOps, LockerSpec, Locks, Mode, Object, Wait};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let locks = Locks::start(Default::default());
/// let walker = locks.locker(LockerSpec::new())?;
/// let page = |number: u8| Object::new("pages", [number]);
///
/// // Lock coupling: the next page before the last one is let go.
/// walker.run(LockOps::new().lock(page(1), Mode::Read)).await?;
/// walker.run(LockOps::new().lock(page(2), Mode::Read).unlock(page(1), Mode::Read)).await?;
/// assert_eq!(locks.stats().locks.now, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "operations do nothing until they are sent or run"]
pub struct LockOps {
    ops: Vec<LockOp>,
    stop_at_first_error: bool,
}

#[derive(Debug, Clone)]
enum LockOp {
    Lock(Object, Mode, Wait),
    Upgrade(Object, Mode, Mode, Wait),
    Downgrade(Object, Mode, Mode),
    Unlock(Object, Mode),
    UnlockObject(Object),
    ReleaseReads,
    ReleaseAll,
}

impl LockOps {
    /// No operation yet; all or nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn and(mut self, op: LockOp) -> Self {
        self.ops.push(op);
        self
    }

    /// Locks the object, waiting as long as the locker's or the table's `lock_timeout` says.
    pub fn lock(self, object: Object, mode: Mode) -> Self {
        self.lock_wait(object, mode, Wait::Default)
    }

    /// Locks the object, waiting as long as this.
    pub fn lock_wait(self, object: Object, mode: Mode, wait: Wait) -> Self {
        self.and(LockOp::Lock(object, mode, wait))
    }

    /// Changes one reference of a lock from one mode to another, waiting as long as this.
    pub fn upgrade(self, object: Object, from: Mode, to: Mode, wait: Wait) -> Self {
        self.and(LockOp::Upgrade(object, from, to, wait))
    }

    /// Weakens one reference of a lock.
    pub fn downgrade(self, object: Object, from: Mode, to: Mode) -> Self {
        self.and(LockOp::Downgrade(object, from, to))
    }

    /// Releases one reference of a lock; it is an error if it is not held.
    pub fn unlock(self, object: Object, mode: Mode) -> Self {
        self.and(LockOp::Unlock(object, mode))
    }

    /// Releases all locks of the locker on the object.
    pub fn unlock_object(self, object: Object) -> Self {
        self.and(LockOp::UnlockObject(object))
    }

    /// Releases what the locker holds for reading: its read and intent-read locks.
    pub fn release_reads(self) -> Self {
        self.and(LockOp::ReleaseReads)
    }

    /// Releases everything that the locker holds at this point of the sequence.
    pub fn release_all(self) -> Self {
        self.and(LockOp::ReleaseAll)
    }

    /// Lets each operation take effect at once, and keeps what was done before an error.
    pub fn stop_at_first_error(mut self) -> Self {
        self.stop_at_first_error = true;
        self
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The operations for the core, and whether it is all or nothing.
    pub(crate) fn into_core(self, patience: impl Fn(Wait) -> Patience) -> (Vec<Op>, bool) {
        let ops = self.ops.into_iter().map(|op| match op {
            LockOp::Lock(object, mode, wait) => Op::Lock(object, mode, patience(wait)),
            LockOp::Upgrade(object, from, to, wait) => {
                Op::Upgrade(object, from, to, patience(wait))
            }
            LockOp::Downgrade(object, from, to) => Op::Downgrade(object, from, to),
            LockOp::Unlock(object, mode) => Op::Unlock(object, mode),
            LockOp::UnlockObject(object) => Op::UnlockObject(object),
            LockOp::ReleaseReads => Op::ReleaseReads,
            LockOp::ReleaseAll => Op::ReleaseAll,
        });
        (ops.collect(), !self.stop_at_first_error)
    }
}

/// What became of one operation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LockOutcome {
    /// The lock is granted, or changed.
    Granted,
    /// So many locks were released.
    Released(usize),
    /// It failed.
    Failed(LockError),
    /// It was done, and undone because a later one failed.
    Undone,
    /// An earlier one failed.
    NotReached,
}
