//! Why a lease is not held any more.

use std::fmt;
use std::sync::Arc;

use super::{Holder, StoreError};

/// Why a lease ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LostReason {
    /// Its guard was dropped or released.
    Released,
    /// No refresh was confirmed in time: the process or the machine was paused, the store was slow, or its record expired.
    Expired,
    /// Somebody else holds it, or has held it since.
    Stolen {
        /// Who, if the store says so.
        by: Option<Holder>,
    },
    /// Somebody took it away by force.
    Forced,
    /// The store failed until its time was over, or once and whoever was asked said stop (`fail_fast`, a handler).
    StoreError(Arc<StoreError>),
    /// The leases of this process were shut down.
    Shutdown,
}

impl LostReason {
    /// In a word, for metrics and logs.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Stolen { .. } => "stolen",
            Self::Forced => "forced",
            Self::StoreError(_) => "store_error",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Errors of stores are equal if they are the same one.
impl PartialEq for LostReason {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Stolen { by }, Self::Stolen { by: other }) => by == other,
            (Self::StoreError(error), Self::StoreError(other)) => Arc::ptr_eq(error, other),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Eq for LostReason {}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Released => f.write_str("it was released"),
            Self::Expired => f.write_str("it expired"),
            Self::Stolen { by: Some(holder) } => {
                write!(f, "{} on {} holds it", holder.id, holder.host)
            }
            Self::Stolen { by: None } => f.write_str("somebody else holds it"),
            Self::Forced => f.write_str("it was taken away by force"),
            Self::StoreError(error) => fmt::Display::fmt(error, f),
            Self::Shutdown => f.write_str("the leases of this process were shut down"),
        }
    }
}
