//! The contract of transactions with a key, sentence by sentence: within a window key, request and answer are stored with the
//! effect; sent again, after whatever has happened meanwhile, the answer comes back and the body does not run.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and so may what it shares with others"
)]

#[allow(dead_code, reason = "shared with the tests of failures")]
#[path = "../failure/stage.rs"]
mod stage;
#[allow(dead_code, reason = "shared with the tests of failures")]
#[path = "../failure/support.rs"]
mod support;

mod again;
mod crash;
mod doors;
mod expiry;
mod interactive;
mod refused;
mod senders;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lockkeeper::heed::types::Bytes;
use lockkeeper::heed::{CommitOrAbort, Database, EnvOpenOptions};
use lockkeeper::{DbError, Keeper, RunTxn, TxnError, WriteTxn};

use support::{Numbers, get};

const ANSWERS: &str = "__lockkeeper.answers";

/// How often a body has run.
#[derive(Clone, Default)]
pub struct Runs(Arc<AtomicUsize>);

impl Runs {
    /// How often.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// It has run once more.
    pub fn ran(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Adds one to a number, and answers what it has then.
    #[track_caller]
    pub fn bump(&self, numbers: Numbers, number: u64) -> RunTxn<u64> {
        RunTxn::update(self.bumping(numbers, number))
    }

    /// The body of [`Runs::bump`].
    pub fn bumping(
        &self,
        numbers: Numbers,
        number: u64,
    ) -> impl FnMut(&mut WriteTxn<'_>) -> Result<u64, TxnError> + Send + 'static {
        let runs = Arc::clone(&self.0);
        move |txn| {
            runs.fetch_add(1, Ordering::SeqCst);
            Ok(add(txn, numbers, number)?)
        }
    }
}

/// Adds one to a number.
pub fn add(txn: &mut WriteTxn<'_>, numbers: Numbers, number: u64) -> Result<u64, DbError> {
    let next = numbers.get(txn, &number)?.unwrap_or(0) + 1;
    numbers.put(txn, &number, &next)?;
    Ok(next)
}

/// A keyed update of number 1 is answered 1, and has happened once.
#[track_caller]
pub fn assert_once(keeper: &Keeper, numbers: Numbers, txn: RunTxn<u64>) {
    assert_eq!(keeper.blocking_run(txn).unwrap(), 1);
    assert_eq!(get(keeper, numbers, 1), Some(1));
}

/// The number of answers that an environment has, with nothing but heed.
pub fn stored(folder: &Path) -> usize {
    in_answers(folder, |entries| {
        entries.keys().filter(|key| key.first() == Some(&1)).count()
    })
}

type Entries = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

/// Changes what is stored as something would that is not this crate.
#[expect(unsafe_code, reason = "heed opens environments no other way")]
pub fn in_answers<T>(folder: &Path, change: impl FnOnce(&mut Entries) -> T) -> T {
    type Answers = Database<'static, Bytes, Bytes>;
    let mut options = EnvOpenOptions::new();
    options.max_dbs(8).map_size(1 << 28);
    // SAFETY: the file is on a local disk and changed through LMDB alone.
    let env = unsafe { options.open(folder) }.unwrap();
    let txn = env.read_txn().unwrap();
    let answers: Answers = env
        .open_databases_and_commit(txn, |opener, txn| {
            let answers = opener.open_database(txn, Some(ANSWERS))?;
            Ok::<_, lockkeeper::heed::Error>(CommitOrAbort::<_, ()>::Commit(answers))
        })
        .unwrap()
        .unwrap_commit()
        .expect("the database is there");
    let mut txn = env.write_txn().unwrap();
    let mut entries: Entries = answers
        .iter(&txn)
        .unwrap()
        .map(|entry| {
            let (key, value) = entry.unwrap();
            (key.to_vec(), value.to_vec())
        })
        .collect();
    let before = entries.clone();
    let answer = change(&mut entries);
    if entries != before {
        answers.clear(&mut txn).unwrap();
        for (key, value) in &entries {
            answers.put(&mut txn, key, value).unwrap();
        }
        txn.commit().unwrap();
    }
    answer
}

/// Opens the keeper, and closes it when the test is done with it.
pub fn with_keeper<T>(folder: &Path, test: impl FnOnce(&Keeper, Numbers) -> T) -> T {
    let (keeper, numbers) = support::open(folder);
    let answer = test(&keeper, numbers);
    keeper.blocking_shutdown(support::SOON).unwrap();
    answer
}
