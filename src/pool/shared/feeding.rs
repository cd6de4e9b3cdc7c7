//! What a pool tells the queue that feeds it, and the resumption of one that has failed, which the queue has to hear of in order.
//!
//! Several threads do that: the driver, whoever scales or resumes, the stop of the keeper. One after the other, and each looks first
//! where the pool stands: so what is told last is how it stands. What follows, answers and dropped jobs, is done without the lock,
//! and counted under it: whoever waits for the end of the pool waits for that, too, whichever thread is at it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::env::quietly;
use crate::pool::failure::WorkerFailure;
use crate::pool::seams::{Feed, Rest};
use crate::pool::supervise::PoolState;

impl Shared {
    pub(super) fn tell_feed(&self) {
        let Some(feed) = &self.feed else { return };
        let told = {
            let _one = self.feeding.lock();
            self.stands(&**feed)
        };
        finish([told]);
    }

    /// Tells the feed that nothing new is taken from now on.
    pub(super) fn take_nothing_new(&self) {
        let Some(feed) = &self.feed else { return };
        let told = {
            let _one = self.feeding.lock();
            Following::of(self, feed.drain())
        };
        finish([told]);
    }

    /// Whether the feed knows that the pool is over, and what follows from that has been done.
    pub(super) fn fed_to_the_end(&self) -> FedTo {
        match self.feed {
            None => FedTo::TheEnd,
            Some(_) if !self.feed_knows.load(Ordering::Acquire) => FedTo::NotTold,
            Some(_) if self.following.load(Ordering::Acquire) > 0 => FedTo::AtIt,
            Some(_) => FedTo::TheEnd,
        }
    }

    /// Tells the feed where the pool stands now. To be called under the lock.
    fn stands<'a>(&'a self, feed: &'a dyn Feed) -> Option<Following<'a>> {
        let (state, last) = {
            let core = self.core.lock();
            let last = core.failures().last();
            (
                core.state(),
                last.map(|last| WorkerFailure::new(last).to_string().into()),
            )
        };
        let told = Following::of(self, feed.stands(state, last));
        // After that is counted which follows.
        self.feed_knows.store(state.is_over(), Ordering::Release);
        told
    }

    /// Has the feed take nothing new. Answers what workers that it feeds are told by, unless the pool does not drain any more.
    pub(super) fn drain_feed(&self) -> Option<CancellationToken> {
        let feed = self.feed.as_ref()?;
        let (told, draining) = {
            let _one = self.feeding.lock();
            let draining = {
                let core = self.core.lock();
                if core.state() != PoolState::Draining {
                    // It is about to end, or it has failed meanwhile, and was perhaps resumed.
                    return None;
                }
                self.draining.lock().clone()
            };
            (Following::of(self, feed.drain()), draining)
        };
        finish([told]);
        Some(draining)
    }

    /// Has a pool that failed begin anew, or ends a pause.
    pub(in crate::pool) fn resume(self: &Arc<Self>) -> Result<(), PoolState> {
        let feed = self.feed.as_deref();
        let mut told = Vec::new();
        let resumed = {
            let _one = self.feeding.lock();
            let mut knows = false;
            loop {
                if let Some(feed) = feed
                    && self.state() == PoolState::Failed
                {
                    // It may not have heard of that: what was there then is answered before anybody comes to it who begins anew.
                    told.push(self.stands(feed));
                    knows = true;
                }
                if let Some(resumed) = self.begin_anew(feed.is_none() || knows) {
                    break resumed;
                }
            }
            .inspect(|failed| {
                let Some(feed) = feed else { return };
                if *failed {
                    told.push(Following::of(self, feed.stands(PoolState::Running, None)));
                }
                // At once: whoever has resumed it may submit the next moment.
                told.push(self.stands(feed));
            })
        };
        finish(told);
        if resumed? {
            self.announce();
        }
        Ok(())
    }

    /// Answers whether it had failed; none if it has, and the feed has to know first.
    fn begin_anew(&self, feed_knows: bool) -> Option<Result<bool, PoolState>> {
        self.change(|core, now| {
            let failed = core.state() == PoolState::Failed;
            if failed && !feed_knows {
                return None;
            }
            if let Err(state) = core.resume(now) {
                return Some(Err(state));
            }
            if failed {
                *self.draining.lock() = CancellationToken::new();
                *self.over_since.lock() = None;
            }
            self.is_settled.store(false, Ordering::Release);
            self.is_quiet.store(false, Ordering::Release);
            self.feed_knows.store(false, Ordering::Release);
            Some(Ok(failed))
        })
    }
}

/// How far a pool that is over has come with its feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FedTo {
    /// The feed has to be told of it.
    NotTold,
    /// Somebody answers and drops jobs.
    AtIt,
    TheEnd,
}

/// What follows from what the feed was told; counted from then on until it is done.
struct Following<'a> {
    pool: &'a Shared,
    rest: Option<Rest<'a>>,
}

impl<'a> Following<'a> {
    fn of(pool: &'a Shared, rest: Option<Rest<'a>>) -> Option<Self> {
        let rest = Some(rest?);
        pool.following.fetch_add(1, Ordering::AcqRel);
        Some(Self { pool, rest })
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            quietly(|| rest.run());
        }
        if self.pool.following.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Somebody may wait for the end.
            self.pool.come_again();
            if let Some(pools) = self.pool.pools.upgrade() {
                pools.wake();
            }
        }
    }
}

/// Does what is left to be done when the feed was told something.
fn finish<'a>(told: impl IntoIterator<Item = Option<Following<'a>>>) {
    for following in told {
        drop(following);
    }
}
