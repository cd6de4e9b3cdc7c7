//! Several operations, in order.

use std::time::Instant;

use super::Wait;
use crate::error::LockError;
use crate::locks::{Mode, Moment, Object, Op, Patience};

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
    /// As the core wants them, so that the table's thread does not have to make them.
    ops: Vec<Op>,
    /// Which of them wait until an instant; only the table knows what moment that is on its clock.
    until: Vec<(usize, Instant)>,
    stop_at_first_error: bool,
}

impl LockOps {
    /// No operation yet; all or nothing.
    pub fn new() -> Self {
        Self::default()
    }

    #[inline]
    fn and(mut self, op: Op) -> Self {
        if self.ops.capacity() == 0 {
            self.ops.reserve_exact(FIRST_ROOM);
        }
        self.ops.push(op);
        self
    }

    /// The patience of the operation that comes next.
    #[inline]
    fn patience(&mut self, wait: Wait) -> Patience {
        match wait {
            Wait::Default => Patience::Default,
            Wait::No => Patience::No,
            Wait::Until(at) => {
                self.until.push((self.ops.len(), at));
                Patience::Forever
            }
            Wait::For(timeout) => Patience::For(timeout),
            Wait::Forever => Patience::Forever,
        }
    }

    /// Locks the object, waiting as long as the locker's or the table's `lock_timeout` says.
    #[inline]
    pub fn lock(self, object: Object, mode: Mode) -> Self {
        self.lock_wait(object, mode, Wait::Default)
    }

    /// Locks the object, waiting as long as this.
    #[inline]
    pub fn lock_wait(mut self, object: Object, mode: Mode, wait: Wait) -> Self {
        let patience = self.patience(wait);
        self.and(Op::Lock(object, mode, patience))
    }

    /// Changes one reference of a lock from one mode to another, waiting as long as this.
    pub fn upgrade(mut self, object: Object, from: Mode, to: Mode, wait: Wait) -> Self {
        let patience = self.patience(wait);
        self.and(Op::Upgrade(object, from, to, patience))
    }

    /// Weakens one reference of a lock.
    pub fn downgrade(self, object: Object, from: Mode, to: Mode) -> Self {
        self.and(Op::Downgrade(object, from, to))
    }

    /// Releases one reference of a lock; it is an error if it is not held.
    pub fn unlock(self, object: Object, mode: Mode) -> Self {
        self.and(Op::Unlock(object, mode))
    }

    /// Releases all locks of the locker on the object.
    pub fn unlock_object(self, object: Object) -> Self {
        self.and(Op::UnlockObject(object))
    }

    /// Releases what the locker holds for reading: its read and intent-read locks.
    pub fn release_reads(self) -> Self {
        self.and(Op::ReleaseReads)
    }

    /// Releases everything that the locker holds at this point of the sequence.
    pub fn release_all(self) -> Self {
        self.and(Op::ReleaseAll)
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
    pub(crate) fn into_core(mut self, moment: impl Fn(Instant) -> Moment) -> (Vec<Op>, bool) {
        for (at, until) in self.until {
            if let Some(Op::Lock(.., patience) | Op::Upgrade(.., patience)) = self.ops.get_mut(at) {
                *patience = Patience::Until(moment(until));
            }
        }
        (self.ops, !self.stop_at_first_error)
    }
}

/// So many operations need one allocation: most messages have no more.
const FIRST_ROOM: usize = 8;

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
