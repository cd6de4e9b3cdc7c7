//! What the bank knows how to do, as transactions on the keeper.
//!
//! # On disk
//!
//! Two databases in one LMDB environment. All integers are unsigned, 64 bits, big-endian; money is in cents.
//!
//! | database   | key                            | value                   |
//! |------------|--------------------------------|-------------------------|
//! | `accounts` | account (8 bytes)              | balance (8 bytes)       |
//! | `journal`  | account, sequence (16 bytes)   | an entry (33 bytes)     |
//!
//! An entry is one byte of flags, then the other account, the amount, the balance of this account after the
//! transfer, and the reference. Bit 0 of the flags is set if the money left this account, bit 1 if the caller gave
//! a reference (without it the field is 0).
//!
//! A transfer writes two entries, one for each account, in the transaction that changes the two balances. The
//! sequence of an account starts at 1 and has no gaps, so that these always hold, and `examples/bank_audit.rs`
//! checks them: each entry that left has its counterpart that arrived; the balances in an account's entries follow
//! from each other by the amounts; and the last of them is the account's balance.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{U64, U128};
use lockkeeper::heed::{BoxedError, BytesDecode, BytesEncode};
use lockkeeper::{Db, Keeper, KeeperStats, Object, RunTxn, TxnError};
use serde::Serialize;

/// How long the health check waits for a look at the environment.
const HEALTH_DEADLINE: Duration = Duration::from_secs(2);

/// How long the scan over all accounts or a journal may take.
const SCAN_DEADLINE: Duration = Duration::from_secs(10);

/// How long a change waits for its locks and its commit.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);

/// Why the bank itself says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BankError {
    /// There is no such account.
    #[error("account {0} does not exist")]
    UnknownAccount(u64),
    /// The account is there already.
    #[error("account {0} exists already")]
    DuplicateAccount(u64),
    /// The account holds less than the amount.
    #[error("account {account} holds {balance}, and {amount} is asked for")]
    InsufficientFunds {
        account: u64,
        balance: u64,
        amount: u64,
    },
    /// The account would hold more than can be counted.
    #[error("account {0} cannot hold that much")]
    BalanceOverflow(u64),
    /// All accounts together hold more than can be counted.
    #[error("the sum of all accounts cannot be counted in 64 bits")]
    TotalOverflow,
    /// The account has had all the entries its sequence can number.
    #[error("the journal of account {0} is full")]
    JournalFull(u64),
}

/// The answer to a request of the bank.
pub type Answer<T> = Result<T, TxnError<BankError>>;

/// An account and what it holds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Account {
    pub id: u64,
    pub balance: u64,
}

/// A wish to move money.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    pub from: u64,
    pub to: u64,
    pub amount: u64,
    /// Chosen by the caller, who can find the transfer in the journal by it; the bank does not look at it.
    pub reference: Option<u64>,
}

/// A transfer that was made.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Receipt {
    pub from: u64,
    pub to: u64,
    pub amount: u64,
    #[serde(rename = "ref")]
    pub reference: Option<u64>,
    pub from_balance: u64,
    pub to_balance: u64,
}

/// All accounts at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Total {
    pub accounts: u64,
    pub total: u64,
}

/// Part of an account's journal.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    pub account: u64,
    pub entries: Vec<Line>,
    /// What to give as `after` for the next page; nothing if this is the last.
    pub next: Option<u64>,
}

/// An entry with its place in the journal.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Line {
    pub seq: u64,
    #[serde(flatten)]
    pub entry: Entry,
}

/// One side of a transfer, as its account sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub direction: Direction,
    /// The account on the other side.
    pub other: u64,
    pub amount: u64,
    /// What the account held afterwards.
    pub balance: u64,
    #[serde(rename = "ref")]
    pub reference: Option<u64>,
}

/// Which way the money went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Out,
    In,
}

/// The bank: cheap to clone, one for each worker of the web server.
#[derive(Clone)]
pub struct Bank {
    keeper: Keeper,
    accounts: Db<U64<BigEndian>, U64<BigEndian>>,
    journal: Db<U128<BigEndian>, EntryCodec>,
}

