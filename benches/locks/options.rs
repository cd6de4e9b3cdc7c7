//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::PossibleValuesParser;

const BENCHES: &[&str] = &[
    "uncontended",
    "message-1",
    "message-8",
    "transfer-16",
    "transfer-1000",
    "crowd",
    "pass",
    "memory",
    "timeouts",
    "block",
    "interactive-get",
    "interactive-transfers-64",
    "interactive-transfers-256",
    "interactive-hot",
    "interactive-recheck",
];

/// Compares the lock table with one by hand (a mutex around a hash map with queues and a check on
/// block) and with a bare actix actor around a hash map.
///
/// Every ratio is the median of the ratios of the rounds, in which the systems take turns.
#[derive(Debug, Parser)]
#[command(name = "locks")]
pub struct Options {
    /// Also write the figures to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Rounds, besides one that warms up
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub rounds: u64,

    /// Length of a round [default: 300, by message 400, for transfers and commits 1000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub round_ms: Option<u64>,

    /// Only these benches
    #[arg(long, value_name = "BENCH", value_delimiter = ',', value_parser = PossibleValuesParser::new(BENCHES))]
    only: Vec<String>,

    /// Where the interactive benches make their databases, on the disk that is to be measured [default: under target/]
    #[arg(long)]
    pub dir: Option<PathBuf>,

    /// What cargo passes
    #[arg(long = "bench", hide = true)]
    _bench: bool,

    /// This process weighs the locks that this system holds
    #[arg(long, hide = true)]
    pub memory_of: Option<String>,
}

impl Options {
    pub fn wants(&self, bench: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == bench)
    }

    pub fn round(&self, default: Duration) -> Duration {
        self.round_ms.map_or(default, Duration::from_millis)
    }
}
