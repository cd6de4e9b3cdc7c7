//! Waiting until lockers have ended.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use hashbrown::HashMap;

use super::locks::Locks;
use crate::locks::LockerId;

/// Who waits for the end of which lockers.
#[derive(Default)]
pub(super) struct Watches {
    by_locker: HashMap<LockerId, Vec<u64>>,
    by_number: HashMap<u64, Watch>,
    last: u64,
}

struct Watch {
    left: usize,
    waker: Option<Waker>,
}

impl Watches {
    fn add(&mut self, lockers: &[LockerId]) -> u64 {
        self.last += 1;
        for locker in lockers {
            self.by_locker.entry(*locker).or_default().push(self.last);
        }
        self.by_number.insert(
            self.last,
            Watch {
                left: lockers.len(),
                waker: None,
            },
        );
        self.last
    }

    fn remove(&mut self, number: u64, lockers: &[LockerId]) -> Option<Waker> {
        for locker in lockers {
            if let Some(numbers) = self.by_locker.get_mut(locker) {
                numbers.retain(|other| *other != number);
                if numbers.is_empty() {
                    self.by_locker.remove(locker);
                }
            }
        }
        self.by_number.remove(&number)?.waker
    }

    /// Nobody can say any more who has ended.
    pub(super) fn all_ended(&mut self, wakers: &mut Vec<Waker>) {
        self.by_locker.clear();
        for watch in self.by_number.values_mut() {
            watch.left = 0;
            wakers.extend(watch.waker.take());
        }
    }

    /// Whether nobody waits for an end.
    pub(super) fn are_none(&self) -> bool {
        self.by_locker.is_empty()
    }

    pub(super) fn ended(&mut self, locker: LockerId, wakers: &mut Vec<Waker>) {
        if self.by_locker.is_empty() {
            return;
        }
        for number in self.by_locker.remove(&locker).unwrap_or_default() {
            if let Some(watch) = self.by_number.get_mut(&number) {
                watch.left -= 1;
                if watch.left == 0 {
                    wakers.extend(watch.waker.take());
                }
            }
        }
    }
}

/// Ready when all of some lockers have ended, or the table has broken down; see [`Locks::ended`].
#[must_use = "futures do nothing unless polled"]
pub struct Ended {
    locks: Locks,
    lockers: Vec<LockerId>,
    number: Option<u64>,
}

impl Ended {
    pub(super) fn new(locks: Locks, lockers: &[LockerId]) -> Self {
        Self {
            locks,
            lockers: lockers.to_vec(),
            number: None,
        }
    }
}

impl Future for Ended {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self {
            locks,
            lockers,
            number,
        } = &mut *self;
        let mut waker = Some(context.waker().clone());
        let done = locks.shared().look(|state| {
            let number = *number.get_or_insert_with(|| {
                lockers.sort_unstable();
                lockers.dedup();
                lockers.retain(|locker| state.table.is_live(*locker));
                state.watches.add(lockers)
            });
            let Some(watch) = state.watches.by_number.get_mut(&number) else {
                return true;
            };
            std::mem::swap(&mut watch.waker, &mut waker);
            watch.left == 0
        });
        drop(waker);
        // In a table that is broken they have, as far as anybody can tell.
        if done.unwrap_or(true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self
                .locks
                .shared()
                .aside(|state| state.watches.remove(number, &self.lockers));
            drop(waker);
        }
    }
}

impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ended")
            .field("lockers", &self.lockers)
            .finish_non_exhaustive()
    }
}
