//! The lock table as a pure state machine.
//!
//! Nothing in here knows a clock, a thread, a socket or an executor: a call brings an input and the
//! time, and what has to be done about it leaves as a list of [`Effect`]s. The same inputs give the
//! same outputs, always, so that a test can drive every interleaving by hand.
//!
//! What always holds after a call:
//!
//! - nothing is granted that conflicts with what another family holds;
//! - a request waits exactly as long as it conflicts with a lock held outside its family, or with an
//!   earlier conflicting waiter outside it; requests of a family that already holds the object come
//!   before all others, and within each of the two groups the earlier comes first;
//! - these two conflicts are the edges of the waits-for graph. They follow from holders and queues,
//!   and are stored nowhere else;
//! - with detection on block, no cycle is left.

mod abort;
mod ahead;
mod ask;
mod behind;
mod call;
mod explain;
mod grant;
mod graph;
mod graphviz;
mod held;
mod locker;
mod mode;
mod object;
mod objects;
mod op;
mod order;
mod queue;
mod ranges;
mod release;
mod report;
mod sequence;
mod slab;
mod snapshot;
mod stats;
mod table;
mod text;
mod time;
mod victim;

pub use call::{
    Attempt, Denied, Effect, LockId, Moment, Patience, Reason, Request, TableConfig, Timeouts,
    WaitId,
};
pub use held::Held;
pub use locker::{Age, DEFAULT_PRIORITY, LockerId, LockerSpec};
pub use mode::{ConflictTable, ConflictTableError, Mode, UnknownModeName};
pub use object::{EmptyRange, Object};
pub use op::{Failure, Op, OpOutcome, Progress, Taken};
pub use order::{OrderStep, OrderWarning};
pub use report::{
    Choice, ConflictKind, CycleStep, DeadlockRecord, DetectReport, LockConflict, Party,
};
pub use sequence::Sequence;
pub use snapshot::{HeldLock, LockSnapshot, LockerInfo, WaitingLock, WaitsFor};
pub use stats::{LimitInUse, LimitKind, Limits, LockStats, PassStats, Usage};
pub use table::Table;
pub use text::Text;
pub use victim::{Candidate, VictimPolicy};
