//! Who is asked when the store of leases fails.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::limit::{Limit, Verdict};
use super::{LeaseName, StoreError};
use crate::clock::coarse_now;
use crate::env::quietly;

/// What was being done when the store failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseOperation {
    /// A lease was asked for (dbmutex's lock).
    Acquire,
    /// It was refreshed.
    Refresh,
    /// It was given back (dbmutex's unlock).
    Release,
}

impl LeaseOperation {
    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Refresh => "refresh",
            Self::Release => "release",
        }
    }
}

impl fmt::Display for LeaseOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// An error of the store, told to a [`LeaseHandler`].
#[derive(Debug)]
#[non_exhaustive]
pub struct LeaseFault<'a> {
    /// What was being done.
    pub operation: LeaseOperation,
    /// With which lease.
    pub name: &'a LeaseName,
    /// What the store said; [`StoreError::Unreachable`] if it did not answer in time.
    pub error: &'a StoreError,
    /// How often this operation has failed since it last went well for this lease, this time included.
    pub count: u32,
}

/// What a [`LeaseHandler`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LeaseVerdict {
    /// Try again, as long as there is time; but not after an error that waiting does not heal, as
    /// [`StoreError::is_retryable`] tells. This is the default.
    ///
    /// What is held is refreshed on until its deadline also after [`StoreError::Denied`] and [`StoreError::BadConfig`]:
    /// somebody may put that right in time.
    #[default]
    GoOn,
    /// Try again, as long as there is time, whatever the error: for those who know that somebody is about to make the
    /// database, or to give the right.
    Insist,
    /// Give up: an acquire fails, a refresh loses the lease, a release answers that it may be held still.
    Stop,
}

impl LeaseVerdict {
    /// Whether an acquire or a release is not tried again after this error.
    pub(super) const fn ends(self, error: &StoreError) -> bool {
        match self {
            Self::GoOn => !error.is_retryable(),
            Self::Insist => false,
            Self::Stop => true,
        }
    }

    /// Whether a refresh is not tried again after this error. Without the table there is no record that could be extended.
    pub(super) const fn ends_refresh(self, error: &StoreError) -> bool {
        let is_denied = matches!(error, StoreError::Denied(_) | StoreError::BadConfig(_));
        self.ends(error) && !(is_denied && matches!(self, Self::GoOn))
    }
}

/// Sees every error of the store that concerns a lease, and decides whether to go on (dbmutex's three error notifiers).
///
/// It is called on the thread that serves all leases of a store, and must be short. One that panics has said "go on".
pub trait LeaseHandler: Send + Sync + 'static {
    /// The store has failed.
    fn store_failed(&self, fault: &LeaseFault<'_>) -> LeaseVerdict;
}

impl<F: Fn(&LeaseFault<'_>) -> LeaseVerdict + Send + Sync + 'static> LeaseHandler for F {
    fn store_failed(&self, fault: &LeaseFault<'_>) -> LeaseVerdict {
        self(fault)
    }
}

/// A handler in our hands: it is asked and dropped on the thread of the leases, and its panics are its own.
#[derive(Clone)]
pub(super) struct Handler(Option<Arc<dyn LeaseHandler>>);

impl Handler {
    pub(super) fn new(handler: &Arc<dyn LeaseHandler>) -> Self {
        Self(Some(Arc::clone(handler)))
    }

    pub(super) fn store_failed(&self, fault: &LeaseFault<'_>) -> LeaseVerdict {
        let mut verdict = LeaseVerdict::default();
        quietly(|| {
            if let Some(handler) = &self.0 {
                verdict = handler.store_failed(fault);
            }
        });
        verdict
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        quietly(|| drop(self.0.take()));
    }
}

/// Goes on, and logs errors as warnings: at most ten a second, and a second later how many more there were. This is the default.
#[derive(Debug, Default)]
pub struct LogStoreErrors {
    limit: Arc<Limit>,
}

impl LeaseHandler for LogStoreErrors {
    fn store_failed(&self, fault: &LeaseFault<'_>) -> LeaseVerdict {
        let tell = |limit: &Limit| {
            if let Some(more) = limit.held_back() {
                tracing::warn!(target: "lockkeeper", more, "the store of leases failed more often");
            }
        };
        match self.limit.another(coarse_now()) {
            Verdict::Log => tracing::warn!(
                target: "lockkeeper",
                lease = fault.name.as_str(),
                operation = fault.operation.word(),
                count = fault.count,
                error = fault.error as &(dyn std::error::Error + 'static),
                "the store of leases failed"
            ),
            // The thread that calls this has a runtime; whoever calls it elsewhere has the count at once.
            Verdict::First => match Handle::try_current() {
                Ok(runtime) => {
                    let limit = Arc::clone(&self.limit);
                    runtime.spawn(async move {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        tell(&limit);
                    });
                }
                Err(_) => tell(&self.limit),
            },
            Verdict::Count => {}
        }
        LeaseVerdict::GoOn
    }
}

/// Goes on, and says nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct IgnoreStoreErrors;

impl LeaseHandler for IgnoreStoreErrors {
    fn store_failed(&self, _: &LeaseFault<'_>) -> LeaseVerdict {
        LeaseVerdict::GoOn
    }
}
