//! The pool, and what feeds it.

use std::error::Error;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lockkeeper::{Backoff, Job, JobError, JobPool, Keeper, OnFull, PoolError};

use crate::ledger::{ImportError, Ledger};
use crate::options::Options;
use crate::source::{Chunk, Source, mix};

/// A job that panics so often in a row is not to blame on `--kill-every`.
const QUARANTINE_AFTER: u32 = 32;
/// Restarts are no reason to give up here: that is what `--kill-every` is for.
const RESTARTS: (u32, Duration) = (1_000_000, Duration::from_secs(60));
const KILLED: &str = "killed ";

pub type Import = JobPool<Chunk, u64, ImportError>;

/// What became of the jobs.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub jobs: u64,
    /// Lines that the jobs have answered for, in this run or before.
    pub lines: u64,
}

/// The pool: each worker takes a job, parses it, and has it applied in one transaction.
pub fn pool(options: &Options, keeper: &Keeper, ledger: Ledger) -> Result<Import, PoolError> {
    let kills = Arc::new(Kills::new(options.kill_every));
    keeper
        .pool("import")
        .workers(options.workers)
        .queue(2 * options.workers)
        .when_full(OnFull::Wait(Duration::from_secs(3600)))
        .intensity(RESTARTS.0, RESTARTS.1)
        .backoff(Backoff::new(
            Duration::from_millis(1),
            Duration::from_millis(20),
            2.0,
        ))
        .quarantine_after(QUARANTINE_AFTER)
        .serve(move |job: Job<Chunk>| {
            let kills = Arc::clone(&kills);
            async move {
                let kill = kills.draw();
                let txn = ledger.import(&job)?;
                if kill == Kill::Before {
                    panic!("{KILLED}before the commit");
                }
                let lines = job.keeper().run(txn).await?;
                if kill == Kill::After {
                    panic!("{KILLED}after the commit");
                }
                Ok(lines)
            }
        })
}

/// Reads the file and submits it, job by job; ends when all are answered, or one is not answered well.
pub async fn run(
    options: &Options,
    pool: &Import,
    source: &Source,
) -> Result<Tally, Box<dyn Error>> {
    let bar = progress_bar(options, source.lines);
    let mut tally = Tally::default();
    let mut chunks = source.chunks(options.lines_per_job)?;
    let mut answers = FuturesUnordered::new();
    // The queue is what holds the reader back; this many of its answers are waited for.
    let most = 4 * options.workers;
    loop {
        while answers.len() < most
            && let Some(chunk) = chunks.next().transpose()?
        {
            answers.push(pool.submit(chunk));
        }
        let Some(answer) = answers.next().await else {
            break;
        };
        let lines = answer.map_err(told)?;
        tally.jobs += 1;
        tally.lines += lines;
        bar.inc(lines);
    }
    bar.finish_and_clear();
    Ok(tally)
}

/// The handler's own error says what is wrong.
fn told(error: JobError<Chunk, ImportError>) -> Box<dyn Error> {
    match error.into_failed() {
        Ok(own) => own.into(),
        Err(other) => other.into(),
    }
}

fn progress_bar(options: &Options, lines: u64) -> ProgressBar {
    let hidden =
        options.json || std::env::var_os("CI").is_some() || !std::io::stderr().is_terminal();
    let target = match hidden {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    };
    let bar = ProgressBar::with_draw_target(Some(lines), target);
    let template = "{bar:40} {human_pos}/{human_len} lines {per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Which workers are to panic.
struct Kills {
    every: Option<u64>,
    next: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    No,
    Before,
    After,
}

impl Kills {
    /// Other ones in each run.
    fn new(every: Option<u64>) -> Self {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self {
            every,
            next: AtomicU64::new(mix(u64::from(since.subsec_nanos()))),
        }
    }

    fn draw(&self) -> Kill {
        let Some(every) = self.every else {
            return Kill::No;
        };
        let random = mix(self.next.fetch_add(1, Ordering::Relaxed));
        match (random % every, random >> 63) {
            (0, 0) => Kill::Before,
            (0, _) => Kill::After,
            _ => Kill::No,
        }
    }
}

/// Panics that are asked for are not worth a line each; all others are.
pub fn be_quiet_about_kills() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic
            .payload_as_str()
            .is_some_and(|message| message.starts_with(KILLED))
        {
            usual(panic);
        }
    }));
}
