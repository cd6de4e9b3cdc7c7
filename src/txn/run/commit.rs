//! The end of a transaction: what it read is compared, if anybody may have changed it, and what it wrote is applied.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::attempt::{Attempt, Riding};
use super::isolation::Isolation;
use super::state::{NodeId, Sources, State};
use crate::env::{Ask, Kind, RawTable, ReadTxn, Readable, UpdateBody, WriteTxn};
use crate::error::{Stage, TxnError};
use crate::txn::sets::{Check, Limits, Sets, Write};

/// Something else that is to be done in the same LMDB transaction, after the writes.
pub(crate) type WithCommit = Box<dyn FnMut(&mut WriteTxn<'_>) -> Result<(), TxnError> + Send>;

/// What is left of a transaction that may not be used any more.
struct Prepared {
    sets: Sets,
    tables: SmallVec<[RawTable; 2]>,
    isolation: Isolation,
    sources: Sources,
    must_compare: bool,
    /// The number of outside writes before the first read.
    outside: Option<u64>,
}

impl Attempt {
    /// Applies the transaction; answered when that is durable.
    pub(crate) async fn commit(self: &Arc<Self>, with: Option<WithCommit>) -> Result<(), TxnError> {
        if let Some(fenced) = &self.start.fenced {
            fenced.held().inspect_err(|_| self.abort())?;
        }
        let prepared = {
            let mut state = self.state();
            if let Some(dead) = state.death() {
                return Err(dead.duplicate());
            }
            state.usable(NodeId::ROOT)?;
            if with.is_none() && state.is_settled() {
                state.end();
                drop(state);
                self.settle();
                return Ok(());
            }
            state.prepare(self.start.isolation)
        };
        let is_read_only = prepared.sets.is_read_only() && with.is_none();
        let prepared = Arc::new(prepared);
        if is_read_only {
            let outcome = Box::pin(self.compare(&prepared)).await;
            self.release();
            return outcome.map(drop);
        }
        let mut outside = prepared.outside;
        if prepared.may_be_stale(self) {
            let compared = Box::pin(self.compare(&prepared)).await;
            outside = compared.inspect_err(|_| self.release())?;
        }
        Box::pin(self.apply(prepared, outside, with)).await
    }

    /// Whether what the closure saw can have been so at one moment: then what it answers can be trusted, also if it said no.
    pub(crate) async fn could_have_been(&self) -> Result<(), TxnError> {
        // Whether a child is open makes no difference: nothing is applied.
        let prepared = self.state().prepare(self.start.isolation);
        // What comes from one snapshot was so when that was taken.
        if prepared.sources != Sources::Several {
            return Ok(());
        }
        self.compare(&Arc::new(prepared)).await.map(drop)
    }

    /// Compares what was read on this thread, so that the writer does not have to unless something is written meanwhile.
    /// Answers the number of outside writes before it looked.
    async fn compare(&self, prepared: &Arc<Prepared>) -> Result<Option<u64>, TxnError> {
        if !prepared.has_to_be_compared() {
            return Ok(prepared.outside);
        }
        let mark = self.start.env.shared.outside();
        let (once, env) = (Arc::clone(prepared), Arc::clone(&self.start.env));
        let locked = self.has_its_locks();
        let compare = move |txn: &ReadTxn<'_>| {
            let quiet = locked
                && !once.is_always_compared()
                && once.outside == Some(mark)
                && env.shared.is_undisturbed(mark, txn.snapshot_id() as u64);
            match quiet {
                true => Ok(()),
                false => once.check(txn),
            }
        };
        self.view(compare).await?;
        Ok(Some(mark))
    }

    async fn apply(
        self: &Arc<Self>,
        prepared: Arc<Prepared>,
        outside: Option<u64>,
        mut with: Option<WithCommit>,
    ) -> Result<(), TxnError> {
        let start = &self.start;
        // Too late to be sent: once the writer has it, nobody could say any more that it was not applied.
        if Instant::now() >= start.deadline {
            self.release();
            return Err(self.out_of_time(Stage::Ran));
        }
        let mut ask = Ask::new(start.name.clone(), start.site, start.deadline, start.span);
        ask.durability = start.durability;
        ask.attempts_before = start.number - 1;
        {
            let lent = self.lent.lock();
            ask.permit.clone_from(&lent.permit);
            ask.kind = Kind::Interactive {
                first: lent.first.is_some(),
                announced: start.isolation != Isolation::Optimistic,
            };
        }
        ask.locks = Some(Box::new(Riding::on(self, &ask.ticket)));
        ask.trace = start.trace.clone();
        let fenced = start.fenced.clone();
        let body: UpdateBody<(), std::convert::Infallible> = Box::new(move |txn| {
            if let Some(fenced) = &fenced {
                fenced.admit(txn)?;
            }
            let quiet = outside.is_some() && txn.outside() == outside;
            if prepared.has_checks() && (prepared.is_always_compared() || !quiet) {
                prepared.check(txn)?;
            }
            prepared.write(txn)?;
            if let Some(with) = &mut with {
                with(txn)?;
            }
            fenced.as_ref().map_or(Ok(()), |fenced| fenced.seal(txn))
        });
        self.start.env.update(ask, body).await?.result
    }
}

