//! What a pool is told once, when it starts.

use std::time::Duration;

use crate::backoff::Backoff;

/// Which workers are started again when they end. Erlang/OTP's restart types, which there are said of each child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Always, also after a normal end (OTP's `permanent`). The default.
    #[default]
    Permanent,
    /// After a failure: an error, a panic, silence that is replaced (OTP's `transient`).
    Transient,
    /// Never (OTP's `temporary`).
    Temporary,
}

/// Which other workers are stopped and started again when one is. Erlang/OTP's strategies; the order is that of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// None (OTP's `one_for_one`). The default.
    #[default]
    OneForOne,
    /// All others (OTP's `one_for_all`): stopped from the last to the first, started from the first to the last.
    OneForAll,
    /// Those after it (OTP's `rest_for_one`), in the same order.
    RestForOne,
}

/// What happens when a worker gives no heartbeat for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSilence {
    /// It is reported, once, and again each time it has been heard and falls silent.
    Report,
    /// It is reported, abandoned, and started again as after a failure. An async worker is dropped at its next await; nobody can
    /// stop a blocking one, which is counted until it ends by itself.
    Replace,
}

/// Whether something else decides when workers may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gating {
    /// Nothing does.
    #[default]
    None,
    /// One gate for all; closed at first.
    All,
    /// One gate for each number; closed at first.
    Each,
}

/// What a pool is told once.
#[derive(Debug, Clone)]
pub struct Spec {
    /// How many workers.
    pub workers: usize,
    /// Which are started again.
    pub restart: Restart,
    /// Which others with them.
    pub strategy: Strategy,
    /// At most so many restarts…
    pub restarts: u32,
    /// …that are not older than this.
    pub within: Duration,
    /// The delay before a restart.
    pub backoff: Backoff,
    /// How long a worker may be silent, and what happens then.
    pub heartbeat: Option<(Duration, OnSilence)>,
    /// How long a worker that was told to stop has.
    pub grace: Duration,
    /// Whether workers end by themselves when there is nothing left to do: a drain does not tell them to stop, then.
    pub fed: bool,
    /// Whether something else decides when they may run.
    pub gating: Gating,
    /// Where the random delays begin.
    pub seed: u64,
}

impl Spec {
    /// A run that lasted longer ends a row of failures.
    pub(super) fn calm(&self) -> Duration {
        self.within.max(self.backoff.max)
    }
}
