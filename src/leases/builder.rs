//! How leases are described before they are started.

use std::sync::Arc;
use std::time::Duration;

use super::{LeaseConfig, LeaseHandler, LeaseStore, Leases};
use crate::error::LeaseError;

/// Describes [`Leases`]; every setting has a default.
#[derive(Debug)]
#[must_use = "leases are started with `start`"]
pub struct LeasesBuilder<S> {
    store: S,
    config: LeaseConfig,
}

impl<S> LeasesBuilder<S> {
    pub(super) fn new(store: S) -> Self {
        Self {
            store,
            config: LeaseConfig::default(),
        }
    }
}

impl<S: LeaseStore> LeasesBuilder<S> {
    /// From one refresh to the next. Default 1 s.
    pub const fn refresh(mut self, refresh: Duration) -> Self {
        self.config.refresh = refresh;
        self
    }

    /// How long the store keeps a lease without a refresh. Default 5 min.
    pub const fn expiration(mut self, expiration: Duration) -> Self {
        self.config.expiration = expiration;
        self
    }

    /// How often the store is asked for what somebody else holds. Default 1 s.
    pub const fn poll(mut self, poll: Duration) -> Self {
        self.config.poll = poll;
        self
    }

    /// By how much the store's clock may gain on real time. Default 1 s.
    pub const fn max_clock_skew(mut self, skew: Duration) -> Self {
        self.config.max_clock_skew = skew;
        self
    }

    /// Most callers of this process that wait for one lease; ten times as many, and 100,000 in any case, for all leases together. Default
    /// 10,000.
    pub const fn max_local_waiters(mut self, waiters: usize) -> Self {
        self.config.max_local_waiters = waiters;
        self
    }

    /// How long the store has for one answer. Default 5 s.
    pub const fn call_timeout(mut self, timeout: Duration) -> Self {
        self.config.call_timeout = timeout;
        self
    }

    /// How long a release waits for the store. Default 5 s.
    pub const fn release_timeout(mut self, timeout: Duration) -> Self {
        self.config.release_timeout = timeout;
        self
    }

    /// Whether everything ends at the first error of the store. Default false.
    pub const fn fail_fast(mut self, fail_fast: bool) -> Self {
        self.config.fail_fast = fail_fast;
        self
    }

    /// Who is told of the store's errors. Default: they are logged as warnings.
    pub fn handler(mut self, handler: impl LeaseHandler) -> Self {
        self.config.handler = Arc::new(handler);
        self
    }

    /// Starts the thread that serves them. The store is asked nothing yet.
    ///
    /// # Errors
    /// [`LeaseError::BadSettings`]; [`LeaseError::Thread`] if the system has no thread left.
    pub fn start(self) -> Result<Leases, LeaseError> {
        Leases::start(self.store, self.config)
    }
}
