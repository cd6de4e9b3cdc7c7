//! How much of what others do a transaction sees.

use std::fmt;

/// What an interactive transaction is kept from seeing of others; `docs/isolation.md` says which anomaly each level allows,
/// and shows it.
///
/// Write locks are held to the end on every level but the last, and nobody ever sees what is not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// As if transactions ran one after the other, in the order of their commits. What is read is locked, with the gaps
    /// between the keys of a scan. This is the default.
    #[default]
    Serializable,
    /// What is read is locked to the end, the gaps between the keys of a scan are not: new records may appear in a second
    /// scan (phantoms).
    RepeatableRead,
    /// Nothing is locked for reading: two reads of a record may differ, and what is computed from a plain
    /// [`get`](super::Txn::get) may overwrite what somebody else wrote since. [`get_for_update`](super::Txn::get_for_update)
    /// prevents that.
    ReadCommitted,
    /// Everything is read from one LMDB snapshot, without locks; of two that write a record the first to commit wins, and the
    /// other runs again. Two may each read what the other writes (write skew). A snapshot keeps a thread as long as it lives
    /// (the setting `snapshots`), and is given up when the map has to grow.
    Snapshot,
    /// No locks at all: what was read is compared at the commit, and if it has changed the transaction runs again. As strict
    /// as serialisable, and the best choice where conflicts are rare; a bad one where they are not.
    Optimistic,
}

impl Isolation {
    /// Every level.
    pub const ALL: [Isolation; 5] = [
        Isolation::Serializable,
        Isolation::RepeatableRead,
        Isolation::ReadCommitted,
        Isolation::Snapshot,
        Isolation::Optimistic,
    ];

    /// Whether a plain read takes a lock.
    pub(super) const fn locks_reads(self) -> bool {
        matches!(self, Self::Serializable | Self::RepeatableRead)
    }

    /// Whether what a plain read saw has to be there still at the end.
    pub(super) const fn compares_reads(self) -> bool {
        matches!(
            self,
            Self::Serializable | Self::RepeatableRead | Self::Optimistic
        )
    }

    /// Whether what is compared has to be so in any case, and not only after an outside write: no lock kept others out.
    pub(super) const fn always_compares(self) -> bool {
        matches!(self, Self::Snapshot | Self::Optimistic)
    }

    /// Whether a scan is compared with its gaps.
    pub(super) const fn compares_ranges(self) -> bool {
        matches!(self, Self::Serializable | Self::Optimistic)
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serializable => "serializable",
            Self::RepeatableRead => "repeatable-read",
            Self::ReadCommitted => "read-committed",
            Self::Snapshot => "snapshot",
            Self::Optimistic => "optimistic",
        })
    }
}
