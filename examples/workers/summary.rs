//! What happened, for a person or for a program.

use std::fmt;

use lockkeeper::PoolStats;
use serde::Serialize;

use crate::check::Findings;
use crate::import::Tally;

/// Serialised, it is the JSON line.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Lines that earlier runs had imported.
    pub before: u64,
    pub jobs: u64,
    pub seconds: f64,
    /// Lines that were imported in this run, a second.
    pub per_second: f64,
    /// Workers that panicked.
    pub panics: u64,
    /// Workers that were started again.
    pub restarts: u64,
    #[serde(flatten)]
    pub findings: Findings,
}

impl Summary {
    pub fn new(
        before: u64,
        seconds: f64,
        tally: Tally,
        stats: &PoolStats,
        findings: Findings,
    ) -> Self {
        Self {
            before,
            jobs: tally.jobs,
            seconds,
            per_second: tally.lines.saturating_sub(before) as f64 / seconds,
            panics: stats.jobs.as_ref().map_or(0, |jobs| jobs.panics),
            restarts: stats.restarts,
            findings,
        }
    }

    pub fn is_good(&self) -> bool {
        self.findings.is_good()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = &self.findings;
        writeln!(
            f,
            "{} lines in {} jobs in {:.2} s, {:.0} a second",
            findings.lines - self.before.min(findings.lines),
            self.jobs,
            self.seconds,
            self.per_second
        )?;
        writeln!(f, "  panics              {:>12}", self.panics)?;
        writeln!(f, "  workers restarted   {:>12}", self.restarts)?;
        writeln!(f, "  lines applied once  {:>12}", findings.once)?;
        writeln!(f, "    never             {:>12}", findings.never)?;
        writeln!(f, "    more than once    {:>12}", findings.more_than_once)?;
        writeln!(f, "    not in the file   {:>12}", findings.unknown)?;
        writeln!(f, "  wrong balances      {:>12}", findings.wrong_balances)?;
        write!(
            f,
            "{}",
            match self.is_good() {
                true => "every line was applied exactly once",
                false => "WRONG: not every line was applied exactly once",
            }
        )
    }
}
