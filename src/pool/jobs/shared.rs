//! A queue with everything around it: the lock, the channel that wakes workers, and the answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::held::{Held, Reply};
use super::id::JobId;
use super::on_full::OnFull;
use super::quarantine::QuarantinedJob;
use super::queue::{AfterPanic, Begun, Closed, Effect, End, Queue, RetryRefused, Rules, Watch};
use super::stats::JobStats;
use crate::clock::{Clock, Sleep};
use crate::env::{EnvId, quietly};
use crate::error::{JobError, JobPanic, RetryError};
use crate::inside::{self, Inside, Owner};
use crate::pool::supervise::RunId;

/// The queue of a pool, shared by submitters and workers.
///
/// A job goes through a bounded flume channel as a *turn*: each job that is queued sends one, each worker that has nothing to do waits for
/// one, and asks the queue which job is next. So who is dropped, late or given up leaves the queue at once, and not when a worker comes
/// upon it. A turn that finds the channel full is not needed: whoever takes one of those passes one on while jobs are queued.
pub(super) struct Shared<J, R, E> {
    pub name: Arc<str>,
    /// Whose pool it is.
    env: EnvId,
    /// Until nothing waits any more: it has a thread.
    clock: Mutex<Option<Clock>>,
    rules: Rules,
    /// As it was when the pool was started: in the child of a fork nobody works.
    forks: u32,
    state: Mutex<State<J, R, E>>,
    turns: (flume::Sender<()>, flume::Receiver<()>),
}

struct State<J, R, E> {
    queue: Queue<Held<J, R, E>>,
    /// What each run of a worker has in its hands.
    running: HashMap<RunId, JobId>,
    /// Why the pool failed.
    last: Option<Arc<str>>,
}

/// What is told outside of all locks: it wakes and drops what belongs to the application.
#[must_use = "somebody waits for an answer"]
pub(super) struct Todos<J, R, E> {
    list: SmallVec<[Todo<J, R, E>; 2]>,
    /// Why the pool failed.
    last: Option<Arc<str>>,
}

impl<J, R, E> Todos<J, R, E> {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

enum Todo<J, R, E> {
    Ended(Held<J, R, E>, End),
    Taken(Reply<J, R, E>, JobId),
    RunsOn(Reply<J, R, E>),
}

impl<J, R, E> Shared<J, R, E> {
    pub(super) fn new(name: Arc<str>, env: EnvId, clock: Clock, rules: Rules) -> Self {
        Self {
            name,
            env,
            clock: Mutex::new(Some(clock)),
            state: Mutex::new(State {
                queue: Queue::new(rules),
                running: HashMap::new(),
                last: None,
            }),
            forks: crate::env::forks(),
            turns: flume::bounded(rules.capacity.max(1)),
            rules,
        }
    }

    /// Asks the queue, and carries out what it decides.
    fn act<T>(&self, ask: impl FnOnce(&mut State<J, R, E>, Instant) -> T) -> T {
        let (out, todos) = self.ask(ask);
        self.finish(todos);
        out
    }

    /// Asks the queue, wakes workers, and says what is left to be done.
    fn ask<T>(&self, ask: impl FnOnce(&mut State<J, R, E>, Instant) -> T) -> (T, Todos<J, R, E>) {
        let mut turns = 0_usize;
        let mut list = SmallVec::new();
        let (out, last) = {
            let mut state = self.state.lock();
            // Inside, so that time never goes backwards for the queue.
            let out = ask(&mut state, Instant::now());
            while let Some(effect) = state.queue.poll_effect() {
                match effect {
                    Effect::Ready => turns += 1,
                    Effect::Ended(_, held, end) => list.push(Todo::Ended(held, end)),
                    Effect::Taken(id) => {
                        let held = state.queue.held_mut(id);
                        list.extend(held.map(|held| Todo::Taken(held.take_reply(), id)));
                    }
                    Effect::RunsOn(id) => {
                        let held = state.queue.held_mut(id);
                        list.extend(held.map(|held| Todo::RunsOn(held.take_reply())));
                    }
                }
            }
            (out, state.last.clone())
        };
        for _ in 0..turns {
            self.pass_a_turn();
        }
        (out, Todos { list, last })
    }

    pub(super) fn finish(&self, todos: Todos<J, R, E>) {
        for todo in todos.list {
            quietly(|| self.carry_out(todo, todos.last.clone()));
        }
    }

    fn pass_a_turn(&self) {
        // Full: see above. Nobody can have dropped the other end, which is here.
        let _ = self.turns.0.try_send(());
    }

    fn count(&self, outcome: &'static str) {
        let pool = self.name.to_string();
        metrics::counter!("lockkeeper_pool_jobs_total", "pool" => pool, "outcome" => outcome)
            .increment(1);
    }

