//! What is known of one lease by everybody who looks at it: its guard, the driver, checks in transactions.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::handler::{Handler, LeaseFault, LeaseOperation, LeaseVerdict};
use super::state::{LeaseKey, Moment, SendId, Timing};
use super::{
    Fence, Holder, LeaseName, LostReason, Released, StoreError, StoreId, TableName, boottime,
};
use crate::env::quietly;
use crate::panics::Quiet;

/// Where a lease is in its life, for those who look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseStanding {
    /// Held, and confirmed by the store whenever it was asked.
    Held,
    /// Believed in until its deadline, but the store has failed, and has not confirmed it since.
    Doubtful,
    /// Not held any more.
    Lost(LostReason),
}

/// How a lease ended for its guard.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    /// Nothing was asked for yet, or the release is under way.
    Open,
    /// It was given back.
    Released(Released),
    /// The release was given up.
    Stopped(Arc<StoreError>),
}

/// One acquisition, shared.
pub(super) struct Cell {
    pub key: LeaseKey,
    pub name: LeaseName,
    pub holder: Holder,
    pub store: OnceLock<StoreId>,
    /// The store's table, if it is one that an SQL transaction can look at.
    #[cfg_attr(
        not(any(feature = "postgres", feature = "mysql", feature = "sqlite")),
        expect(dead_code, reason = "there is no SQL transaction that could look")
    )]
    pub table: Option<TableName>,
    pub token: OnceLock<Fence>,
    pub timing: Mutex<Timing>,
    pub unclean_delay: Duration,
    pub fail_fast: bool,
    handler: Handler,
    /// Until when it is believed in, in nanoseconds; 0 if it is not.
    deadline: AtomicU64,
    /// It is among those that the figures call held.
    pub counted: AtomicBool,
    /// The refresh that the store has confirmed last, plus one.
    pub confirmed: watch::Sender<u64>,
    pub lost: watch::Sender<Option<LostReason>>,
    pub doubtful: AtomicBool,
    pub ending: watch::Sender<Ending>,
    pub cancelled: CancellationToken,
    errors: [AtomicU32; 3],
    /// The refresh under way that carries this lease alone.
    pub refreshing: Mutex<Option<AbortHandle>>,
    /// How many run under it, whether they were told of its end or not.
    users: AtomicUsize,
    /// It is being given back: no refresh is to be begun any more.
    pub let_go: AtomicBool,
}

impl Cell {
    pub(super) fn new(
        key: LeaseKey,
        name: LeaseName,
        holder: Holder,
        options: &super::request::Checked,
        table: Option<TableName>,
    ) -> Self {
        Self {
            key,
            name,
            holder,
            store: OnceLock::new(),
            table,
            token: OnceLock::new(),
            timing: Mutex::new(options.timing),
            unclean_delay: options.unclean_delay,
            fail_fast: options.fail_fast,
            handler: options.handler.clone(),
            deadline: AtomicU64::new(0),
            counted: AtomicBool::new(false),
            confirmed: watch::Sender::new(0),
            lost: watch::Sender::new(None),
            doubtful: AtomicBool::new(false),
            ending: watch::Sender::new(Ending::Open),
            cancelled: CancellationToken::new(),
            errors: Default::default(),
            refreshing: Mutex::new(None),
            users: AtomicUsize::new(0),
            let_go: AtomicBool::new(false),
        }
    }

    pub(super) fn believe_until(&self, at: Moment) {
        self.deadline.store(at.0, Ordering::Release);
    }

    /// The store has confirmed a refresh.
    pub(super) fn confirm(&self, SendId(id): SendId) {
        self.confirmed
            .send_modify(|last| *last = (*last).max(id + 1));
    }

    /// It is not believed in from here on. Whether it was counted among those that are held, and is not any more.
    pub(super) fn disbelieve(&self) -> bool {
        self.deadline.store(0, Ordering::Release);
        self.counted.swap(false, Ordering::Relaxed)
    }

