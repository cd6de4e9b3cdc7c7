//! Whether every line was applied exactly once: what is in LMDB is compared with the file, line by line, by code that shares nothing
//! with the import but the parser.

use std::collections::BTreeMap;
use std::error::Error;

use lockkeeper::{Keeper, RunTxn};
use serde::Serialize;

use crate::ledger::Ledger;
use crate::source::{Source, Transfer};

#[derive(Debug, Clone, Default, Serialize)]
pub struct Findings {
    /// Lines of the file.
    pub lines: u64,
    /// Lines that were applied once.
    pub once: u64,
    pub never: u64,
    pub more_than_once: u64,
    /// Marks of lines that are not in the file.
    pub unknown: u64,
    /// All balances together, which is nothing.
    pub total: i64,
    /// Accounts whose balance is not what the file says.
    pub wrong_balances: u64,
}

impl Findings {
    pub fn is_good(&self) -> bool {
        self.once == self.lines
            && [self.never, self.more_than_once, self.unknown] == [0; 3]
            && self.total == 0
            && self.wrong_balances == 0
    }
}

pub async fn run(
    keeper: &Keeper,
    ledger: Ledger,
    source: &Source,
) -> Result<Findings, Box<dyn Error>> {
    let expected = tokio::task::spawn_blocking({
        let source = source.clone();
        move || balances(&source).map_err(|error| error.to_string())
    })
    .await??;
    let lines = source.lines;
    let look = RunTxn::view(move |txn| {
        let mut findings = Findings {
            lines,
            ..Findings::default()
        };
        // In the order of the lines, so that each gap is seen.
        let mut next = 1;
        for mark in ledger.marks.iter(txn)? {
            let (line, times) = mark?;
            if line == 0 || line > lines {
                findings.unknown += 1;
                continue;
            }
            findings.never += line - next;
            next = line + 1;
            match times {
                1 => findings.once += 1,
                _ => findings.more_than_once += 1,
            }
        }
        findings.never += lines + 1 - next;

        let mut found = BTreeMap::new();
        for account in ledger.accounts.iter(txn)? {
            let (account, balance) = account?;
            findings.total += balance;
            found.insert(account, balance);
        }
        let accounts = expected.keys().chain(found.keys());
        let wrong = |account: &&u64| expected.get(account) != found.get(account);
        let wrong: std::collections::BTreeSet<_> = accounts.filter(wrong).collect();
        findings.wrong_balances = wrong.len() as u64;
        Ok(findings)
    });
    Ok(keeper.run(look).await?)
}

/// What the file says.
fn balances(source: &Source) -> Result<BTreeMap<u64, i64>, Box<dyn Error>> {
    let mut balances = BTreeMap::<u64, i64>::new();
    for line in source.lines()? {
        let line = line?;
        let transfer = Transfer::parse(&line).ok_or("a line is no transfer")?;
        *balances.entry(transfer.from).or_default() -= transfer.amount;
        *balances.entry(transfer.to).or_default() += transfer.amount;
    }
    Ok(balances)
}
