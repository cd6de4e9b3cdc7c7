//! The core behind its mutex, and what becomes of the core's effects.
//!
//! Everything is decided in [`Shared::transition`]; what others may believe of a lease changes under the mutex too, in the order
//! of the decisions. Answers are given, stores are asked and events are told after the mutex has been let go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, oneshot, watch};

use super::driver::Ended;
use super::handle::Owner;
use super::limit::{Limit, Verdict};
use super::request::Checked;
use super::seen::{self, Acquiring};
use super::state::{
    Book, Bounds, Effect, LeaseKey, Moment, Refusal, SendId, Timing, WaiterId, Wish,
};
use super::view::{Cell, Ending};
use super::waiting::Answer;
use super::{
    Fence, Holder, LeaseConfig, LeaseEvent, LeaseGuard, LeaseName, LeaseStore, Leases, LostReason,
    StoreId, boottime, calls, events, identity,
};
use crate::clock::coarse_now;
use crate::error::LeaseError;
use crate::inside::Owner as CodeOwner;

pub(super) struct Shared {
    state: Mutex<State>,
    pub store: Arc<dyn LeaseStore>,
    pub config: LeaseConfig,
    pub runtime: Handle,
    /// A forked child has neither the thread nor the leases.
    pub process: u32,
    /// Tells the driver that something is due sooner than it would wake.
    pub wake: Notify,
    pub events: broadcast::Sender<LeaseEvent>,
    pub owner: OnceLock<Weak<Owner>>,
    pub store_id: OnceLock<StoreId>,
    pub is_prepared: AtomicBool,
    pub preparing: tokio::sync::Mutex<()>,
    pub is_listening: AtomicBool,
    losses: Limit,
    /// When the driver has ended, what it left behind.
    pub ended: watch::Sender<Option<Ended>>,
    /// The driver's thread, to be joined.
    pub thread: Mutex<Option<JoinHandle<()>>>,
    /// Nobody new may ask.
    pub refusing: AtomicBool,
}

struct State {
    book: Book,
    waiters: HashMap<WaiterId, Slot>,
    cells: HashMap<LeaseKey, Arc<Cell>>,
    /// The ids of the holders of all these.
    holders: HashSet<Arc<str>>,
    wake_at: Option<Moment>,
    /// By then everything has to be given back.
    close_by: Option<Moment>,
}

struct Slot {
    reply: oneshot::Sender<Answer>,
    options: Checked,
    seen: Arc<Acquiring>,
}

/// What is left to do when the mutex has been let go.
enum Action {
    Claim(Arc<Cell>, SendId, Option<Fence>),
    HandOver(Arc<Cell>, Arc<Cell>, SendId),
    Refresh(Vec<(Arc<Cell>, super::state::RefreshItem)>),
    Release(Arc<Cell>),
    Grant(oneshot::Sender<Answer>, Arc<Cell>),
    Refuse(oneshot::Sender<Answer>, LeaseError),
    Tell(LeaseEvent),
    Confirm(Arc<Cell>, SendId),
    Lost(Arc<Cell>, LostReason),
    Waits(Arc<Acquiring>, LeaseName),
    NotHeld,
    End(Arc<Cell>, Ending),
    Listen,
}

/// What the driver has to know.
pub(super) struct Outlook {
    pub next: Option<Moment>,
    pub close_by: Option<Moment>,
    pub is_idle: bool,
}

impl Shared {
    pub(super) fn new(store: Arc<dyn LeaseStore>, config: LeaseConfig, runtime: Handle) -> Self {
        let bounds = Bounds {
            waiters: config.max_local_waiters,
            call_timeout: config.call_timeout,
            seed: boottime::now().0 ^ u64::from(std::process::id()).rotate_left(32),
        };
        Self {
            state: Mutex::new(State {
                book: Book::new(bounds),
                waiters: HashMap::new(),
                cells: HashMap::new(),
                holders: HashSet::new(),
                wake_at: None,
                close_by: None,
            }),
            store,
            config,
            runtime,
            process: std::process::id(),
            wake: Notify::new(),
            events: broadcast::Sender::new(events::BACKLOG),
            owner: OnceLock::new(),
            store_id: OnceLock::new(),
            is_prepared: AtomicBool::new(false),
            preparing: tokio::sync::Mutex::new(()),
            is_listening: AtomicBool::new(false),
            losses: Limit::default(),
            ended: watch::Sender::new(None),
            thread: Mutex::new(None),
            refusing: AtomicBool::new(false),
        }
    }

    /// Whether this is the child of a fork.
    pub(super) fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    /// Whose code its handlers are.
    pub(super) fn as_owner(self: &Arc<Self>) -> CodeOwner {
        CodeOwner::Leases(Arc::as_ptr(self).addr())
    }