impl Bank {
    /// Opens the bank's databases, and creates them in a new environment.
    pub async fn open(keeper: Keeper) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            accounts: keeper.database("accounts").await?,
            journal: keeper.database("journal").await?,
            keeper,
        })
    }

    /// Opens an account.
    pub async fn open_account(&self, account: Account) -> Answer<Account> {
        let accounts = self.accounts;
        let txn = RunTxn::try_update::<_, BankError>(move |txn| {
            if accounts.get(txn, &account.id)?.is_some() {
                return Err(TxnError::Abort(BankError::DuplicateAccount(account.id)));
            }
            accounts.put(txn, &account.id, &account.balance)?;
            Ok(account)
        })
        .name("open_account")
        .write_lock(lock_on(account.id))
        .deadline(CHANGE_DEADLINE);
        self.keeper.send(txn).await
    }

    /// Moves money, and writes it into both journals.
    ///
    /// The locks are taken in the order in which the accounts come, so two transfers in opposite directions may
    /// deadlock. One of them is then rolled back and run again, and its caller sees only that it took longer. The one
    /// writer orders the bodies anyway; locks are what transactions need that span more than one body.
    pub async fn transfer(&self, transfer: Transfer) -> Answer<Receipt> {
        let accounts = self.accounts;
        let journal = self.journal;
        let txn = RunTxn::try_update::<_, BankError>(move |txn| {
            let Transfer {
                from,
                to,
                amount,
                reference,
            } = transfer;
            let held = accounts
                .get(txn, &from)?
                .ok_or(TxnError::Abort(BankError::UnknownAccount(from)))?;
            let from_balance =
                held.checked_sub(amount)
                    .ok_or(TxnError::Abort(BankError::InsufficientFunds {
                        account: from,
                        balance: held,
                        amount,
                    }));
            let to_balance = accounts
                .get(txn, &to)?
                .ok_or(TxnError::Abort(BankError::UnknownAccount(to)))?
                .checked_add(amount)
                .ok_or(TxnError::Abort(BankError::BalanceOverflow(to)));
            // Only now, so that an unknown account is told before anything else.
            let (from_balance, to_balance) = (from_balance?, to_balance?);

            let sides = [
                (from, Direction::Out, to, from_balance),
                (to, Direction::In, from, to_balance),
            ];
            for (account, direction, other, balance) in sides {
                let sequence =
                    match journal.get_lower_than_or_equal_to(txn, &entry_key(account, u64::MAX))? {
                        Some((key, _)) if account_of(key) == account => sequence_of(key),
                        _ => 0,
                    };
                let sequence = sequence
                    .checked_add(1)
                    .ok_or(TxnError::Abort(BankError::JournalFull(account)))?;
                let entry = Entry {
                    direction,
                    other,
                    amount,
                    balance,
                    reference,
                };
                journal.put(txn, &entry_key(account, sequence), &entry)?;
                accounts.put(txn, &account, &balance)?;
            }
            Ok(Receipt {
                from,
                to,
                amount,
                reference,
                from_balance,
                to_balance,
            })
        })
        .name("transfer")
        .write_lock(lock_on(transfer.from))
        .write_lock(lock_on(transfer.to))
        .in_order()
        .deadline(CHANGE_DEADLINE);
        self.keeper.send(txn).await
    }

    /// What an account holds. One lookup: it runs in place, on the worker's own thread.
    pub async fn account(&self, id: u64) -> Answer<Account> {
        let accounts = self.accounts;
        self.keeper
            .try_view::<_, BankError, _>(move |txn| {
                let balance = accounts
                    .get(txn, &id)?
                    .ok_or(TxnError::Abort(BankError::UnknownAccount(id)))?;
                Ok(Account { id, balance })
            })
            .await
    }

    /// Up to `limit` entries of an account's journal, those after the sequence number `after`, oldest first.
    pub async fn journal(&self, id: u64, after: u64, limit: usize) -> Answer<Page> {
        let accounts = self.accounts;
        let journal = self.journal;
        let txn = RunTxn::try_view::<_, BankError>(move |txn| {
            if accounts.get(txn, &id)?.is_none() {
                return Err(TxnError::Abort(BankError::UnknownAccount(id)));
            }
            let mut entries = Vec::new();
            let mut next = None;
            if let Some(first) = after.checked_add(1) {
                let rest = entry_key(id, first)..=entry_key(id, u64::MAX);
                for line in journal.range(txn, &rest)? {
                    let (key, entry) = line?;
                    if entries.len() == limit {
                        next = entries.last().map(|line: &Line| line.seq);
                        break;
                    }
                    entries.push(Line {
                        seq: sequence_of(key),
                        entry,
                    });
                }
            }
            Ok(Page {
                account: id,
                entries,
                next,
            })
        })
        .name("journal")
        .deadline(SCAN_DEADLINE);
        self.keeper.send(txn).await
    }

    /// The sum of all accounts, in one view: transfers that run meanwhile are seen whole or not at all.
    pub async fn total(&self) -> Answer<Total> {
        let accounts = self.accounts;
        let txn = RunTxn::try_view::<_, BankError>(move |txn| {
            let mut sum = Total {
                accounts: 0,
                total: 0,
            };
            for account in accounts.iter(txn)? {
                let (_, balance) = account?;
                sum.accounts += 1;
                sum.total = sum
                    .total
                    .checked_add(balance)
                    .ok_or(TxnError::Abort(BankError::TotalOverflow))?;
            }
            Ok(sum)
        })
        .name("total")
        .deadline(SCAN_DEADLINE);
        self.keeper.send(txn).await
    }

    /// Answers if the environment can be read: not while it is recovered or closed.
    pub async fn health(&self) -> Answer<()> {
        let accounts = self.accounts;
        let txn = RunTxn::try_view::<_, BankError>(move |txn| Ok(accounts.len(txn).map(drop)?))
            .name("health")
            .deadline(HEALTH_DEADLINE);
        self.keeper.send(txn).await
    }

    /// What the keeper has counted since it was opened.
    pub async fn stats(&self) -> KeeperStats {
        self.keeper.stats().await
    }
}