    fn carry_out(&self, todo: Todo<J, R, E>, last: Option<Arc<str>>) {
        if let Todo::Ended(held, end) = &todo {
            // Whoever counts and listens is the application's: the answer does not depend on it.
            quietly(|| {
                self.count(end.word());
                if matches!(held.reply, Reply::Nobody) && *end != End::Interrupted {
                    tracing::warn!(target: "lockkeeper", pool = &*self.name, end = end.word(), "a job that nobody waits for ended without having been done");
                }
            });
        }
        match todo {
            Todo::Taken(Reply::Taken(reply), id) => drop(reply.send(Ok(Some(id)))),
            Todo::Taken(..) => {}
            Todo::RunsOn(reply) => reply.fail(JobError::RunsOn),
            Todo::Ended(held, End::Interrupted) => held.reply.fail(JobError::Interrupted),
            Todo::Ended(held, End::Newest) if matches!(held.reply, Reply::Taken(_)) => {
                let mut held = held;
                if let Reply::Taken(reply) = held.take_reply() {
                    let _ = reply.send(Ok(None));
                }
            }
            Todo::Ended(held, end) => held.end(|job| self.error(job, end, last)),
        }
    }

    fn error(&self, job: J, end: End, last: Option<Arc<str>>) -> JobError<J, E> {
        match end {
            End::Full { waited } => JobError::Full {
                job,
                capacity: self.rules.capacity,
                waited,
            },
            End::Oldest => JobError::Dropped {
                job,
                on_full: OnFull::DropOldest,
            },
            End::Newest => JobError::Dropped {
                job,
                on_full: OnFull::DropNewest,
            },
            End::Expired { waited } => JobError::DeadlinePassed { job, waited },
            End::Closed(Closed::Failed) => JobError::PoolFailed { job, last },
            End::Closed(Closed::Finished) => JobError::NoWorkers { job },
            // What is gone has nobody to be told.
            End::Closed(Closed::Draining | Closed::Stopped) | End::Gone => {
                JobError::Stopped { job }
            }
            // Neither has a job that never began.
            End::Interrupted | End::NotAgain => JobError::Interrupted,
        }
    }

    pub(super) fn submit(
        &self,
        deadline: Option<Instant>,
        watch: Watch,
        held: Held<J, R, E>,
    ) -> JobId {
        self.act(|state, now| state.queue.submit(now, deadline, watch, held))
    }

    /// Whether this is the child of a fork, where nobody works.
    pub(super) fn is_forked(&self) -> bool {
        crate::env::forks() != self.forks
    }

    /// Whether this thread runs a worker of this pool, which would wait for itself (I14).
    pub(super) fn is_inside(&self) -> bool {
        inside::is_worker_of_pool(self.env, &self.name)
    }

    /// Jobs that nobody waits for may be dropped until the answer is: what they do then must not wait for the keeper.
    pub(super) fn dropping(&self) -> Inside {
        inside::callback(Owner::Env(self.env), "a job that is dropped")
    }

    /// Its future was dropped.
    pub(super) fn gone(&self, id: JobId) {
        self.act(|state, now| state.queue.gone(now, id));
    }

    /// Ends when something may have happened to a job by time alone; none if nothing can.
    pub(super) fn sleep(&self, id: JobId) -> Option<Sleep> {
        let at = self.state.lock().queue.timer(id)?;
        Some(self.clock()?.sleep_until(at))
    }

    pub(super) fn tick(&self) {
        self.act(|state, now| state.queue.tick(now));
    }

    /// What this run of a worker is to do next. If it is not sure that it may, it says [`runs`](Self::runs) when it is about to:
    /// what becomes of the run until then, such as the end of its lease, does not become of the job.
    pub(super) fn begin(&self, run: RunId, is_sure: bool) -> Option<(Begun, Arc<J>)> {
        let (begun, more) = self.act(|state, now| {
            let begun = state.queue.begin(now);
            let begun = begun.and_then(|begun| {
                let job = state.queue.held_mut(begun.id)?.share()?;
                if is_sure {
                    state.running.insert(run, begun.id);
                }
                Some((begun, job))
            });
            (begun, state.queue.queued() > 0)
        });
        if begun.is_some() && more {
            self.pass_a_turn();
        }
        begun
    }

    /// What becomes of this run becomes of the job, too.
    pub(super) fn runs(&self, run: RunId, id: JobId) {
        self.state.lock().running.insert(run, id);
    }

    /// This run may not begin the job after all.
    pub(super) fn not_begun(&self, run: RunId, id: JobId, job: Arc<J>) {
        // If it is over meanwhile, it is not dropped under the lock.
        let mut job = Some(job);
        self.act(|state, now| {
            if state.running.remove(&run).is_some()
                && let Some(held) = state.queue.held_mut(id)
            {
                held.unshare(&mut job);
                state.queue.not_begun(now, id);
            }
        });
    }

    /// A worker ends: it may have taken a turn that it has not used.
    pub(super) fn leave(&self) {
        if self.state.lock().queue.queued() > 0 {
            self.pass_a_turn();
        }
    }

