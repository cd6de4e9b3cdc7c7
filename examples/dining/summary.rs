//! What there is to say when everybody has left.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lockkeeper::{LockConflict, LockStats};

use crate::room::Room;

/// Who got less than this share of the mean has starved.
const STARVED: f64 = 0.1;

pub struct Summary {
    seats: Vec<Row>,
    took: Duration,
    stats: LockStats,
    last_deadlock: Option<Arc<LockConflict>>,
    violations: u64,
}

struct Row {
    meals: u64,
    gave_way: u64,
    timeouts: u64,
    longest_wait: Duration,
}

impl Summary {
    pub fn of(room: &Room, took: Duration) -> Self {
        let seats = room.seats.iter().map(|seat| Row {
            meals: seat.meals.load(Ordering::Relaxed),
            gave_way: seat.gave_way.load(Ordering::Relaxed),
            timeouts: seat.timeouts.load(Ordering::Relaxed),
            longest_wait: seat.longest_wait(),
        });
        Self {
            seats: seats.collect(),
            took,
            stats: room.locks.stats(),
            last_deadlock: room.locks.history().pop().map(|last| last.conflict),
            violations: room.hands().violations(),
        }
    }

    /// What must not be, if there is any of it.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.violations > 0 {
            complaints.push(format!(
                "a fork was in two hands, {} times",
                self.violations
            ));
        }
        let hungry = self
            .seats
            .iter()
            .filter(|row| self.has_starved(row))
            .count();
        if hungry > 0 {
            complaints.push(format!("{hungry} of {} starved", self.seats.len()));
        }
        let (locks, lockers) = (self.stats.locks.now, self.stats.lockers.now);
        if locks + lockers > 0 {
            complaints.push(format!(
                "{locks} locks and {lockers} lockers were left behind"
            ));
        }
        complaints
    }

    fn has_starved(&self, row: &Row) -> bool {
        row.meals == 0 || (row.meals as f64) < STARVED * self.mean()
    }

    fn meals(&self) -> u64 {
        self.seats.iter().map(|row| row.meals).sum()
    }

    fn mean(&self) -> f64 {
        self.meals() as f64 / self.seats.len() as f64
    }

    /// Writes the last deadlock as a graph; false if there was none.
    pub fn write_graph(&self, file: &Path) -> std::io::Result<bool> {
        let Some(deadlock) = &self.last_deadlock else {
            return Ok(false);
        };
        std::fs::write(file, deadlock.to_graphviz())?;
        Ok(true)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "philosopher    meals  gave way  timeouts  longest wait")?;
        for (number, row) in self.seats.iter().enumerate() {
            let (meals, gave_way, timeouts) = (row.meals, row.gave_way, row.timeouts);
            let wait = format!("{:.1?}", row.longest_wait);
            let starved = if self.has_starved(row) {
                "  starved"
            } else {
                ""
            };
            writeln!(
                f,
                "{number:>11} {meals:>8} {gave_way:>9} {timeouts:>9} {wait:>13}{starved}"
            )?;
        }
        let all = || self.seats.iter();
        let fewest = all().map(|row| row.meals).min().unwrap_or(0);
        let most = all().map(|row| row.meals).max().unwrap_or(0);
        let longest = all().map(|row| row.longest_wait).max().unwrap_or_default();
        writeln!(
            f,
            "\n{} meals in {:.1} s, {fewest} to {most} each, {:.1} on average",
            self.meals(),
            self.took.as_secs_f64(),
            self.mean()
        )?;
        writeln!(
            f,
            "{} deadlocks broken, {} waits timed out, longest wait {longest:.1?}",
            self.stats.deadlocks, self.stats.lock_timeouts
        )?;
        match &self.last_deadlock {
            Some(deadlock) => write!(f, "\nthe last deadlock:\n{deadlock}"),
            None => write!(f, "\nthere was no deadlock"),
        }
    }
}
