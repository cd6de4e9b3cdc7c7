//! Workers that run on though their lease is lost.
//!
//! They are looked for by the thread that serves the pools: the one that serves the leases may have ended together with them.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::env::quietly;
use crate::leases::LostReason;
use crate::pool::shared::Shared;
use crate::pool::supervise::{RunId, Who};

/// A future that is dropped when its lease is lost has ended within moments; what has not is overrun.
const MOMENTS: Duration = Duration::from_millis(500);

/// Those that are to end.
#[derive(Default)]
pub(super) struct Ending(Mutex<Vec<Behind>>);

/// The runs behind one lease that was lost.
struct Behind {
    who: Who,
    runs: Vec<RunId>,
    reason: LostReason,
    by: Instant,
}

impl Ending {
    /// The lease behind which these run is lost.
    pub(super) fn expect(&self, pool: &Shared, who: Who, reason: LostReason) {
        let runs = pool.runs_of(who);
        if !runs.is_empty() {
            let by = Instant::now() + MOMENTS;
            let behind = Behind {
                who,
                runs,
                reason,
                by,
            };
            self.0.lock().push(behind);
        }
    }

    /// How many there are that should have ended by now, and when to look again.
    pub(super) fn look(&self, pool: &Shared) -> (usize, Option<Instant>) {
        let mut ending = self.0.lock();
        if ending.is_empty() {
            return (0, None);
        }
        let now = Instant::now();
        let late: Vec<Behind> = ending.extract_if(.., |behind| behind.by <= now).collect();
        let next = ending.iter().map(|behind| behind.by).min();
        drop(ending);
        let run_on = late.iter().map(|behind| behind.told(pool)).sum();
        (run_on, next)
    }
}

impl Behind {
    /// How many run on, which is told.
    fn told(&self, pool: &Shared) -> usize {
        let there = pool.runs_of(self.who);
        let runs = self.runs.iter().filter(|run| there.contains(run)).count();
        if runs > 0 {
            quietly(|| {
                metrics::counter!("lockkeeper_pool_overrun_total", "pool" => pool.name().to_string())
                    .increment(u64::try_from(runs).unwrap_or(u64::MAX));
            });
            quietly(|| {
                tracing::error!(
                    target: "lockkeeper", pool = &**pool.name(), who = ?self.who, runs, reason = %self.reason,
                    "workers run on though their lease is lost; nobody can stop them"
                );
            });
        }
        runs
    }
}
