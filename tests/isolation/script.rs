//! Transactions as data: what each does step by step, and what it has seen.

use std::collections::BTreeMap;
use std::ops::Bound;

use lockkeeper::{Txn, TxnError, abort};

use super::Stock;
use super::matrix::Anomaly;

/// The keys that are scanned; all others are outside.
pub const SCANNED: (Bound<&str>, Bound<&str>) = (Bound::Included("k"), Bound::Excluded("l"));

/// What a key has that is not there.
pub const ABSENT: u64 = u64::MAX;

/// What a value is computed from; `None` writes nothing.
pub type Compute = fn(&Seen) -> Option<u64>;

#[derive(Clone, Copy)]
pub enum Step {
    Get(&'static str),
    GetForUpdate(&'static str),
    Put(&'static str, Compute),
    Delete(&'static str),
    /// Reads all of [`SCANNED`].
    Scan,
    /// Counts it.
    Count,
    /// Aborts the transaction.
    Undo,
}

/// What one attempt of a transaction has been shown.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    reads: Vec<(String, u64)>,
    pub scans: Vec<Vec<String>>,
    pub counts: Vec<u64>,
}

impl Seen {
    /// All that was read of a key, also by scans.
    pub fn all(&self, key: &str) -> Vec<u64> {
        let of_key = self.reads.iter().filter(|(read, _)| *read == key);
        of_key.map(|(_, value)| *value).collect()
    }

    /// The last that was read of a key.
    #[track_caller]
    pub fn last(&self, key: &str) -> u64 {
        *self.all(key).last().expect("it was read before")
    }

    pub async fn perform(
        &mut self,
        step: Step,
        txn: &Txn,
        stock: Stock,
    ) -> Result<(), TxnError<Undone>> {
        match step {
            Step::Get(key) => {
                let value = txn.get_as(stock, key).await?.unwrap_or(ABSENT);
                self.reads.push((key.to_owned(), value));
            }
            Step::GetForUpdate(key) => {
                let value = txn.get_for_update_as(stock, key).await?.unwrap_or(ABSENT);
                self.reads.push((key.to_owned(), value));
            }
            Step::Put(key, compute) => {
                if let Some(value) = compute(self) {
                    txn.put(stock, key, &value).await?;
                }
            }
            Step::Delete(key) => {
                txn.delete(stock, key).await?;
            }
            Step::Scan => {
                let mut scan = txn.scan(stock, &SCANNED);
                let mut keys = Vec::new();
                while let Some((key, value)) = scan.next().await? {
                    let key = key.decode()?;
                    self.reads.push((key.to_owned(), value.decode()?));
                    keys.push(key.to_owned());
                }
                self.scans.push(keys);
            }
            Step::Count => self.counts.push(txn.count(stock, &SCANNED).await?),
            Step::Undo => return Err(abort(Undone)),
        }
        Ok(())
    }
}

/// The transaction has aborted itself.
#[derive(Debug)]
pub struct Undone;

/// How a run of some transactions ended.
pub struct Outcome {
    /// What those saw that have committed; `None` for one that aborted itself.
    pub committed: Vec<Option<Seen>>,
    /// What each attempt saw, also those that were lost.
    pub glimpses: Vec<Vec<Seen>>,
    pub after: BTreeMap<String, u64>,
}

impl Outcome {
    pub fn seen(&self, which: usize) -> &Seen {
        self.committed[which].as_ref().expect("it has committed")
    }

    pub fn after(&self, key: &str) -> u64 {
        self.after.get(key).copied().unwrap_or(ABSENT)
    }
}

/// A way in which an anomaly may show.
pub struct Case {
    pub anomaly: Anomaly,
    pub name: &'static str,
    pub before: &'static [(&'static str, u64)],
    pub scripts: &'static [&'static [Step]],
    /// Who goes on, one digit for each step; to begin and to commit are steps too.
    pub schedule: &'static str,
    pub happened: fn(&Outcome) -> bool,
}
