//! Audits the folder of the bank example, as another process and with nothing but heed.
//!
//! ```text
//! cargo run --example bank_audit -- DIR
//! ```
//!
//! Reads the layout that `examples/bank/model.rs` documents, checks that journals and balances agree, and prints one
//! JSON line: `accounts` (their number), `total`, `transfers`, and `refs`, the references that callers gave, in
//! order. Ends with status 1 and a word about the first thing that is wrong if something is.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use heed::byteorder::BigEndian;
use heed::types::{Bytes, U64};
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};
use serde_json::json;

type Accounts = Database<'static, U64<BigEndian>, U64<BigEndian>>;
type Journal = Database<'static, Bytes, Bytes>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: bank_audit DIR");
        return ExitCode::from(2);
    };
    match audit(&PathBuf::from(folder)) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bank_audit: {error}");
            ExitCode::FAILURE
        }
    }
}

fn audit(folder: &Path) -> Result<serde_json::Value> {
    let env = open(folder)?;
    let (accounts, journal) = databases(&env)?;
    let txn = env.read_txn()?;
    let books = Books::read(&txn, accounts)?;
    let transfers = check_journal(&txn, journal, &books)?;
    Ok(json!({
        "accounts": books.balances.len(),
        "total": books.total,
        "transfers": transfers.count,
        "refs": transfers.references,
    }))
}

#[expect(unsafe_code, reason = "heed opens environments no other way")]
fn open(folder: &Path) -> Result<Env<WithTls>> {
    if !folder.join("data.mdb").is_file() {
        return Err(format!("{} holds no environment", folder.display()).into());
    }
    let mut options = EnvOpenOptions::new();
    // No map size: LMDB takes the one that the bank left in the file.
    options.max_dbs(8);
    // SAFETY: the map is only read; those who write to the file do so through LMDB, with its lock file.
    unsafe {
        options.flags(EnvFlags::READ_ONLY);
        Ok(options.open(folder)?)
    }
}

fn databases(env: &Env<WithTls>) -> Result<(Accounts, Journal)> {
    let txn = env.read_txn()?;
    let opened = env.open_databases_and_commit(txn, |opener, txn| {
        let accounts = opener.open_database(txn, Some("accounts"))?;
        let journal = opener.open_database(txn, Some("journal"))?;
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit((accounts, journal)))
    })?;
    let (accounts, journal) = opened.unwrap_commit();
    Ok((
        accounts.ok_or("there is no database of accounts")?,
        journal.ok_or("there is no journal")?,
    ))
}

/// All accounts.
struct Books {
    balances: BTreeMap<u64, u64>,
    total: u64,
}

impl Books {
    fn read(txn: &RoTxn<'_>, accounts: Accounts) -> Result<Self> {
        let mut balances = BTreeMap::new();
        let mut total = 0_u64;
        for account in accounts.iter(txn)? {
            let (id, balance) = account?;
            total = total.checked_add(balance).ok_or("the total overflows")?;
            balances.insert(id, balance);
        }
        Ok(Self { balances, total })
    }
}

/// One side of a transfer.
struct Entry {
    account: u64,
    sequence: u64,
    left: bool,
    other: u64,
    amount: u64,
    balance: u64,
    reference: Option<u64>,
}

impl Entry {
    fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        let (&[account, sequence], []) = key.as_chunks::<8>() else {
            return None;
        };
        let (flags, fields) = value.split_first()?;
        let (&[other, amount, balance, reference], []) = fields.as_chunks::<8>() else {
            return None;
        };
        Some(Self {
            account: u64::from_be_bytes(account),
            sequence: u64::from_be_bytes(sequence),
            left: flags & 1 != 0,
            other: u64::from_be_bytes(other),
            amount: u64::from_be_bytes(amount),
            balance: u64::from_be_bytes(balance),
            reference: (flags & 2 != 0).then(|| u64::from_be_bytes(reference)),
        })
    }

    /// What the account held before.
    fn held_before(&self) -> Option<u64> {
        if self.left {
            self.balance.checked_add(self.amount)
        } else {
            self.balance.checked_sub(self.amount)
        }
    }

    /// From, to, amount and reference: the same on both sides of a transfer.
    fn transfer(&self) -> (u64, u64, u64, Option<u64>) {
        let (from, to) = if self.left {
            (self.account, self.other)
        } else {
            (self.other, self.account)
        };
        (from, to, self.amount, self.reference)
    }
}

struct Transfers {
    count: u64,
    references: Vec<u64>,
}

fn check_journal(txn: &RoTxn<'_>, journal: Journal, books: &Books) -> Result<Transfers> {
    let mut transfers = Transfers {
        count: 0,
        references: Vec::new(),
    };
    // Those that left, less those that arrived.
    let mut open: BTreeMap<_, i64> = BTreeMap::new();
    let mut last: Option<Entry> = None;
    for record in journal.iter(txn)? {
        let (key, value) = record?;
        let entry = Entry::parse(key, value).ok_or("the journal holds a malformed entry")?;
        follows(last.as_ref(), &entry, books)?;
        let sides = open.entry(entry.transfer()).or_default();
        if entry.left {
            transfers.count += 1;
            transfers.references.extend(entry.reference);
            *sides += 1;
        } else {
            *sides -= 1;
        }
        last = Some(entry);
    }
    if let Some(last) = &last {
        closes(last, books)?;
    }
    if let Some(((from, to, amount, _), _)) = open.iter().find(|(_, sides)| **sides != 0) {
        return Err(format!(
            "a transfer of {amount} from {from} to {to} is there on one side only"
        )
        .into());
    }
    transfers.references.sort_unstable();
    Ok(transfers)
}

/// Checks an entry against the one before it.
fn follows(last: Option<&Entry>, entry: &Entry, books: &Books) -> Result<()> {
    let place = format!("entry {} of account {}", entry.sequence, entry.account);
    let before = entry
        .held_before()
        .ok_or_else(|| format!("{place} does not add up"))?;
    match last {
        Some(last) if last.account == entry.account => {
            if last.sequence.checked_add(1) != Some(entry.sequence) || last.balance != before {
                return Err(format!("{place} does not follow from the one before").into());
            }
        }
        last => {
            if let Some(last) = last {
                closes(last, books)?;
            }
            if entry.sequence != 1 {
                return Err(format!("{place} is the first there").into());
            }
        }
    }
    Ok(())
}

/// Checks an account's last entry against its balance.
fn closes(last: &Entry, books: &Books) -> Result<()> {
    if books.balances.get(&last.account) != Some(&last.balance) {
        return Err(format!(
            "the journal of account {} ends with another balance than it has",
            last.account
        )
        .into());
    }
    Ok(())
}