    /// Somebody wants a lease.
    pub(super) fn ask(
        self: &Arc<Self>,
        name: &LeaseName,
        wish: Wish,
        options: Checked,
        seen: &Arc<Acquiring>,
    ) -> Result<(WaiterId, oneshot::Receiver<Answer>), LeaseError> {
        let (reply, answer) = oneshot::channel();
        let asked = self.transition(|state, now, fx| {
            let id = state.book.ask(now, name, wish)?;
            let slot = Slot {
                reply,
                options,
                seen: Arc::clone(seen),
            };
            state.waiters.insert(id, slot);
            state.book.advance(now, name, fx);
            Ok((id, state.book.is_behind(name, id)))
        });
        match asked {
            Ok((id, is_behind)) => {
                if is_behind {
                    seen.waits(name);
                }
                Ok((id, answer))
            }
            Err(refusal) => Err(self.look(|state| state.error(name, refusal))),
        }
    }

    /// Runs a step of the core, and carries out what follows.
    pub(super) fn step<R>(
        self: &Arc<Self>,
        step: impl FnOnce(&mut Book, Moment, &mut Vec<Effect>) -> R,
    ) -> R {
        self.transition(|state, now, fx| step(&mut state.book, now, fx))
    }

    /// A waiter has gone away.
    pub(super) fn abandon(self: &Arc<Self>, waiter: WaiterId) {
        let slot = self.transition(|state, now, fx| {
            let slot = state.waiters.remove(&waiter);
            state.book.abandon(now, waiter, fx);
            slot
        });
        // Not under the mutex.
        drop(slot);
    }

    /// Gives a lease back on its owner's behalf: from here on nobody believes in it.
    pub(super) fn release(self: &Arc<Self>, cell: &Arc<Cell>, disown: bool) {
        let was_held = self.transition(|state, now, fx| {
            let was_held = cell.disbelieve();
            match disown {
                true => state.book.disown(now, cell.key, fx),
                false => {
                    cell.ending.send_if_modified(|ending| {
                        let again = matches!(ending, Ending::Stopped(_));
                        if again {
                            *ending = Ending::Open;
                        }
                        again
                    });
                    state.book.release(now, cell.key, fx);
                }
            }
            was_held
        });
        if was_held {
            seen::not_held();
        }
        cell.tell_lost(LostReason::Released);
    }

    /// Gives a lease other times; `None` if it is not held, or not one of these.
    pub(super) fn extend(self: &Arc<Self>, cell: &Arc<Cell>, timing: Timing) -> Option<SendId> {
        self.transition(|state, now, fx| {
            let known = state.cells.get(&cell.key)?;
            // Keys are those of one store.
            if !Arc::ptr_eq(known, cell) {
                return None;
            }
            let send = state.book.extend(now, cell.key, timing, fx)?;
            *cell.timing.lock() = timing;
            Some(send)
        })
    }

    /// Nothing new is begun, and everything is given back until then.
    pub(super) fn close(self: &Arc<Self>, by: Moment) {
        self.transition(|state, now, fx| {
            state.close_by = Some(state.close_by.map_or(by, |earlier| earlier.min(by)));
            state.book.close(now, fx);
        });
        self.wake.notify_one();
    }

    /// How things stand, for the driver, which sleeps until then.
    pub(super) fn outlook(&self) -> Outlook {
        self.look(|state| {
            let next = state.book.next_deadline();
            state.wake_at = next;
            Outlook {
                next,
                close_by: state.close_by,
                is_idle: state.book.is_idle(),
            }
        })
    }

    /// The names that may be held in the store still.
    pub(super) fn held_names(&self) -> Vec<LeaseName> {
        self.look(|state| state.book.held_names().cloned().collect())
    }

    /// Whether a holder is one of ours.
    pub(super) fn is_own(&self, holder: &Holder) -> bool {
        self.look(|state| state.holders.contains(&holder.id))
    }

    /// How many callers wait for a name, and the token if it is held here.
    pub(super) fn local(&self, name: &LeaseName) -> (usize, Option<Fence>) {
        self.look(|state| {
            let (waiting, key) = state.book.local(name);
            let cell = key.and_then(|key| state.cells.get(&key));
            (
                waiting,
                cell.filter(|cell| cell.is_held()).map(|cell| cell.token()),
            )
        })
    }