/// The lock that stands for an account.
fn lock_on(account: u64) -> Object {
    Object::new("accounts", account.to_be_bytes())
}

/// The journal's key: as a big-endian number, the account and then the sequence.
fn entry_key(account: u64, sequence: u64) -> u128 {
    (u128::from(account) << 64) | u128::from(sequence)
}

fn account_of(key: u128) -> u64 {
    (key >> 64) as u64
}

fn sequence_of(key: u128) -> u64 {
    key as u64
}

/// An [`Entry`] in its 33 bytes.
pub enum EntryCodec {}

const FLAG_OUT: u8 = 1;
const FLAG_REFERENCE: u8 = 2;

impl<'a> BytesEncode<'a> for EntryCodec {
    type EItem = Entry;

    fn bytes_encode(entry: &'a Entry) -> Result<Cow<'a, [u8]>, BoxedError> {
        let mut flags = 0;
        if entry.direction == Direction::Out {
            flags |= FLAG_OUT;
        }
        if entry.reference.is_some() {
            flags |= FLAG_REFERENCE;
        }
        let mut bytes = Vec::with_capacity(33);
        bytes.push(flags);
        for field in [
            entry.other,
            entry.amount,
            entry.balance,
            entry.reference.unwrap_or(0),
        ] {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
        Ok(Cow::Owned(bytes))
    }
}

impl<'a> BytesDecode<'a> for EntryCodec {
    type DItem = Entry;

    fn bytes_decode(bytes: &'a [u8]) -> Result<Entry, BoxedError> {
        let malformed = || format!("a journal entry of {} bytes", bytes.len());
        let (&flags, fields) = bytes.split_first().ok_or_else(malformed)?;
        let (fields, rest) = fields.as_chunks::<8>();
        let ([other, amount, balance, reference], []) = (fields, rest) else {
            return Err(malformed().into());
        };
        Ok(Entry {
            direction: if flags & FLAG_OUT != 0 {
                Direction::Out
            } else {
                Direction::In
            },
            other: u64::from_be_bytes(*other),
            amount: u64::from_be_bytes(*amount),
            balance: u64::from_be_bytes(*balance),
            reference: (flags & FLAG_REFERENCE != 0).then(|| u64::from_be_bytes(*reference)),
        })
    }
}