impl State {
    /// It has written nothing, and what it read was so at one moment: there is nothing to apply nor to compare.
    fn is_settled(&self) -> bool {
        self.sets.is_read_only() && self.sources != Sources::Several && !self.must_compare
    }

    /// Takes out what its end needs: nothing may be used any more.
    fn prepare(&mut self, isolation: Isolation) -> Prepared {
        self.end();
        Prepared {
            sets: std::mem::replace(&mut self.sets, Sets::new(Limits::default(), [0; 2])),
            tables: self.take_tables(),
            isolation,
            sources: self.sources,
            must_compare: self.must_compare,
            outside: self.outside,
        }
    }
}

impl Prepared {
    fn is_always_compared(&self) -> bool {
        (self.must_compare || self.isolation.always_compares()) && self.has_checks()
    }

    fn has_checks(&self) -> bool {
        self.sets.read_entries() > 0
    }

    /// Reads from one snapshot agree with each other.
    fn has_to_be_compared(&self) -> bool {
        let alone = self.sets.is_read_only() && self.sources != Sources::Several;
        self.has_checks() && (self.must_compare || !alone)
    }

    /// Whether it is worth a view to find out before the writer does.
    fn may_be_stale(&self, attempt: &Attempt) -> bool {
        let outside = attempt.start.env.shared.outside();
        self.has_to_be_compared() && (self.is_always_compared() || self.outside != Some(outside))
    }

    fn table(&self, id: u64) -> Result<&RawTable, TxnError> {
        let found = self.tables.iter().find(|table| table.id() == id);
        found.ok_or(TxnError::Database(crate::error::DbError::Foreign))
    }

    fn changed(&self, table: &RawTable) -> TxnError {
        let database = Arc::clone(table.name());
        match self.isolation {
            Isolation::Snapshot => TxnError::WriteConflict { database },
            _ => TxnError::ReadChanged { database },
        }
    }

    /// Compares everything that was read with what is there.
    fn check(&self, txn: &dyn Readable) -> Result<(), TxnError> {
        for check in self.sets.checks() {
            match check {
                Check::Key(check) => {
                    let table = self.table(check.table.id)?;
                    if !check.agrees(table.get(txn, check.key)?) {
                        return Err(self.changed(table));
                    }
                }
                Check::Range(check) => {
                    let table = self.table(check.table.id)?;
                    let mut present = check.fold();
                    table.walk(
                        txn,
                        check.from,
                        check.to,
                        check.reverse,
                        &mut |key, value| present.entry(key, value),
                    )?;
                    if !present.agrees() {
                        return Err(self.changed(table));
                    }
                }
            }
        }
        Ok(())
    }

    fn write(&self, txn: &mut WriteTxn<'_>) -> Result<(), TxnError> {
        for write in self.sets.writes() {
            match write {
                Write::Clear { table, from, to } => {
                    self.table(table.id)?.delete_range(txn, from, to)?;
                }
                Write::Put { table, key, value } => self.table(table.id)?.put(txn, key, value)?,
                Write::Delete { table, key } => {
                    self.table(table.id)?.delete(txn, key)?;
                }
            }
        }
        Ok(())
    }
}
