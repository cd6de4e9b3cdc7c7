//! The queue of a job pool, without its workers: who waits for a place, what is queued, what runs, and what becomes of a job that
//! panics.
//!
//! Values in, decisions out: time is a parameter, and nothing here sleeps, wakes, or runs a job. What always holds:
//!
//! - At most `capacity` jobs are queued, and with them those that panicked or were not begun after all, and are to begin again, at
//!   most one for each worker.
//! - After each call nobody waits for a place while one is free, and places are given in the order of arrival. Time frees places too, and
//!   somebody has to [`tick`](Queue::tick) for that: with no submitter whose timer does, an expired job keeps its place until the next call.
//! - A job is begun only if its deadline has not passed and somebody wants it still.
//! - Each job that was submitted ends exactly once: by [`finished`](Queue::finished), by [`Effect::Ended`], or in the quarantine.
//! - What was put aside leaves the quarantine by hand, or by being done.

mod aside;
mod ending;
mod panicking;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

pub(super) use aside::{Aside, RetryRefused};
pub(super) use panicking::AfterPanic;

use super::id::JobId;
use super::on_full::OnFull;
use super::stats::JobStats;

/// What a queue goes by; it does not change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Most jobs that are queued; at least one.
    pub capacity: usize,
    pub on_full: OnFull,
    /// After how many panics in a row a job is put aside; without it, the first panic is its end.
    pub quarantine_after: Option<u32>,
    /// Most jobs that are put aside.
    pub quarantine_limit: usize,
}

/// Who is there for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// Somebody waits for its answer.
    Answer,
    /// Somebody waits until it is queued, and no longer.
    Place,
    /// Nobody has to: it is done all the same.
    Nobody,
    /// Nobody does any more: it is not begun.
    Gone,
}

/// The job is over, and what it was submitted with comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// There was no place; it has waited so long for one.
    Full { waited: Duration },
    /// It was dropped for a newer one.
    Oldest,
    /// It was dropped since it was the newest.
    Newest,
    /// Its deadline passed before it began.
    Expired { waited: Duration },
    /// Its future was dropped before it began.
    Gone,
    /// Nothing is taken, or begun, any more.
    Closed(Closed),
    /// It had begun, and its worker ended under it.
    Interrupted,
    /// It has panicked before, and is not begun again.
    NotAgain,
}

impl End {
    /// Its name in metrics.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Full { .. } => "refused",
            Self::Oldest | Self::Newest => "dropped",
            Self::Expired { .. } => "expired",
            Self::Gone => "gone",
            Self::Closed(_) => "stopped",
            Self::Interrupted => "interrupted",
            Self::NotAgain => "panicked",
        }
    }
}

/// Why nothing is taken any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closed {
    /// What is queued is done still.
    Draining,
    /// No worker is left, until there are more.
    Finished,
    Stopped,
    /// The pool has given up, until it is resumed.
    Failed,
}

/// What has to be done about a decision.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect<T> {
    /// One more job is there to be begun.
    Ready,
    /// Whoever waited for a place for it has got it.
    Taken(JobId),
    /// The job is over.
    Ended(JobId, T, End),
    /// Its deadline passed while it runs: whoever waits is answered, and it runs on.
    RunsOn(JobId),
}

/// A job that a worker is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun {
    pub id: JobId,
    /// 1 for its first run.
    pub attempt: u32,
    pub deadline: Option<Instant>,
}

#[derive(Debug)]
struct Entry<T> {
    held: T,
    submitted: Instant,
    deadline: Option<Instant>,
    watch: Watch,
    stage: Stage,
    /// How often it panicked since it was submitted, or retried.
    in_a_row: u32,
    panics: u32,
    /// It comes from the quarantine, where its place is kept.
    is_retry: bool,
    /// Where it stands among the timers.
    timer: Option<Instant>,
    /// Where it stands in line, or stood.
    place: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting { until: Instant },
    Queued,
    Running,
}

pub(super) struct Queue<T> {
    rules: Rules,
    closed: Option<Closed>,
    jobs: BTreeMap<JobId, Entry<T>>,
    /// By arrival, which is by number.
    waiting: BTreeSet<JobId>,
    line: BTreeMap<u64, JobId>,
    running: usize,
    timers: BTreeSet<(Instant, JobId)>,
    aside: Aside<T>,
    last_id: u64,
    last_place: u64,
    effects: VecDeque<Effect<T>>,
    /// What has happened; how many are where is not kept in here.
    counts: JobStats,
}

