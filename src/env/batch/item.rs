//! One body of a batch, what became of it, and how its caller is told.
//!
//! A caller is answered once, and after its locks are free; only here are jobs used up by their answers.

use std::time::Instant;

use heed::{Env, MdbError};

use super::Pass;
use crate::env::job::{Ask, Ran, UpdateJob, micros, quietly};
use crate::env::map::{Change, Refusal};
use crate::env::shared::{Counters, UpdateTask};
use crate::env::transaction::WriteTxn;
use crate::env::writer::{Writer, is_fatal};
use crate::error::{MapBusy, StorageError, TxnError, body_name, duplicate};

/// One body of a batch.
pub(in crate::env) struct Item {
    pub(in crate::env) ask: Ask,
    pub(super) job: Box<dyn UpdateJob>,
    pub(super) attempt: u32,
    /// It runs in a nested transaction of its own.
    pub(super) alone: bool,
    pub(super) state: State,
    pub(super) wrote: bool,
    /// When its last run began and ended, if its span wants to know.
    pub(super) ran: Option<(Instant, Instant)>,
    /// What LMDB said, if the transaction could not go on after this body.
    pub(super) fault: Option<StorageError>,
}

pub(super) enum State {
    /// Has not run in this pass.
    Ready,
    /// Its writes are in the transaction.
    Kept,
    /// It failed by itself, and what it wrote is undone.
    Failed,
    /// It cannot be done, whatever its body says.
    Impossible(TxnError),
    /// Its caller has given up.
    Gone,
}

impl Item {
    pub(super) fn new(task: UpdateTask) -> Self {
        Self {
            ask: task.ask,
            job: task.job,
            attempt: 0,
            alone: false,
            state: State::Ready,
            wrote: false,
            ran: None,
            fault: None,
        }
    }

    /// Whether something that it wrote is in the transaction.
    pub(in crate::env) fn has_kept_writes(&self) -> bool {
        self.wrote && matches!(self.state, State::Kept)
    }

    /// Records in its span how long it waited and ran, and how long the commit took that its body waited for.
    fn trace(&self) {
        let Some((began, ended)) = self.ran else {
            return;
        };
        self.ask.ran(began, ended);
        if matches!(self.state, State::Kept) {
            let commit = micros(ended.elapsed());
            self.ask.trace.record("commit_us", commit);
        }
    }

    /// Runs the body, unless what the transaction holds forbids it, before or after.
    pub(super) fn run(&mut self, txn: &mut WriteTxn<'_>) -> Ran {
        if let Err(error) = self.may_be_applied() {
            return self.job.refuse(error);
        }
        let ran = self.job.run(txn, self.ask.site);
        match (&ran, self.may_be_applied()) {
            (Ran::Done, Err(error)) => self.job.refuse(error),
            _ => ran,
        }
    }

    fn may_be_applied(&self) -> Result<(), TxnError> {
        let locks = self.ask.locks.as_ref();
        locks.map_or(Ok(()), |locks| locks.check())
    }

    /// The body has spoiled its transaction; what it answered, perhaps "all is well", does not count.
    pub(super) fn spoiled(&mut self) {
        self.wrote = true;
        self.state = match self.fault.take() {
            Some(fault) => State::Impossible(TxnError::Storage(fault)),
            None => State::Failed,
        };
    }

    pub(super) fn broken(&self) -> Pass {
        Pass::Broken(match &self.fault {
            Some(fault) => duplicate(fault.heed()),
            None => heed::Error::Mdb(MdbError::Corrupted),
        })
    }

    pub(super) fn refused(&self, refusal: Refusal) -> TxnError {
        refusal.error(Some(body_name(self.ask.name.as_deref(), self.ask.site)))
    }

    pub(super) fn fail(mut self, error: TxnError) {
        self.ask.let_go();
        quietly(|| match self.state {
            State::Gone => drop(self.job),
            _ => self.job.fail(error),
        });
    }
}

impl Writer {
    /// A body, at `at`, needs a larger map.
    pub(super) fn make_room(
        &mut self,
        items: &mut [Item],
        at: usize,
        refused: &mut Option<Refusal>,
    ) {
        if let Change::Refused(refusal) = self.grow() {
            // Behind neighbours that wrote it is tried again, once they are committed or undone.
            let dirty = has_written(items, at);
            if !dirty && let Some(item) = items.get_mut(at) {
                item.state = State::Impossible(item.refused(refusal.clone()));
            }
            *refused = Some(refusal);
        }
    }

    /// The commit needs a larger map; nobody can say for which body.
    pub(super) fn make_room_for_commit(
        &mut self,
        items: &mut [Item],
        refused: &mut Option<Refusal>,
    ) {
        let without = std::mem::take(&mut self.record_in_the_way);
        if let Change::Refused(refusal) = self.grow() {
            if without {
                // No body is refused for the sake of the record.
                self.recordless = true;
                return;
            }
            if let [item] = items {
                item.state = State::Impossible(item.refused(refusal.clone()));
            }
            *refused = Some(refusal);
        }
    }

    /// Locks first, then the answers: who is answered finds its locks free (I4).
    pub(super) fn answer(&mut self, items: Vec<Item>) {
        for mut item in items {
            item.ask.let_go();
            item.trace();
            if matches!(item.state, State::Failed | State::Ready) {
                Counters::add(&self.shared.counters.bodies_failed, 1);
            }
            quietly(|| match item.state {
                State::Kept | State::Failed | State::Ready => item.job.answer(),
                State::Impossible(error) => item.job.fail(error),
                State::Gone => drop(item.job),
            });
        }
    }

    pub(super) fn fail_all(items: Vec<Item>, error: &TxnError) -> Vec<Item> {
        for item in items {
            let error = match error {
                TxnError::MapBusy(busy) => TxnError::MapBusy(MapBusy {
                    update: Some(body_name(item.ask.name.as_deref(), item.ask.site)),
                    ..busy.clone()
                }),
                error => error.duplicate(),
            };
            item.fail(error);
        }
        Vec::new()
    }

    /// Nothing of the batch is known to be committed.
    pub(super) fn commit_failed(&mut self, env: &Env, items: Vec<Item>, error: heed::Error) {
        let fatal = is_fatal(&error);
        let error = StorageError::new("commit", error);
        // A failed write of the meta page shows only here: whether it reached the disk nobody knows.
        let panicked = matches!(
            env.write_txn().map(heed::RwTxn::abort),
            Err(heed::Error::Mdb(MdbError::Panic))
        );
        if fatal || panicked {
            self.shared.poison(error.clone());
        }
        for item in items {
            let error = match &item.state {
                State::Kept if panicked || fatal => TxnError::MaybeCommitted {
                    cause: Some(error.clone()),
                },
                State::Impossible(error) => error.duplicate(),
                _ if fatal || panicked => self.shared.recovery_needed(),
                _ => TxnError::Storage(error.clone()),
            };
            item.fail(error);
        }
    }
}

/// Whether the transaction holds something that the first `at` bodies wrote.
pub(super) fn has_written(items: &[Item], at: usize) -> bool {
    items.iter().take(at).any(Item::has_kept_writes)
}
