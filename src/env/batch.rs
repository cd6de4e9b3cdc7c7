//! Group commit: the bodies of one batch in one write transaction of LMDB, each isolated from the others (I3).
//!
//! Bodies run in the plain transaction as long as they do not fail. A body that fails after it has written has spoiled the
//! transaction for its neighbours: everything is undone and run again, that body in a nested transaction of its own, where
//! it can be undone by itself. When failures are common, small groups share nested transactions from the start
//! ([`Grouping`](super::gather::Grouping)). Every answer comes from the pass that committed: what an undone pass saw or
//! answered is forgotten.

mod commit;
mod item;

use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use heed::{Env, MdbError};

use crate::env::gate::{Entry, Shut};
use crate::env::growth::AdoptCounter;
use crate::env::inside::InsideUpdate;
use crate::env::job::{Ran, quietly};
use crate::env::map::Refusal;
use crate::env::shared::{Counters, Running, UpdateTask};
use crate::env::transaction::{Spoiled, WriteTxn};
use crate::env::writer::Writer;
use crate::error::{StorageError, TxnError, body_name, brief};
use commit::is_too_much;
pub(super) use item::Item;
use item::{State, has_written};

/// How a pass over the bodies ended.
enum Pass {
    /// All have run.
    Complete,
    /// Undo everything and run again, one of them alone.
    Again,
    /// The map is full; the body that noticed.
    MapFull(usize),
    /// Commit those before this one; the others come next.
    Enough(usize),
    /// LMDB's transaction is too large: undo everything, and commit those before this one first.
    Split(usize),
    Broken(heed::Error),
}

/// Whether one body is to be kept.
enum Verdict {
    Keep,
    /// Undo it: it failed, or its caller gave up.
    Undo,
    Spoiled(Spoiled),
}

impl Writer {
    /// Runs, commits and answers all of `tasks`.
    pub(super) fn run_batch(&mut self, tasks: Vec<UpdateTask>) {
        let mut items: Vec<Item> = tasks.into_iter().map(Item::new).collect();
        put_first(&mut items);
        self.recordless = false;
        Counters::add(&self.shared.counters.batches, 1);
        Counters::add(&self.shared.counters.bodies, items.len() as u64);
        metrics::counter!("lockkeeper_batches_total").increment(1);
        #[expect(clippy::cast_precision_loss, reason = "a histogram")]
        metrics::histogram!("lockkeeper_batch_bodies").record(items.len() as f64);
        let mut adoption = self.adoption();
        // Once the map may not grow, each body is tried by itself: some do not need the space.
        let mut refused = None;
        while !items.is_empty() {
            let in_batch = &self.shared.counters.in_batch;
            in_batch.store(items.len(), Ordering::Relaxed);
            items = self.commit_some(items, &mut adoption, &mut refused);
        }
        self.shared.counters.in_batch.store(0, Ordering::Relaxed);
        *self.shared.running.lock() = None;
    }

    /// Commits as many as go into one transaction of LMDB; answers those that are left.
    fn commit_some(
        &mut self,
        mut items: Vec<Item>,
        adoption: &mut AdoptCounter,
        refused: &mut Option<Refusal>,
    ) -> Vec<Item> {
        let commit = AssertUnwindSafe(|| self.try_to_commit(&mut items, adoption, refused));
        match catch_unwind(commit) {
            Ok(rest) => rest,
            Err(panic) => {
                self.after_panic("a batch", panic);
                for item in items {
                    // From the commit on nobody can say.
                    let error = match item.ask.ticket.give_up() {
                        None => TxnError::MaybeCommitted {
                            cause: self.shared.poison.event().map(|event| event.source.clone()),
                        },
                        Some(_) => self.shared.recovery_needed(),
                    };
                    item.fail(error);
                }
                Vec::new()
            }
        }
    }

