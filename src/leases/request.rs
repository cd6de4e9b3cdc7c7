//! A wish for a lease, and what it may say about it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::handler::{Handler, LeaseHandler};
use super::identity::Label;
use super::state::Timing;
use super::{LeaseConfig, LeaseGuard, LeaseName, LeaseSettingsError, Leases};
use crate::error::LeaseError;

/// What a lease can have of its own; what is not set is as [`LeaseConfig`] says.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct LeaseOptions {
    /// From one refresh to the next.
    pub refresh: Option<Duration>,
    /// How long the store keeps it without a refresh.
    pub expiration: Option<Duration>,
    /// How often the store is asked for it.
    pub poll: Option<Duration>,
    /// Whether everything ends at the first error of the store.
    pub fail_fast: Option<bool>,
    /// Stands before the holder's id.
    pub label: Option<Arc<str>>,
    /// How long after an expiry without a release nobody gets it.
    pub unclean_delay: Duration,
    /// Who is told of the store's errors.
    pub handler: Option<Arc<dyn LeaseHandler>>,
}

impl fmt::Debug for LeaseOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseOptions")
            .field("refresh", &self.refresh)
            .field("expiration", &self.expiration)
            .field("poll", &self.poll)
            .field("fail_fast", &self.fail_fast)
            .field("label", &self.label)
            .field("unclean_delay", &self.unclean_delay)
            .finish_non_exhaustive()
    }
}

/// Options that are possible.
#[derive(Clone)]
pub(super) struct Checked {
    pub timing: Timing,
    pub poll: Duration,
    pub fail_fast: bool,
    pub label: Label,
    pub unclean_delay: Duration,
    pub handler: Handler,
}

impl LeaseOptions {
    pub(super) fn check(&self, config: &LeaseConfig) -> Result<Checked, LeaseSettingsError> {
        let poll = self.poll.unwrap_or(config.poll);
        if poll.is_zero() {
            return Err(LeaseSettingsError::ZeroPoll);
        }
        let timing = Timing::new(
            self.refresh.unwrap_or(config.refresh),
            self.expiration.unwrap_or(config.expiration),
            config.max_clock_skew,
        )?;
        Ok(Checked {
            timing,
            poll,
            fail_fast: self.fail_fast.unwrap_or(config.fail_fast),
            label: Label::new(self.label.as_deref().unwrap_or_default())?,
            unclean_delay: Timing::check_delay(self.unclean_delay)?,
            handler: Handler::new(self.handler.as_ref().unwrap_or(&config.handler)),
        })
    }
}

/// The setters of [`LeaseOptions`], for what has a function `options_mut`.
macro_rules! option_setters {
    () => {
        /// From one refresh to the next (dbmutex's `WithRefresh`): at most a third of the expiration. Default: the
        /// configuration's, 1 s.
        #[must_use]
        pub fn refresh(mut self, refresh: std::time::Duration) -> Self {
            self.options_mut().refresh = Some(refresh);
            self
        }

        /// How long the store keeps it without a refresh (dbmutex's `WithExpiration`). Default: the configuration's, 5 min.
        #[must_use]
        pub fn expiration(mut self, expiration: std::time::Duration) -> Self {
            self.options_mut().expiration = Some(expiration);
            self
        }

        /// How often the store is asked while somebody else holds it (dbmutex's `WithPollInterval`). Default: the
        /// configuration's, 1 s.
        #[must_use]
        pub fn poll(mut self, poll: std::time::Duration) -> Self {
            self.options_mut().poll = Some(poll);
            self
        }

        /// Whether acquire, refresh and release end at the first error of the store (dbmutex's `WithFailFast`). Default: the
        /// configuration's, false.
        #[must_use]
        pub fn fail_fast(mut self, fail_fast: bool) -> Self {
            self.options_mut().fail_fast = Some(fail_fast);
            self
        }

        /// Stands before the id of the holder, for people who look at the table: at most 222 bytes. It decides nothing.
        /// Default: none.
        #[must_use]
        pub fn label(mut self, label: impl Into<std::sync::Arc<str>>) -> Self {
            self.options_mut().label = Some(label.into());
            self
        }

        /// Nobody gets it for so long after it has expired without a release: for resources that cannot check tokens. All
        /// processes should say the same: in etcd the holder's counts, elsewhere that of whoever asks. Default: zero.
        #[must_use]
        pub fn unclean_delay(mut self, delay: std::time::Duration) -> Self {
            self.options_mut().unclean_delay = delay;
            self
        }

        /// Who is told of the store's errors, and decides whether to go on. Default: the configuration's, which logs them as
        /// warnings and goes on.
        #[must_use]
        pub fn handler(mut self, handler: impl $crate::LeaseHandler) -> Self {
            self.options_mut().handler = Some(std::sync::Arc::new(handler));
            self
        }
    };
}

