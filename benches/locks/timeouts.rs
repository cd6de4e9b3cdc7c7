//! 10,000 waits with deadlines spread over three seconds, while other tasks lock and release as fast as
//! they can: how late is a timeout, as the task sees it that waits?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{LockError, LockerSpec, Locks, Mode, Object, Wait};
use tokio::task::JoinSet;

use crate::Session;
use crate::load::PAIRS_AT_ONCE;
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
/// Each run takes seconds.
const MOST_RUNS: u64 = 3;

struct Run {
    /// Sorted, in milliseconds; negative is early.
    late: Vec<f64>,
    pairs_per_second: f64,
}

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("timeouts") {
        return Ok(());
    }
    let mut runs = Vec::new();
    for _ in 0..session.options.rounds.min(MOST_RUNS) {
        runs.push(session.runtime.block_on(run())?);
    }
    let middle = |figure: &dyn Fn(&Run) -> f64| {
        median(runs.iter().map(figure).collect()).unwrap_or(f64::NAN)
    };
    let quantile = |share: f64| {
        middle(&|run| run.late[((run.late.len() - 1) as f64 * share).round() as usize])
    };
    let worst = |figure: &dyn Fn(&Run) -> f64| runs.iter().map(figure).fold(0.0, f64::max);
    let early = worst(&|run| run.late.iter().filter(|late| **late < 0.0).count() as f64);

    let mut late = Row::new("timeouts-p99", WAITERS, quantile(0.99), "ms late");
    late.target = Target::AtMost(10.0);
    late.more = vec![
        ("p50_ms", quantile(0.5)),
        (
            "max_ms",
            worst(&|run| run.late.last().copied().unwrap_or(0.0)),
        ),
    ];
    let mut too_early = Row::new("timeouts-early", WAITERS, early, "waits");
    too_early.target = Target::AtMost(0.0);
    let pairs = middle(&|run| run.pairs_per_second);
    let mut beside = Row::new("timeouts-beside", WAITERS, 2.0 * pairs, "lock ops/s");
    beside.target = Target::AtLeast(500_000.0);
    beside.more = vec![("pairs_per_second", pairs)];
    session.report.show(&[late, too_early, beside])
}

async fn run() -> Result<Run, Failure> {
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
    let pairs = Arc::new(AtomicU64::new(0));
    let mut busy = JoinSet::new();
    for task in 0..BUSY as u64 {
        let (locks, pairs) = (locks.clone(), Arc::clone(&pairs));
        busy.spawn(async move { keep_busy(&locks, task, &pairs).await });
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
    if let Some(ended) = busy.try_join_next() {
        ended??;
    }
    busy.shutdown().await;
    drop(held);
    late.sort_unstable_by(f64::total_cmp);
    Ok(Run {
        late,
        pairs_per_second: done as f64 / SPREAD.as_secs_f64(),
    })
}

/// By how many milliseconds the wait ended after its deadline.
async fn wait(locks: &Locks, object: &Object, deadline: Instant) -> Result<f64, Failure> {
    let locker = locks.locker(LockerSpec::new())?;
    let ended = locker
        .lock(object, Mode::Write, Wait::Until(deadline))
        .await;
    let now = Instant::now();
    match ended {
        // A deadlock there cannot be: nobody who waits holds anything.
        Err(error) if error.is_retryable() && !matches!(error, LockError::Deadlock(_)) => {}
        Err(error) => return Err(error.into()),
        Ok(()) => return Err("a lock was granted that somebody else holds".into()),
    }
    let late = now.saturating_duration_since(deadline).as_secs_f64();
    let early = deadline.saturating_duration_since(now).as_secs_f64();
    Ok((late - early) * 1e3)
}

async fn keep_busy(locks: &Locks, task: u64, pairs: &AtomicU64) -> Result<(), Failure> {
    let object = Object::new("busy", task.to_be_bytes());
    let mut locker = locks.locker(LockerSpec::new())?;
    loop {
        for _ in 0..PAIRS_AT_ONCE {
            locker.pair(&object).await?;
        }
        pairs.fetch_add(PAIRS_AT_ONCE, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}
