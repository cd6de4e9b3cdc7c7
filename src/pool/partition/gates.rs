//! The pool's side of its leases.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::figures::{Counting, Figures, TaskId, add};
use super::sight::Names;
use super::spread::Share;
use super::tending::Context;
use super::wish::{PoolLease, Wish};
use super::{PoolLeaseStats, alone, spread};
use crate::env::{quietly, random_seed};
use crate::error::{LeaseError, PoolError};
use crate::keeper::{Keeper, WeakKeeper};
use crate::leases::{Lease, LeaseName, LeaseOptions, LeaseStanding, Leases, LostReason};
use crate::pool::builder::PoolBuilder;
use crate::pool::seams::Gates;
use crate::pool::shared::Shared;
use crate::pool::supervise::Gating;
use crate::supervision::Supervision;

/// What a pool is told about its leases.
#[derive(Default)]
pub(in crate::pool) struct LeaseGates {
    wish: Option<(PoolLease, bool)>,
}

/// What a pool under leases has.
pub(in crate::pool) struct Gated {
    pub gating: Gating,
    pub gates: Arc<dyn Gates>,
}

impl PoolBuilder {
    /// Runs the pool in one process of many: its workers run while this process holds the lease of this name, in the keeper's store of
    /// leases, or the [`Lease`](crate::Lease) that is given. Default: none; of this and [`partitioned`](Self::partitioned) the later counts.
    ///
    /// - The pool asks for the lease as long as it lives, also through errors of the store, and starts its workers when it has it:
    ///   [`PoolLeaseState`](crate::PoolLeaseState) in its statistics. [`Worker::lease`](crate::Worker::lease) is for
    ///   [`RunTxn::under`](crate::RunTxn::under) and for the fencing token.
    /// - When the lease is lost its workers are told to stop, and not waited for: an async one is dropped at its next await, and is
    ///   not polled any more once the lease is over, by the process's own clock; that is before another process can have it. Nobody
    ///   can stop a blocking one, which is counted if it runs on
    ///   ([`PoolLeaseStats::overrun`](crate::PoolLeaseStats::overrun)): only the token protects from what it does.
    /// - If the store does not answer for long, workers are told a while before the lease is lost, when a quarter of what a missed
    ///   refresh leaves of it is left, at most 30 s, and are started again if the store answers in time.
    /// - The lease is given back when the pool is stopped, drained, or fails, after its last worker has ended, never before. A pool
    ///   that is paused keeps it. When the keeper is stopped while a worker runs on that nobody can stop, the lease is not given back at
    ///   all: others get it when it expires.
    pub fn under_lease(mut self, lease: impl Into<PoolLease>) -> Self {
        self.leases.wish = Some((lease.into(), false));
        self
    }

    /// Shares the pool's workers among processes: each worker number is a partition with a lease of its own, `NAME/0`, `NAME/1`, …, and
    /// runs in the one process that holds it, as [`under_lease`](Self::under_lease) says. The number of workers is the number of partitions, and should be the
    /// same in all processes. Default: none.
    ///
    /// Each process also holds a lease `NAME/member-…`, and looks at the list of all leases once every poll. When nothing has
    /// changed for some polls, each of n processes holds m / n of the m partitions, rounded down or up. Those of a
    /// process that dies are taken over when its leases expire; one that joins gets its share from those that have more.
    pub fn partitioned(mut self, lease: impl Into<PoolLease>) -> Self {
        self.leases.wish = Some((lease.into(), true));
        self
    }
}

impl LeaseGates {
    /// What opens and closes the pool's gates, if anything does.
    pub(in crate::pool) fn gates(
        self,
        keeper: &Keeper,
        pool: &Arc<str>,
    ) -> Result<Option<Gated>, PoolError> {
        let Some((PoolLease(wish), partitioned)) = self.wish else {
            return Ok(None);
        };
        let lease = match wish {
            Wish::Name(name) => keeper.lease(name),
            Wish::Lease(lease) => *lease,
        };
        lease.check()?;
        let (leases, name, options) = lease.into_parts()?;
        let leases = Source {
            begun_anew: keeper.has(&leases).then(|| keeper.weak()),
            now: Mutex::new(leases),
        };
        let gating = match partitioned {
            true => Gating::Each,
            false => Gating::All,
        };
        let gates = LeasedGates::new(Arc::clone(pool), leases, name, options, partitioned)?;
        Ok(Some(Gated {
            gating,
            gates: Arc::new(gates),
        }))
    }
}

