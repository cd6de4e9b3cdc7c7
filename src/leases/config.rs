//! How leases behave that do not say otherwise.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::handler::{LeaseHandler, LogStoreErrors};
use super::state::{LeaseSettingsError, Timing};

/// How leases behave. Each lease can have its own refresh, expiration, poll and handler.
#[derive(Clone)]
#[non_exhaustive]
pub struct LeaseConfig {
    /// From one refresh to the next (dbmutex's `WithRefresh`). At most a third of the expiration. Default 1 s.
    pub refresh: Duration,
    /// How long the store keeps a lease that is not refreshed (dbmutex's `WithExpiration`). Default 5 min.
    pub expiration: Duration,
    /// How often the store is asked for a lease that somebody else holds (dbmutex's `WithPollInterval`). Default 1 s.
    pub poll: Duration,
    /// By how much the store's clock may gain on real time, steps and failover included. Who holds a lease stops believing in
    /// it so much, and 2 % of the expiration, before it expires. Default 1 s.
    pub max_clock_skew: Duration,
    /// Most callers of this process that wait for one lease (dbmutex's `WithMaxLocalWaiters`). For all leases of the store
    /// together, under however many names, it is ten times as many, and 100,000 in any case; those who went away and what is
    /// being given back count until the store has answered. Default 10,000.
    pub max_local_waiters: usize,
    /// How long the store has for one answer, but for refreshes, which are given up after the refresh interval. Default 5 s.
    pub call_timeout: Duration,
    /// How long a release waits for the store before it says that the lease may be held still. Default 5 s.
    pub release_timeout: Duration,
    /// Whether an acquire, a refresh and a release end at the first error of the store (dbmutex's `WithFailFast`). Default
    /// false.
    pub fail_fast: bool,
    /// Who is told of the store's errors, and decides whether to go on. Default: [`LogStoreErrors`].
    pub handler: Arc<dyn LeaseHandler>,
}

impl LeaseConfig {
    /// Checks what can be checked without a lease.
    ///
    /// # Errors
    /// [`LeaseSettingsError`].
    pub(super) fn check(&self) -> Result<(), LeaseSettingsError> {
        Timing::new(self.refresh, self.expiration, self.max_clock_skew)?;
        if self.poll.is_zero() {
            return Err(LeaseSettingsError::ZeroPoll);
        }
        let others = [
            ("max_local_waiters", self.max_local_waiters == 0),
            ("call_timeout", self.call_timeout.is_zero()),
            ("release_timeout", self.release_timeout.is_zero()),
        ];
        match others.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((setting, _)) => Err(LeaseSettingsError::Zero { setting }),
            None => Ok(()),
        }
    }
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(1),
            expiration: Duration::from_secs(300),
            poll: Duration::from_secs(1),
            max_clock_skew: Duration::from_secs(1),
            max_local_waiters: 10_000,
            call_timeout: Duration::from_secs(5),
            release_timeout: Duration::from_secs(5),
            fail_fast: false,
            handler: Arc::new(LogStoreErrors::default()),
        }
    }
}

impl fmt::Debug for LeaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseConfig")
            .field("refresh", &self.refresh)
            .field("expiration", &self.expiration)
            .field("poll", &self.poll)
            .field("max_clock_skew", &self.max_clock_skew)
            .field("max_local_waiters", &self.max_local_waiters)
            .field("call_timeout", &self.call_timeout)
            .field("release_timeout", &self.release_timeout)
            .field("fail_fast", &self.fail_fast)
            .finish_non_exhaustive()
    }
}
