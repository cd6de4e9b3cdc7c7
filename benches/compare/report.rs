//! The table on stdout and the JSON lines in a file.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::work::Failure;

/// One line: a system in a bench with so many callers.
pub struct Row {
    pub bench: String,
    pub system: String,
    pub clients: usize,
    pub value: f64,
    pub unit: &'static str,
    pub ratio_to_heed: Option<f64>,
    pub mean_batch: Option<f64>,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    /// Further figures by name, such as `ratio_to_group`.
    pub more: Vec<(&'static str, f64)>,
}

impl Row {
    pub fn new(bench: &str, system: &str, clients: usize, value: f64, unit: &'static str) -> Self {
        Self {
            bench: bench.to_owned(),
            system: system.to_owned(),
            clients,
            value,
            unit,
            ratio_to_heed: None,
            mean_batch: None,
            p50_us: None,
            p99_us: None,
            more: Vec::new(),
        }
    }

    fn to_json(&self) -> Value {
        let mut line = Map::new();
        line.insert("bench".into(), json!(self.bench));
        line.insert("system".into(), json!(self.system));
        line.insert("clients".into(), json!(self.clients));
        line.insert("value".into(), json!(self.value));
        line.insert("unit".into(), json!(self.unit));
        line.insert("ratio_to_heed".into(), json!(self.ratio_to_heed));
        for (key, figure) in [
            ("mean_batch", self.mean_batch),
            ("p50_us", self.p50_us),
            ("p99_us", self.p99_us),
        ] {
            if let Some(figure) = figure {
                line.insert(key.into(), json!(figure));
            }
        }
        for &(key, figure) in &self.more {
            line.insert(key.into(), json!(figure));
        }
        Value::Object(line)
    }
}

/// Shows rows as they come, bench by bench.
pub struct Report {
    json: Option<PathBuf>,
    headed: bool,
}

impl Report {
    /// # Errors
    /// If the file cannot be made: said before minutes are spent on measuring.
    pub fn new(json: Option<&Path>, append: bool) -> Result<Self, Failure> {
        if let Some(path) = json {
            OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(!append)
                .open(path)
                .map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(Self {
            json: json.map(Path::to_owned),
            headed: append,
        })
    }

    pub fn show(&mut self, rows: &[Row]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        if !self.headed {
            self.headed = true;
            writeln!(
                out,
                "{:<18} {:<19} {:>7} {:>13}  {:<10} {:>7} {:>7} {:>10} {:>10}",
                "bench", "system", "clients", "value", "unit", "x heed", "batch", "p50", "p99"
            )?;
        }
        for row in rows {
            let mut line = format!(
                "{:<18} {:<19} {:>7} {:>13}  {:<10} {:>7} {:>7} {:>10} {:>10}",
                row.bench,
                row.system,
                row.clients,
                amount(row.value),
                row.unit,
                cell(row.ratio_to_heed, |r| format!("{r:.2}")),
                cell(row.mean_batch, |b| format!("{b:.1}")),
                cell(row.p50_us, micros),
                cell(row.p99_us, micros),
            );
            for (key, figure) in &row.more {
                line += &format!("  {key} {}", amount(*figure));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        if !rows.is_empty() {
            writeln!(out)?;
        }
        self.write_json(rows)
    }

    fn write_json(&self, rows: &[Row]) -> Result<(), Failure> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        let mut file = OpenOptions::new().append(true).open(path)?;
        for row in rows {
            writeln!(file, "{}", row.to_json())?;
        }
        Ok(())
    }
}

fn cell(figure: Option<f64>, text: impl Fn(f64) -> String) -> String {
    figure.map_or_else(|| "-".to_owned(), text)
}

fn micros(us: f64) -> String {
    if us < 1_000.0 {
        format!("{us:.0} us")
    } else {
        format!("{:.2} ms", us / 1_000.0)
    }
}

/// Large figures in groups of three digits, small ones with decimals.
fn amount(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0.0 {
        grouped.insert(0, '-');
    }
    grouped
}
