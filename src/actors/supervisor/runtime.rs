//! The supervisor's core: admits transactions, takes their locks, has their bodies run, and retries them.
//!
//! It runs in the caller's task when a transaction came by a method, and in the supervisor actor's when it came as a message;
//! both share one set of bounds and statistics. What is retried, and when, [`retry`](crate::txn::retry) decides.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::admission::{Admitted, nanos, trace};
use super::locking::Taken;
use crate::actors::lock_table::Locks;
use crate::config::Durability;
use crate::env::{Answer, Ask, Core, Fenced, Held, Reply, Ticket, Typed, random_seed};
use crate::error::{Part, Stage, TxnError};
use crate::keeper::Stopping;
use crate::leases::LeaseSource;
use crate::messages::supervisor::{Body, RunTxn, TxnOptions, TxnStats};
use crate::panics::Quiet;
use crate::pool::Pools;
use crate::supervision::Supervision;
use crate::txn::handler::HandlerChain;
use crate::txn::run::current_transaction;

/// What runs transactions: an environment, perhaps a lock table, and the bound on what is in flight.
pub struct Runtime {
    pub(crate) env: Arc<Core>,
    pub(crate) locks: Option<Locks>,
    /// Set once, if there are leases.
    pub(crate) leases: OnceLock<Arc<LeaseSource>>,
    pub(crate) pools: Arc<Pools>,
    pub(super) handlers: HandlerChain,
    pub(super) permits: Arc<Semaphore>,
    /// How far it has come with its end.
    pub(crate) stopping: Stopping,
    /// Who waits for a place is turned away.
    pub(super) refusing: CancellationToken,
    /// What is in flight is not waited for any more.
    aborting: CancellationToken,
    /// The same, for a look that takes no lock.
    is_aborting: AtomicBool,
    /// The longest deadline that any transaction has had, in nanoseconds.
    pub(super) longest: AtomicU64,
    pub(super) counters: Counters,
    pub(crate) supervision: Arc<Supervision>,
    /// Of the actor of the pools.
    pub(crate) pool_supervision: Arc<Supervision>,
    /// Keys the digests of what interactive transactions read.
    pub(super) seed: [u64; 2],
}

#[derive(Default)]
pub(super) struct Counters {
    committed: AtomicU64,
    aborted: AtomicU64,
    failed: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) deadlocks_retried: AtomicU64,
    pub(super) overloaded: AtomicU64,
    pub(super) waiting: AtomicUsize,
}

impl Runtime {
    pub(crate) fn new(env: Arc<Core>, locks: Option<Locks>, handlers: HandlerChain) -> Self {
        let supervision = Supervision::of(Part::Supervisor);
        let pool_supervision = Supervision::of(Part::WorkerPool);
        let parts = [&supervision, &pool_supervision, &env.shared.supervision].map(Some);
        for part in parts
            .into_iter()
            .chain([locks.as_ref().map(Locks::supervision)])
            .flatten()
        {
            env.shared.gives_up_with(part);
        }
        let permits = Arc::new(Semaphore::new(env.shared.config.queue()));
        let longest = AtomicU64::new(nanos(env.shared.config.deadline()));
        Self {
            env,
            locks,
            leases: OnceLock::new(),
            pools: Arc::new(Pools::new(&pool_supervision)),
            handlers,
            permits,
            stopping: Stopping::default(),
            refusing: CancellationToken::new(),
            aborting: CancellationToken::new(),
            is_aborting: AtomicBool::new(false),
            longest,
            counters: Counters::default(),
            supervision,
            pool_supervision,
            seed: [random_seed(), random_seed()],
        }
    }

    pub(crate) fn stats(&self) -> TxnStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TxnStats {
            committed: read(&self.counters.committed),
            aborted: read(&self.counters.aborted),
            failed: read(&self.counters.failed),
            retries: read(&self.counters.retries),
            deadlocks_retried: read(&self.counters.deadlocks_retried),
            overloaded: read(&self.counters.overloaded),
            in_flight: self.in_flight(),
            waiting: self.counters.waiting.load(Ordering::Relaxed),
            limit: self.env.shared.config.queue(),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.env
            .shared
            .config
            .queue()
            .saturating_sub(self.permits.available_permits())
    }

    /// Nothing new is admitted any more, but for the workers of the keeper's own pools.
    pub(crate) fn refuse_new(&self) {
        self.env.shared.gate.drain();
        self.refusing.cancel();
    }

    /// What is in flight is dropped where it waits for the application.
    pub(crate) fn abort(&self) {
        self.is_aborting.store(true, Ordering::Release);
        self.aborting.cancel();
    }

