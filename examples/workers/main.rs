//! Imports a large file of transfers into LMDB through a pool of workers, each line exactly once, while workers are made to panic.
//!
//! ```text
//! cargo run --release --example workers
//! cargo run --release --example workers -- --kill-every 20
//! cargo run --release --example workers -- --data import --file transfers.csv
//! ```
//!
//! Without `--file` it makes a file of a million transfers first. The file is cut into jobs of many lines, each job is one transaction
//! under an idempotency key, and the pool begins a job again whose worker panicked: before its commit, nothing of it was applied; after
//! it, the key answers. At the end every line is looked up: it was applied once, and the balances are what the file says. If
//! not, the exit code says so.
//!
//! Ctrl-C stops in order. Started again with the same `--data`, it goes on where it was, also after a crash; what was applied is known by its
//! key.

mod check;
mod import;
mod ledger;
mod options;
mod source;
mod summary;

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use lockkeeper::{Keeper, termination};
use tempfile::TempDir;

use crate::ledger::{About, Ledger};
use crate::options::Options;
use crate::source::Source;
use crate::summary::Summary;

const MAP_SIZE: u64 = 64 << 20;
const MAX_MAP_SIZE: u64 = 64 << 30;

/// How long the keys are known: a run that was stopped may be continued for so long.
const WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long what runs may take when it is stopped.
const STOP: Duration = Duration::from_secs(10);

/// The exit status after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    import::be_quiet_about_kills();
    match run(&options).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("workers: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let folder = Folder::new(options.data.as_deref())?;
    let source = Source::prepare(options, folder.path())?;
    let keeper = Keeper::builder()
        .path(folder.path())
        .map_size(MAP_SIZE)
        .max_map_size(MAX_MAP_SIZE)
        .idempotency_window(WINDOW)
        .open()
        .map_err(|error| format!("cannot open {}: {error}", folder.path().display()))?;
    let outcome = work(options, &keeper, &source).await;
    let closed = keeper.shutdown(STOP).await;
    drop(keeper);
    let code = outcome?;
    closed?;
    folder.close()?;
    Ok(code)
}

/// Imports, and checks.
async fn work(
    options: &Options,
    keeper: &Keeper,
    source: &Source,
) -> Result<ExitCode, Box<dyn Error>> {
    let ledger = Ledger::open(keeper).await?;
    let about = About {
        lines: source.lines,
        lines_per_job: options.lines_per_job,
    };
    ledger.claim(keeper, about).await?;
    let before = ledger.applied(keeper).await?;
    if before > 0 {
        eprintln!("{before} lines were imported before; going on");
    }

    let mut signals = termination()?;
    eprintln!(
        "importing {} lines of {}",
        source.lines,
        source.path.display()
    );
    let begun = Instant::now();
    let pool = import::pool(options, keeper, ledger)?;
    let imported = tokio::select! {
        imported = import::run(options, &pool, source) => Some(imported),
        _ = &mut signals => None,
    };
    let Some(imported) = imported else {
        // What runs is finished; what is queued is begun by the next run.
        pool.stop(STOP).await?;
        let applied = ledger.applied(keeper).await?;
        eprintln!("interrupted after {applied} lines; started again, it goes on there");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let seconds = begun.elapsed().as_secs_f64();
    let tally = imported?;
    pool.drain(STOP).await?;

    let findings = check::run(keeper, ledger, source).await?;
    let summary = Summary::new(before, seconds, tally, &pool.stats(), findings);
    let mut stdout = std::io::stdout().lock();
    match options.json {
        true => writeln!(stdout, "{}", serde_json::to_string(&summary)?)?,
        false => writeln!(stdout, "{summary}")?,
    }
    Ok(match summary.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Where the environment is.
enum Folder {
    Given(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    fn new(given: Option<&Path>) -> std::io::Result<Self> {
        Ok(match given {
            Some(path) => {
                std::fs::create_dir_all(path)?;
                Self::Given(path.to_owned())
            }
            None => Self::Temporary(TempDir::with_prefix("workers-")?),
        })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }

    fn close(self) -> std::io::Result<()> {
        match self {
            Self::Given(_) => Ok(()),
            Self::Temporary(folder) => folder.close(),
        }
    }
}
