//! Pools that serve a queue of jobs.
//!
//! `queue` decides, without a clock or a thread: who waits for a place, who is dropped, which job begins, and what becomes of one that
//! panics. `shared` stands around it: a short lock, a bounded channel that wakes workers, and the answers. `serve` is what a worker does: it takes
//! one job after another. A panic is the end of the worker, as any other is; the pool's [`Feed`](super::seams::Feed) tells the queue
//! which run it was, and so which job.

mod feed;
mod held;
mod id;
mod job;
mod job_pool;
mod on_full;
mod options;
mod quarantine;
mod queue;
mod serve;
mod shared;
mod stats;
mod submit;
mod untyped;

pub use id::JobId;
pub use job::Job;
pub use job_pool::JobPool;
pub use on_full::OnFull;
pub(super) use options::JobOptions;
pub use quarantine::{Quarantine, QuarantinedJob};
pub use stats::JobStats;
pub use submit::{Detached, Submit};
pub use untyped::QuarantineEntry;