    /// A handler has answered.
    pub(super) fn finished(&self, run: RunId, id: JobId, answer: Result<R, E>) {
        let held = self.act(|state, _| {
            state.running.remove(&run);
            state.queue.finished(id, answer.is_ok())
        });
        if held.is_some() {
            quietly(|| self.count(if answer.is_ok() { "done" } else { "failed" }));
        }
        quietly(|| {
            if let Some(held) = held {
                held.reply.answer(answer);
            }
        });
    }

    /// A handler has panicked.
    pub(super) fn panicked(&self, run: RunId, message: Arc<str>, location: Option<Arc<str>>) {
        // Said outside of the lock: whoever listens is the application's.
        let mut lost = None;
        let over = self.act(|state, now| {
            let id = state.running.remove(&run)?;
            let held = state.queue.held_mut(id)?;
            let panics = held.panic.as_ref().map_or(0, |panic| panic.panics) + 1;
            held.panic = Some(JobPanic {
                message,
                location,
                at: SystemTime::now(),
                panics,
                quarantined: None,
            });
            match state.queue.panicked(now, id) {
                AfterPanic::Aside => {
                    let held = state.queue.aside_mut(id)?;
                    let panic = held.panic.as_mut()?;
                    panic.quarantined = Some(id);
                    let panic = panic.clone();
                    Some((held.take_reply(), panic, None))
                }
                AfterPanic::Over(mut held) => {
                    let panic = held.panic.clone()?;
                    Some((held.take_reply(), panic, Some(held)))
                }
                AfterPanic::NoRoom(mut held) => {
                    let panic = held.panic.clone()?;
                    lost = Some(id);
                    Some((held.take_reply(), panic, Some(held)))
                }
                AfterPanic::Again | AfterPanic::Unknown => None,
            }
        });
        if let Some((reply, panic, held)) = over {
            quietly(|| {
                self.count("panicked");
                if let Some(id) = lost {
                    tracing::error!(target: "lockkeeper", pool = &*self.name, job = id.0, panic = %panic, "the quarantine is full: a job is lost");
                }
                if let Some(id) = panic.quarantined {
                    tracing::warn!(target: "lockkeeper", pool = &*self.name, job = id.0, panics = panic.panics, "a job was put aside");
                }
            });
            quietly(|| {
                reply.fail(JobError::Panicked(panic));
                drop(held);
            });
        }
    }

    /// A run has ended, or was given up, with a job in its hands.
    pub(super) fn interrupted(&self, run: RunId) {
        self.act(|state, now| {
            if let Some(id) = state.running.remove(&run) {
                state.queue.interrupted(now, id);
            }
        });
    }

    pub(super) fn drain(&self) -> Todos<J, R, E> {
        self.ask(|state, now| state.queue.drain(now)).1
    }

    /// Begins nothing any more, and answers what has not begun.
    pub(super) fn shut(&self, closed: Closed, last: Option<Arc<str>>) -> Todos<J, R, E> {
        let shut = |state: &mut State<J, R, E>, now| {
            state.last = last;
            state.queue.shut(now, closed);
        };
        self.ask(shut).1
    }

    /// Answers everything: nothing runs any more.
    pub(super) fn close(&self, closed: Closed, last: Option<Arc<str>>) -> Todos<J, R, E> {
        let close = |state: &mut State<J, R, E>, now| {
            state.last = last;
            state.running.clear();
            state.queue.close(now, closed);
        };
        self.ask(close).1
    }

    pub(super) fn reopen(&self) -> Todos<J, R, E> {
        self.ask(|state, _| state.queue.reopen()).1
    }

    /// Ends when there may be something to do.
    pub(super) async fn turn(&self) {
        // Both ends are here: there is no other end than a turn.
        let _ = self.turns.1.recv_async().await;
    }

    pub(super) fn clock(&self) -> Option<Clock> {
        self.clock.lock().clone()
    }

    /// Nothing waits any more.
    pub(super) fn forget_clock(&self) {
        drop(self.clock.lock().take());
    }

    pub(super) fn stats(&self) -> JobStats {
        self.state.lock().queue.stats()
    }

    pub(super) fn quarantined(&self) -> Vec<QuarantinedJob<J>> {
        let state = self.state.lock();
        let aside = state.queue.aside();
        aside
            .filter_map(|(id, held, _)| {
                Some(QuarantinedJob::new(id, held.look()?, held.panic.clone()?))
            })
            .collect()
    }

    pub(super) fn retry(&self, id: JobId) -> Result<(), RetryError> {
        self.act(|state, now| state.queue.retry(now, id))
            .map_err(|refused| match refused {
                RetryRefused::Unknown => RetryError::Unknown(id),
                RetryRefused::Full { capacity } => RetryError::Full { capacity },
                RetryRefused::Closed(_) => RetryError::Stopped,
            })
    }

    pub(super) fn discard(&self, id: JobId) -> Option<QuarantinedJob<J>> {
        let (held, _) = self.act(|state, _| state.queue.discard(id))?;
        Some(QuarantinedJob::new(id, held.look()?, held.panic?))
    }
}
