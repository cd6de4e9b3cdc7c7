//! Snapshots held over awaits, by hand.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Keeper;
use crate::env::Snapshot;
use crate::env::gate::Entry;
use crate::error::TxnError;

impl Keeper {
    /// Takes a snapshot that may be kept over awaits. Not part of the public face: it may change in any version.
    ///
    /// # Errors
    ///
    /// [`TxnError::NoSnapshot`] when no place among the setting `snapshots` became free within `span`, and what beginning a
    /// view may answer.
    #[doc(hidden)]
    #[track_caller]
    pub fn hold_snapshot(
        &self,
        name: &str,
        span: Duration,
    ) -> impl Future<Output = Result<Snapshot, TxnError>> + Send + use<> {
        let deadline = crate::clock::far(Instant::now(), span);
        let name = Some(Arc::from(name));
        let site = Location::caller();
        self.inner
            .runtime
            .env
            .hold_snapshot_as(Entry::New, site, name, deadline, span)
    }
}
