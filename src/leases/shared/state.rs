//! What is behind the mutex: the core, and who is behind its numbers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::{HashMap, HashSet};
use tokio::sync::oneshot;

use super::actions::Action;
use crate::error::LeaseError;
use crate::leases::request::Checked;
use crate::leases::seen::Acquiring;
use crate::leases::state::{Book, Effect, LeaseKey, Moment, RefreshItem, Refusal, WaiterId};
use crate::leases::view::{Cell, Ending};
use crate::leases::waiting::Answer;
use crate::leases::{LeaseEvent, LeaseName, TableName, identity};

pub(super) struct State {
    pub book: Book,
    pub table: Option<TableName>,
    pub waiters: HashMap<WaiterId, Slot>,
    pub cells: HashMap<LeaseKey, Arc<Cell>>,
    /// The ids of the holders of all these.
    pub holders: HashSet<Arc<str>>,
    pub wake_at: Option<Moment>,
    /// By then everything has to be given back.
    pub close_by: Option<Moment>,
}

/// Somebody who waits.
pub(super) struct Slot {
    pub reply: oneshot::Sender<Answer>,
    pub options: Checked,
    pub seen: Arc<Acquiring>,
}

impl State {
    /// Whether something is due sooner than the driver would wake; then it is noted.
    pub(super) fn is_sooner(&mut self) -> bool {
        let next = self.book.next_deadline();
        let is_sooner = match (next, self.wake_at) {
            (Some(next), Some(wake_at)) => next < wake_at,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_sooner {
            self.wake_at = next;
        }
        is_sooner
    }

    pub(super) fn new(book: Book, table: Option<TableName>) -> Self {
        Self {
            book,
            table,
            waiters: HashMap::new(),
            cells: HashMap::new(),
            holders: HashSet::new(),
            wake_at: None,
            close_by: None,
        }
    }

    /// What a decision of the core changes here, and what it leaves to be done.
    pub(super) fn apply(&mut self, effect: Effect, actions: &mut Vec<Action>) {
        match effect {
            Effect::Claim {
                key,
                waiter,
                name,
                send,
                left_with,
            } => {
                if let Some(cell) = self.cell(key, waiter, &name) {
                    actions.push(Action::Claim(cell, send, left_with));
                }
            }
            Effect::HandOver {
                from,
                to,
                waiter,
                name,
                send,
            } => {
                let to = self.cell(to, Some(waiter), &name);
                if let (Some(from), Some(to)) = (self.cells.get(&from).cloned(), to) {
                    from.let_go.store(true, Ordering::Release);
                    actions.push(Action::HandOver(from, to, send));
                }
            }
            Effect::Refresh(items) => {
                let with_cell =
                    |item: RefreshItem| Some((Arc::clone(self.cells.get(&item.key)?), item));
                actions.push(Action::Refresh(
                    items.into_iter().filter_map(with_cell).collect(),
                ));
            }
            Effect::Release { key } => self.with(key, |cell| {
                cell.let_go.store(true, Ordering::Release);
                actions.push(Action::Release(Arc::clone(cell)));
            }),
            Effect::Granted { waiter, key } => {
                if let (Some(slot), Some(cell)) =
                    (self.waiters.remove(&waiter), self.cells.get(&key))
                {
                    cell.counted.store(true, Ordering::Relaxed);
                    actions.push(Action::Grant(slot.reply, Arc::clone(cell)));
                }
            }
            Effect::Waits { waiter, name } => {
                if let Some(slot) = self.waiters.get(&waiter) {
                    actions.push(Action::Waits(Arc::clone(&slot.seen), name));
                }
            }
            Effect::Refused {
                waiter,
                name,
                refusal,
            } => {
                if let Some(slot) = self.waiters.remove(&waiter) {
                    let error = self.error(&name, refusal);
                    actions.push(Action::Refuse(slot.reply, error));
                }
            }
            Effect::Deadline { key, at, confirmed } => {
                self.with(key, |cell| {
                    cell.believe_until(at);
                    actions.extend(confirmed.map(|send| Action::Confirm(Arc::clone(cell), send)));
                });
            }
            Effect::Doubtful { key } => self.with(key, |cell| {
                cell.doubtful.store(true, Ordering::Relaxed);
                actions.push(Action::Tell(LeaseEvent::Doubtful {
                    name: cell.name.clone(),
                    token: cell.token(),
                }));
            }),
            Effect::HeldAgain { key } => self.with(key, |cell| {
                cell.doubtful.store(false, Ordering::Relaxed);
                actions.push(Action::Tell(LeaseEvent::HeldAgain {
                    name: cell.name.clone(),
                    token: cell.token(),
                }));
            }),
            Effect::Lost { key, reason } => self.with(key, |cell| {
                if cell.disbelieve() {
                    actions.push(Action::NotHeld);
                }
                actions.push(Action::Lost(Arc::clone(cell), reason));
            }),
            Effect::DropRefresh { key } => self.with(key, |cell| {
                if let Some(task) = cell.refreshing.lock().take() {
                    task.abort();
                }
            }),
            Effect::Released { key, outcome } => self.with(key, |cell| {
                actions.push(Action::End(Arc::clone(cell), Ending::Released(outcome)));
            }),
            Effect::ReleaseStopped { key, error } => self.with(key, |cell| {
                actions.push(Action::End(Arc::clone(cell), Ending::Stopped(error)));
            }),
            Effect::Forget { key } => {
                if let Some(cell) = self.cells.remove(&key) {
                    self.holders.remove(&cell.holder.id);
                }
            }
            Effect::Listen => actions.push(Action::Listen),
        }
    }

    /// The acquisition of this key; a new one gets a holder's id of its own.
    fn cell(
        &mut self,
        key: LeaseKey,
        waiter: Option<WaiterId>,
        name: &LeaseName,
    ) -> Option<Arc<Cell>> {
        if let Some(cell) = self.cells.get(&key) {
            return Some(Arc::clone(cell));
        }
        let options = &self.waiters.get(&waiter?)?.options;
        let holder = identity::holder(&options.label);
        let table = self.table.clone();
        let cell = Arc::new(Cell::new(key, name.clone(), holder, options, table));
        self.holders.insert(Arc::clone(&cell.holder.id));
        self.cells.insert(key, Arc::clone(&cell));
        Some(cell)
    }

    pub(super) fn error(&self, name: &LeaseName, refusal: Refusal) -> LeaseError {
        let name = name.clone();
        match refusal {
            Refusal::Busy {
                by,
                record,
                remaining,
            } => {
                let here = by.and_then(|key| self.cells.get(&key));
                let here = here.map(|cell| cell.holder.clone());
                LeaseError::Busy {
                    name,
                    holder: here.or_else(|| record.and_then(|record| record.holder)),
                    remaining,
                }
            }
            Refusal::TimedOut {
                waited,
                by,
                record,
                errors,
                last,
            } => {
                let here = by.and_then(|key| self.cells.get(&key));
                let remaining = match here {
                    Some(cell) => Some(cell.remaining()),
                    None => record.as_ref().and_then(|record| record.remaining),
                };
                let here = here.map(|cell| cell.holder.clone());
                LeaseError::TimedOut {
                    name,
                    waited,
                    remaining,
                    holder: here.or_else(|| record.and_then(|record| record.holder)),
                    errors,
                    last,
                }
            }
            Refusal::Unreachable {
                waited,
                errors,
                last,
            } => LeaseError::Unreachable {
                errors,
                waited,
                last,
            },
            Refusal::Unusable(error) => LeaseError::Store(error),
            Refusal::TooMany { limit } => LeaseError::TooManyWaiters { name, limit },
            Refusal::ShuttingDown => LeaseError::ShuttingDown,
        }
    }

    fn with(&self, key: LeaseKey, run: impl FnOnce(&Arc<Cell>)) {
        if let Some(cell) = self.cells.get(&key) {
            run(cell);
        }
    }
}
