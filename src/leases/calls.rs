//! Asking the store: every question has a time limit, and what fails is told to those whom it concerns.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::begun::Home;
use super::seen;
use super::shared::Shared;
use super::state::{ClaimAnswer, RefreshAnswer, RefreshItem, ReleaseAnswer, SendId};
use super::view::Cell;
use super::{
    Claim, Claimed, Fence, LeaseEvent, LeaseOperation, LeaseVerdict, Refresh, Refreshed, StoreError,
};
use crate::env::quietly;

impl Shared {
    /// Asks the store something, after it has been prepared.
    pub(super) async fn call<T>(
        &self,
        timeout: Duration,
        ask: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.call_after(timeout, self.prepare(false), ask).await
    }

    /// The same for what is held, and waits for nobody who prepares the store.
    async fn call_for_held<T>(
        &self,
        timeout: Duration,
        ask: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.call_after(timeout, self.prepare(true), ask).await
    }

    async fn call_after<T>(
        &self,
        timeout: Duration,
        prepare: impl Future<Output = Result<(), StoreError>>,
        ask: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let asked = AssertUnwindSafe(async {
            prepare.await?;
            ask.await
        });
        let answer = match tokio::time::timeout(timeout, asked.catch_unwind()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::Failed("the lease store panicked".into())),
            Err(_) => {
                let text = format!("no answer within {timeout:?}");
                Err(StoreError::Unreachable(text.into()))
            }
        };
        if answer.is_err() {
            self.is_prepared.store(false, Ordering::Release);
        }
        answer
    }

    /// Ends on the driver's thread: the application's handlers run nowhere else.
    async fn go_home(&self, home: &Home) {
        std::future::poll_fn(|_| {
            if self.driver.get() == Some(&std::thread::current().id()) {
                return Poll::Ready(());
            }
            // The driver polls it next.
            home.want();
            Poll::Pending
        })
        .await;
    }

    async fn prepare(&self, for_held: bool) -> Result<(), StoreError> {
        if self.is_prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one_at_a_time = match self.preparing.try_lock() {
            Ok(alone) => alone,
            // It was ready before, and whoever makes it so anew may not be answered for long.
            Err(_) if for_held && self.store_id.get().is_some() => return Ok(()),
            Err(_) => self.preparing.lock().await,
        };
        if self.is_prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        self.store.prepare().await?;
        if self.store_id.get().is_none() {
            let id = self.store.id().await?;
            // Only one at a time comes here.
            let _ = self.store_id.set(id);
        }
        self.is_prepared.store(true, Ordering::Release);
        Ok(())
    }

    /// Tells of an error, and answers what is to come of it.
    fn fault(
        &self,
        cell: &Cell,
        operation: LeaseOperation,
        error: &Arc<StoreError>,
    ) -> LeaseVerdict {
        let (verdict, count) = cell.fault(operation, error);
        self.tell(LeaseEvent::StoreFailed {
            name: cell.name.clone(),
            operation,
            error: Arc::clone(error),
            count,
        });
        verdict
    }

    /// `passed`: another process had it meanwhile.
    fn claim_answer(
        &self,
        cell: &Cell,
        answer: Result<Claimed, Arc<StoreError>>,
        passed: bool,
    ) -> ClaimAnswer {
        match answer {
            Ok(claimed) => {
                cell.went_well(LeaseOperation::Acquire);
                let foreign = match &claimed {
                    Claimed::Ours { token } => {
                        // The first answer of the store is the token for good.
                        let _ = cell.token.set(*token);
                        passed
                    }
                    Claimed::Busy(record) => !record
                        .holder
                        .as_ref()
                        .is_some_and(|holder| self.is_own(holder)),
                };
                ClaimAnswer::Claimed { claimed, foreign }
            }
            Err(error) => {
                seen::store_failed(LeaseOperation::Acquire);
                let verdict = self.fault(cell, LeaseOperation::Acquire, &error);
                ClaimAnswer::Failed { error, verdict }
            }
        }
    }
}

fn wish(cell: &Cell) -> Claim {
    Claim {
        name: cell.name.clone(),
        holder: cell.holder.clone(),
        expiration: cell.timing.lock().expiration(),
        unclean_delay: cell.unclean_delay,
    }
}

/// Asks for a lease. If it was left to others, it is looked first whether somebody took it.
pub(super) async fn claim(
    shared: Arc<Shared>,
    home: Arc<Home>,
    cell: Arc<Cell>,
    send: SendId,
    left_with: Option<Fence>,
) {
    let claim = wish(&cell);
    let timeout = shared.config.call_timeout;
    let ask = async {
        let passed = match left_with {
            Some(token) => {
                let record = shared.store.look(&claim.name).await?;
                record.is_some_and(|record| record.token > token)
            }
            None => false,
        };
        Ok((shared.store.claim(&claim).await?, passed))
    };
    let (answer, passed) = match shared.call(timeout, ask).await {
        Ok((claimed, passed)) => (Ok(claimed), passed),
        Err(error) => {
            shared.go_home(&home).await;
            (Err(Arc::new(error)), false)
        }
    };
    let answer = shared.claim_answer(&cell, answer, passed);
    shared.step(|book, now, fx| book.claimed(now, cell.key, send, answer, fx));
}

