//! Drives many callers for one short round, the same way for every system.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::work::Failure;

/// Callers settle before they are counted.
const WARM_UP: Duration = Duration::from_millis(50);

/// How many pairs of a lock and its release a caller does before it lets others run. A lock that is
/// free never makes its task wait, so a task that did not yield would keep its thread for good. So many
/// that what the runtime needs for a yield does not show beside them.
pub const PAIRS_AT_ONCE: u64 = 256;

/// The time in which work counts.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    from: Instant,
    until: Instant,
}

impl Window {
    pub fn is_over(self, now: Instant) -> bool {
        now >= self.until
    }

    pub fn counts(self, now: Instant) -> bool {
        self.from <= now && now < self.until
    }
}

/// What one caller did inside the window.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub done: u64,
    /// How many more attempts it took.
    pub again: u64,
}

/// What one round gave.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub per_second: f64,
    /// What the slowest caller did, by the mean of all.
    pub slowest: Option<f64>,
    /// Attempts for each piece of work, beyond the first.
    pub again: Option<f64>,
}

impl Round {
    /// A round that is one figure: so much of something in a second.
    pub fn of(per_second: f64) -> Self {
        Self {
            per_second,
            slowest: None,
            again: None,
        }
    }
}

/// Runs so many callers for a round; `call` gives the task of each.
///
/// # Errors
/// If a caller fails.
pub fn drive<F>(
    runtime: &Runtime,
    callers: usize,
    measure: Duration,
    call: impl Fn(usize, Window) -> Result<F, Failure>,
) -> Result<Round, Failure>
where
    F: Future<Output = Result<Tally, Failure>> + Send + 'static,
{
    runtime.block_on(async {
        let from = Instant::now() + WARM_UP;
        let window = Window {
            from,
            until: from + measure,
        };
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            tasks.spawn(call(caller, window)?);
        }
        let mut tallies = Vec::with_capacity(callers);
        while let Some(tally) = tasks.join_next().await {
            tallies.push(tally??);
        }
        let done: u64 = tallies.iter().map(|tally| tally.done).sum();
        let again: u64 = tallies.iter().map(|tally| tally.again).sum();
        let slowest = tallies.iter().map(|tally| tally.done).min().unwrap_or(0);
        let mean = done as f64 / callers as f64;
        Ok(Round {
            per_second: done as f64 / measure.as_secs_f64(),
            slowest: (done > 0).then(|| slowest as f64 / mean),
            again: (done > 0).then(|| again as f64 / done as f64),
        })
    })
}
