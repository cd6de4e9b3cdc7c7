//! What goes into a call of the table, and what comes out of it.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::slab::{LockSlot, WaitSlot};
use super::{
    ConflictKind, ConflictTable, LimitKind, Limits, LockConflict, LockerId, Mode, Object,
    OrderWarning, Text, VictimPolicy,
};

/// A point in time: nanoseconds since an instant of the caller's choice, on a clock that never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// How long it is since `earlier`; zero if that is later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// So much later; `None` beyond the end of the clock.
    #[must_use]
    pub fn after(self, time: Duration) -> Option<Moment> {
        let nanos = u64::try_from(time.as_nanos()).ok()?;
        self.0.checked_add(nanos).map(Moment)
    }
}

/// Names a waiting request. Never given twice by one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitId {
    pub(super) arrival: u64,
    pub(super) slot: WaitSlot,
}

/// Names a held lock. Never given twice by one table; it names, it does not own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
// So that a step of a sequence, and the guard of a lock, is a word smaller.
#[repr(Rust, packed(4))]
pub struct LockId {
    pub(super) born: u64,
    pub(super) slot: LockSlot,
}

/// How a table decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableConfig {
    /// The most there may be of lockers, locks and objects. Default 100,000 each.
    pub limits: Limits,
    /// The share of a limit, in percent, at which a warning is given; zero is never. Default 80.
    pub limit_warning: u8,
    /// Whether a cycle is looked for when a request blocks. Default true.
    pub detect_on_block: bool,
    /// How victims are chosen. Default [`VictimPolicy::Default`].
    pub policy: VictimPolicy,
    /// What [`VictimPolicy::Random`] draws its numbers from. Default 0.
    pub seed: u64,
    /// Which modes conflict. Default [`ConflictTable::standard`].
    pub conflicts: ConflictTable,
    /// Namespaces whose objects go by a table of their own. Default none.
    pub own_conflicts: Vec<(Text, ConflictTable)>,
    /// How long waits and locks last.
    pub timeouts: Timeouts,
    /// Whether classes of objects are watched for contradicting orders. Default false.
    pub order_warnings: bool,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            limit_warning: 80,
            detect_on_block: true,
            policy: VictimPolicy::default(),
            seed: 0,
            conflicts: ConflictTable::default(),
            own_conflicts: Vec::new(),
            timeouts: Timeouts::default(),
            order_warnings: false,
        }
    }
}

/// How long waits, transactions and locks last; zero is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A wait that does not say otherwise. Default 5 s.
    pub lock: Duration,
    /// Whether a request that does not say otherwise does not wait at all. Default false.
    pub no_wait: bool,
    /// Everything a locker does, from when it is made, unless it says otherwise. Default zero.
    pub txn: Duration,
    /// A lock, before its holder and those who wait for it are told. Default zero.
    pub max_hold: Duration,
    /// Whether who holds a lock longer than `max_hold` is aborted. Default false.
    pub abort_on_max_hold: bool,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            lock: Duration::from_secs(5),
            no_wait: false,
            txn: Duration::ZERO,
            max_hold: Duration::ZERO,
            abort_on_max_hold: false,
        }
    }
}

/// How long a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Patience {
    /// As long as its locker, or else the table, says.
    #[default]
    Default,
    /// Not at all.
    No,
    /// So long, from now; zero is for ever.
    For(Duration),
    /// Until then.
    Until(Moment),
    /// For ever, or until its transaction's time is over.
    Forever,
}

/// A lock that somebody wants.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who wants it.
    pub locker: LockerId,
    /// What is to be locked.
    pub object: &'a Object,
    /// How.
    pub mode: Mode,
    /// For an upgrade: the mode in which the locker holds the object, and of which it gives up one
    /// reference when the lock is granted.
    pub from: Option<Mode>,
    /// The line of code that asks.
    pub site: &'static Location<'static>,
}

/// What a request that does not wait comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// It is granted.
    Granted,
    /// It would have to wait; nothing has changed.
    Blocked,
}

/// Why a request or a locker is refused at once. Nothing has changed, except where it says so.
#[derive(Debug, Clone)]
pub enum Denied {
    /// The locker has ended.
    Ended,
    /// The locker, or one of its ancestors, was aborted for this reason, and has to release all of its
    /// locks first.
    Dead(Arc<LockConflict>),
    /// The locker holds a lock too long. This is told once; the request may be made again.
    HeldTooLong(Arc<LockConflict>),
    /// The request did not want to wait.
    NotAvailable(Arc<LockConflict>),
    /// There would be too many.
    Limit {
        /// Of what.
        which: LimitKind,
        /// The limit.
        value: usize,
    },
    /// The locker does not hold the object in the mode that is to be changed.
    NotHeld,
    /// The lock cannot be downgraded to this mode, which excludes somebody whom the present one does not.
    NotWeaker {
        /// The present mode.
        from: Mode,
        /// The mode asked for.
        to: Mode,
    },
    /// The conflict table of the object's namespace does not know the mode.
    UnknownMode(Mode),
}

/// Why a waiting request is refused.
#[derive(Debug, Clone)]
pub enum Reason {
    /// Its locker was aborted: a deadlock, the end of its time, a lock that was held too long.
    Conflict(Arc<LockConflict>),
    /// Its locker has ended.
    Ended,
    /// The table is being closed.
    ShuttingDown,
}

impl Reason {
    /// Whether it is the end of a wait's or a transaction's time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        let Reason::Conflict(conflict) = self else {
            return false;
        };
        matches!(
            conflict.kind,
            ConflictKind::LockTimeout | ConflictKind::TransactionTimeout
        )
    }
}

/// What follows from a call, for the caller to carry out, in this order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// A waiting request holds its lock now.
    Granted(WaitId),
    /// A waiting request waits no more.
    Refused(WaitId, Reason),
    /// A locker is gone, and everything it held is released or passed on.
    Ended(LockerId),
    /// A locker and its children were aborted: they may ask for nothing until they have released
    /// everything.
    Doomed(LockerId, Arc<LockConflict>),
    /// A lock is held longer than it may be.
    HeldTooLong(Arc<LockConflict>),
    /// A limit is near.
    LimitNear {
        /// Of what.
        which: LimitKind,
        /// How many are in use.
        used: usize,
        /// The limit.
        limit: usize,
    },
    /// Two classes of objects were locked in two orders.
    OrderContradicted(Arc<OrderWarning>),
}
