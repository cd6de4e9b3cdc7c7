//! Drives one system with many callers for one short round.
//!
//! Every system is driven by the same generic code, compiled for it: no boxed futures between
//! the callers and the system.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::work::{Failure, Op, Outcome, Rng};

/// Batches so far, and the bodies that were in them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batches {
    pub batches: u64,
    pub bodies: u64,
}

impl Batches {
    fn mean_since(self, before: Self) -> Option<f64> {
        let batches = self.batches.checked_sub(before.batches)?;
        let bodies = self.bodies.checked_sub(before.bodies)?;
        (batches > 0).then(|| bodies as f64 / batches as f64)
    }
}

/// A system that does the updates of [`Op`].
pub trait Updates: Clone + Send + Sync + 'static {
    fn update(&self, op: Op) -> impl Future<Output = Result<Outcome, Failure>> + Send;

    /// `None` where there are no batches to speak of.
    fn batches(&self) -> impl Future<Output = Result<Option<Batches>, Failure>> + Send {
        async { Ok(None) }
    }

    /// Called before each round, outside of what is measured.
    fn settle(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// The sum of all counters: how many updates the database really holds.
    fn total(&self) -> Result<u64, Failure>;
}

/// What the callers of one round do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub callers: usize,
    pub keys: u64,
    /// Of a hundred bodies, how many return an error.
    pub errors_percent: u64,
    pub warm_up: Duration,
    pub measure: Duration,
    pub seed: u64,
}

/// What one round gave.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub per_second: f64,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub mean_batch: Option<f64>,
}

/// A system behind a name, its type forgotten.
pub trait Subject {
    fn name(&self) -> &'static str;
    fn run(&self, runtime: &Runtime, load: Load) -> Result<Round, Failure>;
    /// Fails if the database does not hold exactly the updates that were answered.
    fn verify(&self) -> Result<(), Failure>;
}

/// The [`Subject`] made of a system and of the count of its committed updates. Two ways into one
/// system share that count.
pub struct Driven<S> {
    name: &'static str,
    system: S,
    committed: Arc<AtomicU64>,
}

impl<S: Updates> Driven<S> {
    pub fn new(name: &'static str, system: S, committed: Arc<AtomicU64>) -> Self {
        Self {
            name,
            system,
            committed,
        }
    }
}

impl<S: Updates> Subject for Driven<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self, runtime: &Runtime, load: Load) -> Result<Round, Failure> {
        self.system.settle()?;
        runtime
            .block_on(drive(&self.system, load, &self.committed))
            .map_err(|e| format!("{}, {} callers: {e}", self.name, load.callers).into())
    }

    fn verify(&self) -> Result<(), Failure> {
        let answered = self.committed.load(Ordering::Relaxed);
        let held = self.system.total()?;
        if answered == held {
            return Ok(());
        }
        Err(format!("{}: answered {answered} updates, holds {held}", self.name).into())
    }
}

async fn drive<S: Updates>(
    system: &S,
    load: Load,
    committed: &Arc<AtomicU64>,
) -> Result<Round, Failure> {
    let from = Instant::now() + load.warm_up;
    let until = from + load.measure;
    let mut callers = JoinSet::new();
    for caller in 0..load.callers as u64 {
        let rng = Rng::seeded(load.seed.wrapping_mul(0x1_0000).wrapping_add(caller));
        callers.spawn(call(
            system.clone(),
            load,
            rng,
            from,
            until,
            Arc::clone(committed),
        ));
    }

    tokio::time::sleep_until(from.into()).await;
    let before = system.batches().await?;
    tokio::time::sleep_until(until.into()).await;
    let after = system.batches().await?;

    let mut latencies = Vec::new();
    while let Some(done) = callers.join_next().await {
        latencies.extend(done??);
    }
    latencies.sort_unstable();
    let mean_batch = match (before, after) {
        (Some(before), Some(after)) => after.mean_since(before),
        _ => None,
    };
    Ok(Round {
        per_second: latencies.len() as f64 / load.measure.as_secs_f64(),
        p50_us: quantile_us(&latencies, 0.50),
        p99_us: quantile_us(&latencies, 0.99),
        mean_batch,
    })
}

/// One caller: sends the next update when the last was answered. Only answers inside the window
/// count; those outside are still waited for, so that rounds never overlap.
async fn call<S: Updates>(
    system: S,
    load: Load,
    mut rng: Rng,
    from: Instant,
    until: Instant,
    committed: Arc<AtomicU64>,
) -> Result<Vec<u64>, Failure> {
    let mut latencies = Vec::with_capacity(1024);
    let mut done = 0;
    loop {
        let op = Op {
            key: rng.below(load.keys),
            fail: load.errors_percent > 0 && rng.below(100) < load.errors_percent,
        };
        let sent = Instant::now();
        let outcome = system.update(op).await?;
        let answered = Instant::now();
        if outcome != op.outcome() {
            return Err(format!("{op:?} ended as {outcome:?}").into());
        }
        done += u64::from(outcome == Outcome::Committed);
        if answered >= until {
            break;
        }
        if answered >= from {
            latencies.push((answered - sent).as_nanos() as u64);
        }
    }
    committed.fetch_add(done, Ordering::Relaxed);
    Ok(latencies)
}

fn quantile_us(sorted_ns: &[u64], q: f64) -> Option<f64> {
    let rank = (sorted_ns.len() as f64 * q) as usize;
    let at = rank.min(sorted_ns.len().checked_sub(1)?);
    sorted_ns.get(at).map(|&ns| ns as f64 / 1_000.0)
}
