//! Many callers of one process wait for one lease: how many of them ask the store?

use std::time::Duration;

use lockkeeper::{LeaseConfig, Leases};

use crate::Session;
use crate::counting::Counting;
use crate::ground::{ALL, GRACE, fresh_name};
use crate::report::{Row, Target};
use crate::work::Failure;

const WAITERS: usize = 1_000;
/// Three polls.
const WAIT: Duration = Duration::from_secs(3);

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("waiters") {
        return Ok(());
    }
    for kind in session.options.of(ALL) {
        let name = fresh_name();
        let elsewhere = Leases::start_shared(session.ground.store(kind)?, LeaseConfig::default())?;
        let store = Counting::new(session.ground.store(kind)?);
        let counts = std::sync::Arc::clone(&store.counts);
        let here = Leases::start(store, LeaseConfig::default())?;
        session.runtime.block_on(async {
            let guard = elsewhere.acquire(&*name).await?;
            let waiters: Vec<_> = (0..WAITERS)
                .map(|_| tokio::spawn(here.acquire(&*name)))
                .collect();
            tokio::time::sleep(WAIT).await;
            let asking = counts.claimants.lock().map_err(|_| "poisoned")?.len();
            waiters.iter().for_each(tokio::task::JoinHandle::abort);
            guard.release().await?;
            let bench = format!("waiters-{}", kind.name());
            let mut row = Row::new(bench, WAITERS, asking as f64, "ask the store");
            row.target = Target::AtMost(1.0);
            session.report.show(&[row])
        })?;
        session.runtime.block_on(here.shutdown(GRACE));
        session.runtime.block_on(elsewhere.shutdown(GRACE));
    }
    Ok(())
}
