//! The model's words: lockers, locks and waits, and what is answered and told.

use lockkeeper::{Mode, VictimPolicy};

use super::universe::Obj;

/// Nanoseconds, as the table counts them.
pub type Time = u64;
/// A locker's place in [`Model::lockers`]; given again after the locker has ended.
pub type Slot = u8;
/// As many lockers as a history can have at one time; a family is a bit in a set of these.
pub const SLOTS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Deadlock,
    LockTimeout,
    TransactionTimeout,
    HeldTooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    Conflict(Kind),
    Ended,
    ShuttingDown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    Lockers,
    Locks,
    Objects,
}

/// What follows from a call. Waits are named by their arrival, lockers by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Granted(u64),
    Refused(u64, Why),
    Ended(u64),
    Doomed(u64, Kind),
    HeldTooLong(u64, Obj, Mode),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Granted,
    Waits,
    Blocked,
    Done,
    Yes(bool),
    Count(usize),
    Detected { waiting: usize, victims: usize },
    Ended,
    Dead(Kind),
    HeldTooLong,
    NotAvailable,
    Limit(Which, usize),
    LimitInUse,
    NotHeld,
    NotWeaker,
    UnknownMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub lock: Time,
    pub no_wait: bool,
    pub txn: Time,
    pub max_hold: Time,
    pub abort_on_max_hold: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    pub on_block: bool,
    pub policy: VictimPolicy,
    pub timeouts: Timeouts,
    /// Of lockers, locks and objects.
    pub limits: [usize; 3],
    /// Percent of a limit; 0 is off.
    pub warning: u8,
}

#[derive(Debug, Clone, Copy)]
pub struct Locker {
    pub number: u64,
    pub parent: Option<Slot>,
    pub root: Slot,
    pub age: u64,
    pub priority: u32,
    /// `Some(0)` is none.
    pub lock_timeout: Option<Time>,
    pub txn_deadline: Option<Time>,
    pub dead: Option<Kind>,
    /// It holds the object too long, and has not been told yet.
    pub to_be_told: Option<Obj>,
}

#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub object: Obj,
    pub locker: Slot,
    pub mode: Mode,
    pub count: u64,
    pub since: Time,
    /// That it is held too long has been said.
    pub said: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Wait {
    pub arrival: u64,
    pub object: Obj,
    pub locker: Slot,
    pub mode: Mode,
    pub from: Option<Mode>,
    pub deadline: Option<Time>,
    /// The locker whose transaction's deadline it is; none for a lock timeout.
    pub whose: Option<Slot>,
}