    /// Tells those who wait for its end. The first reason counts.
    ///
    /// Whom this wakes is the application's, and may look at the lease, or panic: so nobody is woken under the lock of the reason,
    /// and a panic keeps nothing from the others.
    pub(super) fn tell_lost(&self, reason: LostReason) {
        let mut is_first = false;
        self.lost.send_if_modified(|lost| {
            is_first = lost.is_none();
            if is_first {
                *lost = Some(reason);
            }
            false
        });
        cancel(&self.cancelled);
        if is_first {
            quietly(|| self.lost.send_modify(|_| ()));
        }
    }

    /// Ends the belief in it, and says whether somebody runs under it: of those who begin at this very moment, each is either seen
    /// here or sees that the lease is over.
    pub(super) fn ends_in_use(&self) -> bool {
        self.deadline.store(0, Ordering::Release);
        fence(Ordering::SeqCst);
        self.users.load(Ordering::Acquire) > 0
    }

    pub(super) fn is_held(&self) -> bool {
        // A forked child has the guard's memory, and not the lease.
        boottime::now().0 < self.deadline.load(Ordering::Acquire)
            && self.holder.pid == std::process::id()
    }

    /// Whether somebody got it: only then it is known in which store it is.
    pub(super) fn was_granted(&self) -> bool {
        self.store.get().is_some()
    }

    /// Whether it was let go or lost, whoever granted it.
    pub(super) fn is_over(&self) -> bool {
        self.let_go.load(Ordering::Acquire) || self.lost.borrow().is_some()
    }

    pub(super) fn remaining(&self) -> Duration {
        match self.is_held() {
            true => Moment(self.deadline.load(Ordering::Acquire)).since(boottime::now()),
            false => Duration::ZERO,
        }
    }

    pub(super) fn token(&self) -> Fence {
        self.token.get().copied().unwrap_or(Fence(0))
    }

    /// Tells the handler of an error, and answers what it decided, and the count.
    pub(super) fn fault(
        &self,
        operation: LeaseOperation,
        error: &StoreError,
    ) -> (LeaseVerdict, u32) {
        let count = self
            .count(operation)
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        let fault = LeaseFault {
            operation,
            name: &self.name,
            error,
            count,
        };
        let verdict = self.handler.store_failed(&fault);
        match self.fail_fast {
            true => (LeaseVerdict::Stop, count),
            false => (verdict, count),
        }
    }

    /// It went well: errors are counted anew.
    pub(super) fn went_well(&self, operation: LeaseOperation) {
        self.count(operation).store(0, Ordering::Relaxed);
    }

    fn count(&self, operation: LeaseOperation) -> &AtomicU32 {
        let [acquire, refresh, release] = &self.errors;
        match operation {
            LeaseOperation::Acquire => acquire,
            LeaseOperation::Refresh => refresh,
            LeaseOperation::Release => release,
        }
    }

    pub(super) fn standing(&self) -> LeaseStanding {
        let lost = self.lost.borrow().clone();
        match lost {
            Some(reason) => {
                cancel(&self.cancelled);
                LeaseStanding::Lost(reason)
            }
            None if !self.is_held() => LeaseStanding::Lost(LostReason::Expired),
            None if self.doubtful.load(Ordering::Relaxed) => LeaseStanding::Doubtful,
            None => LeaseStanding::Held,
        }
    }
}

/// Whoever sees why a lease was lost sees its token cancelled: who comes first, does it.
fn cancel(token: &CancellationToken) {
    quietly(|| token.cancel());
}

/// What a check of a lease needs to know of it, without owning it: a guard gives it, and it can be cloned, kept and sent
/// anywhere. It does not keep the lease.
#[derive(Clone)]
pub struct LeaseView {
    pub(super) cell: Arc<Cell>,
}

