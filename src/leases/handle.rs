//! The leases of a process in one store.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use super::request::{LeaseOptions, Patience};
use super::seen::Acquiring;
use super::shared::{Left, Shared};
use super::state::{SendId, Timing, WaiterId, Wish};
use super::view::Cell;
use super::waiting::Waiting;
use super::{
    Lease, LeaseConfig, LeaseEvent, LeaseGuard, LeaseName, LeaseStore, LeaseView, LeasesBuilder,
    boottime, driver, guard,
};
use crate::error::{LeaseError, Part};
use crate::inside;
use crate::messages::lease::AcquireLease;
use crate::panics::Quiet;
use crate::supervision::Supervision;

/// The leases of this process in one store: cheap to clone, and usable from any thread and any async runtime.
///
/// A thread of its own refreshes whatever is held, in one pass for all, keeps all times, and asks the store on behalf of those
/// who wait in the background; whoever awaits an answer takes part in asking for it. When the last handle and the last guard
/// are dropped, everything is given back in the background and the thread ends; [`shutdown`](Self::shutdown) does so now, and
/// says when it is done.
#[derive(Clone)]
pub struct Leases {
    owner: Arc<Owner>,
}

/// Ends the thread with the last handle and the last guard.
pub(super) struct Owner {
    pub shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.shared.is_forked() {
            return;
        }
        self.shared
            .close(boottime::now().after(self.shared.config.release_timeout));
    }
}

/// What a shutdown has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseShutdown {
    /// Leases that could not be given back in time, or under which a worker of a pool runs on: they may be held in the store until
    /// they expire.
    pub maybe_still_held: Vec<LeaseName>,
}

impl Leases {
    /// Describes leases in this store (dbmutex's `New`).
    pub fn builder<S: LeaseStore>(store: S) -> LeasesBuilder<S> {
        LeasesBuilder::new(store)
    }

    /// Starts the thread that serves them. The store is asked nothing yet.
    ///
    /// # Errors
    /// [`LeaseError::BadSettings`]; [`LeaseError::Thread`] if the system has no thread left.
    pub fn start(store: impl LeaseStore, config: LeaseConfig) -> Result<Self, LeaseError> {
        Self::start_shared(Arc::new(store), config)
    }

