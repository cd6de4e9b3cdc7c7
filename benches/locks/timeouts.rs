//! 10,000 waits with deadlines spread over three seconds, while other tasks lock and release: how late
//! is a timeout, as the task sees it that waits?
//!
//! Once the others do half a million pairs of a lock and its release a second, once as many as they
//! can, so that no thread of the runtime is ever idle. What part of the delay is the runtime's own is
//! seen in its timers, a thousand of which go off in the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{LockError, LockerSpec, Locks, Mode, Object, Wait};
use tokio::task::JoinSet;

use crate::Session;
use crate::ours::roomy;
use crate::report::{Row, Target};
use crate::rounds::median;
use crate::uncontended::Holder as _;
use crate::waiting::{Holder, locker};
use crate::work::Failure;

const WAITERS: usize = 10_000;
/// What they wait for; a hundred in each queue.
const OBJECTS: usize = 100;
/// As many as the runtime has threads: there is no idle one.
const BUSY: usize = 2;
/// All wait before the first deadline passes.
const FIRST: Duration = Duration::from_secs(1);
const SPREAD: Duration = Duration::from_secs(3);
/// The runtime's own timers.
const SLEEPERS: usize = 1_000;
/// Each run takes seconds.
const MOST_RUNS: u64 = 2;

const ENOUGH: f64 = 500_000.0;
/// Bench, and how many pairs a second there are beside the waits.
const PACES: [(&str, f64); 2] = [
    ("timeouts-paced", ENOUGH * 1.05),
    ("timeouts-flat-out", f64::INFINITY),
];
/// Few enough that the tasks which wait are not kept waiting by the busy ones.
const PAIRS_AT_ONCE: u64 = 64;
/// A task that is ahead of its pace sleeps so long.
const PAUSE: Duration = Duration::from_millis(1);

struct Run {
    /// Sorted, in milliseconds; negative is early.
    late: Vec<f64>,
    /// The same of the runtime's timers.
    timers_late: Vec<f64>,
    pairs_per_second: f64,
}

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("timeouts") {
        return Ok(());
    }
    for (bench, pace) in PACES {
        let mut runs = Vec::new();
        for _ in 0..session.options.rounds.min(MOST_RUNS) {
            runs.push(session.runtime.block_on(run(pace))?);
        }
        session.report.show(&rows(bench, &runs))?;
    }
    Ok(())
}

