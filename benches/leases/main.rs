//! Measures leases side by side with what they are held against, in one run, on servers that it starts itself.
//!
//! `cargo bench --bench leases` prints a table, `-- --json FILE` also writes one JSON object a line, `-- --help` says how to
//! shorten it.

#![expect(clippy::unwrap_used, reason = "the servers are those of the tests")]

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::ground::Ground;
use crate::options::Options;
use crate::report::Report;
use crate::work::Failure;

mod acquire;
mod bare;
mod child;
mod contend;
mod counting;
mod dead;
mod ground;
mod hand_over;
mod load;
mod many;
mod options;
#[path = "../locks/report.rs"]
mod report;
#[path = "../compare/rounds.rs"]
mod rounds;
mod servers;
mod turns;
mod waiters;
#[path = "../compare/work.rs"]
#[expect(dead_code, reason = "the other bench also has records to write")]
mod work;

/// What one run of this program has at hand.
pub struct Session {
    report: Report,
    runtime: Runtime,
    ground: Ground,
    options: Options,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leases: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Failure> {
    // The machine the figures are for has two cores.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if let Some(task) = &options.child {
        return runtime.block_on(child::work(task));
    }
    let mut session = Session {
        report: Report::new(options.json.as_deref())?,
        runtime,
        ground: Ground::default(),
        options,
    };
    println!(
        "{} rounds; {} processors\n",
        session.options.rounds,
        std::thread::available_parallelism()?
    );
    acquire::measure(&mut session)?;
    hand_over::between_processes(&mut session)?;
    hand_over::inside(&mut session)?;
    dead::measure(&mut session)?;
    contend::measure(&mut session)?;
    many::measure(&mut session)?;
    waiters::measure(&mut session)
}
