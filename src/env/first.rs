//! Who goes first: attempts of interactive transactions for which the writer holds plain updates back (I8).
//!
//! An attempt that outside writes have undone again and again would never end beside a plain writer that never stops. While
//! it is under way, the writer sets plain updates aside, for [`PATIENCE`] at most. They keep their order among themselves, count
//! as queued, and are answered as any other when the environment is poisoned or stopped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::env::shared::{Command, Shared, UpdateTask};

/// How long plain updates are held back for an attempt, and how long any of them is.
pub(crate) const PATIENCE: Duration = Duration::from_millis(50);

/// The attempts that go first, and what is held back for them.
#[derive(Default)]
pub(crate) struct First {
    /// The attempts under way, each with the time until which it has anything held back.
    under_way: Mutex<Vec<(u64, Instant)>>,
    /// How many there are: nearly always none, which is all that the writer has to know.
    count: AtomicUsize,
    next: AtomicU64,
    /// Odd while a batch is collected and run.
    batches: AtomicU64,
    /// A batch has ended while an attempt was under way.
    ended: Notify,
    /// The updates that are held back, the oldest first, each with the time since when.
    held: Mutex<VecDeque<(Instant, UpdateTask)>>,
    /// The writer is waiting, with updates held back, and wants to know when the last attempt ends.
    tell: AtomicBool,
}

/// An attempt that goes first, until it is dropped.
pub(crate) struct GoesFirst {
    shared: Arc<Shared>,
    id: u64,
}

impl Shared {
    /// Begins an attempt that goes first. Answers when no plain update is being run, and none will be for a while: whatever
    /// the attempt reads from then on stays, if it is quick. A batch that runs on is waited for no longer than [`PATIENCE`].
    ///
    /// The mark is to be taken after this.
    pub(crate) async fn go_first(self: &Arc<Self>) -> GoesFirst {
        let first = &self.first;
        let id = first.next.fetch_add(1, Ordering::Relaxed);
        let attempt = GoesFirst {
            shared: Arc::clone(self),
            id,
        };
        let until = Instant::now() + PATIENCE;
        first.under_way.lock().push((id, until + PATIENCE));
        first.count.fetch_add(1, Ordering::SeqCst);
        // Either the writer sees the count before it collects its next batch, or the batch is seen here.
        let running = first.batches.load(Ordering::SeqCst);
        if running % 2 == 1 {
            let ended = async {
                loop {
                    let ended = first.ended.notified();
                    if first.batches.load(Ordering::SeqCst) != running {
                        return;
                    }
                    ended.await;
                }
            };
            self.clock.until(until, ended).await;
        }
        let until = Instant::now() + PATIENCE;
        for (_, end) in first
            .under_way
            .lock()
            .iter_mut()
            .filter(|(one, _)| *one == id)
        {
            *end = until;
        }
        attempt
    }
}

impl Drop for GoesFirst {
    fn drop(&mut self) {
        let first = &self.shared.first;
        first.under_way.lock().retain(|(id, _)| *id != self.id);
        let last = first.count.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && first.tell.swap(false, Ordering::SeqCst) {
            // If the queue is full the writer is awake.
            let _ = self.shared.commands.try_send(Command::LookAgain);
        }
    }
}

/// A batch that is collected and run.
pub(super) struct Busy<'s>(&'s First);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.batches.fetch_add(1, Ordering::SeqCst);
        if self.0.count.load(Ordering::SeqCst) > 0 {
            self.0.ended.notify_waiters();
        }
    }
}

impl First {
    /// To be called before [`holds`](Self::holds) is asked for a batch.
    pub(super) fn busy(&self) -> Busy<'_> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        Busy(self)
    }

    /// Whether plain updates are to be held back; `most` is how many there may be.
    pub(super) fn holds(&self, most: usize) -> bool {
        if self.count.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let held = self.held.lock();
        held.len() < most && self.end(&held).is_some_and(|end| Instant::now() < end)
    }

    /// When those that are held back have to go on, if there are any.
    pub(super) fn due(&self) -> Option<Instant> {
        let held = self.held.lock();
        held.front()?;
        Some(self.end(&held).unwrap_or_else(Instant::now))
    }

    /// Until when plain updates are held back, if they are.
    fn end(&self, held: &VecDeque<(Instant, UpdateTask)>) -> Option<Instant> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let end = self.under_way.lock().iter().map(|&(_, end)| end).max()?;
        // Attempts may follow each other for ever: that is not an update's concern.
        let patience = held.front().map(|&(since, _)| since + PATIENCE);
        Some(patience.map_or(end, |patience| end.min(patience)))
    }

    /// Sets a plain update aside, or the commit of a transaction without locks; hands back what is neither.
    pub(super) fn hold_back(&self, task: UpdateTask) -> Option<UpdateTask> {
        if !task.ask.kind.makes_way() {
            return Some(task);
        }
        self.held.lock().push_back((Instant::now(), task));
        None
    }

    /// The oldest that is held back.
    pub(super) fn let_go(&self) -> Option<UpdateTask> {
        self.held.lock().pop_front().map(|(_, task)| task)
    }

    /// The writer is about to wait: the end of the last attempt is to wake it.
    pub(super) fn tell(&self, tell: bool) {
        self.tell.store(tell, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
