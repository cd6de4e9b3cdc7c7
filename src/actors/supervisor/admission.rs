//! Who is let in: each transaction has a place among those in flight, from before its first lock to its end, and a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use super::attempts::Attempts;
use super::runtime::Runtime;
use crate::config::WhenFull;
use crate::env::gate::Entry;
use crate::env::{Ask, Waiting};
use crate::error::{Stage, TxnError};
use crate::inside;
use crate::messages::supervisor::TxnOptions;
use crate::panics::Quiet;

impl Runtime {
    /// A place among the transactions in flight.
    pub(crate) async fn admit(
        &self,
        options: &mut TxnOptions,
    ) -> Result<Arc<OwnedSemaphorePermit>, TxnError> {
        let (deadline, span) = self.deadline(options);
        self.admit_until(options, deadline, span).await
    }

    /// [`admit`](Self::admit), with the deadline that it says.
    async fn admit_until(
        &self,
        options: &mut TxnOptions,
        deadline: Instant,
        span: Duration,
    ) -> Result<Arc<OwnedSemaphorePermit>, TxnError> {
        if let Some(permit) = options.permit.take() {
            return Ok(permit);
        }
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => return Ok(Arc::new(permit)),
            Err(TryAcquireError::Closed) => return Err(TxnError::ShuttingDown),
            Err(TryAcquireError::NoPermits) => {}
        }
        let shared = &self.env.shared;
        if options.when_full.unwrap_or(shared.config.when_full()) == WhenFull::Refuse {
            self.counters.overloaded.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("lockkeeper_overloaded_total").increment(1);
            return Err(TxnError::Overloaded {
                limit: shared.config.queue(),
            });
        }
        // Boxed: it is large, and hardly ever needed.
        Box::pin(self.wait_for_a_place(deadline, span)).await
    }

    async fn wait_for_a_place(
        &self,
        deadline: Instant,
        span: Duration,
    ) -> Result<Arc<OwnedSemaphorePermit>, TxnError> {
        struct Counted<'c>(&'c AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        let _counted = Counted(&self.counters.waiting);
        let shared = &self.env.shared;
        let served = inside::is_worker_of(shared.id);
        let place = async {
            let place = std::pin::pin!(Arc::clone(&self.permits).acquire_owned());
            if served {
                return place.await.map_err(drop);
            }
            let refused = std::pin::pin!(Quiet::new(self.refusing.cancelled()));
            match select(place, refused).await {
                Either::Left((place, _)) => place.map_err(drop),
                Either::Right(_) => Err(()),
            }
        };
        match shared.clock.until(deadline, place).await {
            Some(Ok(permit)) => Ok(Arc::new(permit)),
            Some(Err(())) => Err(TxnError::ShuttingDown),
            None => Err(match shared.out_of_time(Waiting::Queued, span) {
                // The places are taken because a body keeps the writer (I3).
                stalled @ TxnError::WriterStalled { .. } => stalled,
                _ => TxnError::DeadlineExceeded {
                    deadline: span,
                    stage: Stage::WaitedForAdmission,
                },
            }),
        }
    }

    /// A place among the transactions in flight, if there is one right now.
    pub(crate) fn try_admit(&self, options: &mut TxnOptions) -> Result<(), TxnError> {
        if options.permit.is_some() {
            return Ok(());
        }
        let refused = self.env.refusal(Entry::New);
        let place = Arc::clone(&self.permits).try_acquire_owned();
        options.permit = match (refused, place) {
            (Some(error), _) => return Err(error),
            (None, Ok(permit)) => Some(Arc::new(permit)),
            (None, Err(TryAcquireError::Closed)) => return Err(TxnError::ShuttingDown),
            (None, Err(TryAcquireError::NoPermits)) => {
                self.counters.overloaded.fetch_add(1, Ordering::Relaxed);
                metrics::counter!("lockkeeper_overloaded_total").increment(1);
                let limit = self.env.shared.config.queue();
                return Err(TxnError::Overloaded { limit });
            }
        };
        Ok(())
    }

    pub(crate) fn deadline(&self, options: &mut TxnOptions) -> (Instant, Duration) {
        let sent = *options.sent.get_or_insert_with(Instant::now);
        let span = match options.deadline {
            None => self.env.shared.config.deadline(),
            Some(span) => {
                if nanos(span) > self.longest.load(Ordering::Relaxed) {
                    self.longest.fetch_max(nanos(span), Ordering::Relaxed);
                }
                span
            }
        };
        (crate::clock::far(sent, span), span)
    }

    /// Lets a transaction in, or says why not.
    pub(crate) async fn admitted(&self, options: &mut TxnOptions) -> Result<Admitted, TxnError> {
        let entry = if options.permit.is_some() {
            Entry::Admitted
        } else {
            Entry::New
        };
        if let Some(error) = self.env.refusal(entry) {
            return Err(error);
        }
        let (deadline, span) = self.deadline(options);
        let permit = self.admit_until(options, deadline, span).await?;
        let sent = *options.sent.get_or_insert_with(Instant::now);
        // The time may have gone in a mailbox, or before the first poll.
        if Instant::now() >= deadline {
            return Err(TxnError::DeadlineExceeded {
                deadline: span,
                stage: Stage::WasQueued,
            });
        }
        let caller = options.caller.take();
        let trace = trace(&caller.unwrap_or_else(tracing::Span::current), options);
        Ok(Admitted {
            permit,
            sent,
            deadline,
            span,
            trace,
        })
    }
}

pub(super) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// A transaction that was let in.
pub(crate) struct Admitted {
    pub(super) permit: Arc<OwnedSemaphorePermit>,
    sent: Instant,
    pub(crate) deadline: Instant,
    pub(super) span: Duration,
    pub(super) trace: tracing::Span,
}

impl Admitted {
    pub(crate) fn attempts(&self) -> Attempts {
        Attempts::new(self.sent, self.span)
    }

    /// What an attempt asks the environment with.
    pub(super) fn ask(&self, options: &TxnOptions) -> Ask {
        let mut ask = Ask::new(options.name.clone(), options.site, self.deadline, self.span);
        ask.permit = Some(Arc::clone(&self.permit));
        ask.trace = self.trace.clone();
        ask
    }
}

/// The span of a transaction; the times are those of its last attempt.
pub(super) fn trace(caller: &tracing::Span, options: &TxnOptions) -> tracing::Span {
    let trace = tracing::debug_span!(
        target: "lockkeeper",
        parent: caller,
        "transaction",
        name = options.name.as_deref(),
        site = %options.site,
        attempt = tracing::field::Empty,
        wait_us = tracing::field::Empty,
        run_us = tracing::field::Empty,
        commit_us = tracing::field::Empty,
    );
    // One that nobody looks at would still look up the names of its fields whenever something is noted.
    match trace.is_disabled() {
        true => tracing::Span::none(),
        false => trace,
    }
}
