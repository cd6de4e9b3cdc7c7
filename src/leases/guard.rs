//! A lease that was granted.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::releasing::Releasing;
use super::state::Timing;
use super::view::{Cell, Ending};
use super::{
    Fence, Holder, LeaseName, LeaseStanding, LeaseView, Leases, LostReason, Released, StoreId,
};
use crate::error::{LeaseError, MaybeStillHeld};
use crate::panics::Quiet;

/// A lease that was granted. Dropped, it is given back, in the background.
///
/// It is refreshed as long as the guard lives; whether it is still held, [`is_held`](Self::is_held) says on the spot, and
/// [`lost`](Self::lost) when it is not any more. A process that is paused learns of a loss late, however good its clock:
/// where that matters, let what is protected check the [token](Self::token).
#[must_use = "a lease whose guard is dropped is given back"]
pub struct LeaseGuard {
    pub(super) cell: Arc<Cell>,
    pub(super) leases: Leases,
}

impl LeaseGuard {
    pub(super) fn new(cell: Arc<Cell>, leases: Leases) -> Self {
        Self { cell, leases }
    }

    /// Its fencing token: larger than that of every holder before.
    #[must_use]
    pub fn token(&self) -> Fence {
        self.cell.token()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &LeaseName {
        &self.cell.name
    }

    /// Who holds it: this acquisition.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.cell.holder
    }

    /// The store that it is in.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        self.claim_view().store_id().clone()
    }

    /// Whether it is held at this very instant: reads the clock, and asks nobody.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.cell.is_held()
    }

    /// How long it is held still, if no refresh comes; zero if it is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.cell.remaining()
    }

    /// Whether it is held, doubtful since the store failed, or lost, and why.
    #[must_use]
    pub fn standing(&self) -> LeaseStanding {
        self.cell.standing()
    }

    /// Ends when the lease is not held any more, with the reason: by the margin before others can have it.
    pub fn lost(&self) -> impl Future<Output = LostReason> + Send + 'static + use<> {
        self.claim_view().lost()
    }

    /// A token that is cancelled when the lease is not held any more (the context of dbmutex's `Lock`). Whoever cancels it
    /// himself tells nobody else that the lease is lost.
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        self.claim_view().cancellation()
    }

    /// Runs a future as long as the lease is held. When it is lost, the future is dropped where it stands.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] if it was lost first, or before.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, LeaseError> {
        let mut future = std::pin::pin!(future);
        let mut lost = std::pin::pin!(self.lost());
        let run = std::future::poll_fn(|cx| {
            if let std::task::Poll::Ready(reason) = lost.as_mut().poll(cx) {
                return std::task::Poll::Ready(Err(reason));
            }
            // Before its end is told, the clock knows it.
            if !self.is_held() {
                return std::task::Poll::Ready(Err(LostReason::Expired));
            }
            future.as_mut().poll(cx).map(Ok)
        });
        run.await.map_err(|reason| self.error(reason))
    }

    /// Gives it another expiration from now on, and waits until the store has confirmed that. Others are told the new one only
    /// then; the refresh interval stays.
    ///
    /// # Errors
    /// [`LeaseError::BadSettings`] if the expiration does not go with the refresh interval; [`LeaseError::Lost`] if the lease is
    /// lost before the store confirms.
    pub fn extend(
        &self,
        expiration: Duration,
    ) -> impl Future<Output = Result<(), LeaseError>> + Send + 'static + use<> {
        let (cell, leases) = (Arc::clone(&self.cell), self.leases.clone());
        async move { extend(&cell, &leases, expiration).await }
    }

    /// Gives it back, and says whether it was still ours until then (dbmutex's `Unlock`).
    ///
    /// It is not believed in any more from the first poll on. It takes `release_timeout` at the most, 5 s by default; until
    /// then it is tried again after errors of the store. Dropping the future gives it back all the same.
    ///
    /// # Errors
    /// [`MaybeStillHeld`] with the guard: the store did not answer in time, or failed and nobody wanted to go on. It can be
    /// tried again.
    pub async fn release(self) -> Result<Released, MaybeStillHeld> {
        match Releasing::begin(&self.leases, &self.cell).await {
            Some(Ending::Released(outcome)) => Ok(outcome),
            Some(Ending::Stopped(error)) => Err(MaybeStillHeld {
                guard: self,
                last: Some(error),
            }),
            None | Some(Ending::Open) => Err(MaybeStillHeld {
                guard: self,
                last: None,
            }),
        }
    }

    /// What a check of the lease needs to know, to be kept and sent anywhere.
    #[must_use]
    pub fn claim_view(&self) -> LeaseView {
        LeaseView {
            cell: Arc::clone(&self.cell),
        }
    }

    fn error(&self, reason: LostReason) -> LeaseError {
        LeaseError::Lost {
            name: self.cell.name.clone(),
            reason,
        }
    }
}

pub(super) async fn extend(
    cell: &Arc<Cell>,
    leases: &Leases,
    expiration: Duration,
) -> Result<(), LeaseError> {
    let timing: Timing = cell.timing.lock().with_expiration(expiration)?;
    let lost = |reason| LeaseError::Lost {
        name: cell.name.clone(),
        reason,
    };
    let mut confirmed = cell.confirmed.subscribe();
    let mut is_lost = cell.lost.subscribe();
    let ended = || cell.lost.borrow().clone().unwrap_or(LostReason::Expired);
    let Some(send) = leases.extend(cell, timing)? else {
        return Err(lost(ended()));
    };
    let has_come = confirmed.wait_for(|last| *last > send.0);
    let is_gone = is_lost.wait_for(Option::is_some);
    let (has_come, is_gone) = (std::pin::pin!(has_come), std::pin::pin!(is_gone));
    // Others may wait for its end beside it, each with a waker of the application's.
    match Quiet::new(futures_util::future::select(has_come, is_gone)).await {
        futures_util::future::Either::Left((Ok(_), _)) => Ok(()),
        _ => Err(lost(ended())),
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.leases.disown(&self.cell);
    }
}

impl fmt::Debug for LeaseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseGuard")
            .field("name", self.name())
            .field("token", &self.token())
            .field("standing", &self.standing())
            .finish_non_exhaustive()
    }
}
