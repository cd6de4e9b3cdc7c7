//! What is decided about the workers of a pool: which start, when they start again, and when the pool gives up. A core without a
//! clock, a thread or a task: time comes in as a parameter, decisions go out as [`Effect`]s, and the driver carries them out.
//!
//! It decides as a supervisor of Erlang/OTP does, whose words it uses; where OTP says nothing, this does:
//!
//! - **Who is started again.** [`Restart::Permanent`]: always. [`Restart::Transient`]: after a failure (an error, a panic, silence
//!   that is replaced), not after a normal end. [`Restart::Temporary`]: never.
//! - **Who else.** [`Strategy::OneForOne`]: nobody. [`Strategy::OneForAll`]: all others are stopped, and all are started again.
//!   [`Strategy::RestForOne`]: so it is with those whose numbers are larger. They are stopped one after another from the last
//!   number to the first, each told only when the one before has ended, and all are started from the first to the last. Workers
//!   that had ended for good are started again with their group, as OTP starts transient children again; temporary ones are not.
//! - **How often.** Each failure that leads to a restart counts once, however many workers its group has; so does the normal end of
//!   a permanent worker. When more than N are not older than T, the pool stops all workers, as above, and has failed; the last
//!   failure is kept. How a worker ends that was told to stop is noted and does not count.
//! - **When.** After a delay drawn at random from a span that grows with the failures of that number in a row. A run that lasted
//!   longer than T and than the longest delay ends the row. A group starts when all of it has ended and the delays of all its
//!   failures have passed.
//! - **How a worker is stopped.** It is told, and has as long as the pool's grace (OTP's `shutdown` time); then it is abandoned: it
//!   is not waited for any more, and whatever it does is too late. With one for one all are told at once (OTP does so with
//!   `simple_one_for_one`), otherwise one after another as above.
//!
//! What always holds after a call:
//!
//! - for each number at most one run is neither ended nor abandoned;
//! - none is started that should not run: while the pool is paused, stops, is over, or while its gate is closed;
//! - a pool that is over starts nothing, unless it failed and is resumed.

mod change;
mod effect;
mod ending;
mod group;
mod phase;
mod settle;
mod slot;
mod spec;
mod supervision;
mod window;

pub use effect::{Cause, Effect, End, FailureNote, RunId};
pub use phase::{PoolState, WorkerState};
pub use spec::{Gating, OnSilence, Restart, Spec, Strategy};
pub use supervision::{Counts, Supervision, Who};
