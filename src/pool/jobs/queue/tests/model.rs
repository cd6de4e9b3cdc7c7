//! The rules of the queue, said as simply as possible: one list, searched from the front each time.

use super::super::{AfterPanic, Begun, Closed, Effect, End, RetryRefused, Rules, Watch};
use super::{at, ms};
use crate::pool::jobs::id::JobId;
use crate::pool::jobs::on_full::OnFull;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Waits { until: u64 },
    InLine,
    Runs,
}

#[derive(Debug, Clone)]
struct Job {
    id: u64,
    came: u64,
    deadline: Option<u64>,
    watch: Watch,
    place: Where,
    row: u32,
    panics: u32,
    retry: bool,
    /// When it came into the line.
    turn: u64,
}

/// All times in milliseconds.
#[derive(Debug)]
pub(super) struct Model {
    rules: Rules,
    closed: Option<Closed>,
    /// Those that wait and run in any order, those in line in theirs.
    jobs: Vec<Job>,
    aside: Vec<(u64, u32)>,
    last: u64,
    turns: u64,
    pub told: Vec<Effect<u64>>,
}

impl Model {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            closed: None,
            jobs: Vec::new(),
            aside: Vec::new(),
            last: 0,
            turns: 0,
            told: Vec::new(),
        }
    }

    fn count(&self, what: impl Fn(&Job) -> bool) -> usize {
        self.jobs.iter().filter(|job| what(job)).count()
    }

    pub(super) fn queued(&self) -> usize {
        self.count(|job| job.place == Where::InLine)
    }

    pub(super) fn waiting(&self) -> usize {
        self.count(|job| matches!(job.place, Where::Waits { .. }))
    }

    pub(super) fn running(&self) -> Vec<u64> {
        let mut ids: Vec<_> = self
            .jobs
            .iter()
            .filter(|job| job.place == Where::Runs)
            .map(|job| job.id)
            .collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn alive(&self) -> Vec<u64> {
        let mut ids: Vec<_> = self.jobs.iter().map(|job| job.id).collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn aside(&self) -> &[(u64, u32)] {
        &self.aside
    }

    fn kept(&self) -> usize {
        self.count(|job| job.retry)
    }

    /// When a job is due for something, at the earliest.
    fn due(job: &Job) -> Option<u64> {
        match job.place {
            Where::Waits { until } => Some(job.deadline.map_or(until, |at| at.min(until))),
            Where::InLine => job.deadline,
            Where::Runs => job.deadline.filter(|_| job.watch == Watch::Answer),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.jobs.iter().filter_map(Self::due).min()
    }

    fn enter(&mut self, mut job: Job) {
        job.place = Where::InLine;
        self.turns += 1;
        job.turn = self.turns;
        if job.watch == Watch::Place {
            job.watch = Watch::Nobody;
            self.told.push(Effect::Taken(JobId(job.id)));
        }
        self.jobs.push(job);
        self.told.push(Effect::Ready);
    }

    fn over(&mut self, job: Job, end: End) {
        if job.retry {
            self.aside.push((job.id, job.panics));
            return;
        }
        let begun_before = job.panics > 0 && !matches!(end, End::Gone | End::Interrupted);
        let end = if begun_before { End::NotAgain } else { end };
        self.told.push(Effect::Ended(JobId(job.id), job.id, end));
    }

    fn remove(&mut self, id: u64) -> Option<Job> {
        let at = self.jobs.iter().position(|job| job.id == id)?;
        Some(self.jobs.remove(at))
    }

    fn let_in(&mut self) {
        while self.queued() < self.rules.capacity {
            let waiting = self
                .jobs
                .iter()
                .filter(|job| matches!(job.place, Where::Waits { .. }));
            let Some(id) = waiting.map(|job| job.id).min() else {
                return;
            };
            let job = self.remove(id).unwrap();
            self.enter(job);
        }
    }

    pub(super) fn tick(&mut self, now: u64) {
        loop {
            let late = self
                .jobs
                .iter()
                .filter_map(|job| Some((Self::due(job)?, job.id)))
                .filter(|&(due, _)| due <= now)
                .min();
            let Some((_, id)) = late else { break };
            let mut job = self.remove(id).unwrap();
            let waited = ms(now - job.came);
            if job.place == Where::Runs {
                job.watch = Watch::Gone;
                self.jobs.push(job);
                self.told.push(Effect::RunsOn(JobId(id)));
            } else if job.deadline.is_some_and(|deadline| deadline <= now) {
                self.over(job, End::Expired { waited });
            } else {
                self.over(job, End::Full { waited });
            }
            self.let_in();
        }
    }

    pub(super) fn submit(&mut self, now: u64, deadline: Option<u64>, watch: Watch) {
        self.tick(now);
        self.last += 1;
        let mut job = Job {
            id: self.last,
            came: now,
            deadline,
            watch,
            place: Where::InLine,
            row: 0,
            panics: 0,
            retry: false,
            turn: 0,
        };
        let waited = ms(0);
        if let Some(closed) = self.closed {
            return self.over(job, End::Closed(closed));
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            return self.over(job, End::Expired { waited });
        }
        if self.queued() < self.rules.capacity {
            return self.enter(job);
        }
        match self.rules.on_full {
            OnFull::Refuse => self.over(job, End::Full { waited }),
            OnFull::DropNewest => self.over(job, End::Newest),
            OnFull::DropOldest => {
                let oldest = self
                    .jobs
                    .iter()
                    .position(|job| job.place == Where::InLine)
                    .unwrap();
                let oldest = self.jobs.remove(oldest);
                self.over(oldest, End::Oldest);
                self.enter(job);
            }
            OnFull::Wait(time) => {
                job.place = Where::Waits {
                    until: now + u64::try_from(time.as_millis()).unwrap(),
                };
                self.jobs.push(job);
                self.tick(now);
            }
        }
    }

    pub(super) fn begin(&mut self, now: u64) -> Option<Begun> {
        self.tick(now);
        let first = self
            .jobs
            .iter()
            .position(|job| job.place == Where::InLine)?;
        let mut job = self.jobs.remove(first);
        job.place = Where::Runs;
        let begun = Begun {
            id: JobId(job.id),
            attempt: job.row + 1,
            deadline: job.deadline.map(at),
        };
        self.jobs.push(job);
        self.let_in();
        Some(begun)
    }

    pub(super) fn not_begun(&mut self, now: u64, id: u64) {
        if !self.running().contains(&id) {
            return;
        }
        let mut job = self.remove(id).unwrap();
        let is_done = |closed| closed != Closed::Draining;
        if job.watch == Watch::Gone {
            self.over(job, End::Gone);
        } else if let Some(closed) = self.closed.filter(|&closed| is_done(closed)) {
            self.over(job, End::Closed(closed));
        } else {
            job.place = Where::InLine;
            let behind = |other: &Job| other.place == Where::InLine && other.turn > job.turn;
            let at = self.jobs.iter().position(behind);
            self.jobs.insert(at.unwrap_or(self.jobs.len()), job);
            self.told.push(Effect::Ready);
        }
        self.tick(now);
    }

    pub(super) fn gone(&mut self, now: u64, id: u64) {
        if matches!(self.watch(id), None | Some(Watch::Nobody)) {
            return;
        }
        let mut job = self.remove(id).unwrap();
        if job.place == Where::Runs {
            job.watch = Watch::Gone;
            self.jobs.push(job);
        } else {
            self.over(job, End::Gone);
            self.let_in();
        }
        self.tick(now);
    }

    pub(super) fn watch(&self, id: u64) -> Option<Watch> {
        let job = self.jobs.iter().find(|job| job.id == id)?;
        Some(job.watch)
    }

    pub(super) fn finished(&mut self, id: u64) -> Option<u64> {
        if !self.running().contains(&id) {
            return None;
        }
        self.remove(id);
        Some(id)
    }

    pub(super) fn interrupted(&mut self, now: u64, id: u64) {
        if self.running().contains(&id) {
            let job = self.remove(id).unwrap();
            self.over(job, End::Interrupted);
        }
        self.tick(now);
    }

    pub(super) fn panicked(&mut self, now: u64, id: u64) -> AfterPanic<u64> {
        self.tick(now);
        if !self.running().contains(&id) {
            return AfterPanic::Unknown;
        }
        let taken = self.aside.len() + self.kept();
        let mut job = self.remove(id).unwrap();
        job.row += 1;
        job.panics += 1;
        let wanted = job.watch != Watch::Gone
            && job.deadline.is_none_or(|deadline| deadline > now)
            && self.closed.is_none_or(|closed| closed == Closed::Draining);
        match self.rules.quarantine_after {
            None => AfterPanic::Over(id),
            Some(most) if job.row >= most => {
                if job.retry || taken < self.rules.quarantine_limit {
                    self.aside.push((id, job.panics));
                    AfterPanic::Aside
                } else {
                    AfterPanic::NoRoom(id)
                }
            }
            Some(_) if wanted => {
                self.enter(job);
                AfterPanic::Again
            }
            Some(_) if job.retry => {
                self.aside.push((id, job.panics));
                AfterPanic::Aside
            }
            Some(_) => AfterPanic::Over(id),
        }
    }

    pub(super) fn retry(&mut self, now: u64, id: u64) -> Result<(), RetryRefused> {
        self.tick(now);
        let at = self.aside.iter().position(|&(put, _)| put == id);
        let at = at.ok_or(RetryRefused::Unknown)?;
        if let Some(closed) = self.closed {
            return Err(RetryRefused::Closed(closed));
        }
        let capacity = self.rules.capacity;
        if self.queued() >= capacity {
            return Err(RetryRefused::Full { capacity });
        }
        let (_, panics) = self.aside.remove(at);
        self.enter(Job {
            id,
            came: now,
            deadline: None,
            watch: Watch::Nobody,
            place: Where::InLine,
            row: 0,
            panics,
            retry: true,
            turn: 0,
        });
        Ok(())
    }

    pub(super) fn discard(&mut self, id: u64) -> Option<(u64, u32)> {
        let at = self.aside.iter().position(|&(put, _)| put == id)?;
        Some(self.aside.remove(at))
    }

    pub(super) fn drain(&mut self, now: u64) {
        self.tick(now);
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(Closed::Draining);
        for id in self.alive() {
            let waits = |job: &&Job| matches!(job.place, Where::Waits { .. });
            if self.jobs.iter().filter(waits).any(|job| job.id == id) {
                let job = self.remove(id).unwrap();
                self.over(job, End::Closed(Closed::Draining));
            }
        }
    }

    pub(super) fn reopen(&mut self) {
        if matches!(self.closed, Some(Closed::Finished | Closed::Failed)) {
            self.closed = None;
        }
    }

    pub(super) fn shut(&mut self, now: u64, closed: Closed) {
        self.tick(now);
        self.closed = self.closed.max(Some(closed));
        for id in self.alive() {
            if !self.running().contains(&id) {
                let job = self.remove(id).unwrap();
                self.over(job, End::Closed(closed));
            }
        }
    }

    pub(super) fn close(&mut self, now: u64, closed: Closed) {
        self.shut(now, closed);
        for id in self.alive() {
            let job = self.remove(id).unwrap();
            self.over(job, End::Interrupted);
        }
    }
}
