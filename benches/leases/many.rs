//! One process holds many leases: what refreshing them takes.

use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use lockkeeper::{LeaseConfig, Leases};

use crate::Session;
use crate::counting::Counting;
use crate::ground::{ALL, GRACE, fresh_name};
use crate::report::{Row, Target};
use crate::rounds::median;
use crate::work::Failure;

/// The default.
const REFRESH: Duration = Duration::from_secs(1);
/// So many are acquired at the same time.
const AT_ONCE: usize = 32;

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("many") {
        return Ok(());
    }
    for kind in session.options.of(ALL) {
        let count = usize::try_from(session.options.leases)?;
        let store = Counting::new(session.ground.store(kind)?);
        let counts = std::sync::Arc::clone(&store.counts);
        let leases = Leases::start(store, LeaseConfig::default())?;
        let prefix = fresh_name();
        let begun = Instant::now();
        let guards = session.runtime.block_on(async {
            let mut guards = Vec::with_capacity(count);
            let mut asked = FuturesUnordered::new();
            for n in 0..count {
                if asked.len() == AT_ONCE
                    && let Some(guard) = asked.next().await
                {
                    guards.push(guard?);
                }
                asked.push(leases.acquire(format!("{prefix}/{n:06}")));
            }
            while let Some(guard) = asked.next().await {
                guards.push(guard?);
            }
            Ok::<_, Failure>(guards)
        })?;
        let acquired = begun.elapsed();
        let from = Instant::now();
        std::thread::sleep(session.options.hold());
        let until = Instant::now();
        let held = guards.iter().filter(|guard| guard.is_held()).count();
        let mut asked = counts.refreshes.lock().map_err(|_| "poisoned")?.clone();
        asked.retain(|(begun, ended, _)| *begun >= from && *ended <= until);
        asked.sort_unstable();
        let passes = passes(&asked, count);
        let per_second = asked.iter().map(|(.., leases)| leases).sum::<usize>() as f64
            / count as f64
            / (until - from).as_secs_f64();
        let longest = passes.iter().copied().fold(0.0, f64::max);
        let typical = median(passes).unwrap_or_default();
        let name = kind.name();
        let mut rate = Row::new(format!("many-{name}-passes"), count, per_second, "passes/s");
        rate.target = Target::AtMost(2.0);
        rate.more = vec![
            (
                "requests_per_s",
                asked.len() as f64 / (until - from).as_secs_f64(),
            ),
            ("acquired_in_s", acquired.as_secs_f64()),
        ];
        let mut pass = Row::new(format!("many-{name}-pass"), count, typical, "ms");
        pass.against = Some(("refresh interval", REFRESH.as_secs_f64() * 1e3));
        pass.ratio = Some(typical / 1e3 / REFRESH.as_secs_f64());
        pass.target = Target::RatioAtMost(0.3);
        pass.more = vec![("longest_ms", longest)];
        let mut still = Row::new(format!("many-{name}-held"), count, held as f64, "leases");
        still.target = Target::AtLeast(count as f64);
        session.report.show(&[rate, pass, still])?;
        drop(guards);
        session.runtime.block_on(leases.shutdown(GRACE));
    }
    Ok(())
}

/// How long each pass took, in milliseconds: from the first request for its leases to the last answer.
fn passes(asked: &[(Instant, Instant, usize)], count: usize) -> Vec<f64> {
    let mut passes = Vec::new();
    let mut pass: Option<(Instant, Instant, usize)> = None;
    for &(begun, ended, leases) in asked {
        let (first, last, sum) = pass.unwrap_or((begun, ended, 0));
        let (last, sum) = (last.max(ended), sum + leases);
        pass = if sum >= count {
            passes.push((last - first).as_secs_f64() * 1e3);
            None
        } else {
            Some((first, last, sum))
        };
    }
    passes
}
