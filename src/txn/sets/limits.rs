//! How large the sets of a transaction may become.

use std::fmt;

use thiserror::Error;

/// The bounds of a transaction's sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Most entries of the read set: keys, and ranges as one each.
    pub(crate) read_entries: usize,
    /// Most bytes of the write set: keys, values and an overhead for each write, with what open savepoints keep.
    pub(crate) write_bytes: usize,
}

impl Default for Limits {
    /// 100,000 entries and 64 MiB.
    fn default() -> Self {
        Self {
            read_entries: 100_000,
            write_bytes: 64 * 1024 * 1024,
        }
    }
}

/// One of a transaction's two sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhichSet {
    /// What it has read; its limit is in entries.
    ReadSet,
    /// What it wants to write; its limit is in bytes.
    WriteSet,
}

impl WhichSet {
    /// The setting that raises its limit.
    pub(crate) const fn setting(self) -> &'static str {
        match self {
            Self::ReadSet => "max_read_set",
            Self::WriteSet => "max_write_set",
        }
    }

    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::ReadSet => "entries",
            Self::WriteSet => "bytes",
        }
    }
}

impl fmt::Display for WhichSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadSet => "read set",
            Self::WriteSet => "write set",
        })
    }
}

/// A set would outgrow its limit. The remedy is a smaller transaction, or a larger `max_read_set` or `max_write_set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the {which} would outgrow its limit of {limit} {}", which.unit())]
pub(crate) struct TooMuch {
    /// The set.
    pub(crate) which: WhichSet,
    /// The limit, in entries or bytes.
    pub(crate) limit: usize,
}
