//! Exactly once: what is stored of a transaction that was sent with a key, and what follows when it is sent again.
//!
//! Within a window a key stands for one committed effect and its answer. Both are written in one LMDB transaction, so there
//! is never one without the other, and what is found here decides alone whether a body may run. Where nothing can be
//! decided, because what is stored cannot be read, nothing runs.
//!
//! Nothing in here knows a clock, a disk or a database: pages are a small trait, and time is a parameter.

mod book;
mod clock;
mod codec;
mod error;
mod fingerprint;
mod record;

use std::time::Duration;

pub(crate) use book::{Pages, PagesMut, anything_expired, keep, look, persisted_clock, sweep};
pub(crate) use clock::{Anchor, AnswerClock, Reading};
pub(crate) use codec::Codec;
pub use error::AnswerError;
pub(crate) use fingerprint::{Fingerprint, hash};

/// The longest key, in bytes; with what is put before it, it still fits into a key of LMDB's.
pub(crate) const MAX_KEY: usize = 255;

/// The largest answer, in bytes of JSON: answers are for callers, not for data.
pub(crate) const MAX_ANSWER: usize = 1 << 20;

/// The longest window that can be set.
pub(crate) const MAX_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);

/// A point on the clock of the answers, in nanoseconds since its first use. Coarser, it would stand still when it is persisted
/// at every commit, since each time the rest of a unit would be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Ticks(pub u64);

impl Ticks {
    pub(crate) fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }

    fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What a look at a key has found.
#[derive(Debug, Clone)]
pub(crate) enum Seen<A> {
    /// Nothing: the body may run.
    Fresh,
    /// The answer to the same request.
    Stored(A),
    /// The key was used for another request.
    Reused,
    /// There is something that cannot be read: the body must not run.
    Unreadable(AnswerError),
    /// Its window is over: the body may run.
    Expired,
}
