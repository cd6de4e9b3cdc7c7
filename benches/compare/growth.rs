//! What growing costs: the same inserts into a map that doubles from 1 MiB and into a large one.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::Session;
use crate::load::Round;
use crate::ours;
use crate::peers::by_hand::ByHand;
use crate::report::Row;
use crate::rounds::{Rounds, median};
use crate::work::{Failure, INSERTS, Safety};

const CALLERS: usize = 64;

/// A system that inserts [`INSERTS`] records in one update.
pub trait Inserts: Clone + Send + Sync + 'static {
    /// Inserts the keys `scatter(first)` and the nine after it.
    fn insert(&self, first: u64) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The records in the database, and how often its map has changed size.
    fn finish(&self) -> impl Future<Output = Result<(u64, u64), Failure>> + Send;
}

/// What a run is given to write into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    DoublingFrom1MiB,
    Large,
}

/// All updates against one fresh environment: how many a second, and how often its map grew.
pub fn run<S: Inserts>(runtime: &Runtime, system: S, updates: u64) -> Result<(f64, u64), Failure> {
    runtime.block_on(async move {
        let ticket = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (system, ticket) = (system.clone(), Arc::clone(&ticket));
            callers.spawn(async move {
                loop {
                    let update = ticket.fetch_add(1, Ordering::Relaxed);
                    if update >= updates {
                        return Ok::<_, Failure>(());
                    }
                    system.insert(update * INSERTS).await?;
                }
            });
        }
        while let Some(done) = callers.join_next().await {
            done??;
        }
        let elapsed = start.elapsed();
        let (records, resizes) = system.finish().await?;
        if records != updates * INSERTS {
            return Err(format!("{updates} updates left {records} records").into());
        }
        Ok((updates as f64 / elapsed.as_secs_f64(), resizes))
    })
}

enum Contender {
    Ours(Map),
    Heed,
}

impl Contender {
    fn run(&self, runtime: &Runtime, dir: &Path, updates: u64) -> Result<(f64, u64), Failure> {
        match self {
            Self::Ours(map) => ours::grow(runtime, dir, *map, updates),
            Self::Heed => run(runtime, ByHand::open(dir, Safety::Durable)?, updates),
        }
    }
}

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    let options = &session.options;
    if !options.wants("growth") {
        return Ok(());
    }
    let mut contenders = Vec::new();
    if options.includes("lockkeeper") && ours::PRESENT {
        contenders.push(Contender::Ours(Map::DoublingFrom1MiB));
        contenders.push(Contender::Ours(Map::Large));
    }
    if options.includes("heed") {
        contenders.push(Contender::Heed);
    }
    let mut grown = Vec::new();
    let rounds = Rounds::run(contenders.len(), options.rounds, |at, round| {
        let dir = session.dir.join(format!("growth-{at}-{round}"));
        std::fs::create_dir_all(&dir)?;
        let contender = &contenders[at];
        let (per_second, resizes) =
            contender.run(&session.runtime, &dir, options.growth_updates)?;
        std::fs::remove_dir_all(&dir)?;
        if matches!(contender, Contender::Ours(Map::DoublingFrom1MiB)) {
            if resizes == 0 {
                return Err("the map never grew: growth was not measured".into());
            }
            grown.push(resizes as f64);
        }
        Ok(Round {
            per_second,
            p50_us: None,
            p99_us: None,
            mean_batch: None,
        })
    })?;

    let find = |wanted: fn(&Contender) -> bool| contenders.iter().position(wanted);
    let heed = find(|c| matches!(c, Contender::Heed));
    let large = find(|c| matches!(c, Contender::Ours(Map::Large)));
    let mut rows = Vec::new();
    for (at, contender) in contenders.iter().enumerate() {
        // The same system on a large map is a bench of its own, so that `growth` has one line each.
        let (bench, system) = match contender {
            Contender::Ours(Map::DoublingFrom1MiB) => ("growth", "lockkeeper"),
            Contender::Ours(Map::Large) => ("growth-large-map", "lockkeeper"),
            Contender::Heed => ("growth-large-map", "heed"),
        };
        let value = rounds.value(at).unwrap_or(0.0);
        let mut row = Row::new(bench, system, CALLERS, value, "updates/s");
        row.ratio_to_heed = heed.and_then(|heed| rounds.ratio(at, heed));
        if bench == "growth" {
            let to_large = large.and_then(|large| rounds.ratio(at, large));
            row.more.extend(to_large.map(|r| ("ratio_to_large_map", r)));
            let resizes = median(std::mem::take(&mut grown));
            row.more.extend(resizes.map(|n| ("map_resizes", n)));
        }
        rows.push(row);
    }
    session.report.show(&rows)
}
