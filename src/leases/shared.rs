//! The core behind its mutex, and what becomes of the core's effects.
//!
//! Everything is decided in [`Shared::transition`]; what others may believe of a lease changes under the mutex too, in the order
//! of the decisions. Answers are given, stores are asked and events are told after the mutex has been let go.

mod actions;
mod broken;
mod state;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{JoinHandle, ThreadId};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, oneshot, watch};

use super::begun::AllBegun;
use super::driver::Ended;
use super::handle::Owner;
use super::limit::Limit;
use super::request::Checked;
use super::seen::{self, Acquiring};
use super::state::{Book, Bounds, Effect, Moment, SendId, Timing, WaiterId, Wish};
use super::view::{Cell, Ending};
use super::waiting::Answer;
use super::{
    Fence, Holder, LeaseConfig, LeaseEvent, LeaseName, LeaseStore, LostReason, StoreId, boottime,
    events,
};
use crate::env::{panic_message, quietly};
use crate::error::{ActorPanicked, LeaseError, Part};
use crate::inside::Owner as CodeOwner;
use crate::supervision::Supervision;
use state::{Slot, State};

pub(super) use actions::Left;

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
    pub begun: AllBegun,
    losses: Limit,
    /// When the driver has ended, what it left behind.
    pub ended: watch::Sender<Option<Ended>>,
    /// The driver's thread, to be joined.
    pub thread: Mutex<Option<JoinHandle<()>>>,
    /// Which thread that is.
    pub driver: OnceLock<ThreadId>,
    /// Nobody new may ask.
    pub refusing: AtomicBool,
    pub supervision: Arc<Supervision>,
    /// A panic has left the core half changed: nothing is held any more, and nobody asks it anything.
    broken: OnceLock<ActorPanicked>,
}

/// What the driver has to know.
pub(super) struct Outlook {
    pub next: Option<Moment>,
    pub close_by: Option<Moment>,
    pub is_idle: bool,
}

