//! redb: `spawn_blocking`, and one write transaction for each update.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::load::Updates;
use crate::work::{self, FRESH, Failure, Op, Outcome, Safety};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new(work::DATABASE);

#[derive(Clone)]
pub struct Redb {
    database: Arc<Database>,
    safety: Safety,
}

impl Redb {
    pub fn create(dir: &Path, keys: u64, safety: Safety) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir)?;
        let database = Database::create(dir.join("data.redb"))?;
        let txn = database.begin_write()?;
        {
            let mut table = txn.open_table(TABLE)?;
            for key in 0..keys {
                table.insert(key, FRESH.as_slice())?;
            }
        }
        txn.commit()?;
        Ok(Self {
            database: Arc::new(database),
            safety,
        })
    }

    fn apply(&self, op: Op) -> Result<Outcome, Failure> {
        let mut txn = self.database.begin_write()?;
        if self.safety == Safety::NoSync {
            txn.set_durability(Durability::None)?;
        }
        {
            let mut table = txn.open_table(TABLE)?;
            let next = {
                let value = table.get(op.key)?.ok_or("a key is missing")?;
                work::bump(value.value())?
            };
            table.insert(op.key, next.as_slice())?;
        }
        match op.outcome() {
            Outcome::Committed => txn.commit()?,
            Outcome::Refused => txn.abort()?,
        }
        Ok(op.outcome())
    }
}

impl Updates for Redb {
    async fn update(&self, op: Op) -> Result<Outcome, Failure> {
        let system = self.clone();
        tokio::task::spawn_blocking(move || system.apply(op)).await?
    }

    /// Without a durable commit now and then redb keeps what it could free.
    fn settle(&self) -> Result<(), Failure> {
        if self.safety == Safety::NoSync {
            self.database.begin_write()?.commit()?;
        }
        Ok(())
    }

    fn total(&self) -> Result<u64, Failure> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let mut total = 0;
        for entry in table.iter()? {
            total += work::counter(entry?.1.value())?;
        }
        Ok(total)
    }
}
