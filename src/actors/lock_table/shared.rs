//! The core behind its mutex, and what becomes of the core's effects.
//!
//! Everything that concerns the table happens in [`Shared::transition`]: the core decides under the
//! mutex, outcomes are put where their waiters look for them, and tasks and senders are woken after
//! the mutex has been let go. Nothing that can run foreign code (a waker, a reply, a guard) is called
//! or dropped under the mutex.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::thread::Thread;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::config::LockConfig;
use super::ended::Watches;
use super::events::Events;
use super::reply::PendingReply;
use crate::clock::{coarse_now, exact_now};
use crate::env::{panic_message, quietly};
use crate::error::{ActorPanicked, LockError, Part};
use crate::locks::{
    Attempt, DetectReport, Effect, LockerId, Mode, Moment, Object, Patience, Reason, Request,
    Table, VictimPolicy, WaitId,
};
use crate::messages::lock_table::Wait;
use crate::supervision::Supervision;

/// What a wait came to.
pub(super) type Outcome = Result<(), End>;

/// Why a wait ended without its lock.
#[derive(Debug, Clone)]
pub(super) enum End {
    Refused(Reason),
    Broken(Broken),
}

impl From<End> for LockError {
    fn from(end: End) -> Self {
        match end {
            End::Refused(reason) => reason.into(),
            End::Broken(broken) => broken.into(),
        }
    }
}

/// A panic has left the table half changed.
#[derive(Debug, Clone)]
pub(super) struct Broken(ActorPanicked);

impl From<Broken> for LockError {
    fn from(Broken(panicked): Broken) -> Self {
        Self::Broken(panicked)
    }
}

/// How many waits time out, at most, before others are let in between.
const EXPIRE_AT_ONCE: usize = 64;

/// The room for effects that is kept from one step to the next: more than an ordinary one has.
const MOST_ROOM: usize = 64;

pub(super) struct Shared {
    state: Mutex<State>,
    epoch: Epoch,
    pub clock: OnceLock<Thread>,
    pub events: Events,
    pub supervision: Arc<Supervision>,
    /// How many handles of lockers there are: who has none can name no lock.
    pub lockers: AtomicUsize,
}

pub(super) struct State {
    pub table: Table,
    /// As it was set at the start, with all changes since.
    pub config: LockConfig,
    pub waiters: HashMap<WaitId, Waiter>,
    pub watches: Watches,
    /// When the clock thread wakes by itself.
    wake_at: Moment,
    /// Whether the clock thread has to look at its settings again.
    pub wake_clock: bool,
    /// Empty, with the room of the effects of steps before.
    effects: Vec<Effect>,
    pub closed: bool,
    /// Nobody new is let in, but those who are inside go on.
    pub refusing: bool,
    /// A panic has left the table half changed: nothing is granted any more, and nobody looks at it.
    broken: Option<Broken>,
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

impl Waiter {
    /// For a future that has not been polled since its request began to wait.
    pub(super) const fn task() -> Self {
        Self::Task {
            waker: None,
            outcome: None,
        }
    }
}

/// What is left to do when the mutex has been let go.
#[derive(Default)]
pub(super) struct Afterwards {
    pub wakers: Vec<Waker>,
    replies: Vec<(Box<PendingReply>, Outcome)>,
    timeouts: u64,
    deadlocks: u64,
    wake_clock: bool,
    events: Vec<Effect>,
}

impl Shared {
    pub(super) fn new(config: LockConfig) -> Self {
        Self {
            state: Mutex::new(State {
                table: Table::new(config.table()),
                config,
                waiters: HashMap::new(),
                watches: Watches::default(),
                wake_at: Moment(0),
                wake_clock: false,
                effects: Vec::new(),
                closed: false,
                refusing: false,
                broken: None,
            }),
            epoch: Epoch::now(),
            clock: OnceLock::new(),
            events: Events::new(),
            supervision: Supervision::of(Part::LockTable),
            lockers: AtomicUsize::new(0),
        }
    }