fn rows(bench: &str, runs: &[Run]) -> [Row; 3] {
    let middle = |figure: &dyn Fn(&Run) -> f64| {
        median(runs.iter().map(figure).collect()).unwrap_or(f64::NAN)
    };
    let worst = |figure: &dyn Fn(&Run) -> f64| runs.iter().map(figure).fold(0.0, f64::max);

    let p99 = middle(&|run| quantile(&run.late, 0.99));
    let mut late = Row::new(format!("{bench}-p99"), WAITERS, p99, "ms late");
    let timers = middle(&|run| quantile(&run.timers_late, 0.99));
    late.against = Some(("tokio's sleep", timers));
    late.target = Target::AtMost(10.0);
    late.more = vec![
        ("p50_ms", middle(&|run| quantile(&run.late, 0.5))),
        ("max_ms", worst(&|run| quantile(&run.late, 1.0))),
    ];
    let early = worst(&|run| run.late.iter().filter(|late| **late < 0.0).count() as f64);
    let mut too_early = Row::new(format!("{bench}-early"), WAITERS, early, "waits");
    too_early.target = Target::AtMost(0.0);
    let pairs = middle(&|run| run.pairs_per_second);
    let mut beside = Row::new(format!("{bench}-beside"), WAITERS, pairs, "pairs/s");
    beside.target = Target::AtLeast(ENOUGH);
    [late, too_early, beside]
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

async fn run(pace: f64) -> Result<Run, Failure> {
    let locks = Locks::start(roomy());
    let objects: Arc<Vec<Object>> = Arc::new(
        (0..OBJECTS as u64)
            .map(|n| Object::new("kept", n.to_be_bytes()))
            .collect(),
    );
    let keeper = locker(&locks)?;
    let mut held = Vec::new();
    for object in objects.iter() {
        held.push(Holder::take(Arc::clone(&keeper), object, Mode::Write)?);
    }

    let begun = Instant::now();
    let first = begun + FIRST;
    let mut waiters = JoinSet::new();
    for waiter in 0..WAITERS {
        // Neighbours in a queue do not pass their deadlines one after the other.
        let place = (waiter * 7_919) % WAITERS;
        let deadline = first + SPREAD.mul_f64(place as f64 / WAITERS as f64);
        let (locks, objects) = (locks.clone(), Arc::clone(&objects));
        waiters.spawn(async move { wait(&locks, &objects[waiter % OBJECTS], deadline).await });
    }
    let mut sleepers = JoinSet::new();
    for sleeper in 0..SLEEPERS {
        let deadline = first + SPREAD.mul_f64(sleeper as f64 / SLEEPERS as f64);
        sleepers.spawn(async move {
            tokio::time::sleep_until(deadline.into()).await;
            lateness(deadline)
        });
    }
    let pairs = Arc::new(AtomicU64::new(0));
    let mut busy = JoinSet::new();
    for task in 0..BUSY as u64 {
        let (locks, pairs) = (locks.clone(), Arc::clone(&pairs));
        busy.spawn(async move { keep_busy(&locks, task, pace, &pairs).await });
    }

    tokio::time::sleep_until(first.into()).await;
    let before = pairs.load(Ordering::Relaxed);
    if locks.stats().waiting < WAITERS * 9 / 10 {
        return Err("not all were waiting when the first deadline passed".into());
    }
    tokio::time::sleep_until((first + SPREAD).into()).await;
    let done = pairs.load(Ordering::Relaxed) - before;

    let mut late = Vec::with_capacity(WAITERS);
    while let Some(waiter) = waiters.join_next().await {
        late.push(waiter??);
    }
    let mut timers_late = sleepers.join_all().await;
    if let Some(ended) = busy.try_join_next() {
        ended??;
    }
    busy.shutdown().await;
    drop(held);
    late.sort_unstable_by(f64::total_cmp);
    timers_late.sort_unstable_by(f64::total_cmp);
    Ok(Run {
        late,
        timers_late,
        pairs_per_second: done as f64 / SPREAD.as_secs_f64(),
    })
}

/// By how many milliseconds the wait ended after its deadline.
async fn wait(locks: &Locks, object: &Object, deadline: Instant) -> Result<f64, Failure> {
    let locker = locks.locker(LockerSpec::new())?;
    let ended = locker
        .lock(object, Mode::Write, Wait::Until(deadline))
        .await;
    let late = lateness(deadline);
    match ended {
        // A timeout: there can be no deadlock where nobody who waits holds anything.
        Err(error) if error.is_retryable() && !matches!(error, LockError::Deadlock(_)) => Ok(late),
        Err(error) => Err(error.into()),
        Ok(()) => Err("a lock was granted that somebody else holds".into()),
    }
}

/// By how many milliseconds it is later than the deadline.
fn lateness(deadline: Instant) -> f64 {
    let now = Instant::now();
    let late = now.saturating_duration_since(deadline).as_secs_f64();
    let early = deadline.saturating_duration_since(now).as_secs_f64();
    (late - early) * 1e3
}

async fn keep_busy(locks: &Locks, task: u64, pace: f64, pairs: &AtomicU64) -> Result<(), Failure> {
    let object = Object::new("busy", task.to_be_bytes());
    let mut locker = locks.locker(LockerSpec::new())?;
    let begun = Instant::now();
    let mut done = 0;
    loop {
        for _ in 0..PAIRS_AT_ONCE {
            locker.pair(&object).await?;
        }
        done += PAIRS_AT_ONCE;
        pairs.fetch_add(PAIRS_AT_ONCE, Ordering::Relaxed);
        if done as f64 > begun.elapsed().as_secs_f64() * pace / BUSY as f64 {
            tokio::time::sleep(PAUSE).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}
