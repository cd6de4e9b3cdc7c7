//! Measures lockkeeper side by side with what people use today, in one run, on the real disk.
//!
//! `cargo bench --bench compare` prints a table, `-- --json FILE` also writes one JSON object a
//! line, `-- --help` says how to shorten it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use rustix::fs::statfs;
use tokio::runtime::{Builder, Runtime};

use crate::options::Options;
use crate::report::Report;
use crate::updates::Fleet;
use crate::work::Failure;

mod growth;
mod load;
mod memory;
mod options;
mod ours;
mod peers;
mod report;
mod rounds;
mod slow_flush;
mod updates;
mod views;
mod work;

/// From the kernel's `magic.h`.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// What one run of this program has at hand.
///
/// Its fields are dropped in order: systems are closed while the runtime is there.
pub struct Session {
    fleet: Fleet,
    report: Report,
    runtime: Runtime,
    dir: PathBuf,
    options: Options,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Failure> {
    options.check()?;
    let under = options
        .dir
        .clone()
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    std::fs::create_dir_all(&under)?;
    // Gone at the end of this function, whatever happens in it.
    let temp = tempfile::Builder::new()
        .prefix("compare-")
        .tempdir_in(&under)?;
    let dir = temp.path().to_owned();

    // The machine the figures are for has two cores.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.spawn(clean_up_on_interrupt(dir.clone()));

    if let Some(system) = &options.memory_of {
        return memory::weigh(&runtime, &dir.join(system), system);
    }
    let mut session = Session {
        fleet: Fleet::default(),
        report: Report::new(options.json.as_deref(), options.under_slow_flush)?,
        runtime,
        dir,
        options,
    };
    if session.options.under_slow_flush {
        slow_flush::check(&session.dir, session.options.delay())?;
        return updates::measure(&mut session);
    }
    introduce(&session.dir, &session.options)?;
    session.report.show(&[])?;
    updates::measure(&mut session)?;
    slow_flush::measure(&session)?;
    views::measure(&mut session)?;
    growth::measure(&mut session)?;
    memory::measure(&mut session)
}

fn introduce(dir: &Path, options: &Options) -> Result<(), Failure> {
    println!(
        "{} rounds; {} processors; a flush of this disk takes {:?}; databases in {}",
        options.rounds,
        std::thread::available_parallelism()?,
        slow_flush::flush_time(dir)?,
        dir.display(),
    );
    if statfs(dir)?.f_type == TMPFS_MAGIC {
        eprintln!("warning: this is a tmpfs: durable figures mean nothing here, give --dir");
    }
    if !ours::PRESENT {
        eprintln!("note: built without lockkeeper: only the others are measured");
    }
    println!();
    Ok(())
}

async fn clean_up_on_interrupt(dir: PathBuf) {
    if tokio::signal::ctrl_c().await.is_ok() {
        // Systems still write: what cannot be removed is not worth staying for.
        let _ = std::fs::remove_dir_all(&dir);
        std::process::exit(130);
    }
}
