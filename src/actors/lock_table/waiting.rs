//! A wait that really waits, as others see it: a span, an event at its end, a histogram.

use std::time::Instant;

use tracing::Span;

use crate::error::LockError;
use crate::locks::{LockerId, Mode, Object};

/// Seen from the moment a request is queued until its outcome is known.
#[derive(Debug)]
pub(super) struct WaitSpan {
    span: Span,
    since: Instant,
}

impl WaitSpan {
    pub(super) fn begin(locker: LockerId, object: &Object, mode: Mode) -> Self {
        let span = tracing::debug_span!(
            target: "lockkeeper",
            "lock_wait",
            locker = locker.number(),
            namespace = object.namespace(),
            mode = %mode,
            outcome = tracing::field::Empty,
        );
        Self {
            span,
            since: Instant::now(),
        }
    }

    pub(super) fn end(&self, error: Option<&LockError>) {
        let waited = self.since.elapsed();
        let outcome = match error {
            None => "granted",
            Some(LockError::Deadlock(_)) => "deadlock",
            Some(LockError::LockTimeout(_)) => "timeout",
            Some(LockError::TransactionTimeout(_)) => "transaction_timeout",
            Some(_) => "refused",
        };
        self.span.record("outcome", outcome);
        tracing::debug!(target: "lockkeeper", parent: &self.span, outcome, waited_seconds = waited.as_secs_f64(), "lock wait ended");
        metrics::histogram!("lockkeeper_lock_wait_seconds").record(waited.as_secs_f64());
    }
}