    /// As [`commit_some`](Self::commit_some); `items` stay where they are as long as nobody has answered them.
    fn try_to_commit(
        &mut self,
        items: &mut Vec<Item>,
        adoption: &mut AdoptCounter,
        refused: &mut Option<Refusal>,
    ) -> Vec<Item> {
        let shared = Arc::clone(&self.shared);
        let mut count = items.len();
        loop {
            if let Some(error) = shared.poison.event() {
                for item in items.drain(..) {
                    item.fail(TxnError::RecoveryNeeded(Arc::clone(&error)));
                }
                return Vec::new();
            }
            if shared.gate.shut(Entry::Admitted) == Some(Shut::Closing) {
                // The time for what is in flight is over.
                return Self::fail_all(take(items), &TxnError::ShuttingDown);
            }
            // Whoever gave up before the body began never has it run.
            for gone in items.extract_if(.., |item| item.ask.ticket.given_up()) {
                quietly(|| drop(gone));
            }
            count = count.min(items.len());
            if items.is_empty() {
                return Vec::new();
            }
            for item in items.iter_mut() {
                item.alone |= refused.is_some();
                if !matches!(item.state, State::Impossible(_)) {
                    item.state = State::Ready;
                }
            }
            self.prepare_record(items.get(..count).unwrap_or_default());
            let earliest = items.iter().map(|item| item.ask.deadline).min();
            let env = match self.env() {
                Ok(env) => env,
                Err(_) => continue,
            };
            let closed = match shared.exclude_views(earliest.unwrap_or_else(Instant::now)) {
                Ok(closed) => closed,
                Err(error) => {
                    // Their callers are about to give up by themselves; nobody else is held up by them.
                    let now = Instant::now();
                    let late = items.iter().position(|item| item.ask.deadline <= now);
                    if let Some(late) = late {
                        items.remove(late).fail(error);
                    }
                    continue;
                }
            };
            let txn = match env.write_txn() {
                Ok(txn) => txn,
                Err(error) => {
                    drop(closed);
                    if let Err(error) = self.overcome(error, "beginning a transaction", adoption) {
                        return Self::fail_all(take(items), &error);
                    }
                    continue;
                }
            };
            adoption.succeeded();
            let mut txn = WriteTxn::new(txn, shared.scope(), &shared.registry);
            self.look_outside(&txn);
            let pass = self.pass(
                &env,
                &mut txn,
                items.get_mut(..count).unwrap_or_default(),
                refused.as_ref(),
            );
            match pass {
                Pass::Complete => {}
                Pass::Enough(at) => count = at,
                Pass::Again => {
                    txn.abort();
                    continue;
                }
                Pass::MapFull(at) => {
                    txn.abort();
                    drop(closed);
                    self.make_room(items, at, refused);
                    continue;
                }
                Pass::Split(at) => {
                    txn.abort();
                    if at == 0 {
                        if let Some(item) = items.first_mut() {
                            item.state = State::Impossible(TxnError::TooLarge);
                        }
                    } else {
                        count = at;
                    }
                    continue;
                }
                Pass::Broken(error) => {
                    txn.abort();
                    drop(closed);
                    if let Err(error) = self.overcome(error, "running a batch", adoption) {
                        return Self::fail_all(take(items), &error);
                    }
                    continue;
                }
            }
            shared.supervision.bombs.pass("before a commit");
            count = count.min(items.len());
            let batch = items.get_mut(..count).unwrap_or_default();
            match self.commit(&env, txn, batch) {
                Ok(()) => {
                    drop(closed);
                    shared.supervision.bombs.pass("after a commit");
                    let rest = items.split_off(count);
                    self.answer(take(items));
                    return rest;
                }
                Err(None) => {}
                Err(Some(heed::Error::Mdb(MdbError::MapFull))) => {
                    drop(closed);
                    self.make_room_for_commit(batch, refused);
                    // Smaller commits may still fit.
                    if refused.is_some() {
                        count = 1;
                    }
                }
                Err(Some(error)) if batch.len() > 1 && is_too_much(&error) => {
                    drop(closed);
                    // One body must not take the others with it: smaller commits may fit.
                    batch
                        .iter()
                        .for_each(|item| item.ask.ticket.revert_commit());
                    count = batch.len() / 2;
                }
                Err(Some(error)) => {
                    drop(closed);
                    let rest = items.split_off(count);
                    self.commit_failed(&env, take(items), error);
                    return rest;
                }
            }
        }
    }