impl LeaseView {
    /// The name of the lease.
    #[must_use]
    pub fn name(&self) -> &LeaseName {
        &self.cell.name
    }

    /// Who holds it.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.cell.holder
    }

    /// Its fencing token.
    #[must_use]
    pub fn token(&self) -> Fence {
        self.cell.token()
    }

    /// The store that it is in.
    #[must_use]
    pub fn store_id(&self) -> &StoreId {
        static UNKNOWN: std::sync::LazyLock<StoreId> =
            std::sync::LazyLock::new(|| StoreId::new("unknown"));
        self.cell.store.get().unwrap_or(&UNKNOWN)
    }

    /// Whether it may be believed in at this very instant.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.cell.is_held()
    }

    /// How long it may be believed in still, if no refresh comes.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.cell.remaining()
    }

    /// Whether it is held, doubtful or lost, and why.
    #[must_use]
    pub fn standing(&self) -> LeaseStanding {
        self.cell.standing()
    }

    /// Ends when the lease is not held any more, with the reason; see [`LeaseGuard::lost`](super::LeaseGuard::lost).
    pub fn lost(&self) -> impl Future<Output = LostReason> + Send + 'static + use<> {
        let mut lost = self.cell.lost.subscribe();
        let cancelled = self.cell.cancelled.clone();
        // Others wait beside it, each with a waker of the application's.
        Quiet::new(async move {
            let reason = match lost.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or(LostReason::Shutdown),
                // Nobody is left who could say so.
                Err(_) => LostReason::Shutdown,
            };
            cancel(&cancelled);
            reason
        })
    }

    /// A token that is cancelled when the lease is not held any more; see [`LeaseGuard::cancellation`](super::LeaseGuard::cancellation).
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        self.cell.cancelled.child_token()
    }
}

/// Somebody runs under a lease. It keeps nothing held, but as long as it lives the lease is not given back at the end of all leases.
pub(crate) struct InUse {
    cell: Arc<Cell>,
}

impl InUse {
    pub(crate) fn of(lease: &LeaseView) -> Self {
        lease.cell.users.fetch_add(1, Ordering::AcqRel);
        // Whether the lease is held is asked only after this; see `ends_in_use`.
        fence(Ordering::SeqCst);
        Self {
            cell: Arc::clone(&lease.cell),
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.cell.users.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a transaction can run [under](crate::RunTxn::under): a [`LeaseGuard`](super::LeaseGuard), a [`LeaseView`], and references to
/// them.
pub trait AsLease: private::Sealed {
    /// What a check of the lease needs to know.
    fn lease_view(&self) -> LeaseView;
}

impl AsLease for super::LeaseGuard {
    fn lease_view(&self) -> LeaseView {
        self.claim_view()
    }
}

impl AsLease for LeaseView {
    fn lease_view(&self) -> LeaseView {
        self.clone()
    }
}

impl<T: AsLease + ?Sized> AsLease for &T {
    fn lease_view(&self) -> LeaseView {
        (**self).lease_view()
    }
}

impl<T: AsLease + ?Sized> AsLease for Arc<T> {
    fn lease_view(&self) -> LeaseView {
        (**self).lease_view()
    }
}

impl<T: AsLease + ?Sized> AsLease for Box<T> {
    fn lease_view(&self) -> LeaseView {
        (**self).lease_view()
    }
}

mod private {
    pub trait Sealed {}
    impl Sealed for crate::LeaseGuard {}
    impl Sealed for super::LeaseView {}
    impl<T: super::AsLease + ?Sized> Sealed for &T {}
    impl<T: super::AsLease + ?Sized> Sealed for std::sync::Arc<T> {}
    impl<T: super::AsLease + ?Sized> Sealed for Box<T> {}
}

impl fmt::Debug for LeaseView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseView")
            .field("name", self.name())
            .field("token", &self.token())
            .field("standing", &self.standing())
            .finish_non_exhaustive()
    }
}
