//! Measures the lock table side by side with what one would write by hand, in one run; and interactive
//! transactions, which hold its locks over awaits, beside plain ones.
//!
//! `cargo bench --bench locks` prints a table, `-- --json FILE` also writes one JSON object a line,
//! `-- --help` says how to shorten it.

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::options::Options;
use crate::report::Report;
use crate::work::Failure;

mod bare_actor;
mod blocking;
mod by_hand;
mod crowd;
mod interactive;
mod load;
mod memory;
mod messages;
mod options;
mod ours;
mod passes;
mod report;
#[path = "../compare/rounds.rs"]
mod rounds;
mod timeouts;
mod transfers;
mod uncontended;
mod waiting;
#[path = "../compare/work.rs"]
#[expect(dead_code, reason = "the other bench also has records to write")]
mod work;

/// What one run of this program has at hand.
pub struct Session {
    report: Report,
    runtime: Runtime,
    options: Options,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("locks: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Failure> {
    if let Some(system) = &options.memory_of {
        return memory::weigh(system);
    }
    // The machine the figures are for has two cores.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut session = Session {
        report: Report::new(options.json.as_deref())?,
        runtime,
        options,
    };
    println!(
        "{} rounds; {} processors\n",
        session.options.rounds,
        std::thread::available_parallelism()?
    );
    uncontended::measure(&mut session)?;
    messages::measure(&mut session)?;
    transfers::measure(&mut session)?;
    crowd::measure(&mut session)?;
    passes::measure(&mut session)?;
    memory::measure(&mut session)?;
    timeouts::measure(&mut session)?;
    blocking::measure(&mut session)?;
    interactive::measure(&mut session)
}
