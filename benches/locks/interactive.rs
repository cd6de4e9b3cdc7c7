//! Interactive transactions: what their locks, their read set and their commit add to what they do.
//!
//! One keeper with 100,000 accounts on a disk, at full durability. Transfers move one between two
//! accounts that are drawn for each; what the accounts hold together is counted at the end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::U64;
use lockkeeper::{Durability, Keeper, Records, RunTxn, TxnError};
use rustix::fs::statfs;

use crate::Session;
use crate::load::{Round, Tally, Window, drive};
use crate::report::{Row, Target};
use crate::rounds::Rounds;
use crate::work::{Failure, LARGE_MAP, Rng};

#[path = "interactive/recheck.rs"]
mod recheck;

const ACCOUNTS: u64 = 100_000;
const HOT_ACCOUNTS: u64 = 16;
const OPENING_BALANCE: u64 = 1 << 40;

/// Point reads between two looks at the clock, so many that those do not show.
const GETS_AT_ONCE: u64 = 64;

const ROUND: Duration = Duration::from_secs(1);
const ROUND_OF_GETS: Duration = Duration::from_millis(300);

const TMPFS_MAGIC: i64 = 0x0102_1994;

type Accounts = Records<U64<BigEndian>, U64<BigEndian>>;

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    let benches = [
        "interactive-get",
        "interactive-transfers-64",
        "interactive-transfers-256",
        "interactive-hot",
        "interactive-recheck",
    ];
    if !benches.iter().any(|bench| session.options.wants(bench)) {
        return Ok(());
    }
    let under = session.options.dir.clone();
    let under = under.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    std::fs::create_dir_all(&under)?;
    if statfs(&under)?.f_type == TMPFS_MAGIC {
        eprintln!("warning: this is a tmpfs: durable figures mean nothing here, give --dir");
    }
    // Gone at the end of this function, whatever happens in it.
    let folder = tempfile::Builder::new()
        .prefix("locks-")
        .tempdir_in(&under)?;
    let bank = Bank::open(&folder.path().join("durable"), Durability::Full)?;
    gets(session, &bank)?;
    transfers(session, &bank, "interactive-transfers-64", 64)?;
    transfers(session, &bank, "interactive-transfers-256", 256)?;
    hot(session, &bank)?;
    bank.close()?;
    let bank = Bank::open(&folder.path().join("no-sync"), Durability::NoSync)?;
    recheck::measure(session, &bank)?;
    bank.close()
}

/// A keeper with its accounts.
#[derive(Clone)]
struct Bank {
    keeper: Keeper,
    accounts: Accounts,
}

/// How a caller works on the accounts.
#[derive(Clone, Copy)]
enum Style {
    Interactive,
    /// A view, or a body for the writer with write locks on both records.
    Plain,
}

/// A wish to move one from the one account to the other.
#[derive(Clone, Copy)]
struct Transfer {
    from: u64,
    to: u64,
}