    fn look<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock())
    }

    fn transition<R>(
        self: &Arc<Self>,
        step: impl FnOnce(&mut State, Moment, &mut Vec<Effect>) -> R,
    ) -> R {
        let mut effects = Vec::new();
        let mut actions = Vec::new();
        let mut state = self.state.lock();
        let answer = step(&mut state, boottime::now(), &mut effects);
        for effect in effects {
            state.apply(effect, &mut actions);
        }
        let next = state.book.next_deadline();
        let is_sooner = match (next, state.wake_at) {
            (Some(next), Some(wake_at)) => next < wake_at,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_sooner {
            state.wake_at = next;
        }
        drop(state);
        for action in actions {
            self.carry_out(action);
        }
        if is_sooner {
            self.wake.notify_one();
        }
        answer
    }

    fn carry_out(self: &Arc<Self>, action: Action) {
        match action {
            Action::Claim(cell, send, left_with) => {
                let claim = calls::claim(Arc::clone(self), cell, send, left_with);
                self.runtime.spawn(claim);
            }
            Action::HandOver(from, to, send) => {
                self.runtime
                    .spawn(calls::hand_over(Arc::clone(self), from, to, send));
            }
            Action::Release(cell) => {
                self.runtime.spawn(calls::release(Arc::clone(self), cell));
            }
            Action::Refresh(items) => {
                let only = match items.as_slice() {
                    [(cell, _)] => Some(Arc::clone(cell)),
                    _ => None,
                };
                let task = self.runtime.spawn(calls::refresh(Arc::clone(self), items));
                if let Some(cell) = only {
                    *cell.refreshing.lock() = Some(task.abort_handle());
                }
            }
            Action::Grant(reply, cell) => self.grant(reply, cell),
            Action::Refuse(reply, error) => drop(reply.send(Err(error))),
            Action::Lost(cell, reason) => {
                cell.tell_lost(reason.clone());
                seen::lost(&reason);
                self.log_lost(&cell, &reason);
                self.tell(LeaseEvent::Lost {
                    name: cell.name.clone(),
                    token: cell.token(),
                    reason,
                });
            }
            Action::End(cell, ending) => {
                if let Ending::Released(outcome) = ending {
                    self.tell(LeaseEvent::Released {
                        name: cell.name.clone(),
                        token: cell.token(),
                        outcome,
                    });
                }
                cell.ending.send_replace(ending);
            }
            Action::Tell(event) => self.tell(event),
            Action::Waits(seen, name) => seen.waits(&name),
            Action::NotHeld => seen::not_held(),
            Action::Confirm(cell, send) => cell.confirm(send),
            Action::Listen => {
                if !self.is_listening.swap(true, Ordering::Relaxed) {
                    self.runtime.spawn(calls::listen(Arc::clone(self)));
                }
            }
        }
    }

    fn grant(self: &Arc<Self>, reply: oneshot::Sender<Answer>, cell: Arc<Cell>) {
        seen::held();
        if let Some(id) = self.store_id.get() {
            // It has been asked for before anything else.
            let _ = cell.store.set(id.clone());
        }
        self.tell(LeaseEvent::Acquired {
            name: cell.name.clone(),
            token: cell.token(),
        });
        match self.owner.get().and_then(Weak::upgrade) {
            // An answer that nobody takes comes back, and its guard gives the lease back.
            Some(owner) => drop(reply.send(Ok(LeaseGuard::new(cell, Leases::of(owner))))),
            None => self.release(&cell, true),
        }
    }

    /// All leases may be lost at once.
    fn log_lost(self: &Arc<Self>, cell: &Cell, reason: &LostReason) {
        match self.losses.another(coarse_now()) {
            Verdict::Log => {
                tracing::warn!(target: "lockkeeper", lease = cell.name.as_str(), token = cell.token().0, %reason, "a lease was lost");
            }
            Verdict::First => {
                let shared = Arc::clone(self);
                self.runtime.spawn(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    shared.log_lost_rest();
                });
            }
            Verdict::Count => {}
        }
    }

    /// Says how many losses were not logged.
    pub(super) fn log_lost_rest(&self) {
        if let Some(more) = self.losses.held_back() {
            tracing::warn!(target: "lockkeeper", more, "more leases were lost");
        }
    }

    pub(super) fn tell(&self, event: LeaseEvent) {
        // Nobody may have subscribed.
        let _ = self.events.send(event);
    }
}

impl State {
    fn apply(&mut self, effect: Effect, actions: &mut Vec<Action>) {
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
                    actions.push(Action::HandOver(from, to, send));
                }
            }
            Effect::Refresh(items) => {
                let with_cell = |item: super::state::RefreshItem| {
                    Some((Arc::clone(self.cells.get(&item.key)?), item))
                };
                actions.push(Action::Refresh(
                    items.into_iter().filter_map(with_cell).collect(),
                ));
            }
            Effect::Release { key } => self.with(key, |cell| {
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
        let cell = Arc::new(Cell::new(key, name.clone(), holder, options));
        self.holders.insert(Arc::clone(&cell.holder.id));
        self.cells.insert(key, Arc::clone(&cell));
        Some(cell)
    }

    fn error(&self, name: &LeaseName, refusal: Refusal) -> LeaseError {
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