impl<T> Queue<T> {
    pub(super) fn new(rules: Rules) -> Self {
        let capacity = rules.capacity.max(1);
        Self {
            rules: Rules { capacity, ..rules },
            closed: None,
            jobs: BTreeMap::new(),
            waiting: BTreeSet::new(),
            line: BTreeMap::new(),
            running: 0,
            timers: BTreeSet::new(),
            aside: Aside::new(rules.quarantine_limit),
            last_id: 0,
            last_place: 0,
            effects: VecDeque::new(),
            counts: JobStats::default(),
        }
    }

    /// A job comes. What becomes of it at once stands in the effects.
    pub(super) fn submit(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
        watch: Watch,
        held: T,
    ) -> JobId {
        self.tick(now);
        self.last_id += 1;
        let id = JobId(self.last_id);
        self.counts.submitted += 1;
        let entry = Entry {
            held,
            submitted: now,
            deadline,
            watch,
            stage: Stage::Waiting { until: now },
            in_a_row: 0,
            panics: 0,
            is_retry: false,
            timer: None,
            place: 0,
        };
        let end = if let Some(closed) = self.closed {
            Some(End::Closed(closed))
        } else if deadline.is_some_and(|deadline| deadline <= now) {
            Some(End::Expired {
                waited: Duration::ZERO,
            })
        } else if self.has_place() {
            None
        } else {
            match self.rules.on_full {
                OnFull::Refuse => Some(End::Full {
                    waited: Duration::ZERO,
                }),
                OnFull::DropNewest => Some(End::Newest),
                OnFull::DropOldest => {
                    self.drop_oldest();
                    None
                }
                OnFull::Wait(time) => {
                    let until = crate::clock::far(now, time);
                    self.jobs.insert(
                        id,
                        Entry {
                            stage: Stage::Waiting { until },
                            ..entry
                        },
                    );
                    self.waiting.insert(id);
                    self.set_timer(id);
                    // It may not want to wait at all.
                    self.tick(now);
                    return id;
                }
            }
        };
        match end {
            Some(end) => {
                self.count(end);
                self.effects.push_back(Effect::Ended(id, entry.held, end));
            }
            None => {
                self.jobs.insert(id, entry);
                self.enqueue(id);
            }
        }
        id
    }

    /// Whoever waited for this job does so no more. What runs already runs on, and does not begin again.
    pub(super) fn gone(&mut self, now: Instant, id: JobId) {
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        if entry.watch == Watch::Nobody {
            return;
        }
        entry.watch = Watch::Gone;
        if entry.stage == Stage::Running {
            self.set_timer(id);
        } else {
            self.end(id, End::Gone);
            self.promote();
        }
        self.tick(now);
    }