/// Where the leases of a pool come from.
struct Source {
    now: Mutex<Leases>,
    /// The keeper, if they are its own: after a panic has ended them, it starts others.
    begun_anew: Option<WeakKeeper>,
}

impl Source {
    /// The leases that are served.
    ///
    /// # Errors
    ///
    /// Why they are not any more.
    fn leases(&self) -> Result<Leases, LeaseError> {
        let now = self.now.lock().clone();
        match (now.ended_by_panic(), &self.begun_anew) {
            (None, _) => Ok(now),
            (Some(error), None) => Err(error),
            (Some(_), Some(keeper)) => {
                let keeper = keeper.upgrade().ok_or(LeaseError::ShuttingDown)?;
                // Behind the lock: they may have to be started, and the last handles of others dropped. Whoever comes at the same time
                // is given the same.
                let anew = keeper.leases()?;
                let before = std::mem::replace(&mut *self.now.lock(), anew.clone());
                drop(before);
                Ok(anew)
            }
        }
    }
}

/// The leases of a pool.
struct LeasedGates {
    pool: Arc<str>,
    leases: Source,
    name: LeaseName,
    options: LeaseOptions,
    partitioned: bool,
    figures: Arc<Figures>,
    /// Tasks that have not given back everything.
    at_work: Arc<AtomicUsize>,
    /// One of them at a time: after a failure and a resume the one before may be at it still.
    turn: Arc<tokio::sync::Mutex<()>>,
    tasks: AtomicU64,
    me: OnceLock<Arc<str>>,
}

impl LeasedGates {
    fn new(
        pool: Arc<str>,
        source: Source,
        name: LeaseName,
        mut options: LeaseOptions,
        partitioned: bool,
    ) -> Result<Self, PoolError> {
        let leases = source.leases()?;
        if partitioned {
            // The longest of the names that are made from it.
            let longest = Names::new(name.as_str().into()).member(u32::MAX);
            LeaseName::new(longest).map_err(LeaseError::from)?;
        }
        let figures = Arc::new(Figures::default());
        let inner = options.handler.take();
        options.handler = Some(Arc::new(Counting {
            figures: Arc::clone(&figures),
            inner: inner.unwrap_or_else(|| Arc::clone(&leases.config().handler)),
        }));
        let gates = Self {
            pool,
            leases: source,
            name,
            options,
            partitioned,
            figures,
            at_work: Arc::default(),
            turn: Arc::default(),
            tasks: AtomicU64::new(1),
            me: OnceLock::new(),
        };
        if partitioned {
            // The label of a process that takes part has to fit, too.
            gates
                .lease(
                    leases,
                    LeaseOptions {
                        label: Some(gates.label()),
                        ..gates.options.clone()
                    },
                )
                .check()?;
        }
        Ok(gates)
    }

    /// Who this is among those that share the partitions: the same in no two pools.
    fn label(&self) -> Arc<str> {
        let label = || {
            let number = random_seed();
            match self.options.label.as_deref() {
                Some(own) if !own.is_empty() => format!("{own}.{number:016x}").into(),
                _ => format!("{number:016x}").into(),
            }
        };
        Arc::clone(self.me.get_or_init(label))
    }

    /// For a new task.
    fn context(
        &self,
        pool: &Arc<Shared>,
        leases: Leases,
        supervision: Arc<Supervision>,
    ) -> Arc<Context> {
        let config = leases.config();
        Arc::new(Context {
            supervision,
            pool: Arc::clone(pool),
            figures: Arc::clone(&self.figures),
            task: TaskId(self.tasks.fetch_add(1, Ordering::Relaxed)),
            refresh: self.options.refresh.unwrap_or(config.refresh),
            poll: self.options.poll.unwrap_or(config.poll),
            leases,
        })
    }

    fn lease(&self, leases: Leases, options: LeaseOptions) -> Lease {
        Lease::with_options(leases, self.name.as_str().into(), options)
    }
}

