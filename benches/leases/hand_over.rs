//! How long a lease takes from one holder to the next, between processes and inside one.

use std::time::{Duration, Instant};

use lockkeeper::{LeaseConfig, Leases};

use crate::Session;
use crate::child::{Task, together};
use crate::ground::{ALL, GRACE, Kind, fresh_name};
use crate::report::{Row, Target};
use crate::rounds::median;
use crate::turns::{Taken, hand_overs, quantile};
use crate::work::Failure;

/// Long enough that the other one waits by then.
const HOLD: Duration = Duration::from_millis(10);
/// The default.
const POLL: Duration = Duration::from_secs(1);

pub fn between_processes(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("hand-over") {
        return Ok(());
    }
    for kind in session.options.of(ALL) {
        let url = session.ground.url(kind)?;
        let mut run = session.options.hand_over();
        if !kind.notifies() {
            run *= 3;
        }
        let name = fresh_name();
        let ours = together(&Task::turns(&url, &name, "lease", run, HOLD), 2)?;
        let ours = hand_overs(&ours);
        let p50 = quantile(&ours, 0.5).ok_or("nothing was handed over")?;
        let mut row = Row::new(format!("hand-over-{}", kind.name()), 2, p50, "ms p50");
        row.more = vec![
            ("hand_overs", ours.len() as f64),
            ("p99_ms", quantile(&ours, 0.99).unwrap_or_default()),
        ];
        if kind.notifies() {
            row.target = Target::AtMost(3.0);
            let postgres = session.ground.url(Kind::Postgres)?;
            let task = Task::turns(&postgres, &name, "advisory", session.options.round(), HOLD);
            let theirs = hand_overs(&together(&task, 2)?);
            let theirs = quantile(&theirs, 0.5).ok_or("the advisory lock is not handed over")?;
            let mut beside = Row::new(format!("hand-over-{}", kind.name()), 2, p50, "ms p50");
            beside.against = Some(("advisory lock", theirs));
            beside.ratio = Some(p50 / theirs);
            beside.target = Target::RatioAtMost(10.0);
            session.report.show(&[row, beside])?;
        } else {
            row.target = Target::AtMost(POLL.as_secs_f64() * 1e3 / 2.0);
            session.report.show(&[row])?;
        }
    }
    Ok(())
}

pub fn inside(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("hand-over-inside") {
        return Ok(());
    }
    for kind in session.options.of(ALL) {
        let store = session.ground.store(kind)?;
        let leases = Leases::start_shared(store, LeaseConfig::default())?;
        let (mut handed, mut acquired, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let (turns, length) = session.options.turns();
        for turn in 0..=turns {
            let over = session.runtime.block_on(handed_over(&leases, length))?;
            let alone = session.runtime.block_on(acquired_alone(&leases, length))?;
            if turn > 0 {
                handed.push(over);
                acquired.push(alone);
                ratios.push(over / alone);
            }
        }
        let ours = median(handed).unwrap_or_default();
        let mut row = Row::new(
            format!("hand-over-inside-{}", kind.name()),
            2,
            ours,
            "ms p50",
        );
        row.against = median(acquired).map(|alone| ("one acquire", alone));
        row.ratio = median(ratios);
        row.target = Target::RatioAtMost(1.2);
        session.report.show(&[row])?;
        session.runtime.block_on(leases.shutdown(GRACE));
    }
    Ok(())
}

/// Between two tasks: the median, in milliseconds.
async fn handed_over(leases: &Leases, length: Duration) -> Result<f64, Failure> {
    let until = Instant::now() + length;
    let name = fresh_name();
    let callers = [(); 2].map(|()| {
        let mut taken = Taken::Lease(Box::new(leases.lease(&*name)));
        tokio::spawn(async move { taken.turns(until, Duration::from_millis(2)).await })
    });
    let mut turns = Vec::new();
    for caller in callers {
        turns.push(caller.await??);
    }
    Ok(quantile(&hand_overs(&turns), 0.5).ok_or("nothing was handed over")?)
}

/// A lease that is free, again and again: the median, in milliseconds. It is let lie as long as in the other case.
async fn acquired_alone(leases: &Leases, length: Duration) -> Result<f64, Failure> {
    let until = Instant::now() + length;
    let lease = leases.lease(fresh_name());
    let mut took = Vec::new();
    while Instant::now() < until {
        let begun = Instant::now();
        let guard = lease.acquire().await?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        guard.release().await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(median(took).ok_or("nothing was acquired")?)
}