    /// A worker is free: what it is to run.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Begun> {
        self.tick(now);
        let (_, id) = self.line.pop_first()?;
        // What stands in the line is among the jobs.
        let entry = self.jobs.get_mut(&id)?;
        entry.stage = Stage::Running;
        let begun = Begun {
            id,
            attempt: entry.in_a_row + 1,
            deadline: entry.deadline,
        };
        self.running += 1;
        self.counts.begun += 1;
        self.set_timer(id);
        self.promote();
        Some(begun)
    }

    /// The worker may not run it after all: it stands in line again where it stood, if it is to be done still.
    pub(super) fn not_begun(&mut self, now: Instant, id: JobId) {
        let Some(mut entry) = self.take_running(id) else {
            return;
        };
        self.counts.begun = self.counts.begun.saturating_sub(1);
        let is_gone = entry.watch == Watch::Gone;
        entry.stage = Stage::Queued;
        self.line.insert(entry.place, id);
        self.jobs.insert(id, entry);
        self.set_timer(id);
        match self.closed {
            _ if is_gone => self.end(id, End::Gone),
            None | Some(Closed::Draining) => self.effects.push_back(Effect::Ready),
            Some(closed) => self.end(id, End::Closed(closed)),
        }
        self.tick(now);
    }

    /// What a job was submitted with.
    pub(super) fn held_mut(&mut self, id: JobId) -> Option<&mut T> {
        self.jobs.get_mut(&id).map(|entry| &mut entry.held)
    }

    /// A job that runs has come to its end, and answered, well or not. `None` if it had been given up.
    pub(super) fn finished(&mut self, id: JobId, well: bool) -> Option<T> {
        let entry = self.take_running(id)?;
        match well {
            true => self.counts.done += 1,
            false => self.counts.failed += 1,
        }
        self.aside.leave(entry.is_retry);
        Some(entry.held)
    }

    /// The worker of a job that runs has ended under it, and nobody knows how far it got. It is not begun again.
    pub(super) fn interrupted(&mut self, now: Instant, id: JobId) {
        if self.is_running(id) {
            self.end(id, End::Interrupted);
        }
        self.tick(now);
    }

    /// Lets time pass: ends what is late.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            let Some(entry) = self.jobs.get_mut(&id) else {
                self.timers.pop_first();
                continue;
            };
            let waited = now.saturating_duration_since(entry.submitted);
            let is_late = entry.deadline.is_some_and(|deadline| deadline <= now);
            match entry.stage {
                Stage::Running => {
                    entry.watch = Watch::Gone;
                    self.set_timer(id);
                    self.counts.ran_over += 1;
                    self.effects.push_back(Effect::RunsOn(id));
                }
                _ if is_late => self.end(id, End::Expired { waited }),
                _ => self.end(id, End::Full { waited }),
            }
            self.promote();
        }
    }

    /// When [`tick`](Self::tick) may have something to do about this job.
    pub(super) fn timer(&self, id: JobId) -> Option<Instant> {
        self.jobs.get(&id)?.timer
    }

    /// When [`tick`](Self::tick) has something to do again.
    #[cfg(test)]
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    pub(super) fn poll_effect(&mut self) -> Option<Effect<T>> {
        self.effects.pop_front()
    }

    /// How many are there to be begun.
    pub(super) fn queued(&self) -> usize {
        self.line.len()
    }

    /// How many wait for a place.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn stats(&self) -> JobStats {
        JobStats {
            queued: self.queued(),
            capacity: self.rules.capacity,
            waiting: self.waiting.len(),
            running: self.running,
            quarantined: self.aside.iter().count(),
            ..self.counts.clone()
        }
    }

    /// Counts a job that ends without having come to its own end.
    fn count(&mut self, end: End) {
        let count = match end {
            End::Full { .. } => &mut self.counts.refused,
            End::Oldest | End::Newest => &mut self.counts.dropped,
            End::Expired { .. } => &mut self.counts.expired,
            End::Gone => &mut self.counts.gone,
            End::Closed(_) => &mut self.counts.stopped,
            End::Interrupted => &mut self.counts.interrupted,
            // Its panics are counted.
            End::NotAgain => return,
        };
        *count += 1;
    }

    fn has_place(&self) -> bool {
        self.line.len() < self.rules.capacity
    }

    fn is_running(&self, id: JobId) -> bool {
        self.jobs
            .get(&id)
            .is_some_and(|entry| entry.stage == Stage::Running)
    }

    fn take_running(&mut self, id: JobId) -> Option<Entry<T>> {
        self.is_running(id).then(|| self.take(id)).flatten()
    }

    /// Puts a job at the end of the line.
    fn enqueue(&mut self, id: JobId) {
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        self.last_place += 1;
        let place = self.last_place;
        entry.stage = Stage::Queued;
        entry.place = place;
        if entry.watch == Watch::Place {
            entry.watch = Watch::Nobody;
            self.effects.push_back(Effect::Taken(id));
        }
        self.line.insert(place, id);
        self.set_timer(id);
        self.effects.push_back(Effect::Ready);
    }

    /// Gives free places to those who wait for one.
    fn promote(&mut self) {
        while self.has_place()
            && let Some(id) = self.waiting.pop_first()
        {
            self.enqueue(id);
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, &id)) = self.line.first_key_value() {
            self.end(id, End::Oldest);
        }
    }

    /// Whether nothing is queued, and nothing runs.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.line.is_empty() && self.waiting.is_empty() && self.running == 0
    }

    fn set_timer(&mut self, id: JobId) {
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        if let Some(at) = entry.timer.take() {
            self.timers.remove(&(at, id));
        }
        entry.timer = match entry.stage {
            Stage::Waiting { until } => {
                Some(entry.deadline.map_or(until, |deadline| deadline.min(until)))
            }
            Stage::Queued => entry.deadline,
            Stage::Running => entry.deadline.filter(|_| entry.watch == Watch::Answer),
        };
        if let Some(at) = entry.timer {
            self.timers.insert((at, id));
        }
    }

    /// Takes a job out of everything that it stands in.
    fn take(&mut self, id: JobId) -> Option<Entry<T>> {
        let entry = self.jobs.remove(&id)?;
        if let Some(at) = entry.timer {
            self.timers.remove(&(at, id));
        }
        match entry.stage {
            Stage::Waiting { .. } => {
                self.waiting.remove(&id);
            }
            Stage::Queued => {
                self.line.remove(&entry.place);
            }
            Stage::Running => self.running -= 1,
        }
        Some(entry)
    }
}