impl Gates for LeasedGates {
    fn started(&self, pool: &Arc<Shared>) {
        let leases = match self.leases.leases() {
            Ok(leases) => leases,
            Err(error) => {
                self.figures.failed(&error);
                quietly(|| {
                    tracing::error!(
                        target: "lockkeeper", pool = &*self.pool, error = &error as &dyn std::error::Error,
                        "nobody sees to the leases of a pool any more"
                    );
                });
                return;
            }
        };
        let Some(pools) = pool.pools.upgrade() else {
            // They are gone, and the pool with them.
            return;
        };
        let context = self.context(pool, leases, Arc::clone(pools.supervision()));
        let working = Working::new(&self.at_work, &context);
        let turn = Arc::clone(&self.turn);
        let leases = context.leases.clone();
        let wanted = match self.partitioned {
            true => Wanted::Shares(Share {
                names: Names::new(self.name.as_str().into()),
                me: self.label(),
                options: self.options.clone(),
                seed: random_seed(),
            }),
            false => Wanted::One(self.lease(leases.clone(), self.options.clone())),
        };
        leases.spawn(async move {
            let _turn = turn.lock_owned().await;
            // Dropped first: what is cut short is cleared away before it is the next one's turn.
            let mut working = working;
            serve(&context, &wanted).await;
            working.is_done = true;
        });
    }

    fn look(&self, pool: &Shared) -> Option<Instant> {
        let (run_on, next) = self.figures.ending.look(pool);
        add(
            &self.figures.overrun,
            u64::try_from(run_on).unwrap_or(u64::MAX),
        );
        next
    }

    fn at_rest(&self) -> bool {
        self.at_work.load(Ordering::Acquire) == 0
    }

    fn stats(&self) -> PoolLeaseStats {
        let name: Arc<str> = self.name.as_str().into();
        self.figures.shown(name, self.partitioned)
    }
}

impl std::fmt::Debug for LeasedGates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeasedGates")
            .field("pool", &self.pool)
            .field("lease", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a pool wants to hold.
enum Wanted {
    One(Lease),
    Shares(Share),
}

/// Sees to the leases of a pool until it is over, or leases are shut down. After a panic it begins anew.
async fn serve(context: &Arc<Context>, wanted: &Wanted) {
    loop {
        let served = async {
            match wanted {
                Wanted::One(lease) => alone::serve(context, lease).await,
                Wanted::Shares(share) => return spread::serve(context, share).await,
            }
            Ok(())
        };
        let served = context.caught("seeing to the leases of a pool", served);
        if let Ok(Ok(())) = served.await {
            return;
        }
        // What was held went with its guard, unless it was given back in order.
        lose_all(context);
        context.pause().await;
        if context.pool.state().is_over() {
            return;
        }
    }
}

/// What a task held is not held any more, and nobody else tells the workers (I9).
fn lose_all(context: &Context) {
    for (who, lease) in context.figures.held_by(context.task) {
        let reason = match lease.standing() {
            LeaseStanding::Lost(reason) => reason,
            LeaseStanding::Held | LeaseStanding::Doubtful => LostReason::Shutdown,
        };
        context.lost(who, reason);
        context.figures.holds_no_more(who);
    }
    context.figures.sees_no_more(context.task);
}

/// A task that sees to leases; however it ends, the pool looks again whether anything of it is left.
struct Working {
    at_work: Arc<AtomicUsize>,
    context: Arc<Context>,
    is_done: bool,
}

impl Working {
    fn new(at_work: &Arc<AtomicUsize>, context: &Arc<Context>) -> Self {
        at_work.fetch_add(1, Ordering::AcqRel);
        Self {
            at_work: Arc::clone(at_work),
            context: Arc::clone(context),
            is_done: false,
        }
    }

    /// The thread of the leases has ended under it.
    fn is_cut_short(&self) {
        lose_all(&self.context);
        let Context { pool, leases, .. } = &*self.context;
        if leases.ended_by_panic().is_some() && !pool.state().is_over() {
            pool.announce();
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.at_work.fetch_sub(1, Ordering::AcqRel);
        if !self.is_done {
            self.is_cut_short();
        }
        self.context.pool.change(|_, _| ());
    }
}

#[cfg(test)]
mod tests;
