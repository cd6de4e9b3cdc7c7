//! What can be seen of leases from outside: the span of a wait, and the figures.
//!
//! The subscriber and the recorder are the application's: if they panic, the leases go on.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tracing::Span;

use super::{LeaseName, LeaseOperation, LostReason};
use crate::env::quietly;
use crate::error::LeaseError;

/// An acquisition, from the wish to its answer; a span once it has to wait for somebody.
#[derive(Debug)]
pub(super) struct Acquiring {
    since: Instant,
    caller: Span,
    span: OnceLock<Span>,
}

impl Acquiring {
    pub(super) fn begin() -> Self {
        Self {
            since: Instant::now(),
            caller: Span::current(),
            span: OnceLock::new(),
        }
    }

    /// It waits: somebody has it, or is to get it before.
    pub(super) fn waits(&self, name: &LeaseName) {
        let begin = || {
            tracing::debug_span!(
                target: "lockkeeper",
                parent: &self.caller,
                "lease_wait",
                lease = name.as_str(),
                outcome = tracing::field::Empty,
            )
        };
        quietly(|| {
            self.span.get_or_init(begin);
        });
    }

    /// It was answered.
    pub(super) fn answered(&self, error: Option<&LeaseError>) {
        if error.is_none() {
            quietly(|| {
                metrics::counter!("lockkeeper_leases_acquired_total").increment(1);
                metrics::histogram!("lockkeeper_lease_acquire_seconds")
                    .record(self.since.elapsed());
            });
        }
        self.outcome(match error {
            None => "granted",
            Some(LeaseError::TimedOut { .. }) => "timeout",
            Some(LeaseError::Unreachable { .. }) => "unreachable",
            Some(_) => "refused",
        });
    }

    /// Nobody waits for its answer any more.
    pub(super) fn abandoned(&self) {
        self.outcome("abandoned");
    }

    fn outcome(&self, outcome: &'static str) {
        if let Some(span) = self.span.get() {
            quietly(|| {
                span.record("outcome", outcome);
            });
        }
    }
}

/// One more lease is held.
pub(super) fn held() {
    quietly(|| metrics::gauge!("lockkeeper_leases_held").increment(1.0));
}

/// One less.
pub(super) fn not_held() {
    quietly(|| metrics::gauge!("lockkeeper_leases_held").decrement(1.0));
}

pub(super) fn lost(reason: &LostReason) {
    quietly(|| {
        metrics::counter!("lockkeeper_leases_lost_total", "reason" => reason.word()).increment(1);
    });
}

/// The store has answered a refresh, or not.
pub(super) fn pass(took: Duration) {
    quietly(|| {
        metrics::counter!("lockkeeper_lease_passes_total").increment(1);
        metrics::histogram!("lockkeeper_lease_pass_seconds").record(took);
    });
}

pub(super) fn store_failed(operation: LeaseOperation) {
    quietly(|| {
        metrics::counter!("lockkeeper_lease_store_errors_total", "operation" => operation.word())
            .increment(1);
    });
}
