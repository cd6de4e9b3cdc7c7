//! The command line.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use lockkeeper::Durability;

/// A bank over HTTP: accounts, transfers and journals in an LMDB environment that grows under load.
///
/// Starts the service, drives it with transfers, prints a summary, and goes on serving until Ctrl-C.
#[derive(Clone, Debug, Parser)]
#[command(name = "bank", version)]
pub struct Options {
    /// Address to serve on; port 0 takes any free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub listen: String,

    /// Folder of the environment, kept for the next run; without it, a temporary one that is removed at the end.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Accounts that the load moves money between, with the ids 1 to N; those that are missing are opened.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = RangedU64ValueParser::<u64>::new().range(2..))]
    pub accounts: u64,

    /// Transfers that the load asks for.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub transfers: u64,

    /// Keep-alive connections that the load uses at once.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = RangedU64ValueParser::<u16>::new().range(1..))]
    pub connections: u16,

    /// Ends after the load instead of going on serving.
    #[arg(long, conflicts_with = "no_load")]
    pub once: bool,

    /// Prints the summary as one JSON line on standard output.
    #[arg(long)]
    pub json: bool,

    /// Only serves.
    #[arg(long)]
    pub no_load: bool,

    /// Makes the transfers as interactive transactions, whose locks are held over awaits, instead of as one body each.
    #[arg(long)]
    pub interactive: bool,

    /// What a transfer that was answered survives.
    #[arg(long, value_enum, default_value_t = DurabilityOption::Full)]
    pub durability: DurabilityOption,
}

/// How far a commit has got when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DurabilityOption {
    /// Survives power loss.
    Full,
    /// Power loss may undo the last transfers, and nothing else.
    NoMetaSync,
    /// Flushed every second; power loss may destroy the file.
    NoSync,
}

impl From<DurabilityOption> for Durability {
    fn from(option: DurabilityOption) -> Self {
        match option {
            DurabilityOption::Full => Durability::Full,
            DurabilityOption::NoMetaSync => Durability::NoMetaSync,
            DurabilityOption::NoSync => Durability::NoSync,
        }
    }
}
