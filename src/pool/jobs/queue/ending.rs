//! How jobs end that do not come to their own end.

use std::time::Instant;

use super::{Closed, Effect, End, Entry, JobId, Queue, Stage};

impl<T> Queue<T> {
    /// Takes nothing new from now on, and does what is queued. Those who wait for a place get none.
    pub(in crate::pool::jobs) fn drain(&mut self, now: Instant) {
        self.tick(now);
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(Closed::Draining);
        while let Some(&id) = self.waiting.first() {
            self.end(id, End::Closed(Closed::Draining));
        }
    }

    /// Begins nothing any more, and answers what has not begun. What runs may finish.
    pub(in crate::pool::jobs) fn shut(&mut self, now: Instant, closed: Closed) {
        self.tick(now);
        self.closed = self.closed.max(Some(closed));
        let has_not_begun =
            |(&id, entry): (&JobId, &Entry<T>)| (entry.stage != Stage::Running).then_some(id);
        let left: Vec<_> = self.jobs.iter().filter_map(has_not_begun).collect();
        for id in left {
            self.end(id, End::Closed(closed));
        }
    }

    /// Begins nothing any more, and answers all that was not done: nothing runs any more, or what does has been given up.
    pub(in crate::pool::jobs) fn close(&mut self, now: Instant, closed: Closed) {
        self.shut(now, closed);
        while let Some((&id, _)) = self.jobs.first_key_value() {
            self.end(id, End::Interrupted);
        }
    }

    /// There are workers again: new jobs are taken. What was drained or stopped stays so.
    pub(in crate::pool::jobs) fn reopen(&mut self) {
        if matches!(self.closed, Some(Closed::Finished | Closed::Failed)) {
            self.closed = None;
        }
    }

    /// A job ends. One that panicked before is not said to have never begun, and one from the quarantine goes back there.
    pub(super) fn end(&mut self, id: JobId, end: End) {
        let Some(entry) = self.take(id) else {
            return;
        };
        let has_panicked = entry.panics > 0;
        let end = match end {
            End::Interrupted | End::Gone => end,
            _ if has_panicked => End::NotAgain,
            _ => end,
        };
        self.count(end);
        if entry.is_retry {
            self.aside.put_back(id, entry.held, entry.panics);
        } else {
            self.effects.push_back(Effect::Ended(id, entry.held, end));
        }
    }
}
