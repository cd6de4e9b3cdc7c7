//! What the load saw, for a person or for a program.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// The outcome of the load. Serialised, it is the JSON line.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Transfers that were asked for.
    pub transfers: u64,
    /// Transfers that were made.
    pub committed: u64,
    /// Transfers for which there was too little money.
    pub refused: u64,
    /// Attempts after the first, out of the callers' sight.
    pub retries: u64,
    /// Deadlocks that were broken.
    pub deadlocks: u64,
    /// LMDB transactions that carried the transfers.
    pub batches: u64,
    /// Times the map grew, from the start of the load.
    pub map_resizes: u64,
    /// Cents in all accounts before the first transfer.
    pub total_before: u64,
    /// Cents in all accounts after the last.
    pub total_after: u64,
    pub seconds: f64,
    /// Answers, made or refused, a second.
    pub per_second: f64,
    /// Half of the answers took no longer; none if there were no transfers.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    #[serde(skip)]
    pub shape: Shape,
}

/// What only a person is told.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Whether the transfers were interactive transactions.
    pub interactive: bool,
    pub accounts: u64,
    pub connections: u16,
    pub mean_batch: f64,
    /// Bytes.
    pub map_before: u64,
    pub map_after: u64,
    /// Transfers with any other answer, or none.
    pub failed: u64,
    /// The first of them.
    pub first_failure: Option<String>,
}

impl Summary {
    /// Whether the money is all there and every transfer was made or refused.
    pub fn is_good(&self) -> bool {
        self.total_before == self.total_after && self.shape.failed == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = &self.shape;
        writeln!(
            f,
            "{} {}transfers between {} accounts over {} connections in {:.2} s",
            grouped(self.transfers),
            if shape.interactive {
                "interactive "
            } else {
                ""
            },
            grouped(shape.accounts),
            shape.connections,
            self.seconds
        )?;
        writeln!(f, "  per second    {:>12.0}", self.per_second)?;
        writeln!(f, "  committed     {:>12}", grouped(self.committed))?;
        writeln!(
            f,
            "  refused       {:>12}   too little money",
            grouped(self.refused)
        )?;
        if shape.failed > 0 {
            let first = shape.first_failure.as_deref().unwrap_or_default();
            writeln!(
                f,
                "  failed        {:>12}   first: {first}",
                grouped(shape.failed)
            )?;
        }
        writeln!(f, "  retries       {:>12}", grouped(self.retries))?;
        writeln!(
            f,
            "  deadlocks     {:>12}   broken",
            grouped(self.deadlocks)
        )?;
        writeln!(
            f,
            "  batches       {:>12}   mean {:.1}",
            grouped(self.batches),
            shape.mean_batch
        )?;
        writeln!(
            f,
            "  map           {:>12}   to {} in {} steps",
            bytes(shape.map_before),
            bytes(shape.map_after),
            self.map_resizes
        )?;
        if let (Some(p50), Some(p99)) = (self.p50_ms, self.p99_ms) {
            writeln!(f, "  answered in   {p50:>9.2} ms   p50")?;
            writeln!(f, "                {p99:>9.2} ms   p99")?;
        }
        writeln!(f, "  total before  {:>12}", money(self.total_before))?;
        write!(f, "  total after   {:>12}", money(self.total_after))?;
        if self.total_before != self.total_after {
            write!(f, "   THESE DIFFER")?;
        }
        Ok(())
    }
}

/// The smallest of the sorted durations that at least `percent` of them do not exceed (the nearest rank).
pub fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// 20000 as 20,000.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Cents, as what they are a hundredth of.
fn money(cents: u64) -> String {
    format!("{}.{:02}", grouped(cents / 100), cents % 100)
}

/// Bytes, in the largest unit that leaves nothing over.
fn bytes(number: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (size, unit) in units {
        if number >= size && number.is_multiple_of(size) {
            return format!("{} {unit}", number / size);
        }
    }
    format!("{number} B")
}