    /// Runs the bodies, in order, in `txn`.
    fn pass(
        &mut self,
        env: &Env,
        txn: &mut WriteTxn<'_>,
        items: &mut [Item],
        refused: Option<&Refusal>,
    ) -> Pass {
        self.outside_wrote = false;
        let group = self.grouping.size(items.len());
        let most = crate::clock::far(Instant::now(), self.shared.config.batch_time());
        let mut at = 0;
        while at < items.len() {
            // Bodies that take their time do not keep those before them from their commit.
            if at > 0 && self.body_began.is_some_and(|began| began > most) {
                return Pass::Enough(at);
            }
            let Some(item) = items.get(at) else { break };
            let step = if item.alone && items.len() > 1 {
                self.run_alone(env, txn, items, at, refused)
            } else if let Some(size) = group {
                self.run_group(env, txn, items, at, size, refused)
            } else {
                self.run_plain(txn, items, at)
            };
            match step {
                Ok(next) => at = next,
                Err(pass) => return pass,
            }
        }
        Pass::Complete
    }

    /// Runs one body in the plain transaction.
    fn run_plain(
        &mut self,
        txn: &mut WriteTxn<'_>,
        items: &mut [Item],
        at: usize,
    ) -> Result<usize, Pass> {
        let many = items.len() > 1;
        let Some(item) = items.get_mut(at) else {
            return Ok(at + 1);
        };
        match self.run_body(txn, item) {
            Verdict::Keep => {
                self.outside_wrote |= wrote_outside(item);
                Ok(at + 1)
            }
            // A transaction of its own is simply aborted: see `commit`.
            Verdict::Undo if !many || !item.wrote => Ok(at + 1),
            Verdict::Undo => {
                item.alone = true;
                Err(Pass::Again)
            }
            Verdict::Spoiled(Spoiled::MapFull) => Err(Pass::MapFull(at)),
            Verdict::Spoiled(Spoiled::TxnFull) => Err(Pass::Split(at)),
            Verdict::Spoiled(Spoiled::Corrupted) => Err(item.broken()),
            Verdict::Spoiled(Spoiled::Other) if !many => {
                item.spoiled();
                Ok(at + 1)
            }
            Verdict::Spoiled(Spoiled::Other) => {
                item.alone = true;
                Err(Pass::Again)
            }
        }
    }

    /// Runs one body in a nested transaction.
    fn run_alone(
        &mut self,
        env: &Env,
        txn: &mut WriteTxn<'_>,
        items: &mut [Item],
        at: usize,
        refused: Option<&Refusal>,
    ) -> Result<usize, Pass> {
        let dirty = has_written(items, at);
        let mut child = txn.child(env).map_err(|error| nested(error, at))?;
        let Some(item) = items.get_mut(at) else {
            return Ok(at + 1);
        };
        match self.run_body(&mut child, item) {
            Verdict::Keep => {
                child.commit().map_err(|error| nested(error, at))?;
                self.outside_wrote |= wrote_outside(item);
                return Ok(at + 1);
            }
            Verdict::Undo => child.abort(),
            Verdict::Spoiled(spoiled) => {
                child.abort();
                match spoiled {
                    Spoiled::MapFull => match refused {
                        // What neighbours wrote, and might yet be undone, must not decide.
                        Some(_) if dirty => return Err(Pass::Enough(at)),
                        Some(refusal) => {
                            item.state = State::Impossible(item.refused(refusal.clone()));
                        }
                        None => return Err(Pass::MapFull(at)),
                    },
                    Spoiled::TxnFull if at > 0 => return Err(Pass::Enough(at)),
                    Spoiled::TxnFull => return Err(Pass::Split(at)),
                    Spoiled::Corrupted => return Err(item.broken()),
                    Spoiled::Other => item.spoiled(),
                }
            }
        }
        Ok(at + 1)
    }

