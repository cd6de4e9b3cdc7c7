//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use lockkeeper::{LockConfig, VictimPolicy};

/// Dining philosophers: each needs two forks to eat, and shares each of them with a neighbour.
///
/// The forks are named objects in a lock table; no environment is open. How the philosophers reach for them decides
/// whether they can deadlock, and the lock table breaks each deadlock and says what it was.
#[derive(Clone, Debug, Parser)]
#[command(name = "dining", version)]
pub struct Options {
    /// Philosophers at the table, and forks on it.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5, value_parser = RangedU64ValueParser::<usize>::new().range(2..=10_000))]
    pub philosophers: usize,

    /// How long the dinner lasts.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, conflicts_with = "meals", value_parser = seconds)]
    pub seconds: f64,

    /// Ends the dinner when each has eaten so often, however long that takes.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub meals: Option<u64>,

    /// How a philosopher reaches for the forks.
    #[arg(long, value_enum, default_value_t = Order::Random)]
    pub order: Order,

    /// Who gives way in a deadlock.
    #[arg(long, value_name = "POLICY", default_value = "youngest", value_parser = policy())]
    pub policy: VictimPolicy,

    /// When deadlocks are looked for.
    #[arg(long, value_enum, default_value_t = Detect::OnBlock)]
    pub detect: Detect,

    /// How often they are looked for with `--detect periodic`.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = humantime::parse_duration)]
    pub interval: Duration,

    /// The longest wait for a fork; 0s is for ever [default: 100ms with `--detect none`, otherwise 5s].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub lock_timeout: Option<Duration>,

    /// The longest thought.
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = humantime::parse_duration)]
    pub think: Duration,

    /// The longest meal.
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = humantime::parse_duration)]
    pub eat: Duration,

    /// The pause between the first fork and the second, which makes deadlocks likely.
    #[arg(long, value_name = "TIME", default_value = "3ms", value_parser = humantime::parse_duration)]
    pub reach: Duration,

    /// What all chance follows from, except for who runs first.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Writes the last deadlock to this file, as a graph for Graphviz (`dot -Tsvg FILE`).
    #[arg(long, value_name = "FILE")]
    pub graphviz: Option<PathBuf>,
}

/// How a philosopher reaches for the forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The fork with the lower number first: no cycle can close, so there are no deadlocks.
    Sorted,
    /// Either fork first.
    Random,
    /// Both in one message, the left one first: it is held while the right one is waited for.
    BothHandsAtOnce,
}

/// When deadlocks are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Detect {
    /// Whenever somebody has to wait.
    OnBlock,
    /// Every so often.
    Periodic,
    /// Never: a timeout ends every wait that is too long, deadlock or not.
    None,
}

impl Options {
    /// What was typed, or the end of the program with a word about what is wrong with it.
    pub fn from_command_line() -> Self {
        let options = Self::parse();
        if options.detect == Detect::None && options.lock_timeout().is_zero() {
            let message =
                "without detection and without a timeout the first deadlock would last for ever";
            Self::command()
                .error(ErrorKind::ArgumentConflict, message)
                .exit();
        }
        options
    }

    /// The lock table that was asked for.
    pub fn lock_config(&self) -> LockConfig {
        LockConfig {
            detect_on_block: self.detect == Detect::OnBlock,
            detect_interval: match self.detect {
                Detect::Periodic => self.interval,
                Detect::OnBlock | Detect::None => Duration::ZERO,
            },
            detect_policy: self.policy,
            seed: self.seed,
            lock_timeout: self.lock_timeout(),
            ..LockConfig::default()
        }
    }

    fn lock_timeout(&self) -> Duration {
        self.lock_timeout.unwrap_or(match self.detect {
            // Timeouts alone have to be short: every deadlock lasts as long as one.
            Detect::None => Duration::from_millis(100),
            Detect::OnBlock | Detect::Periodic => LockConfig::default().lock_timeout,
        })
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.01 to 86400 is expected".into()),
    }
}

/// The policies by the names that `lockkeeper.toml` has for them.
fn policy() -> impl TypedValueParser<Value = VictimPolicy> {
    PossibleValuesParser::new(VictimPolicy::ALL.map(VictimPolicy::name)).map(|name| {
        let all = VictimPolicy::ALL.into_iter();
        all.into_iter()
            .find(|policy| policy.name() == name)
            .unwrap_or_default()
    })
}