    /// Runs one step of the core, and carries out what follows from it. If the step panics, the table is broken from then on: it
    /// may be half changed, and whoever waits is told so.
    pub(super) fn transition<R>(
        &self,
        step: impl FnOnce(&mut State, &mut Vec<Effect>) -> R,
    ) -> Result<R, Broken> {
        let mut afterwards = None;
        let mut state = self.state.lock();
        self.whole(&mut state)?;
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            self.step(&mut state, &mut afterwards, step)
        }));
        let (answer, panic) = match stepped {
            Ok(answer) => (Ok(answer), None),
            Err(panic) => {
                let broken = state.break_down(&*panic, afterwards.get_or_insert_default());
                (Err(broken), Some(panic))
            }
        };
        drop(state);
        if let Some(afterwards) = afterwards {
            afterwards.run(self);
        }
        if let Some(panic) = panic {
            self.told_of(panic);
        }
        answer
    }

    fn step<R>(
        &self,
        state: &mut State,
        afterwards: &mut Option<Afterwards>,
        step: impl FnOnce(&mut State, &mut Vec<Effect>) -> R,
    ) -> R {
        let mut effects = std::mem::take(&mut state.effects);
        let now = match state.config.max_hold.is_zero() {
            true => self.epoch.about(),
            // Locks are judged by how long they are held.
            false => self.now(),
        };
        state.table.tell_time(now);
        let answer = step(state, &mut effects);
        self.supervision.bombs.pass("a step of the table");
        if let Some(deadline) = state.table.next_deadline()
            && deadline < state.wake_at
        {
            state.wake_at = deadline;
            state.wake_clock = true;
        }
        let wake_clock = std::mem::take(&mut state.wake_clock);
        if wake_clock {
            afterwards.get_or_insert_default().wake_clock = true;
        }
        if !effects.is_empty() {
            for effect in effects.drain(..) {
                match effect {
                    // Most lockers end unwatched.
                    Effect::Ended(_) if state.watches.are_none() => {}
                    effect => state.apply(effect, afterwards.get_or_insert_default()),
                }
            }
        }
        if effects.capacity() <= MOST_ROOM {
            state.effects = effects;
        }
        answer
    }

    /// Looks at the table or at a waiter without a step of the core.
    pub(super) fn look<R>(&self, look: impl FnOnce(&mut State) -> R) -> Result<R, Broken> {
        let mut state = self.state.lock();
        self.whole(&mut state)?;
        let panic = match catch_unwind(AssertUnwindSafe(|| look(&mut state))) {
            Ok(seen) => return Ok(seen),
            Err(panic) => panic,
        };
        let mut afterwards = Afterwards::default();
        let broken = state.break_down(&*panic, &mut afterwards);
        drop(state);
        afterwards.run(self);
        self.told_of(panic);
        Err(broken)
    }

    /// What concerns no lock: how the table is set, and who waits for an answer. It works on a broken table too.
    pub(super) fn aside<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock())
    }

    /// A broken table begins anew when nobody is left who could hold anything in it.
    #[inline]
    fn whole(&self, state: &mut State) -> Result<(), Broken> {
        match state.broken.is_some() {
            true => self.begun_anew(state),
            false => Ok(()),
        }
    }

    #[cold]
    fn begun_anew(&self, state: &mut State) -> Result<(), Broken> {
        match &state.broken {
            None => Ok(()),
            Some(_) if self.lockers.load(Ordering::Acquire) == 0 => {
                state.begin_anew();
                Ok(())
            }
            Some(broken) => Err(broken.clone()),
        }
    }

    fn told_of(&self, panic: Box<dyn Any + Send>) {
        let doing = "a step of the table";
        let panicked = self.supervision.panicked(Part::LockTable, doing, panic);
        self.events.broken(panicked);
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
            let (now, patience) = (self.now(), self.patience(wait));
            let waits = state.table.request(now, request, patience, effects)?;
            let Some(id) = waits else {
                return Ok(None);
            };
            let is_own = |effect: &Effect| matches!(effect, Effect::Refused(own, _) if *own == id);
            if let Some(at) = effects.iter().position(is_own)
                && let Effect::Refused(_, reason) = effects.remove(at)
            {
                // The victim of the cycle that it closed: nobody has to be woken to be told.
                return Err(LockError::from(reason));
            }
            state.waiters.insert(id, Waiter::task());
            Ok(waits)
        })?;
        if let Ok(Some(_)) = asked {
            metrics::counter!("lockkeeper_lock_waits_total").increment(1);
        }
        asked
    }

    /// Takes a lock if that needs no wait; says whether it did.
    pub(super) fn try_ask(&self, request: Request<'_>) -> Result<bool, LockError> {
        self.transition(|state, effects| {
            if state.closed {
                return Err(LockError::ShuttingDown);
            }
            Ok(state.table.try_lock(request, effects)? == Attempt::Granted)
        })?
    }

    /// Takes back a request whose asker is gone: out of the queue, or the lock that nobody picked up. An
    /// upgrade that nobody saw goes back to what it was. False if others bar the way back: then the locker
    /// keeps what it was given.
    pub(super) fn withdraw(&self, id: WaitId, asked: &Asked<'_>) -> bool {
        let withdrawn = self.transition(|state, effects| {
            let waiter = state.waiters.remove(&id);
            let taken_back = match &waiter {
                Some(Waiter::Task {
                    outcome: Some(Ok(())),
                    ..
                }) => {
                    let (locker, object, mode) = (asked.locker, asked.object, asked.mode);
                    let table = &mut state.table;
                    table.take_back(locker, object, mode, asked.from, effects)
                }
                Some(_) => {
                    state.table.withdraw(id, effects);
                    true
                }
                None => true,
            };
            (waiter, taken_back)
        });
        let Ok((waiter, taken_back)) = withdrawn else {
            // Nobody gets it any more.
            drop(self.aside(|state| state.waiters.remove(&id)));
            return false;
        };
        drop(waiter);
        taken_back
    }

    /// The outcome of a wait, if it is known; or the waker is left for it.
    pub(super) fn poll_wait(&self, id: WaitId, waker: &Waker) -> Option<Outcome> {
        // Clones and drops of wakers can run foreign code, so they happen outside the mutex.
        let mut waker = Some(waker.clone());
        let outcome = self.aside(|state| match state.waiters.get_mut(&id)? {
            Waiter::Task {
                outcome: Some(_), ..
            } => match state.waiters.remove(&id)? {
                Waiter::Task { outcome, .. } => outcome,
                Waiter::Reply(_) => None,
            },
            Waiter::Task { waker: place, .. } => {
                std::mem::swap(place, &mut waker);
                None
            }
            Waiter::Reply(_) => None,
        });
        drop(waker);
        outcome
    }

    /// What the clock thread does when it wakes; answers when it has to wake again.
    pub(super) fn expire(&self) -> Option<Instant> {
        let expire = |state: &mut State, effects: &mut Vec<Effect>| {
            state.table.expire(self.now(), EXPIRE_AT_ONCE, effects)
        };
        while self.transition(expire).unwrap_or(false) {}
        let next = self.look(|state| state.table.next_deadline());
        next.ok().flatten().and_then(|at| self.epoch.instant(at))
    }

    /// Notes until when the clock thread sleeps. False if it must not, because a deadline came earlier.
    pub(super) fn may_sleep_until(&self, until: Option<Instant>) -> bool {
        let until = until.map_or(Moment(u64::MAX), |until| self.epoch.moment(until));
        let looked = self.look(|state| {
            state.wake_at = until;
            state
                .table
                .next_deadline()
                .is_none_or(|deadline| deadline >= until)
        });
        looked.unwrap_or(true)
    }

    pub(super) fn patience(&self, wait: Wait) -> Patience {
        match wait {
            Wait::Default => Patience::Default,
            Wait::No => Patience::No,
            Wait::Until(at) => Patience::Until(self.moment(at)),
            Wait::For(timeout) => Patience::For(timeout),
            Wait::Forever => Patience::Forever,
        }
    }

    pub(super) fn moment(&self, at: Instant) -> Moment {
        self.epoch.moment(at)
    }

    pub(super) fn now(&self) -> Moment {
        self.moment(Instant::now())
    }
}

