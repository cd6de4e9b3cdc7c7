//! Stands in for `ours.rs` where there is nothing to measure yet.

use std::path::Path;

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::growth::Map;
use crate::load::Subject;
use crate::views::Viewer;
use crate::work::{Failure, Safety};

/// Whether lockkeeper is measured at all.
pub const PRESENT: bool = false;

pub fn subjects(_dir: &Path, _safety: Safety) -> Result<Vec<Box<dyn Subject>>, Failure> {
    Ok(Vec::new())
}

pub fn viewer(_dir: &Path) -> Result<Option<Box<dyn Viewer>>, Failure> {
    Ok(None)
}

pub fn grow(_: &Runtime, _: &Path, _: Map, _updates: u64) -> Result<(f64, u64), Failure> {
    Err("lockkeeper is not built in".into())
}

pub fn weigh(_: &Runtime, _dir: &Path, system: &str) -> Result<Value, Failure> {
    Err(format!("{system} is not built in").into())
}
