//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::PossibleValuesParser;

use crate::ground::Kind;

const BENCHES: &[&str] = &[
    "acquire",
    "hand-over",
    "hand-over-inside",
    "dead-holder",
    "contend",
    "many",
    "waiters",
];
const STORES: &[&str] = &["postgres", "mariadb", "sqlite", "etcd", "lmdb"];

/// The length of a turn.
const TURN_MS: u64 = 100;

/// Compares leases with bare statements through the same driver, and with PostgreSQL's advisory locks.
///
/// Every ratio is the median of the ratios of the turns that the systems take in a round.
#[derive(Debug, Parser)]
#[command(name = "leases")]
pub struct Options {
    /// Also write the figures to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Rounds, besides one that warms up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub rounds: u64,

    /// Length of a round
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    round_ms: u64,

    /// How long two processes hand a lease over to each other [polling stores: three times as long]
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    hand_over_s: u64,

    /// How long 8 processes contend
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    contend_s: u64,

    /// How many leases one process holds
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub leases: u64,

    /// For how long it holds them
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(3..=3_600))]
    hold_s: u64,

    /// Only these benches
    #[arg(long, value_name = "BENCH", value_delimiter = ',', value_parser = PossibleValuesParser::new(BENCHES))]
    only: Vec<String>,

    /// Only these stores
    #[arg(long, value_name = "STORE", value_delimiter = ',', value_parser = PossibleValuesParser::new(STORES))]
    stores: Vec<String>,

    /// What cargo passes
    #[arg(long = "bench", hide = true)]
    _bench: bool,

    /// This process is one of several, with this task
    #[arg(long, hide = true)]
    pub child: Option<String>,
}

impl Options {
    pub fn wants(&self, bench: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == bench)
    }

    /// Those of `kinds` that are wanted.
    pub fn of(&self, kinds: &[Kind]) -> Vec<Kind> {
        let wanted = |kind: &&Kind| {
            self.stores.is_empty() || self.stores.iter().any(|name| name == kind.name())
        };
        kinds.iter().filter(wanted).copied().collect()
    }

    pub const fn round(&self) -> Duration {
        Duration::from_millis(self.round_ms)
    }

    /// How many turns the rounds are, and how long each is. The disk decides how long a commit takes, and is another one from
    /// second to second: those who are compared take turns after a small part of a round.
    pub fn turns(&self) -> (u64, Duration) {
        let millis = self.round_ms.min(TURN_MS);
        let turns = self.rounds * (self.round_ms / millis);
        (turns, Duration::from_millis(millis))
    }

    pub const fn hand_over(&self) -> Duration {
        Duration::from_secs(self.hand_over_s)
    }

    pub const fn contend(&self) -> Duration {
        Duration::from_secs(self.contend_s)
    }

    pub const fn hold(&self) -> Duration {
        Duration::from_secs(self.hold_s)
    }
}