    /// Waits for `future`, unless the keeper stops and does not wait for it any longer.
    pub(super) async fn unless_aborted<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        // Made when it is needed: most futures are ready at their first poll.
        let mut aborted = None;
        std::future::poll_fn(|cx| {
            // First, since the timer that the future may wait for has ended then.
            if self.is_aborting.load(Ordering::Acquire) {
                return Poll::Ready(None);
            }
            if let Poll::Ready(out) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(out));
            }
            let aborted =
                aborted.get_or_insert_with(|| Quiet::new(self.aborting.clone().cancelled_owned()));
            Pin::new(aborted).poll(cx).map(|()| None)
        })
        .await
    }

    /// No transaction that is in flight has a later deadline than so long from now.
    pub(crate) fn longest_deadline(&self) -> Duration {
        Duration::from_nanos(self.longest.load(Ordering::Relaxed))
    }

    /// Nothing is admitted any more.
    pub(crate) fn close(&self) {
        self.env.shared.gate.drain();
        self.permits.close();
    }

    /// Whether there is nothing to supervise: no locks, no handlers, and the sender keeps the deadline.
    pub(crate) fn is_direct<T, E>(&self, txn: &RunTxn<T, E>) -> bool {
        let options = &txn.options;
        matches!(txn.body, Body::Update(_))
            && options.ticket.is_some()
            && txn.once.is_none()
            && options.locks.is_empty()
            && options.under.is_empty()
            && options.handlers.is_empty()
            && self.handlers.is_empty()
    }

    /// Has the writer answer `sender` directly; see [`Runtime::is_direct`].
    pub(crate) fn run_direct<T, E>(
        &self,
        txn: RunTxn<T, E>,
        sender: oneshot::Sender<Result<T, TxnError<E>>>,
    ) where
        T: Send + 'static,
        E: Send + 'static,
    {
        let RunTxn {
            body, mut options, ..
        } = txn;
        let (deadline, span) = self.deadline(&mut options);
        let (Body::Update(body), Some(ticket)) = (body, options.ticket.take()) else {
            return;
        };
        let ask = self.supervision.guard("RunTxn, direct", || {
            self.direct_ask(&mut options, ticket, deadline, span)
        });
        let ask = match ask {
            Ok(ask) => ask,
            Err(panicked) => {
                drop(sender.send(Err(TxnError::ActorPanicked(panicked))));
                return;
            }
        };
        if let Err((error, job)) = self
            .env
            .submit(ask, Typed::new(body, Reply::Direct(sender)))
        {
            job.fail(error);
        }
    }

    fn direct_ask(
        &self,
        options: &mut TxnOptions,
        ticket: Arc<Ticket>,
        deadline: Instant,
        span: Duration,
    ) -> Ask {
        let caller = options.caller.take();
        let trace = trace(&caller.unwrap_or_else(tracing::Span::none), options);
        trace.record("attempt", 1);
        let mut ask = Ask::new(options.name.take(), options.site, deadline, span);
        ask.durability = options.durability.map(for_one_transaction);
        ask.permit = options.permit.take();
        ask.ticket = ticket;
        ask.trace = trace;
        ask
    }

    /// Runs a transaction to its end.
    pub(crate) async fn run<T, E>(self: Arc<Self>, txn: RunTxn<T, E>) -> Result<T, TxnError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let started = Instant::now();
        let outcome = self.supervise(txn).await;
        self.count(&outcome, started);
        outcome
    }

    /// Counts a transaction that is answered now.
    pub(crate) fn count<T, E>(&self, outcome: &Result<T, TxnError<E>>, started: Instant) {
        // Each with a key of its own that is made once.
        macro_rules! counter {
            ($label:literal) => {
                metrics::counter!("lockkeeper_transactions_total", "outcome" => $label)
            };
        }
        let (counter, metric) = match outcome {
            Ok(_) => (&self.counters.committed, counter!("committed")),
            Err(TxnError::Abort(_)) => (&self.counters.aborted, counter!("aborted")),
            Err(_) => (&self.counters.failed, counter!("failed")),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        metric.increment(1);
        metrics::histogram!("lockkeeper_transaction_seconds").record(started.elapsed());
    }

    async fn supervise<T, E>(&self, txn: RunTxn<T, E>) -> Result<T, TxnError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let RunTxn {
            body,
            mut options,
            once,
        } = txn;
        match (&once, &body) {
            (Some(_), Body::View(_)) => return Err(TxnError::KeyOnView),
            (Some(once), _) => once.check().map_err(TxnError::widen)?,
            (None, _) => {}
        }
        let body = match body {
            Body::Interactive(mut body) => {
                let run = self.supervise_interactive(&mut options, once, &mut body);
                return Box::pin(run).await;
            }
            body => body,
        };
        if let (Body::Update(_), Some(error)) = (&body, self.inside_transaction()) {
            return Err(error.widen());
        }
        let admitted = self.admitted(&mut options).await.map_err(TxnError::widen)?;
        let mut attempts = admitted.attempts();
        let trace = &admitted.trace;
        let keyed = match once {
            None => None,
            Some(once) => {
                let keyed = self.keyed(*once, &options, &admitted);
                Some(keyed.await.map_err(TxnError::widen)?)
            }
        };
        let body = match (body, &keyed) {
            (Body::Update(body), Some(keyed)) => Body::Update(keyed.wrap(body)),
            (body, _) => body,
        };
        let fenced = self.fenced(&options, &admitted).await;
        let fenced = fenced.map_err(TxnError::widen)?;
        let mut body = Some(match (body, &fenced) {
            (Body::Update(body), Some(fenced)) => Body::Update(fenced.update(body)),
            (Body::View(body), Some(fenced)) => Body::View(fenced.view(body)),
            (body, _) => body,
        });
        loop {
            let Some(current) = body.take() else {
                return Err(TxnError::ShuttingDown);
            };
            attempts.number += 1;
            trace.record("attempt", attempts.number);
            if let Some(fenced) = &fenced {
                fenced.held().map_err(TxnError::widen)?;
            }
            let locked = self
                .take_locks(&mut options, keyed.as_ref(), &admitted, &mut attempts)
                .instrument(trace.clone());
            let ended = match locked.await {
                Err(error) => Ended {
                    result: Err(error.widen()),
                    body: Some(current),
                },
                Ok(Taken::Answer(value)) => Ended {
                    result: Ok(value),
                    body: Some(current),
                },
                Ok(Taken::Locks(locks)) => {
                    let mut ask = admitted.ask(&options);
                    ask.durability = options.durability.map(for_one_transaction);
                    ask.locks = locks.map(|locks| Box::new(locks) as Held);
                    ask.attempts_before = attempts.number - 1;
                    options.has_begun();
                    self.run_body(ask, current).await
                }
            };
            body = ended.body;
            // Nobody knows what becomes of an attempt whose body did not come back: it is not repeated.
            let repeatable = body.is_some();
            let error = match self.handled(ended.result, repeatable, &mut attempts, &options) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !repeatable {
                return Err(error);
            }
            self.stand_back(error, &mut attempts, &options, admitted.deadline)
                .await?;
        }
    }

    /// The leases of a transaction that runs under any.
    pub(super) async fn fenced(
        &self,
        options: &TxnOptions,
        admitted: &Admitted,
    ) -> Result<Option<Fenced>, TxnError> {
        if options.under.is_empty() {
            return Ok(None);
        }
        // Boxed: most transactions have none.
        let fenced = Box::pin(self.env.fenced(&options.under));
        match self.env.shared.clock.until(admitted.deadline, fenced).await {
            Some(fenced) => fenced.map(Some),
            None => Err(TxnError::DeadlineExceeded {
                deadline: admitted.span,
                stage: Stage::WasQueued,
            }),
        }
    }

    /// Why nothing may be begun here that could wait for locks: this is the closure of an interactive transaction (I14).
    pub(crate) fn inside_transaction(&self) -> Option<TxnError> {
        let outer_site = current_transaction(self.env.shared.id)?;
        Some(TxnError::InsideTransaction { outer_site })
    }

    async fn run_body<T, E>(&self, ask: Ask, body: Body<T, E>) -> Ended<T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        fn ended<T, E, B>(
            answer: Result<Answer<T, E, B>, TxnError>,
            back: impl FnOnce(B) -> Body<T, E>,
        ) -> Ended<T, E> {
            match answer {
                Ok(Answer { result, body }) => Ended {
                    result,
                    body: Some(back(body)),
                },
                Err(error) => Ended {
                    result: Err(error.widen()),
                    body: None,
                },
            }
        }
        match body {
            Body::Update(body) => ended(self.env.update(ask, body).await, Body::Update),
            Body::View(body) => ended(self.env.ship_view(ask, body).await, Body::View),
            // Run elsewhere; see `supervise`.
            Body::Interactive(_) => Ended {
                result: Err(TxnError::ShuttingDown),
                body: None,
            },
        }
    }
}

/// No-sync is a property of the environment; one transaction can at most leave out the flush of the meta page.
pub(super) fn for_one_transaction(durability: Durability) -> Durability {
    durability.max(Durability::NoMetaSync)
}

/// How an attempt ended; the body is gone when nobody knows what it does now.
struct Ended<T, E> {
    result: Result<T, TxnError<E>>,
    body: Option<Body<T, E>>,
}
