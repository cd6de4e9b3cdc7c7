//! What a pool tells the queue that feeds it, and the resumption of one that has failed, which the queue has to hear of in order.
//!
//! Several threads do that: the driver, whoever scales or resumes, the stop of the keeper. One after the other, and each looks first
//! where the pool stands: so what is told last is how it stands. What follows, answers and dropped jobs, is done without the lock.

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

    /// Tells the feed where the pool stands now.
    fn stands<'a>(&self, feed: &'a dyn Feed) -> Option<Rest<'a>> {
        let (state, last) = {
            let core = self.core.lock();
            let last = core.failures().last();
            (
                core.state(),
                last.map(|last| WorkerFailure::new(last).to_string().into()),
            )
        };
        feed.stands(state, last)
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
            (feed.drain(), draining)
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
                    told.push(feed.stands(PoolState::Running, None));
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
            Some(Ok(failed))
        })
    }
}

/// Does what is left to be done when the feed was told something.
pub(super) fn finish<'a>(told: impl IntoIterator<Item = Option<Rest<'a>>>) {
    for rest in told.into_iter().flatten() {
        quietly(|| rest.run());
    }
}
