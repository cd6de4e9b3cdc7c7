//! Callers that take turns, and how long a hand-over took: from the moment at which one began to give back to that at which
//! the next one had it.

use std::time::{Duration, Instant};

use lockkeeper::Lease;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::work::Failure;

/// One turn of one caller, in nanoseconds of a clock that all processes share.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Turn {
    pub acquired: u64,
    pub given_back: u64,
}

/// What is taken and given back.
pub enum Taken {
    Lease(Box<Lease>),
    Advisory(Box<PgConnection>),
}

impl Taken {
    /// Takes turns until then; holds for `hold` each time.
    pub async fn turns(&mut self, until: Instant, hold: Duration) -> Result<Vec<Turn>, Failure> {
        let mut turns = Vec::new();
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match self {
                Self::Lease(lease) => {
                    let Ok(Ok(guard)) = tokio::time::timeout(left, lease.acquire()).await else {
                        break;
                    };
                    let acquired = now();
                    tokio::time::sleep(hold).await;
                    let given_back = now();
                    guard.release().await?;
                    turns.push(Turn {
                        acquired,
                        given_back,
                    });
                }
                Self::Advisory(connection) => {
                    let lock =
                        sqlx::query("select pg_advisory_lock(77)").execute(&mut **connection);
                    let Ok(locked) = tokio::time::timeout(left, lock).await else {
                        break;
                    };
                    locked?;
                    let acquired = now();
                    tokio::time::sleep(hold).await;
                    let given_back = now();
                    sqlx::query("select pg_advisory_unlock(77)")
                        .execute(&mut **connection)
                        .await?;
                    turns.push(Turn {
                        acquired,
                        given_back,
                    });
                }
            }
        }
        Ok(turns)
    }
}

/// How long the hand-overs from one caller to another took, in milliseconds, the shortest first.
pub fn hand_overs(callers: &[Vec<Turn>]) -> Vec<f64> {
    let of = |(caller, turns): (usize, &Vec<Turn>)| {
        turns
            .iter()
            .map(|turn| (turn.acquired, turn.given_back, caller))
            .collect::<Vec<_>>()
    };
    let mut all: Vec<_> = callers.iter().enumerate().flat_map(of).collect();
    all.sort_unstable();
    let pairs = all.iter().zip(all.iter().skip(1));
    let mut took: Vec<_> = pairs
        .filter(|((_, _, one), (_, _, other))| one != other)
        .map(|((_, given_back, _), (acquired, _, _))| {
            acquired.saturating_sub(*given_back) as f64 / 1e6
        })
        .collect();
    took.sort_unstable_by(f64::total_cmp);
    took
}

/// The value below which a part of the sorted values is.
pub fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * part).round() as usize).copied()
}

pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
