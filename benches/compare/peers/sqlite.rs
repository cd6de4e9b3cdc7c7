//! SQLite: WAL, one connection behind a mutex, reached by `spawn_blocking`.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, TransactionBehavior};

use crate::load::Updates;
use crate::work::{self, FRESH, Failure, Op, Outcome, Safety};

#[derive(Clone)]
pub struct Sqlite(Arc<Mutex<Connection>>);

impl Sqlite {
    pub fn create(dir: &Path, keys: u64, safety: Safety) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir)?;
        let mut connection = Connection::open(dir.join("data.sqlite"))?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(format!("SQLite answered journal mode {mode:?}").into());
        }
        let synchronous = match safety {
            Safety::Durable => "FULL",
            Safety::NoSync => "OFF",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        // An integer primary key is SQLite's own 8-byte key, the fastest it has.
        connection.execute(
            "CREATE TABLE bench (k INTEGER PRIMARY KEY, v BLOB NOT NULL)",
            (),
        )?;
        let txn = connection.transaction()?;
        {
            let mut insert = txn.prepare("INSERT INTO bench VALUES (?1, ?2)")?;
            for key in 0..keys {
                insert.execute((key as i64, FRESH))?;
            }
        }
        txn.commit()?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    fn apply(&self, op: Op) -> Result<Outcome, Failure> {
        let key = op.key as i64;
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let txn = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let next = txn
            .prepare_cached("SELECT v FROM bench WHERE k = ?1")?
            .query_row([key], |row| Ok(work::bump(row.get_ref(0)?.as_blob()?)))??;
        txn.prepare_cached("UPDATE bench SET v = ?2 WHERE k = ?1")?
            .execute((key, next))?;
        match op.outcome() {
            Outcome::Committed => txn.commit()?,
            Outcome::Refused => txn.rollback()?,
        }
        Ok(op.outcome())
    }
}

impl Updates for Sqlite {
    async fn update(&self, op: Op) -> Result<Outcome, Failure> {
        let system = self.clone();
        tokio::task::spawn_blocking(move || system.apply(op)).await?
    }

    fn total(&self) -> Result<u64, Failure> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut select = connection.prepare("SELECT v FROM bench")?;
        let mut rows = select.query(())?;
        let mut total = 0;
        while let Some(row) = rows.next()? {
            total += work::counter(row.get_ref(0)?.as_blob()?)?;
        }
        Ok(total)
    }
}