impl Shared {
    pub(super) fn new(
        store: Arc<dyn LeaseStore>,
        config: LeaseConfig,
        runtime: Handle,
        supervision: Arc<Supervision>,
    ) -> Self {
        let bounds = Bounds {
            waiters: config.max_local_waiters,
            call_timeout: config.call_timeout,
            seed: boottime::now().0 ^ u64::from(std::process::id()).rotate_left(32),
        };
        Self {
            state: Mutex::new(State::new(Book::new(bounds), store.table().cloned())),
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
            begun: AllBegun::default(),
            losses: Limit::default(),
            ended: watch::Sender::new(None),
            thread: Mutex::new(None),
            driver: OnceLock::new(),
            refusing: AtomicBool::new(false),
            supervision,
            broken: OnceLock::new(),
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
    ) -> Result<(WaiterId, oneshot::Receiver<Answer>, Left), LeaseError> {
        let (reply, answer) = oneshot::channel();
        let mut left = None;
        let asked = self.transition_leaving(Some(&mut left), |state, now, fx| {
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
        let Some(asked) = asked else {
            return Err(self.gone());
        };
        match asked {
            Ok((id, is_behind)) => {
                if is_behind {
                    seen.waits(name);
                }
                Ok((id, answer, left))
            }
            Err(refusal) => Err(self.look(|state| state.error(name, refusal))),
        }
    }

    /// Runs a step of the core, and carries out what follows; `None` if a panic has broken it.
    pub(super) fn step<R>(
        self: &Arc<Self>,
        step: impl FnOnce(&mut Book, Moment, &mut Vec<Effect>) -> R,
    ) -> Option<R> {
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
    pub(super) fn release(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        disown: bool,
        left: Option<&mut Left>,
    ) {
        let was_held = self.transition_leaving(left, |state, now, fx| {
            let was_held = cell.disbelieve();
            cell.let_go.store(true, Ordering::Release);
            match disown {
                // Whoever tended it is gone, and nobody would say when it can be given back.
                true if cell.ends_in_use() => state.book.let_expire(now, cell.key, fx),
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
        let Some(was_held) = was_held else {
            self.end_broken(cell);
            return;
        };
        if was_held {
            seen::not_held();
        }
        cell.tell_lost(LostReason::Released);
    }

    /// Gives a lease other times; `None` if it is not held any more.
    ///
    /// # Errors
    /// [`LeaseError::OfOtherLeases`].
    pub(super) fn extend(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        timing: Timing,
    ) -> Result<Option<SendId>, LeaseError> {
        let extended = self.transition(|state, now, fx| {
            // Keys are those of one store.
            let known = state.cells.get(&cell.key);
            if !known.is_some_and(|known| Arc::ptr_eq(known, cell)) {
                return match cell.is_over() {
                    true => Ok(None),
                    false => Err(LeaseError::OfOtherLeases {
                        name: cell.name.clone(),
                    }),
                };
            }
            let send = state.book.extend(now, cell.key, timing, fx);
            if send.is_some() {
                *cell.timing.lock() = timing;
            }
            Ok(send)
        });
        extended.unwrap_or(Ok(None))
    }

    /// Nothing new is begun, and everything is given back until then, except what is in use still.
    pub(super) fn close(self: &Arc<Self>, by: Moment) {
        self.transition(|state, now, fx| {
            state.close_by = Some(state.close_by.map_or(by, |earlier| earlier.min(by)));
            let State { book, cells, .. } = state;
            let in_use = |key| cells.get(&key).is_some_and(|cell| cell.ends_in_use());
            book.close(now, in_use, fx);
        });
        self.wake.notify_one();
    }

    /// How things stand, for the driver, which sleeps until then, and until `look` at the most.
    pub(super) fn outlook(&self, look: Option<Moment>) -> Outlook {
        self.look(|state| {
            let next = [state.book.next_deadline(), look].into_iter().flatten();
            state.wake_at = next.min();
            Outlook {
                next: state.wake_at,
                close_by: state.close_by,
                is_idle: state.book.is_idle(boottime::now()),
            }
        })
    }

    /// The names that may be held in the store still.
    pub(super) fn held_names(&self) -> Vec<LeaseName> {
        self.look(|state| match self.is_broken() {
            // The book cannot be relied on any more.
            true => state.cells.values().map(|cell| cell.name.clone()).collect(),
            false => state.book.held_names(boottime::now()).cloned().collect(),
        })
    }

    /// Whether a holder is one of ours.
    pub(super) fn is_own(&self, holder: &Holder) -> bool {
        self.look(|state| state.holders.contains(&holder.id))
    }

    /// How many callers wait for a name, and the token if it is held here.
    pub(super) fn local(&self, name: &LeaseName) -> (usize, Option<Fence>) {
        if self.is_broken() {
            return (0, None);
        }
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
    ) -> Option<R> {
        self.transition_leaving(None, step)
    }

    /// [`transition`](Self::transition) for somebody who goes on himself with what it has asked the store.
    fn transition_leaving<R>(
        self: &Arc<Self>,
        mut left: Option<&mut Left>,
        step: impl FnOnce(&mut State, Moment, &mut Vec<Effect>) -> R,
    ) -> Option<R> {
        // Its connections are a parent's, and a thread of the parent's may have had the mutex.
        if self.is_forked() {
            return None;
        }
        let mut actions = Vec::new();
        let mut state = self.state.lock();
        if self.is_broken() {
            return None;
        }
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            let mut effects = Vec::new();
            let answer = step(&mut state, boottime::now(), &mut effects);
            self.supervision.bombs.pass("a step of the leases");
            for effect in effects {
                state.apply(effect, &mut actions);
            }
            (answer, state.is_sooner())
        }));
        if let Err(panic) = &stepped {
            // Nobody else is let in any more.
            self.broken
                .get_or_init(|| ActorPanicked::new(Part::Leases, panic_message(&**panic)));
        }
        drop(state);
        let (answer, is_sooner) = match stepped {
            Ok(stepped) => stepped,
            Err(panic) => {
                // What it would have led to does not happen.
                quietly(|| drop(actions));
                self.break_down("a step of the leases", panic);
                return None;
            }
        };
        for action in actions {
            let carry_out = AssertUnwindSafe(|| self.carry_out(action, left.as_deref_mut()));
            if let Err(panic) = catch_unwind(carry_out) {
                self.break_down("what follows from a step of the leases", panic);
            }
        }
        if is_sooner {
            self.wake.notify_one();
        }
        Some(answer)
    }

    pub(super) fn tell(&self, event: LeaseEvent) {
        // Nobody may have subscribed.
        quietly(|| drop(self.events.send(event)));
    }
}