impl Bank {
    fn open(folder: &Path, durability: Durability) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder)?;
        let keeper = Keeper::builder()
            .path(folder)
            .map_size(LARGE_MAP)
            .max_map_size(LARGE_MAP)
            .max_databases(2)
            .durability(durability)
            // Whoever does not wait for the disk is not to meet it either.
            .flush_interval(Duration::from_secs(3600))
            .open()?;
        let accounts: Accounts = keeper.blocking_records("accounts")?;
        keeper.blocking_update(move |txn| {
            for account in 0..ACCOUNTS {
                accounts.put(txn, &account, &OPENING_BALANCE)?;
            }
            Ok(())
        })?;
        Ok(Self { keeper, accounts })
    }

    /// Stops the keeper, and says so if a transfer was done by halves or twice.
    fn close(self) -> Result<(), Failure> {
        let accounts = self.accounts;
        let total = self.keeper.blocking_view(move |txn| {
            let mut total: u64 = 0;
            for account in accounts.iter(txn)? {
                total = total.wrapping_add(account?.1);
            }
            Ok(total)
        })?;
        self.keeper.blocking_shutdown(Duration::from_secs(10))?;
        match total == ACCOUNTS.wrapping_mul(OPENING_BALANCE) {
            true => Ok(()),
            false => Err("the transfers lost or made money".into()),
        }
    }

    /// Does a transfer; answers how many more attempts than one it took.
    async fn transfer(&self, style: Style, transfer: Transfer) -> Result<u64, TxnError> {
        match style {
            Style::Interactive => self.transfer_interactively(transfer).await,
            Style::Plain => self.transfer_plainly(transfer).await.map(|()| 0),
        }
    }

    async fn transfer_interactively(&self, transfer: Transfer) -> Result<u64, TxnError> {
        let accounts = self.accounts;
        let Transfer { from, to } = transfer;
        self.keeper
            .transaction("transfer", move |txn| async move {
                let from_held = txn.get_for_update_as(accounts, &from).await?.unwrap_or(0);
                let to_held = txn.get_for_update_as(accounts, &to).await?.unwrap_or(0);
                txn.put(accounts, &from, &from_held.wrapping_sub(1)).await?;
                txn.put(accounts, &to, &to_held.wrapping_add(1)).await?;
                Ok(u64::from(txn.attempt() - 1))
            })
            .await
    }

    async fn transfer_plainly(&self, transfer: Transfer) -> Result<(), TxnError> {
        let accounts = self.accounts;
        let Transfer { from, to } = transfer;
        let txn = RunTxn::update(move |txn| {
            let from_held = accounts.get(txn, &from)?.unwrap_or(0);
            let to_held = accounts.get(txn, &to)?.unwrap_or(0);
            accounts.put(txn, &from, &from_held.wrapping_sub(1))?;
            accounts.put(txn, &to, &to_held.wrapping_add(1))?;
            Ok(())
        })
        .name("transfer")
        .write_lock(self.keeper.object(accounts, &from)?)
        .write_lock(self.keeper.object(accounts, &to)?);
        self.keeper.run(txn).await
    }

    async fn get(&self, style: Style, account: u64) -> Result<Option<u64>, TxnError> {
        let accounts = self.accounts;
        match style {
            Style::Interactive => {
                self.keeper
                    .transaction("get", move |txn| async move {
                        Ok(txn.get_as(accounts, &account).await?)
                    })
                    .await
            }
            Style::Plain => {
                self.keeper
                    .view(move |txn| Ok(accounts.get(txn, &account)?))
                    .await
            }
        }
    }
}

fn rng(round: u64, caller: usize) -> Rng {
    Rng::seeded(round.wrapping_mul(0x1_0000).wrapping_add(caller as u64))
}

/// A transaction of one read against a view of one read.
fn gets(session: &mut Session, bank: &Bank) -> Result<(), Failure> {
    let bench = "interactive-get";
    if !session.options.wants(bench) {
        return Ok(());
    }
    let time = session.options.round(ROUND_OF_GETS);
    for callers in [1, 64] {
        let rounds = Rounds::run(2, session.options.rounds, |contender, round| {
            let style = match contender {
                0 => Style::Interactive,
                _ => Style::Plain,
            };
            drive(&session.runtime, callers, time, |caller, window| {
                Ok(get(bank.clone(), style, rng(round, caller), window))
            })
        })?;
        let value = rounds.value(0).unwrap_or(0.0);
        let mut row = Row::new(bench, callers, value, "gets/s");
        row.against = rounds.value(1).map(|value| ("view", value));
        row.ratio = rounds.ratio(0, 1);
        // What many gain from doing it together is told, not demanded.
        row.target = match callers {
            1 => Target::RatioAtLeast(0.3),
            _ => Target::None,
        };
        session.report.show(&[row])?;
    }
    Ok(())
}