    /// [`start`](Self::start) with a store that others use too.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_shared(
        store: Arc<dyn LeaseStore>,
        config: LeaseConfig,
    ) -> Result<Self, LeaseError> {
        Self::start_supervised(store, config, Supervision::of(Part::Leases))
    }

    pub(crate) fn start_supervised(
        store: Arc<dyn LeaseStore>,
        config: LeaseConfig,
        supervision: Arc<Supervision>,
    ) -> Result<Self, LeaseError> {
        config.check()?;
        let thread = |error| LeaseError::Thread(Arc::new(error));
        let shared = driver::start(store, config, supervision).map_err(thread)?;
        let owner = Arc::new(Owner {
            shared: Arc::clone(&shared),
        });
        // Set before anybody can ask.
        let _ = shared.owner.set(Arc::downgrade(&owner));
        Ok(Self { owner })
    }

    pub(super) const fn of(owner: Arc<Owner>) -> Self {
        Self { owner }
    }

    /// A lease by name, to be acquired.
    pub fn lease(&self, name: impl Into<Arc<str>>) -> Lease {
        Lease::new(Ok(self.clone()), name)
    }

    /// Waits for a lease with the configuration's settings. See [`Lease::acquire`].
    ///
    /// # Errors
    /// As [`Lease::acquire`].
    pub fn acquire(
        &self,
        name: impl Into<Arc<str>>,
    ) -> impl Future<Output = Result<LeaseGuard, LeaseError>> + Send + 'static {
        self.lease(name).acquire()
    }

    /// Asks for a lease once. See [`Lease::try_acquire`].
    ///
    /// # Errors
    /// As [`Lease::try_acquire`].
    pub fn try_acquire(
        &self,
        name: impl Into<Arc<str>>,
    ) -> impl Future<Output = Result<LeaseGuard, LeaseError>> + Send + 'static {
        self.lease(name).try_acquire()
    }

    /// Waits for a lease at most so long. See [`Lease::acquire_timeout`].
    ///
    /// # Errors
    /// As [`Lease::acquire_timeout`].
    pub fn acquire_timeout(
        &self,
        name: impl Into<Arc<str>>,
        timeout: Duration,
    ) -> impl Future<Output = Result<LeaseGuard, LeaseError>> + Send + 'static {
        self.lease(name).acquire_timeout(timeout)
    }

    /// What happens from now on that an operator wants to know. Who is more than 1,024 events behind loses the oldest, and is
    /// told how many.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<LeaseEvent> {
        self.shared().events.subscribe()
    }

    /// How they were set at the start.
    #[must_use]
    pub fn config(&self) -> &LeaseConfig {
        &self.shared().config
    }

    /// Refuses everything that waits and comes, tells the holders of leases that they are lost ([`Shutdown`]), gives each back on
    /// its own, and ends the thread; at the latest after `deadline`. The lease of a pool is given back when its workers have ended.
    ///
    /// [`Shutdown`]: super::LostReason::Shutdown
    pub fn shutdown(
        &self,
        deadline: Duration,
    ) -> impl Future<Output = LeaseShutdown> + Send + 'static + use<> {
        let shared = Arc::clone(self.shared());
        async move {
            // The child of a fork has nothing to give back, and no thread that would.
            if shared.is_forked() {
                return LeaseShutdown {
                    maybe_still_held: Vec::new(),
                };
            }
            let mut ended = shared.ended.subscribe();
            shared.close(boottime::now().after(deadline));
            let held = match Quiet::new(ended.wait_for(Option::is_some)).await {
                Ok(ended) => ended.as_ref().map(|ended| ended.held.clone()),
                Err(_) => None,
            };
            LeaseShutdown {
                maybe_still_held: held.unwrap_or_default(),
            }
        }
    }

    /// Refuses new requests; who waits goes on waiting, and what is held stays held.
    pub(crate) fn refuse_new(&self) {
        self.shared().refusing.store(true, Ordering::Release);
    }

    /// The panic that has ended them, if one has.
    pub(crate) fn ended_by_panic(&self) -> Option<LeaseError> {
        let shared = self.shared();
        shared.is_broken().then(|| shared.gone())
    }

    /// Where a test puts its panics.
    #[cfg(test)]
    pub(crate) fn supervision(&self) -> &Arc<Supervision> {
        &self.shared().supervision
    }

    /// Whose code their handlers are.
    pub(crate) fn owner(&self) -> inside::Owner {
        self.shared().as_owner()
    }

    /// [`shutdown`](Self::shutdown) on a thread that may block: each lease has until the deadline, which may be moved
    /// meanwhile, and `release_timeout` at the most. Answers what may be held in the store still.
    pub(crate) fn close(&self, deadline: impl Fn() -> Instant) -> Vec<LeaseName> {
        let shared = self.shared();
        if shared.is_forked() {
            return Vec::new();
        }
        let begun = Instant::now();
        let most = begun + self.release_timeout();
        let mut told = None;
        let mut ended = shared.ended.subscribe();
        loop {
            let by = deadline().min(most).max(begun + MOMENT);
            if told.is_none_or(|told| by < told) {
                told = Some(by);
                let left = by.saturating_duration_since(Instant::now());
                shared.close(boottime::now().after(left));
            }
            if let Some(ended) = &*ended.borrow_and_update() {
                return ended.held.clone();
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Their thread, to be joined by whoever asks first.
    pub(super) fn thread(&self) -> Option<JoinHandle<()>> {
        self.shared().thread.lock().take()
    }

    /// Waits for the end of the thread; they have been closed.
    pub(crate) fn join(&self) {
        if let Some(thread) = self.thread()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }

    pub(crate) async fn ask(
        self,
        name: LeaseName,
        options: LeaseOptions,
        patience: Patience,
    ) -> Result<LeaseGuard, LeaseError> {
        let options = options.check(self.config())?;
        let is_refused = self.shared().refusing.load(Ordering::Acquire) && !inside::is_worker();
        if is_refused || self.shared().is_forked() {
            return Err(LeaseError::ShuttingDown);
        }
        let until = match patience {
            Patience::For(time) => Some(boottime::now().after(time)),
            Patience::Forever | Patience::No => None,
        };
        let wish = Wish {
            timing: options.timing,
            poll: options.poll,
            until,
            once: patience == Patience::No,
            fail_fast: options.fail_fast,
        };
        let seen = Arc::new(Acquiring::begin());
        let (id, answer, left) = self.shared().ask(&name, wish, options, &seen)?;
        Waiting::new(self, id, answer, left, seen).await
    }

    pub(crate) async fn acquire_by_message(
        self,
        wish: AcquireLease,
    ) -> Result<LeaseGuard, LeaseError> {
        let name = LeaseName::new(wish.name)?;
        self.ask(name, wish.options, wish.patience).await
    }

    pub(crate) async fn extend_view(
        self,
        view: &LeaseView,
        expiration: Duration,
    ) -> Result<(), LeaseError> {
        guard::extend(&view.cell, &self, expiration).await
    }

    pub(super) fn abandon(&self, waiter: WaiterId) {
        if !self.shared().is_forked() {
            self.shared().abandon(waiter);
        }
    }

    pub(super) fn release(&self, cell: &Arc<Cell>) -> Left {
        let mut left = None;
        self.shared().release(cell, false, Some(&mut left));
        left
    }

    pub(super) fn disown(&self, cell: &Arc<Cell>) {
        if !self.shared().is_forked() {
            self.shared().release(cell, true, None);
        }
    }

    pub(super) fn extend(
        &self,
        cell: &Arc<Cell>,
        timing: Timing,
    ) -> Result<Option<SendId>, LeaseError> {
        self.shared().extend(cell, timing)
    }

    pub(super) fn release_timeout(&self) -> Duration {
        self.config().release_timeout
    }

    /// Runs a future on the thread of the leases, where nothing of the application's runs: it must be short between its awaits.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.shared().runtime.spawn(future);
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

/// What a release has at least, also after the deadline.
const MOMENT: Duration = Duration::from_millis(500);

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases")
            .field("store", &self.shared().store_id.get())
            .field("config", self.config())
            .finish_non_exhaustive()
    }
}
