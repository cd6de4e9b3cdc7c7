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
use lockkeeper::{Keeper, KeeperStats, Records, RunTxn, TxnError};
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

/// What a transfer's transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One body, which the writer runs under locks that were declared before.
    Update,
    /// An interactive transaction: its locks are taken as it goes, and held over awaits.
    Interactive,
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
    style: Style,
    accounts: Records<U64<BigEndian>, U64<BigEndian>>,
    journal: Records<U128<BigEndian>, EntryCodec>,
}

impl Bank {
    /// Opens the bank's databases, and creates them in a new environment.
    pub async fn open(keeper: Keeper, style: Style) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            accounts: keeper.records("accounts").await?,
            journal: keeper.records("journal").await?,
            style,
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
        .write_lock(self.keeper.object(accounts, &account.id)?)
        .deadline(CHANGE_DEADLINE);
        self.keeper.send(txn).await
    }

    /// Moves money, and writes it into both journals.
    ///
    /// In either style the locks are taken in the order in which the accounts come, so two transfers in opposite
    /// directions may deadlock. One of them is then rolled back and run again, and its caller sees only that it took
    /// longer.
    pub async fn transfer(&self, transfer: Transfer) -> Answer<Receipt> {
        match self.style {
            Style::Update => self.transfer_by_update(transfer).await,
            Style::Interactive => self.transfer_interactively(transfer).await,
        }
    }

    /// The one writer orders the bodies anyway; the locks are for interactive transactions, whose work spans more
    /// than one body.
    async fn transfer_by_update(&self, transfer: Transfer) -> Answer<Receipt> {
        let Transfer { from, to, .. } = transfer;
        let (accounts, journal) = (self.accounts, self.journal);
        let txn = RunTxn::try_update::<_, BankError>(move |txn| {
            let receipt = transfer.between(accounts.get(txn, &from)?, accounts.get(txn, &to)?)?;
            for (account, entry) in receipt.entries() {
                let end = entry_key(account, u64::MAX);
                let last = journal
                    .get_lower_than_or_equal_to(txn, &end)?
                    .map(|(key, _)| key)
                    .filter(|key| account_of(*key) == account);
                journal.put(txn, &next_key(account, last)?, &entry)?;
                accounts.put(txn, &account, &entry.balance)?;
            }
            Ok(receipt)
        })
        .name("transfer")
        .write_lock(self.keeper.object(accounts, &from)?)
        .write_lock(self.keeper.object(accounts, &to)?)
        .in_order()
        .deadline(CHANGE_DEADLINE);
        self.keeper.send(txn).await
    }

    /// While this waits for a lock, or would wait for the outside world, others write.
    async fn transfer_interactively(&self, transfer: Transfer) -> Answer<Receipt> {
        let Transfer { from, to, .. } = transfer;
        let (accounts, journal) = (self.accounts, self.journal);
        self.keeper
            .transaction("transfer", move |txn| async move {
                let from = txn.get_for_update_as(accounts, &from).await?;
                let to = txn.get_for_update_as(accounts, &to).await?;
                let receipt = transfer.between(from, to)?;
                for (account, entry) in receipt.entries() {
                    // Nobody else adds to it: who does holds the lock of the account.
                    let whole = entry_key(account, 0)..=entry_key(account, u64::MAX);
                    let last = match txn.scan(journal, &whole).rev().next().await? {
                        Some((key, _)) => Some(key.decode()?),
                        None => None,
                    };
                    txn.put(journal, &next_key(account, last)?, &entry).await?;
                    txn.put(accounts, &account, &entry.balance).await?;
                }
                Ok(receipt)
            })
            .deadline(CHANGE_DEADLINE)
            .await
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

impl Transfer {
    /// What becomes of it where the accounts hold so much; `None` is an account that is not there.
    fn between(&self, from_held: Option<u64>, to_held: Option<u64>) -> Answer<Receipt> {
        let Self {
            from,
            to,
            amount,
            reference,
        } = *self;
        let no = TxnError::Abort;
        // Before anything else, an unknown account is told.
        let from_held = from_held.ok_or(no(BankError::UnknownAccount(from)))?;
        let to_held = to_held.ok_or(no(BankError::UnknownAccount(to)))?;
        let from_balance =
            from_held
                .checked_sub(amount)
                .ok_or(no(BankError::InsufficientFunds {
                    account: from,
                    balance: from_held,
                    amount,
                }))?;
        let to_balance = to_held
            .checked_add(amount)
            .ok_or(no(BankError::BalanceOverflow(to)))?;
        Ok(Receipt {
            from,
            to,
            amount,
            reference,
            from_balance,
            to_balance,
        })
    }
}

impl Receipt {
    /// The entry for each of the two journals.
    fn entries(&self) -> [(u64, Entry); 2] {
        let entry = |direction, other, balance| Entry {
            direction,
            other,
            amount: self.amount,
            balance,
            reference: self.reference,
        };
        [
            (self.from, entry(Direction::Out, self.to, self.from_balance)),
            (self.to, entry(Direction::In, self.from, self.to_balance)),
        ]
    }
}

/// The journal's next key of an account, after the `last` that it has.
fn next_key(account: u64, last: Option<u128>) -> Answer<u128> {
    let sequence = last
        .map_or(0, sequence_of)
        .checked_add(1)
        .ok_or(TxnError::Abort(BankError::JournalFull(account)))?;
    Ok(entry_key(account, sequence))
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
