//! How long the writer waits for company, and how many bodies share a nested transaction: decisions without a clock.

use std::time::Duration;

/// Decides how long to wait for the callers that were just answered.
///
/// Callers that send again as soon as they are answered fall into two halves that take turns, if the writer commits what it
/// finds: each half is answered while the other one is being committed. Waiting a little for those that were just answered
/// makes the batch whole. Where they do not come back the waiting is given up, and tried again once in a while.
#[derive(Debug)]
pub(crate) struct Gather {
    most: Duration,
    limit: Duration,
    expected: usize,
    /// Batches until the waiting is tried again.
    rest: u32,
}

/// The waiting below which it is not worth waiting at all.
const LEAST: Duration = Duration::from_micros(5);
/// How many batches go by before the waiting is tried again.
const REST: u32 = 64;

impl Gather {
    pub(crate) fn new(most: Duration) -> Self {
        Self {
            most,
            limit: most,
            expected: 0,
            rest: 0,
        }
    }

    /// A batch was answered: `answered` callers may be back soon, `queued` are there already.
    pub(crate) fn answered(&mut self, answered: usize, queued: usize) {
        self.expected = if answered + queued > 1 {
            answered + queued
        } else {
            0
        };
    }

    /// How many callers the next batch should have, and how long to wait for them, when `there` are there.
    pub(crate) fn wait_for(&mut self, there: usize) -> Option<(usize, Duration)> {
        if there >= self.expected || self.most.is_zero() {
            return None;
        }
        if self.limit < LEAST {
            self.rest = self.rest.saturating_sub(1);
            if self.rest > 0 {
                return None;
            }
            self.limit = self.most;
        }
        Some((self.expected, self.limit))
    }

    /// The waiting ended: `before` were there when it began, `after` when it ended.
    pub(crate) fn waited(&mut self, before: usize, after: usize) {
        let missing = self.expected.saturating_sub(before);
        let came = after.saturating_sub(before);
        if came * 2 >= missing {
            self.limit = (self.limit * 2).min(self.most);
        } else {
            self.limit /= 2;
            if self.limit < LEAST {
                self.limit = Duration::ZERO;
                self.rest = REST;
            }
        }
    }
}

/// Decides how many bodies share one nested transaction, from how often bodies fail after they wrote.
///
/// Without failures bodies run in LMDB's transaction itself, which costs nothing; the price is that one failure undoes the
/// whole batch. In a nested transaction of their own (1 to 2.5 µs) a failure undoes only itself. Between the two, `k` bodies
/// share one: the cost for each body is `nested / k + rate · k / 2 · body`, which is least at `k = √(2 · nested / (rate · body))`.
#[derive(Debug, Default)]
pub(crate) struct Grouping {
    rate: f64,
}

/// What a nested transaction costs, in bodies.
const NESTED_COST: f64 = 0.5;
/// The weight of the newest body in the failure rate.
const WEIGHT: f64 = 1.0 / 256.0;
/// A failure rate at which bodies run without any nesting, since a batch will rarely see one.
const RARE: f64 = 1.0 / 4096.0;

impl Grouping {
    /// A body ended; `undone` if it failed after it had written.
    pub(crate) fn ended(&mut self, undone: bool) {
        let sample = if undone { 1.0 } else { 0.0 };
        self.rate += (sample - self.rate) * WEIGHT;
    }

    /// How many of `bodies` share a nested transaction; `None`: all run in LMDB's transaction itself.
    pub(crate) fn size(&self, bodies: usize) -> Option<usize> {
        if bodies <= 1 || self.rate < RARE {
            return None;
        }
        let best = (2.0 * NESTED_COST / self.rate).sqrt();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and 64"
        )]
        let size = best.clamp(1.0, 64.0) as usize;
        (size < bodies).then_some(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(200);

    #[test]
    fn a_lone_caller_never_waits_for_company() {
        let mut gather = Gather::new(MOST);
        for _ in 0..10 {
            gather.answered(1, 0);
            assert_eq!(gather.wait_for(1), None);
        }
    }

    #[test]
    fn the_callers_of_the_last_batch_are_expected_back() {
        let mut gather = Gather::new(MOST);
        gather.answered(32, 32);
        assert_eq!(gather.wait_for(33), Some((64, MOST)));
        assert_eq!(gather.wait_for(64), None);
    }

    #[test]
    fn waiting_in_vain_is_given_up_and_tried_again_later() {
        let mut gather = Gather::new(MOST);
        let mut waits = 0;
        for _ in 0..(10 + REST) {
            gather.answered(8, 0);
            if gather.wait_for(1).is_some() {
                gather.waited(1, 1);
                waits += 1;
            }
        }
        assert!((6..=16).contains(&waits), "{waits} waits");
    }

    #[test]
    fn groups_shrink_as_failures_become_common() {
        let mut grouping = Grouping::default();
        assert_eq!(grouping.size(64), None);
        let mut sizes = Vec::new();
        for rate in [100, 10, 3] {
            for n in 0..5000 {
                grouping.ended(n % rate == 0);
            }
            sizes.push(grouping.size(256).unwrap());
        }
        assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
        assert!((5..=16).contains(&sizes[0]), "{sizes:?}");
        for _ in 0..5000 {
            grouping.ended(false);
        }
        assert_eq!(grouping.size(256), None);
    }
}