/// Where the table's clock begins.
struct Epoch {
    exact: Instant,
    coarse: Duration,
}

impl Epoch {
    fn now() -> Self {
        // In this order: what the coarse clock says is then never ahead of the exact one, and nothing that
        // goes by it is early.
        let exact = Instant::now();
        Self {
            exact,
            coarse: exact_now(),
        }
    }

    /// Now, cheap and some milliseconds late at most: enough to say since when a lock is held.
    fn about(&self) -> Moment {
        let since = coarse_now().saturating_sub(self.coarse);
        Moment(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn moment(&self, at: Instant) -> Moment {
        let since = at.saturating_duration_since(self.exact);
        Moment(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// `None` beyond the end of the system's clock: nobody will see it.
    fn instant(&self, at: Moment) -> Option<Instant> {
        self.exact.checked_add(Duration::from_nanos(at.0))
    }
}

/// What a request that waits asked for.
pub(super) struct Asked<'a> {
    pub locker: LockerId,
    pub object: &'a Object,
    pub mode: Mode,
    pub from: Option<Mode>,
}

impl State {
    /// Looks at the whole graph, and notes what that cost.
    pub(super) fn detect(
        &mut self,
        now: Moment,
        policy: VictimPolicy,
        effects: &mut Vec<Effect>,
    ) -> DetectReport {
        let begun = Instant::now();
        let mut report = self.table.detect(now, policy, effects);
        report.took = begun.elapsed();
        self.table
            .note_detection(report.waiting, report.victims.len(), report.took);
        report
    }

    /// Ends all that is waited for: nobody else will. What is held stays with its lockers, and nothing more is granted.
    fn break_down(&mut self, panic: &(dyn Any + Send), afterwards: &mut Afterwards) -> Broken {
        let panicked = ActorPanicked::new(Part::LockTable, panic_message(panic));
        let broken = Broken(panicked);
        self.broken = Some(broken.clone());
        let ids: Vec<WaitId> = self.waiters.keys().copied().collect();
        for id in ids {
            let is_open = |waiter: &Waiter| {
                !matches!(
                    waiter,
                    Waiter::Task {
                        outcome: Some(_),
                        ..
                    }
                )
            };
            if self.waiters.get(&id).is_some_and(is_open) {
                self.deliver(id, Err(End::Broken(broken.clone())), afterwards);
            }
        }
        self.watches.all_ended(&mut afterwards.wakers);
        broken
    }

    fn begin_anew(&mut self) {
        self.table = self.table.anew(self.config.table());
        self.broken = None;
        self.wake_at = Moment(u64::MAX);
        self.wake_clock = true;
    }

    fn apply(&mut self, effect: Effect, afterwards: &mut Afterwards) {
        match effect {
            Effect::Granted(id) => self.deliver(id, Ok(()), afterwards),
            Effect::Refused(id, reason) => {
                afterwards.timeouts += u64::from(reason.is_timeout());
                self.deliver(id, Err(End::Refused(reason)), afterwards);
            }
            Effect::Ended(locker) => self.watches.ended(locker, &mut afterwards.wakers),
            event => {
                if let Effect::Doomed(_, conflict) = &event {
                    afterwards.deadlocks += u64::from(!conflict.cycle.is_empty());
                }
                afterwards.events.push(event);
            }
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
        // Wakers are the application's executor's: one that panics keeps nobody else from being woken.
        for waker in self.wakers {
            quietly(|| waker.wake());
        }
        for (reply, outcome) in self.replies {
            quietly(|| reply.answer(outcome));
        }
        if self.deadlocks > 0 {
            metrics::counter!("lockkeeper_deadlocks_total").increment(self.deadlocks);
        }
        if self.timeouts > 0 {
            metrics::counter!("lockkeeper_lock_timeouts_total").increment(self.timeouts);
        }
        for event in self.events {
            shared.events.tell(event);
        }
    }
}
