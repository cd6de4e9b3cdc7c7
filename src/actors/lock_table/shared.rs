//! The core behind its mutex, and what becomes of the core's effects.
//!
//! Everything that concerns the table happens in [`Shared::transition`]: the core decides under the
//! mutex, outcomes are put where their waiters look for them, and tasks and senders are woken after
//! the mutex has been let go. Nothing that can run foreign code (a waker, a reply, a guard) is called
//! or dropped under the mutex.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::task::Waker;
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::config::LockConfig;
use super::ended::Watches;
use super::reply::PendingReply;
use crate::locks::{
    Attempt, Denied, Effect, LockerId, Mode, Moment, Object, Reason, Request, Table, WaitId,
};
use crate::messages::lock_table::{LockError, Wait};

/// What a wait came to.
pub(super) type Outcome = Result<(), Reason>;

/// How many waits time out, at most, before others are let in between.
const EXPIRE_AT_ONCE: usize = 64;

pub(super) struct Shared {
    pub config: LockConfig,
    state: Mutex<State>,
    epoch: Instant,
    pub clock: OnceLock<Thread>,
}

pub(super) struct State {
    pub table: Table,
    pub waiters: HashMap<WaitId, Waiter>,
    pub watches: Watches,
    /// When the clock thread wakes by itself.
    wake_at: Moment,
    pub closed: bool,
}

/// Whoever is told when a wait ends.
pub(super) enum Waiter {
    /// A future, which takes the outcome when it is polled.
    Task {
        waker: Option<Waker>,
        outcome: Option<Outcome>,
    },
    /// The sender of a message, who is answered at once.
    Reply(Box<PendingReply>),
}

/// What is left to do when the mutex has been let go.
#[derive(Default)]
pub(super) struct Afterwards {
    pub wakers: Vec<Waker>,
    replies: Vec<(Box<PendingReply>, Outcome)>,
    timeouts: u64,
    deadlocks: u64,
    wake_clock: bool,
}

impl Shared {
    pub(super) fn new(config: LockConfig) -> Self {
        let table = Table::new(config.table());
        Self {
            config,
            state: Mutex::new(State {
                table,
                waiters: HashMap::new(),
                watches: Watches::default(),
                wake_at: Moment(0),
                closed: false,
            }),
            epoch: Instant::now(),
            clock: OnceLock::new(),
        }
    }

    /// Runs one step of the core, and carries out what follows from it.
    pub(super) fn transition<R>(&self, step: impl FnOnce(&mut State, &mut Vec<Effect>) -> R) -> R {
        let mut afterwards = Afterwards::default();
        let mut effects = Vec::new();
        let answer = {
            let mut state = self.state.lock();
            let deadlocks = state.table.deadlocks();
            let answer = step(&mut state, &mut effects);
            afterwards.deadlocks = state.table.deadlocks() - deadlocks;
            for effect in effects {
                state.apply(effect, &mut afterwards);
            }
            if state
                .table
                .next_deadline()
                .is_some_and(|deadline| deadline < state.wake_at)
            {
                state.wake_at = state.table.next_deadline().unwrap_or(state.wake_at);
                afterwards.wake_clock = true;
            }
            answer
        };
        afterwards.run(self);
        answer
    }

