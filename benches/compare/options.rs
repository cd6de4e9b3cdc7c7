//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::work::Failure;

const BENCHES: &[&str] = &[
    "update-durable",
    "update-flush",
    "update-nosync",
    "update-errors-1",
    "update-errors-30",
    "view",
    "view-async",
    "growth",
    "message-vs-method",
    "memory",
];

const SYSTEMS: &[&str] = &[
    "lockkeeper",
    "lockkeeper-message",
    "heed",
    "group",
    "group-late",
    "redb",
    "sqlite",
];

/// Compares lockkeeper with heed by hand, a plain group commit, redb and SQLite on this disk.
///
/// Every ratio is the median of the ratios of the rounds, in which the systems take turns.
#[derive(Debug, Parser)]
#[command(name = "compare")]
pub struct Options {
    /// Also write the figures to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Rounds, besides one that warms up
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub rounds: u64,

    /// Length of a round [default: 500, for views 1000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub round_ms: Option<u64>,

    /// Only these benches; `update-flush` is the one with a slow disk
    #[arg(long, value_name = "BENCH", value_delimiter = ',')]
    pub only: Vec<String>,

    /// Only these systems [default: all but group-late]
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(SYSTEMS))]
    pub systems: Vec<String>,

    /// These numbers of callers instead of each bench's own (views: of the 1 and 2 threads)
    #[arg(long = "clients", value_name = "N", value_delimiter = ',', value_parser = parse_clients)]
    clients: Vec<usize>,

    /// Where to make the databases, on the disk that is to be measured [default: under target/]
    #[arg(long)]
    pub dir: Option<PathBuf>,

    /// Only durable updates, with this much added to each flush of the disk, such as 2ms
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    flush_delay: Option<Duration>,

    /// Records that updates choose from
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,

    /// Records that views choose from
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub view_keys: u64,

    /// Updates in one run of `growth`
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub growth_updates: u64,

    /// What cargo passes
    #[arg(long = "bench", hide = true)]
    _bench: bool,

    /// This process runs under the slow flush library
    #[arg(long, hide = true)]
    pub under_slow_flush: bool,

    /// This process weighs that system's waiting callers
    #[arg(long, hide = true)]
    pub memory_of: Option<String>,
}

impl Options {
    /// # Errors
    /// If a bench in `--only` is unknown.
    pub fn check(&self) -> Result<(), Failure> {
        for name in &self.only {
            if !BENCHES.contains(&name.as_str()) && *name != self.flush_bench() {
                return Err(
                    format!("unknown bench {name:?}; there are {}", BENCHES.join(", ")).into(),
                );
            }
        }
        Ok(())
    }

    pub fn wants(&self, bench: &str) -> bool {
        let is_flush = bench == self.flush_bench();
        if self.flush_delay.is_some() {
            return is_flush;
        }
        self.only.is_empty()
            || self.only.iter().any(|name| name == bench)
            || (is_flush && self.only.iter().any(|name| name == "update-flush"))
    }

    pub fn includes(&self, system: &str) -> bool {
        if self.systems.is_empty() {
            return system != "group-late";
        }
        self.systems.iter().any(|name| name == system)
    }

    pub fn clients(&self, default: &[usize]) -> Vec<usize> {
        if self.clients.is_empty() {
            default.to_vec()
        } else {
            self.clients.clone()
        }
    }

    pub fn threads(&self, default: &[usize]) -> Vec<usize> {
        let mut threads = default.to_vec();
        threads.retain(|n| self.clients.is_empty() || self.clients.contains(n));
        threads
    }

    pub fn round(&self, default: Duration) -> Duration {
        self.round_ms.map_or(default, Duration::from_millis)
    }

    pub fn delay(&self) -> Duration {
        self.flush_delay.unwrap_or(Duration::from_millis(2))
    }

    pub fn flush_bench(&self) -> String {
        let delay = humantime::format_duration(self.delay()).to_string();
        format!("update-flush-{}", delay.replace(' ', ""))
    }

    /// The options for the child that runs under the slow flush library.
    pub fn for_child(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut push = |name: &str, value: OsString| args.extend([name.into(), value]);
        push("--rounds", self.rounds.to_string().into());
        push("--keys", self.keys.to_string().into());
        let delay = humantime::format_duration(self.delay());
        push("--flush-delay", delay.to_string().into());
        if let Some(ms) = self.round_ms {
            push("--round-ms", ms.to_string().into());
        }
        if let Some(json) = &self.json {
            push("--json", json.into());
        }
        if !self.systems.is_empty() {
            push("--systems", self.systems.join(",").into());
        }
        for clients in &self.clients {
            push("--clients", clients.to_string().into());
        }
        args
    }
}

fn parse_clients(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=100_000) => Ok(n),
        _ => Err("a number from 1 to 100000 is expected".to_owned()),
    }
}