    /// Runs up to `size` bodies in a nested transaction that they share.
    fn run_group(
        &mut self,
        env: &Env,
        txn: &mut WriteTxn<'_>,
        items: &mut [Item],
        at: usize,
        size: usize,
        refused: Option<&Refusal>,
    ) -> Result<usize, Pass> {
        let end = items
            .iter()
            .enumerate()
            .skip(at)
            .take(size)
            .find(|(_, item)| item.alone)
            .map_or_else(|| (at + size).min(items.len()), |(end, _)| end);
        if end == at + 1 {
            return self.run_alone(env, txn, items, at, refused);
        }
        let outside_wrote = self.outside_wrote;
        let mut child = txn.child(env).map_err(|error| nested(error, at))?;
        for nth in at..end {
            let Some(item) = items.get_mut(nth) else {
                break;
            };
            match self.run_body(&mut child, item) {
                Verdict::Keep => self.outside_wrote |= wrote_outside(item),
                Verdict::Undo if !item.wrote => {}
                Verdict::Undo | Verdict::Spoiled(Spoiled::Other) => {
                    // The group runs again without it.
                    item.alone = true;
                    child.abort();
                    self.outside_wrote = outside_wrote;
                    return Ok(at);
                }
                Verdict::Spoiled(spoiled) => {
                    child.abort();
                    return Err(match spoiled {
                        Spoiled::MapFull => Pass::MapFull(nth),
                        Spoiled::TxnFull if at > 0 => Pass::Enough(at),
                        Spoiled::TxnFull => Pass::Split(nth),
                        _ => item.broken(),
                    });
                }
            }
        }
        child.commit().map_err(|error| nested(error, at))?;
        Ok(end)
    }

    fn run_body(&mut self, txn: &mut WriteTxn<'_>, item: &mut Item) -> Verdict {
        if matches!(item.state, State::Impossible(_)) {
            item.wrote = false;
            return Verdict::Undo;
        }
        if !item.ask.ticket.start() {
            item.state = State::Gone;
            item.wrote = false;
            return Verdict::Undo;
        }
        item.attempt += 1;
        if item.attempt > 1 {
            Counters::add(&self.shared.counters.bodies_rerun, 1);
        }
        let since = Instant::now();
        self.body_began = Some(since);
        *self.shared.running.lock() = Some(Running {
            name: item.ask.name.clone(),
            site: item.ask.site,
            since,
            deadline: item.ask.deadline,
            reported: false,
        });
        let attempt = item.ask.attempts_before + item.attempt;
        txn.begin_body(attempt, item.ask.deadline, self.mark());
        let ran = {
            let _inside = InsideUpdate::enter(self.shared.id, item.ask.site);
            let trace = item.ask.trace.clone();
            let _trace = trace.enter();
            item.run(txn)
        };
        self.body_returned(item, since);
        item.ran = (!item.ask.trace.is_disabled()).then(|| (since, Instant::now()));
        let in_time = item.ask.ticket.returned();
        let run = txn.body();
        item.wrote = run.wrote;
        if let Some((spoiled, error)) = run.fault.take() {
            item.fault = Some(StorageError::new("running a body", error));
            return Verdict::Spoiled(spoiled);
        }
        if !in_time {
            item.state = State::Gone;
            return Verdict::Undo;
        }
        match ran {
            Ran::Done => {
                item.state = State::Kept;
                self.grouping.ended(false);
                Verdict::Keep
            }
            Ran::Failed => {
                item.state = State::Failed;
                self.grouping.ended(item.wrote);
                Verdict::Undo
            }
        }
    }

    /// Says so when a body has kept the writer beyond its own deadline.
    fn body_returned(&self, item: &Item, since: Instant) {
        let running = self.shared.running.lock().take();
        if running.is_some_and(|running| running.reported) {
            tracing::warn!(target: "lockkeeper", body = %body_name(item.ask.name.as_deref(), item.ask.site),
                ran = %brief(since.elapsed()), "the body that kept the writer has returned");
        }
    }
}

/// Whether those that run after it in the same transaction see what no record lock announced.
fn wrote_outside(item: &Item) -> bool {
    !item.ask.kind.is_announced() && item.wrote
}

/// Moves those that go first before all plain ones; apart from that the order stays.
fn put_first(items: &mut [Item]) {
    let plain = |item: &Item| item.ask.kind.makes_way();
    let from = items.iter().position(plain).unwrap_or(items.len());
    let (_, behind) = items.split_at_mut(from);
    if behind.iter().any(|item| item.ask.kind.is_first()) {
        behind.sort_by_key(|item| !item.ask.kind.is_first());
    }
}

fn nested(error: heed::Error, at: usize) -> Pass {
    match error {
        heed::Error::Mdb(MdbError::MapFull) => Pass::MapFull(at),
        heed::Error::Mdb(MdbError::TxnFull) => Pass::Split(at),
        error => Pass::Broken(error),
    }
}