    /// Looks at the table or at a waiter without a step of the core.
    pub(super) fn look<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock())
    }

    /// Asks for a lock; both doors come through here. `None` is granted. A waiter stands ready for a
    /// request that waits.
    pub(super) fn ask(
        &self,
        request: Request<'_>,
        wait: Wait,
    ) -> Result<Option<WaitId>, LockError> {
        let asked = self.transition(|state, effects| {
            if state.closed {
                return Err(LockError::ShuttingDown);
            }
            if state.table.try_lock(request, effects)? == Attempt::Granted {
                return Ok(None);
            }
            if wait == Wait::No {
                let conflict = state
                    .table
                    .explain_refusal(request)
                    .ok_or(LockError::Ended)?;
                return Err(LockError::NotAvailable(conflict.into()));
            }
            let now = Instant::now();
            let deadline = self.deadline(wait, now);
            let waits = state
                .table
                .request(self.moment(now), request, deadline, effects)?;
            if let Some(id) = waits {
                state.waiters.insert(
                    id,
                    Waiter::Task {
                        waker: None,
                        outcome: None,
                    },
                );
            }
            Ok(waits)
        });
        if let Ok(Some(_)) = asked {
            metrics::counter!("lockkeeper_lock_waits_total").increment(1);
        }
        asked
    }

    /// Takes back a request whose asker is gone: out of the queue, or the lock that nobody picked up.
    pub(super) fn withdraw(&self, id: WaitId, locker: LockerId, object: &Object, mode: Mode) {
        let waiter = self.transition(|state, effects| {
            let waiter = state.waiters.remove(&id);
            match &waiter {
                Some(Waiter::Task {
                    outcome: Some(Ok(())),
                    ..
                }) => {
                    state.table.unlock(locker, object, mode, effects);
                }
                Some(_) => {
                    state.table.withdraw(id, effects);
                }
                None => {}
            }
            waiter
        });
        drop(waiter);
    }

    /// What the clock thread does when it wakes; answers when it has to wake again.
    pub(super) fn expire(&self) -> Option<Instant> {
        while self.transition(|state, effects| {
            state
                .table
                .expire(self.moment(Instant::now()), EXPIRE_AT_ONCE, effects)
        }) {}
        self.look(|state| state.table.next_deadline())
            .map(|deadline| self.instant(deadline))
    }

    /// Notes until when the clock thread sleeps. False if it must not, because a deadline came earlier.
    pub(super) fn may_sleep_until(&self, until: Option<Instant>) -> bool {
        let until = until.map_or(Moment(u64::MAX), |until| self.moment(until));
        self.look(|state| {
            state.wake_at = until;
            state
                .table
                .next_deadline()
                .is_none_or(|deadline| deadline >= until)
        })
    }

    fn deadline(&self, wait: Wait, now: Instant) -> Option<Moment> {
        let after = |timeout: Duration| now.checked_add(timeout).map(|at| self.moment(at));
        match wait {
            Wait::Default if self.config.lock_timeout.is_zero() => None,
            Wait::Default => after(self.config.lock_timeout),
            Wait::For(timeout) => after(timeout),
            Wait::Until(at) => Some(self.moment(at)),
            Wait::Forever | Wait::No => None,
        }
    }

    fn moment(&self, at: Instant) -> Moment {
        Moment(
            u64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX),
        )
    }

    fn instant(&self, at: Moment) -> Instant {
        self.epoch + Duration::from_nanos(at.0)
    }
}

impl State {
    fn apply(&mut self, effect: Effect, afterwards: &mut Afterwards) {
        match effect {
            Effect::Granted(id) => self.deliver(id, Ok(()), afterwards),
            Effect::Refused(id, reason) => {
                afterwards.timeouts += u64::from(matches!(reason, Reason::Timeout(_)));
                self.deliver(id, Err(reason), afterwards);
            }
            Effect::Ended(locker) => self.watches.ended(locker, &mut afterwards.wakers),
        }
    }

    fn deliver(&mut self, id: WaitId, result: Outcome, afterwards: &mut Afterwards) {
        match self.waiters.get_mut(&id) {
            Some(Waiter::Task { waker, outcome }) => {
                *outcome = Some(result);
                afterwards.wakers.extend(waker.take());
            }
            Some(Waiter::Reply(_)) => {
                if let Some(Waiter::Reply(reply)) = self.waiters.remove(&id) {
                    afterwards.replies.push((reply, result));
                }
            }
            None => {}
        }
    }
}

impl Afterwards {
    fn run(self, shared: &Shared) {
        if self.wake_clock
            && let Some(clock) = shared.clock.get()
        {
            clock.unpark();
        }
        for waker in self.wakers {
            waker.wake();
        }
        for (reply, outcome) in self.replies {
            reply.answer(outcome);
        }
        if self.deadlocks > 0 {
            metrics::counter!("lockkeeper_deadlocks_total").increment(self.deadlocks);
        }
        if self.timeouts > 0 {
            metrics::counter!("lockkeeper_lock_timeouts_total").increment(self.timeouts);
        }
    }
}

impl From<Denied> for LockError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Ended => LockError::Ended,
            Denied::Limit { which, value } => LockError::Limit { which, value },
        }
    }
}

impl From<Reason> for LockError {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Deadlock(conflict) => LockError::Deadlock(conflict),
            Reason::Timeout(conflict) => LockError::Timeout(conflict),
            Reason::Ended => LockError::Ended,
            Reason::ShuttingDown => LockError::ShuttingDown,
        }
    }
}