async fn get(bank: Bank, style: Style, mut rng: Rng, window: Window) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    loop {
        for _ in 0..GETS_AT_ONCE {
            let held = bank.get(style, rng.below(ACCOUNTS)).await?;
            held.ok_or("an account is missing")?;
        }
        let now = Instant::now();
        if window.is_over(now) {
            return Ok(tally);
        }
        if window.counts(now) {
            tally.done += GETS_AT_ONCE;
        }
        tokio::task::yield_now().await;
    }
}

/// Interactive transfers against bodies with declared locks.
fn transfers(
    session: &mut Session,
    bank: &Bank,
    bench: &'static str,
    callers: usize,
) -> Result<(), Failure> {
    if !session.options.wants(bench) {
        return Ok(());
    }
    let rounds = Rounds::run(2, session.options.rounds, |contender, round| {
        let style = match contender {
            0 => Style::Interactive,
            _ => Style::Plain,
        };
        run(session, bank, style, (callers, ACCOUNTS), round)
    })?;
    let value = rounds.value(0).unwrap_or(0.0);
    let mut row = Row::new(bench, callers, value, "transfers/s");
    row.against = rounds.value(1).map(|value| ("declared locks", value));
    row.ratio = rounds.ratio(0, 1);
    row.target = Target::RatioAtLeast(0.7);
    let slowest = rounds.median_of(0, |round| round.slowest);
    row.more = vec![("slowest_by_mean", slowest.unwrap_or(0.0))];
    session.report.show(&[row])
}

/// Interactive transfers between few accounts against the same between many.
fn hot(session: &mut Session, bank: &Bank) -> Result<(), Failure> {
    let bench = "interactive-hot";
    if !session.options.wants(bench) {
        return Ok(());
    }
    const CALLERS: usize = 64;
    let contenders = [
        (Style::Interactive, HOT_ACCOUNTS),
        (Style::Interactive, ACCOUNTS),
        (Style::Plain, HOT_ACCOUNTS),
    ];
    let rounds = Rounds::run(contenders.len(), session.options.rounds, |at, round| {
        let (style, accounts) = contenders[at];
        run(session, bank, style, (CALLERS, accounts), round)
    })?;
    let again = rounds.median_of(0, |round| round.again);
    let slowest = |contender| rounds.median_of(contender, |round| round.slowest);

    let value = rounds.value(0).unwrap_or(0.0);
    let mut speed = Row::new(bench, CALLERS, value, "transfers/s");
    speed.against = rounds.value(1).map(|value| ("100,000", value));
    speed.ratio = rounds.ratio(0, 1);
    speed.target = Target::RatioAtLeast(0.15);
    speed.more = vec![
        ("again", again.unwrap_or(0.0)),
        ("declared_locks", rounds.value(2).unwrap_or(0.0)),
    ];
    let bench = format!("{bench}-slowest");
    let mut fair = Row::new(bench, CALLERS, slowest(0).unwrap_or(0.0), "x mean");
    fair.against = slowest(2).map(|figure| ("declared locks", figure));
    fair.target = Target::AtLeast(0.1);
    session.report.show(&[speed, fair])
}

fn run(
    session: &Session,
    bank: &Bank,
    style: Style,
    (callers, accounts): (usize, u64),
    round: u64,
) -> Result<Round, Failure> {
    let time = session.options.round(ROUND);
    drive(&session.runtime, callers, time, |caller, window| {
        let rng = rng(round, caller);
        Ok(call(bank.clone(), style, accounts, rng, window))
    })
}

async fn call(
    bank: Bank,
    style: Style,
    accounts: u64,
    mut rng: Rng,
    window: Window,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    loop {
        let from = rng.below(accounts);
        let to = (from + 1 + rng.below(accounts - 1)) % accounts;
        let again = bank.transfer(style, Transfer { from, to }).await?;
        let now = Instant::now();
        if window.is_over(now) {
            return Ok(tally);
        }
        if window.counts(now) {
            tally.done += 1;
            tally.again += again;
        }
    }
}
