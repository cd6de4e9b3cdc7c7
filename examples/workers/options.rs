//! The command line.

use std::path::PathBuf;

use clap::Parser;
use clap::builder::RangedU64ValueParser;

/// Imports a large file of transfers into LMDB through a pool of workers, each line exactly once.
#[derive(Clone, Debug, Parser)]
#[command(name = "workers", version)]
pub struct Options {
    /// Folder of the environment, kept for the next run; without it, a temporary one that is removed at the end.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// What to import: lines of `from,to,amount` after a line of names. Without it, a file is made in the folder.
    #[arg(long, value_name = "CSV")]
    pub file: Option<PathBuf>,

    /// Lines of a file that is made.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub lines: u64,

    /// Accounts between which the transfers of a file go that is made.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = RangedU64ValueParser::<u64>::new().range(2..))]
    pub accounts: u64,

    /// Workers of the pool.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = RangedU64ValueParser::<usize>::new().range(1..=4096))]
    pub workers: usize,

    /// Lines that are one job, and one transaction. A run that is continued has to be given the same.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub lines_per_job: u64,

    /// Makes a worker panic on average every so many jobs, now before the commit and now after it.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(2..))]
    pub kill_every: Option<u64>,

    /// Prints the summary as one JSON line on standard output, and no progress.
    #[arg(long)]
    pub json: bool,
}
