//! The values that settings can have, where a number or a duration will not do.

use std::fmt;
use std::sync::Arc;

/// How the map grows when it is full.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Growth {
    /// It does not grow.
    Fixed,
    /// It doubles until it is large enough. This is the default.
    #[default]
    Doubling,
    /// It grows by so many bytes, as often as is needed at once.
    Step(u64),
    /// This function answers the next size for the present one; none, or one that is no larger, ends the growth.
    ///
    /// It can be set from code only.
    Function(Arc<dyn Fn(u64) -> Option<u64> + Send + Sync>),
}

impl Growth {
    /// Growth that `function` decides: it answers the next size for the present one, or none.
    pub fn function(function: impl Fn(u64) -> Option<u64> + Send + Sync + 'static) -> Self {
        Self::Function(Arc::new(function))
    }
}

impl fmt::Debug for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed => f.write_str("Fixed"),
            Self::Doubling => f.write_str("Doubling"),
            Self::Step(step) => f.debug_tuple("Step").field(step).finish(),
            Self::Function(_) => f.write_str("Function(..)"),
        }
    }
}

/// What a commit that was answered survives; ordered from the loosest to the strictest, so that of two the
/// stricter one is the `max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing is flushed by a commit, only every `flush_interval` and on demand. Power loss may cost the last
    /// commits and **may destroy the data file**; the end of the process costs nothing.
    NoSync,
    /// The data is flushed, the page that names it is not: power loss may cost the last commits, never the file.
    NoMetaSync,
    /// Every commit survives power loss. This is the default.
    #[default]
    Full,
}

/// What happens to a transaction that is sent while `queue` of them are in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// It waits for its turn, at most until its deadline. This is the default.
    #[default]
    Wait,
    /// It is answered `Overloaded` at once, and nothing of it has run.
    Refuse,
}

/// What happens after a fatal error of the environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnFatal {
    /// The environment is reopened and checked. This is the default.
    #[default]
    Recover,
    /// Every call is answered `RecoveryNeeded` until someone sends `Recover`.
    Wait,
    /// The process exits with status 74 (`EX_IOERR`), after those who subscribed were told.
    Exit,
    /// The process is aborted on the spot.
    Abort,
}

/// Where the value of a setting came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The program set it.
    Code,
    /// It stands in a file of the environment's folder.
    File {
        /// The file's name: `lockkeeper.toml`, `DB_CONFIG` or `je.properties`.
        file: &'static str,
        /// The line in the file, counted from 1.
        line: usize,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Code => f.write_str("code"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
        }
    }
}
