//! heed by hand: `spawn_blocking`, and one write transaction for each update.

use std::convert::Infallible;
use std::path::Path;

use heed::byteorder::BigEndian;
use heed::types::{Bytes, U64};
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RwTxn};

use crate::growth::Inserts;
use crate::load::Updates;
use crate::views::{self, Views};
use crate::work::{self, FRESH, Failure, INSERTS, LARGE_MAP, Op, Outcome, Safety, scatter};

pub type Table = Database<'static, U64<BigEndian>, Bytes>;

#[derive(Clone)]
pub struct ByHand {
    env: Env,
    table: Table,
}

/// Opens the environment in `dir`, which nobody else in this process has open.
pub fn open(dir: &Path, safety: Safety) -> Result<(Env, Table), Failure> {
    let mut options = EnvOpenOptions::new();
    options.map_size(LARGE_MAP as usize).max_dbs(1);
    if safety == Safety::NoSync {
        #[expect(unsafe_code, reason = "heed's way to set LMDB's flags")]
        // SAFETY: NO_SYNC risks the file at a power loss; it is made for this run and thrown away.
        unsafe {
            options.flags(EnvFlags::NO_SYNC)
        };
    }
    #[expect(unsafe_code, reason = "heed's way to open an environment")]
    // SAFETY: the file lies in a folder made for this run, which no other process touches and
    // which is removed only after the environment is closed.
    let env = unsafe { options.open(dir)? };
    let table = env
        .create_databases_and_commit(env.write_txn()?, |opener, txn| {
            let table = opener.create_database(txn, Some(work::DATABASE))?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, Infallible>::Commit(table))
        })?
        .commit()
        .ok_or("the database was not made")?;
    Ok((env, table))
}

/// Fills `dir` with keys 0 to `keys`, closes it again: every LMDB system starts from the same tree.
pub fn fill(dir: &Path, keys: u64) -> Result<(), Failure> {
    std::fs::create_dir_all(dir)?;
    let (env, table) = open(dir, Safety::Durable)?;
    let mut txn = env.write_txn()?;
    for key in 0..keys {
        table.put(&mut txn, &key, &FRESH)?;
    }
    txn.commit()?;
    env.prepare_for_closing().wait();
    Ok(())
}

/// The body of an update, in whatever transaction.
pub fn body(table: Table, txn: &mut RwTxn<'_>, op: Op) -> Result<Outcome, Failure> {
    let value = table.get(txn, &op.key)?.ok_or("a key is missing")?;
    let next = work::bump(value)?;
    table.put(txn, &op.key, &next)?;
    Ok(op.outcome())
}

pub fn total(env: &Env, table: Table) -> Result<u64, Failure> {
    let txn = env.read_txn()?;
    let mut total = 0;
    for entry in table.iter(&txn)? {
        total += work::counter(entry?.1)?;
    }
    Ok(total)
}

impl ByHand {
    pub fn open(dir: &Path, safety: Safety) -> Result<Self, Failure> {
        let (env, table) = open(dir, safety)?;
        Ok(Self { env, table })
    }

    fn apply(&self, op: Op) -> Result<Outcome, Failure> {
        let mut txn = self.env.write_txn()?;
        let outcome = body(self.table, &mut txn, op)?;
        match outcome {
            Outcome::Committed => txn.commit()?,
            Outcome::Refused => txn.abort(),
        }
        Ok(outcome)
    }

    fn insert_all(&self, first: u64) -> Result<(), Failure> {
        let mut txn = self.env.write_txn()?;
        for n in first..first + INSERTS {
            self.table.put(&mut txn, &scatter(n), &FRESH)?;
        }
        Ok(txn.commit()?)
    }
}

impl Updates for ByHand {
    async fn update(&self, op: Op) -> Result<Outcome, Failure> {
        let system = self.clone();
        tokio::task::spawn_blocking(move || system.apply(op)).await?
    }

    fn total(&self) -> Result<u64, Failure> {
        total(&self.env, self.table)
    }
}

impl Views for ByHand {
    #[inline]
    fn view(&self, key: u64) -> Result<u64, Failure> {
        let txn = self.env.read_txn()?;
        views::look_at(self.table.get(&txn, &key)?)
    }

    #[inline]
    async fn view_async(&self, key: u64) -> Result<u64, Failure> {
        self.view(key)
    }
}

impl Inserts for ByHand {
    async fn insert(&self, first: u64) -> Result<(), Failure> {
        let system = self.clone();
        tokio::task::spawn_blocking(move || system.insert_all(first)).await?
    }

    async fn finish(&self) -> Result<(u64, u64), Failure> {
        let txn = self.env.read_txn()?;
        Ok((self.table.len(&txn)?, 0))
    }
}
