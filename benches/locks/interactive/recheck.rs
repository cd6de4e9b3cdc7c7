//! What the comparison of what was read costs when nothing was written from outside.
//!
//! It cannot be switched off, so its whole bill is taken: a commit of a transaction that has read the
//! two records it writes, against one of a transaction that has only written them. Locks, writes and
//! the way through the writer are the same; the difference is the read set, its way to the writer,
//! and the look whether it has to be compared. Without the disk, beside which it could not be seen.
//!
//! A third commit, after a plain update in its middle, has to be compared in truth; it shows what is
//! saved by not comparing.

use std::time::{Duration, Instant};

use lockkeeper::TxnError;

use super::{ACCOUNTS, Bank, rng};
use crate::Session;
use crate::report::{Row, Target};
use crate::rounds::median;
use crate::work::{Failure, Rng};

const ROUND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
enum Commit {
    /// Reads two records for update, and writes them.
    Read,
    /// Writes two records that it has not read; a view outside of it has.
    Blind,
    /// As the first, and somebody else writes meanwhile.
    Overtaken,
}

const ALL: [Commit; 3] = [Commit::Read, Commit::Blind, Commit::Overtaken];

pub fn measure(session: &mut Session, bank: &Bank) -> Result<(), Failure> {
    let bench = "interactive-recheck";
    if !session.options.wants(bench) {
        return Ok(());
    }
    let time = session.options.round(ROUND);
    let mut rounds = Vec::new();
    for round in 0..=session.options.rounds {
        let medians = session.runtime.block_on(take_turns(bank, time, round))?;
        if round > 0 {
            rounds.push(medians);
        }
    }
    let us = |figure: fn(&[f64; 3]) -> f64| median(rounds.iter().map(figure).collect());
    let mut row = Row::new(bench, 1, us(|[read, ..]| *read).unwrap_or(0.0), "us");
    row.against = us(|[_, blind, _]| *blind).map(|us| ("without reads", us));
    row.ratio = us(|[read, blind, _]| read / blind);
    row.target = Target::RatioAtMost(1.02);
    row.more = vec![
        (
            "compared_us",
            us(|[.., overtaken]| *overtaken).unwrap_or(0.0),
        ),
        (
            "compared_by_blind",
            us(|[_, blind, overtaken]| overtaken / blind).unwrap_or(0.0),
        ),
    ];
    session.report.show(&[row])
}

/// One commit of each after the other, each first in its turn; answers the medians in microseconds.
async fn take_turns(bank: &Bank, time: Duration, round: u64) -> Result<[f64; 3], Failure> {
    let mut rng = rng(round, 0);
    let mut took = ALL.map(|_| Vec::new());
    let begun = Instant::now();
    for first in (0..ALL.len()).cycle() {
        for turn in 0..ALL.len() {
            let at = (first + turn) % ALL.len();
            let commit = commit(bank, ALL[at], &mut rng).await?;
            took[at].push(commit.as_secs_f64() * 1e6);
        }
        if begun.elapsed() > time {
            break;
        }
    }
    Ok(took.map(|times| median(times).unwrap_or(0.0)))
}

/// Does one transaction, and answers how long its commit took.
async fn commit(bank: &Bank, kind: Commit, rng: &mut Rng) -> Result<Duration, TxnError> {
    let accounts = bank.accounts;
    let from = rng.below(ACCOUNTS);
    let to = (from + 1 + rng.below(ACCOUNTS - 1)) % ACCOUNTS;
    let txn = bank.keeper.begin().name("recheck").await?;
    for account in [from, to] {
        let held = match kind {
            // The same pages are looked at, so that they are as warm when they are written.
            Commit::Blind => {
                let looked = bank
                    .keeper
                    .view(move |txn| Ok(accounts.get(txn, &account)?));
                looked.await?
            }
            Commit::Read | Commit::Overtaken => txn.get_for_update_as(accounts, &account).await?,
        };
        let held = held.unwrap_or(0);
        txn.put(accounts, &account, &held).await?;
    }
    if let Commit::Overtaken = kind {
        // Another record: what was read is as it was, and nobody can know without looking.
        let other = (to + 1) % ACCOUNTS;
        let other = if other == from {
            (to + 2) % ACCOUNTS
        } else {
            other
        };
        bank.keeper
            .update(move |txn| Ok(accounts.put(txn, &other, &super::OPENING_BALANCE)?))
            .await?;
    }
    let begun = Instant::now();
    txn.commit().await?;
    Ok(begun.elapsed())
}
