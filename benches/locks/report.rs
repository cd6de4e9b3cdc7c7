//! The table on stdout and the JSON lines in a file.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::work::Failure;

/// What a figure has to reach.
#[derive(Clone, Copy)]
pub enum Target {
    None,
    RatioAtLeast(f64),
    RatioAtMost(f64),
    AtLeast(f64),
    AtMost(f64),
}

/// One line: a measure, and what it is held against.
pub struct Row {
    pub bench: String,
    /// Callers, waiters or lockers, whichever the bench varies.
    pub n: usize,
    pub ours: f64,
    /// Who else was measured in the same rounds, and what it came to.
    pub against: Option<(&'static str, f64)>,
    pub ratio: Option<f64>,
    pub unit: &'static str,
    pub target: Target,
    /// Further figures by name, such as `p99_ms`.
    pub more: Vec<(&'static str, f64)>,
}

impl Row {
    pub fn new(bench: impl Into<String>, n: usize, ours: f64, unit: &'static str) -> Self {
        Self {
            bench: bench.into(),
            n,
            ours,
            against: None,
            ratio: None,
            unit,
            target: Target::None,
            more: Vec::new(),
        }
    }

    /// `None` if there is nothing to reach, or no figure to judge by.
    fn is_met(&self) -> Option<bool> {
        match self.target {
            Target::None => None,
            Target::RatioAtLeast(bound) => Some(self.ratio? >= bound),
            Target::RatioAtMost(bound) => Some(self.ratio? <= bound),
            Target::AtLeast(bound) => Some(self.ours >= bound),
            Target::AtMost(bound) => Some(self.ours <= bound),
        }
    }

    /// A line for each system that was measured, with the keys of `compare`: `clients` is `n`.
    fn to_json(&self) -> Vec<Value> {
        let line = |system: &str, value: f64| {
            let mut line = Map::new();
            line.insert("bench".into(), json!(self.bench));
            line.insert("system".into(), json!(system));
            line.insert("clients".into(), json!(self.n));
            line.insert("value".into(), json!(value));
            line.insert("unit".into(), json!(self.unit));
            line
        };
        let mut ours = line("lockkeeper", self.ours);
        ours.insert("ratio".into(), json!(self.ratio));
        ours.insert("ratio_to".into(), json!(self.against.map(|(name, _)| name)));
        ours.insert("target".into(), json!(self.target.to_text()));
        ours.insert("met".into(), json!(self.is_met()));
        for &(key, figure) in &self.more {
            ours.insert(key.into(), json!(figure));
        }
        let theirs = self.against.map(|(name, figure)| line(name, figure));
        let lines = [Some(ours), theirs].into_iter().flatten();
        lines.map(Value::Object).collect()
    }
}

impl Target {
    fn to_text(self) -> Option<String> {
        Some(match self {
            Target::None => return None,
            Target::RatioAtLeast(bound) => format!(">= {bound} x"),
            Target::RatioAtMost(bound) => format!("<= {bound} x"),
            Target::AtLeast(bound) => format!(">= {}", amount(bound)),
            Target::AtMost(bound) => format!("<= {}", amount(bound)),
        })
    }
}

/// Shows rows as they come, bench by bench.
pub struct Report {
    json: Option<File>,
    headed: bool,
}

impl Report {
    /// # Errors
    /// If the file cannot be made: said before minutes are spent on measuring.
    pub fn new(json: Option<&Path>) -> Result<Self, Failure> {
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            let file = options.create(true).write(true).truncate(true).open(path);
            file.map_err(|e| format!("{}: {e}", path.display()))
        };
        Ok(Self {
            json: json.map(open).transpose()?,
            headed: false,
        })
    }

    pub fn show(&mut self, rows: &[Row]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        if !self.headed {
            self.headed = true;
            writeln!(
                out,
                "{:<26} {:>7} {:>12} {:>12}  {:<12} {:<14} {:>6}  {:<12} verdict",
                "bench", "n", "ours", "theirs", "unit", "against", "ratio", "target"
            )?;
        }
        for row in rows {
            let mut line = format!(
                "{:<26} {:>7} {:>12} {:>12}  {:<12} {:<14} {:>6}  {:<12} {:<7}",
                row.bench,
                row.n,
                amount(row.ours),
                row.against.map_or("-".into(), |(_, figure)| amount(figure)),
                row.unit,
                row.against.map_or("-", |(name, _)| name),
                row.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")),
                row.target.to_text().unwrap_or("-".into()),
                match row.is_met() {
                    Some(true) => "met",
                    Some(false) => "MISSED",
                    None => "-",
                },
            );
            for (key, figure) in &row.more {
                line += &format!("  {key} {}", amount(*figure));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        if !rows.is_empty() {
            writeln!(out)?;
        }
        if let Some(file) = &mut self.json {
            for line in rows.iter().flat_map(Row::to_json) {
                writeln!(file, "{line}")?;
            }
        }
        Ok(())
    }
}

/// Large figures in groups of three digits, small ones with decimals.
fn amount(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    if value < 0.0 {
        grouped.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