/// Gives one lease back and asks for the next.
pub(super) async fn hand_over(
    shared: Arc<Shared>,
    home: Arc<Home>,
    from: Arc<Cell>,
    to: Arc<Cell>,
    send: SendId,
) {
    let claim = wish(&to);
    let timeout = shared.config.call_timeout;
    let ask = async { shared.store.hand_over(&from.holder, &claim).await };
    let (released, claimed): (ReleaseAnswer, _) = match shared.call(timeout, ask).await {
        Ok((released, claimed)) => (Ok(released), Ok(claimed)),
        Err(error) => {
            shared.go_home(&home).await;
            let error = Arc::new(error);
            seen::store_failed(LeaseOperation::Release);
            let verdict = shared.fault(&from, LeaseOperation::Release, &error);
            (Err((Arc::clone(&error), verdict)), Err(error))
        }
    };
    let claimed = shared.claim_answer(&to, claimed, false);
    let keys = (from.key, to.key);
    shared.step(|book, now, fx| book.handed_over(now, keys, send, released, claimed, fx));
}

/// Gives a lease back.
pub(super) async fn release(shared: Arc<Shared>, home: Arc<Home>, cell: Arc<Cell>) {
    let ask = async { shared.store.give_back(&cell.name, &cell.holder).await };
    let mut wanted = false;
    let timeout = shared.config.call_timeout;
    let answer = match shared.call_for_held(timeout, ask).await {
        Ok((released, by_others)) => {
            wanted = by_others;
            Ok(released)
        }
        Err(error) => {
            shared.go_home(&home).await;
            let error = Arc::new(error);
            seen::store_failed(LeaseOperation::Release);
            let verdict = shared.fault(&cell, LeaseOperation::Release, &error);
            Err((error, verdict))
        }
    };
    shared.step(|book, now, fx| {
        if wanted {
            book.wanted_by_others(now, cell.key);
        }
        book.released(now, cell.key, answer, fx);
    });
}

/// Extends leases, ordered by name.
pub(super) async fn refresh(shared: Arc<Shared>, mut items: Vec<(Arc<Cell>, RefreshItem)>) {
    // It was decided a moment ago: what is given back since then is not to be extended after its release.
    items.retain(|(cell, _)| !cell.let_go.load(Ordering::Acquire));
    if items.is_empty() {
        return;
    }
    let question = items.iter().map(|(cell, item)| Refresh {
        name: item.name.clone(),
        holder: cell.holder.clone(),
        token: cell.token(),
        expiration: item.expiration,
    });
    let question: Vec<Refresh> = question.collect();
    let patience = items.iter().map(|(cell, _)| patience(cell)).min();
    let timeout = patience.unwrap_or(shared.config.call_timeout);
    let ask = async { shared.store.refresh(&question).await };
    let begun = Instant::now();
    let answers = shared
        .call_for_held(timeout, ask)
        .await
        .and_then(|answers| match answers.len() == items.len() {
            true => Ok(answers),
            false => Err(StoreError::Failed(
                "the lease store did not answer for each lease".into(),
            )),
        });
    seen::pass(begun.elapsed());
    let answers: Vec<RefreshAnswer> = match answers {
        Ok(answers) => {
            for ((cell, _), answer) in items.iter().zip(&answers) {
                if *answer == Refreshed::Held {
                    cell.went_well(LeaseOperation::Refresh);
                }
            }
            answers.into_iter().map(RefreshAnswer::Refreshed).collect()
        }
        Err(error) => {
            let error = Arc::new(error);
            seen::store_failed(LeaseOperation::Refresh);
            let failed = items.iter().map(|(cell, _)| RefreshAnswer::Failed {
                verdict: shared.fault(cell, LeaseOperation::Refresh, &error),
                error: Arc::clone(&error),
            });
            failed.collect()
        }
    };
    shared.step(|book, now, fx| {
        for ((cell, item), answer) in items.iter().zip(answers) {
            book.refreshed(now, cell.key, item.send, answer, fx);
        }
    });
}

/// How long a refresh is waited for. The next one is sent after the refresh interval in any case; a store that is slow and not
/// dead is given a little longer where the expiration has room for it.
fn patience(cell: &Cell) -> Duration {
    let timing = *cell.timing.lock();
    let refresh = timing.refresh();
    (timing.usable() / 6).clamp(refresh, refresh.saturating_mul(3))
}

/// Wakes waiters when the store tells of releases. While it cannot, they poll.
pub(super) async fn listen(shared: Arc<Shared>) {
    let least = QUIET.min(shared.config.poll);
    let mut pause = least;
    loop {
        let listening = AssertUnwindSafe(async {
            match shared.store.wakeups() {
                Some(wakeups) => wakeups.await.map(Some),
                None => Ok(None),
            }
        });
        let listening = tokio::time::timeout(LISTENING, listening.catch_unwind()).await;
        match listening {
            Ok(Ok(Ok(None))) => return,
            Ok(Ok(Ok(Some(mut wakeups)))) => {
                // Something may have happened before.
                shared.step(|book, now, fx| book.woken(now, None, fx));
                // A store that panics has failed.
                while let Ok(told) = AssertUnwindSafe(wakeups.next()).catch_unwind().await {
                    match told {
                        Ok(name) => {
                            pause = least;
                            shared.step(|book, now, fx| book.woken(now, name.as_ref(), fx));
                        }
                        Err(error) => {
                            quietly(
                                || tracing::debug!(target: "lockkeeper", %error, "the lease store does not wake waiters for now"),
                            );
                            break;
                        }
                    }
                }
            }
            // It failed, it panicked, or it took too long.
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).clamp(QUIET, MOST_QUIET.max(shared.config.poll));
    }
}

/// How long a store has to begin to tell of releases: longer than for an answer, since it makes sure of it.
const LISTENING: Duration = Duration::from_secs(15);
/// A store that cannot tell of releases now is asked again after a while: it may have no connection left.
const QUIET: Duration = Duration::from_millis(250);
const MOST_QUIET: Duration = Duration::from_secs(30);
