//! What a store knows of a lease.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::LeaseName;

/// A fencing token: a number that only grows from one holder of a lease to the next, also over releases and expiries.
///
/// Who writes to something that remembers the largest token it has seen, and refuses smaller ones, is safe even against a
/// holder that was paused and does not know that it has lost its lease. (`locked_count` in Go's dbmutex.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({})", self.0)
    }
}

/// Which store, as far as anybody can tell: two handles of the same server, database and table are equal. Tokens of different
/// stores are not compared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(Arc<str>);

impl StoreId {
    /// From what names the store: its kind, what its server calls itself, the database, the table.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Who holds a lease, or held it last. It informs; only `id` decides, with the store and the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Made anew for each acquisition, so that nobody mistakes an earlier one for its own (`locker_id`).
    pub id: Arc<str>,
    /// The host's name (`locker_host`).
    pub host: Arc<str>,
    /// The process (`locker_pid`).
    pub pid: u32,
}

/// A lease as its store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseRecord {
    /// Its name.
    pub name: LeaseName,
    /// Who holds it, or held it last; `None` if nobody ever did, or the store does not keep that.
    pub holder: Option<Holder>,
    /// The token of that holder.
    pub token: Fence,
    /// How long it is held still by the store's clock, if it is not refreshed. `None`: nobody holds it.
    pub remaining: Option<Duration>,
}

impl LeaseRecord {
    /// A record.
    #[must_use]
    pub fn new(
        name: LeaseName,
        holder: Option<Holder>,
        token: Fence,
        remaining: Option<Duration>,
    ) -> Self {
        Self {
            name,
            holder,
            token,
            remaining,
        }
    }
}