pub(crate) use option_setters;

/// How long a wish for a lease may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until it is granted.
    Forever,
    /// So long, from the first poll.
    For(Duration),
    /// Not at all.
    No,
}

/// A lease by name, to be acquired as often as one likes: [`Leases::lease`] and [`Keeper::lease`](crate::Keeper::lease) make it.
///
/// Nothing is asked of the store, and nothing is checked, before it is acquired. The answer is a [`LeaseGuard`], which gives
/// the lease back when it is dropped. A future that is dropped leaves nothing held.
#[derive(Debug, Clone)]
pub struct Lease {
    leases: Result<Leases, LeaseError>,
    name: Result<LeaseName, LeaseError>,
    options: LeaseOptions,
}

impl Lease {
    pub(crate) fn new(leases: Result<Leases, LeaseError>, name: impl Into<Arc<str>>) -> Self {
        Self {
            leases,
            name: LeaseName::new(name).map_err(LeaseError::from),
            options: LeaseOptions::default(),
        }
    }

    fn options_mut(&mut self) -> &mut LeaseOptions {
        &mut self.options
    }

    /// What it is made of, for those who make others like it.
    pub(crate) fn into_parts(self) -> Result<(Leases, LeaseName, LeaseOptions), LeaseError> {
        Ok((self.leases?, self.name?, self.options))
    }

    /// A lease with these options.
    pub(crate) fn with_options(leases: Leases, name: Arc<str>, options: LeaseOptions) -> Self {
        Self {
            options,
            ..Self::new(Ok(leases), name)
        }
    }

    /// Checks what can be checked without the store.
    pub(crate) fn check(&self) -> Result<(), LeaseError> {
        let leases = self.leases.as_ref().map_err(Clone::clone)?;
        self.name.as_ref().map_err(Clone::clone)?;
        self.options.check(leases.config())?;
        Ok(())
    }

    option_setters!();

    /// Waits until it is granted, however long that takes; store errors are told to the handler, and it is tried again.
    ///
    /// # Errors
    /// [`LeaseError`]: settings or a name that cannot be, too many that wait here already; [`LeaseError::Store`] at the first
    /// error that waiting does not heal, such as a wrong password; with `fail_fast`, or if the handler says stop,
    /// [`LeaseError::Unreachable`].
    pub fn acquire(
        &self,
    ) -> impl Future<Output = Result<LeaseGuard, LeaseError>> + Send + 'static + use<> {
        self.acquire_with(Patience::Forever)
    }

    /// Asks once.
    ///
    /// # Errors
    /// [`LeaseError::Busy`] if somebody holds it, or callers of this process wait for it already;
    /// [`LeaseError::Unreachable`] at the first error of the store; otherwise as [`acquire`](Self::acquire).
    pub fn try_acquire(
        &self,
    ) -> impl Future<Output = Result<LeaseGuard, LeaseError>> + Send + 'static + use<> {
        self.acquire_with(Patience::No)
    }

    /// Waits at most so long, counted from the first poll.
    ///
    /// # Errors
    /// [`LeaseError::TimedOut`] if it was not free in time, [`LeaseError::Unreachable`] if the store failed when it was asked
    /// last, or has not answered at all; otherwise as [`acquire`](Self::acquire).
    pub fn acquire_timeout(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Result<LeaseGuard, LeaseError>> + Send + 'static + use<> {
        self.acquire_with(Patience::For(timeout))
    }

    fn acquire_with(
        &self,
        patience: Patience,
    ) -> impl Future<Output = Result<LeaseGuard, LeaseError>> + Send + 'static + use<> {
        let (leases, name) = (self.leases.clone(), self.name.clone());
        let options = self.options.clone();
        async move { leases?.ask(name?, options, patience).await }
    }
}
