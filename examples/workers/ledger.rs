//! What is kept in LMDB, and how a job gets into it.
//!
//! | database   | key            | value                                    |
//! |------------|----------------|------------------------------------------|
//! | `accounts` | account        | balance in cents, from 0; may be negative |
//! | `marks`    | number of line | how often it was applied                 |
//! | `about`    | `import`       | what is imported, as JSON                |

use std::collections::BTreeMap;

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{I64, Str, U32, U64};
use lockkeeper::{Db, Keeper, RunTxn, TxnError};
use serde::{Deserialize, Serialize};

use crate::source::{Chunk, Transfer};

const IMPORT: &str = "import";

#[derive(Clone, Copy)]
pub struct Ledger {
    pub accounts: Db<U64<BigEndian>, I64<BigEndian>>,
    pub marks: Db<U64<BigEndian>, U32<BigEndian>>,
    about: Db<Str, Str>,
}

/// What an environment imports; it does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub lines: u64,
    pub lines_per_job: u64,
}

/// Why a job is not applied, in this run or in any.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("line {line} is no transfer: {text:?}")]
    BadLine { line: u64, text: String },
    #[error(transparent)]
    Txn(#[from] TxnError),
}

/// The folder has been used for something else.
#[derive(Debug, thiserror::Error)]
#[error("this folder imports {} lines in jobs of {}, and not {} in jobs of {}; take another one", .found.lines, .found.lines_per_job, .wanted.lines, .wanted.lines_per_job)]
pub struct OtherImport {
    found: About,
    wanted: About,
}

impl Ledger {
    pub async fn open(keeper: &Keeper) -> Result<Self, lockkeeper::DatabaseError> {
        Ok(Self {
            accounts: keeper.database("accounts").await?,
            marks: keeper.database("marks").await?,
            about: keeper.database("about").await?,
        })
    }

    /// Notes what is imported. The keys of jobs mean line numbers: other jobs need another folder.
    pub async fn claim(
        &self,
        keeper: &Keeper,
        wanted: About,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let about = self.about;
        let text = serde_json::to_string(&wanted)?;
        let claim = RunTxn::update(move |txn| {
            let found = about.get(txn, IMPORT)?.map(str::to_owned);
            if found.is_none() {
                about.put(txn, IMPORT, &text)?;
            }
            Ok(found)
        });
        match keeper.run(claim).await? {
            None => Ok(()),
            Some(found) => {
                let found = serde_json::from_str(&found)?;
                match found == wanted {
                    true => Ok(()),
                    false => Err(OtherImport { found, wanted }.into()),
                }
            }
        }
    }

    /// How many lines have been applied.
    pub async fn applied(&self, keeper: &Keeper) -> Result<u64, TxnError> {
        let marks = self.marks;
        keeper.view(move |txn| Ok(marks.len(txn)?)).await
    }

    /// A job as a transaction: all of its lines, or none, and never twice. It answers how many lines it has applied.
    pub fn import(self, chunk: &Chunk) -> Result<RunTxn<u64>, ImportError> {
        let mut changes = BTreeMap::<u64, i64>::new();
        for (line, text) in (chunk.first..).zip(&chunk.lines) {
            let bad = || ImportError::BadLine {
                line,
                text: text.clone(),
            };
            let transfer = Transfer::parse(text).ok_or_else(bad)?;
            *changes.entry(transfer.from).or_default() -= transfer.amount;
            *changes.entry(transfer.to).or_default() += transfer.amount;
        }
        let (first, lines) = (chunk.first, chunk.lines.len() as u64);
        let body = move |txn: &mut lockkeeper::WriteTxn<'_>| {
            for (account, change) in &changes {
                let balance = self.accounts.get(txn, account)?.unwrap_or(0);
                self.accounts.put(txn, account, &(balance + change))?;
            }
            for line in first..first + lines {
                // Counted, so that a line that is applied twice is seen.
                let times = self.marks.get(txn, &line)?.unwrap_or(0);
                self.marks.put(txn, &line, &(times + 1))?;
            }
            Ok(lines)
        };
        // The key says which lines, the request what stands in them: another file under the same key is refused.
        let txn = RunTxn::update(body)
            .name("import")
            .idempotent(format!("import {first}+{lines}"))
            .request(chunk.lines.join("\n"));
        Ok(txn)
    }
}
