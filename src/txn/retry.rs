//! Whether a failed attempt is followed by another, and when.
//!
//! The list of what is retried is closed ([`Loss`]): an error that is not on it reaches the caller at once. Two clocks
//! bound the rest. Attempts that were lost to a deadlock, or to avoiding one, count against the deadline alone, since whoever is the youngest
//! again and again must not end by its budget while older transactions get on with their work; every other lost
//! attempt also counts against the budget. Time is a parameter and random numbers come from a seed.

use std::time::{Duration, Instant};

pub use crate::backoff::{Backoff, RetryRng};

/// After so many lost re-checks the next attempt is validated ahead of the plain bodies of its batch.
const RECHECKS_BEFORE_PRIORITY: u32 = 3;

/// Why an attempt was lost, as far as retrying is concerned. What is not here is not retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// It was the victim of a deadlock.
    Deadlock,
    /// It would have waited for a lock among others, out of order.
    GaveWay,
    /// A lock was not granted within the lock timeout.
    LockTimeout,
    /// The transaction outgrew its transaction timeout while it waited for a lock.
    TransactionTimeout,
    /// What it had read was changed by an outside write before it could commit.
    Recheck,
    /// The map changed size under it.
    MapChanged,
    /// A handler of the application's asked for another attempt.
    Asked,
}

/// How an attempt ended that did not succeed.
#[allow(
    dead_code,
    reason = "the supervisor answers at once what is not on the list"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It may go better the next time.
    Lost(Loss),
    /// It has to reach the caller as it is: the body said no, or an error nobody here knows.
    Final,
}

/// What bounds the attempts of a transaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Most attempts that end otherwise than by a deadlock, or by avoiding one. At 1, and at 0, nothing but a deadlock is
    /// retried, and nothing gives way.
    pub budget: u32,
    /// How long to stand back before an attempt.
    pub backoff: Backoff,
    /// Whether lock timeouts and transaction timeouts are retried.
    pub retry_timeouts: bool,
}

impl Default for RetryPolicy {
    /// 10 attempts, 1 ms to 100 ms apart, doubling; timeouts are retried.
    fn default() -> Self {
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(100), 2.0);
        Self {
            budget: 10,
            backoff,
            retry_timeouts: true,
        }
    }
}

/// What follows an attempt that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run the body again, after this time.
    Retry {
        /// How long to stand back first; the next attempt still begins before the deadline.
        after: Duration,
    },
    /// Answer the caller.
    GiveUp(GiveUp),
}

/// What the caller is answered when there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// The budget is used up.
    RetriesExhausted {
        /// Attempts made, those lost to deadlocks included.
        attempts: u32,
        /// Time since the transaction was sent.
        waited: Duration,
    },
    /// The deadline has passed.
    DeadlineExceeded {
        /// Attempts made.
        attempts: u32,
        /// Time since the transaction was sent.
        waited: Duration,
    },
    /// The error of the attempt, as it is.
    PassThrough,
}

/// The attempts of one transaction, from its send to its answer.
#[derive(Clone, Debug)]
pub struct RetryState {
    policy: RetryPolicy,
    sent: Instant,
    /// `None` is a deadline beyond what the clock can name, so never.
    deadline: Option<Instant>,
    attempts: u32,
    /// Those that do not count against the budget.
    deadlocks: u32,
    lost_rechecks: u32,
    rng: RetryRng,
}

impl RetryState {
    /// A transaction that was `sent` then and has until `sent + deadline`; delays follow from `seed`.
    #[must_use]
    pub fn new(policy: RetryPolicy, sent: Instant, deadline: Duration, seed: u64) -> Self {
        Self {
            policy,
            sent,
            deadline: sent.checked_add(deadline),
            attempts: 0,
            deadlocks: 0,
            lost_rechecks: 0,
            rng: RetryRng::new(seed),
        }
    }

    /// An attempt ended at `now` without success: what follows.
    pub fn decide(&mut self, now: Instant, outcome: Outcome) -> Decision {
        self.attempts = self.attempts.saturating_add(1);
        let Outcome::Lost(loss) = outcome else {
            return Decision::GiveUp(GiveUp::PassThrough);
        };
        match loss {
            Loss::LockTimeout | Loss::TransactionTimeout if !self.policy.retry_timeouts => {
                return Decision::GiveUp(GiveUp::PassThrough);
            }
            loss if is_free(loss) => self.deadlocks = self.deadlocks.saturating_add(1),
            Loss::Recheck => self.lost_rechecks = self.lost_rechecks.saturating_add(1),
            _ => {}
        }

        let attempts = self.attempts;
        let waited = now.saturating_duration_since(self.sent);
        let left = self
            .deadline
            .map(|deadline| deadline.saturating_duration_since(now));
        if left.is_some_and(|left| left.is_zero()) {
            return Decision::GiveUp(GiveUp::DeadlineExceeded { attempts, waited });
        }
        if !is_free(loss) && self.counted() >= self.policy.budget {
            return Decision::GiveUp(GiveUp::RetriesExhausted { attempts, waited });
        }

        let delay = match loss {
            // Nobody is met again: the locks are asked for in the one order for all now.
            Loss::GaveWay => Duration::ZERO,
            _ => (self.policy.backoff).delay(attempts - 1, self.rng.next_unit()),
        };
        // Sleeping through the deadline would waste the time that is left: at most half of it is slept.
        let after = left.map_or(delay, |left| delay.min(left / 2));
        Decision::Retry { after }
    }

    /// Whether the next attempt has lost so many re-checks that it is validated ahead of plain bodies.
    #[must_use]
    pub const fn goes_first(&self) -> bool {
        self.lost_rechecks >= RECHECKS_BEFORE_PRIORITY
    }

    /// When its time is over; `None` if the clock cannot name that instant, so never.
    #[cfg(test)]
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Attempts that count against the budget.
    const fn counted(&self) -> u32 {
        self.attempts.saturating_sub(self.deadlocks)
    }
}

/// Whether it does not count against the budget.
const fn is_free(loss: Loss) -> bool {
    matches!(loss, Loss::Deadlock | Loss::GaveWay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const LOSSES: [Loss; 6] = [
        Loss::Deadlock,
        Loss::GaveWay,
        Loss::LockTimeout,
        Loss::TransactionTimeout,
        Loss::Recheck,
        Loss::MapChanged,
    ];

    fn state(policy: RetryPolicy, deadline: Duration) -> (RetryState, Instant) {
        let sent = Instant::now();
        (RetryState::new(policy, sent, deadline, 1), sent)
    }

    fn is_retry(decision: Decision) -> bool {
        matches!(decision, Decision::Retry { .. })
    }

    #[test]
    fn everything_on_the_list_is_retried_and_nothing_else() {
        for loss in LOSSES {
            let (mut state, sent) = state(RetryPolicy::default(), 1000 * MS);
            assert!(
                is_retry(state.decide(sent, Outcome::Lost(loss))),
                "{loss:?}"
            );
        }
        let (mut state, sent) = state(RetryPolicy::default(), 1000 * MS);
        assert_eq!(
            state.decide(sent, Outcome::Final),
            Decision::GiveUp(GiveUp::PassThrough)
        );
    }

    #[test]
    fn one_switch_turns_both_timeouts_off() {
        let policy = RetryPolicy {
            retry_timeouts: false,
            ..RetryPolicy::default()
        };
        for loss in LOSSES {
            let (mut state, sent) = state(policy, 1000 * MS);
            let timeout = matches!(loss, Loss::LockTimeout | Loss::TransactionTimeout);
            assert_eq!(
                is_retry(state.decide(sent, Outcome::Lost(loss))),
                !timeout,
                "{loss:?}"
            );
        }
    }

    #[test]
    fn the_budget_counts_attempts_and_the_answer_says_how_long_it_took() {
        let (mut state, sent) = state(RetryPolicy::default(), 1000 * MS);
        for n in 0..9 {
            assert!(
                is_retry(state.decide(sent + n * MS, Outcome::Lost(Loss::MapChanged))),
                "attempt {n}"
            );
        }
        let last = state.decide(sent + 40 * MS, Outcome::Lost(Loss::Recheck));
        assert_eq!(
            last,
            Decision::GiveUp(GiveUp::RetriesExhausted {
                attempts: 10,
                waited: 40 * MS
            })
        );
    }

    #[test]
    fn i08_deadlocks_count_against_the_deadline_alone() {
        let (mut state, sent) = state(RetryPolicy::default(), 1000 * MS);
        for _ in 0..500 {
            assert!(is_retry(state.decide(sent, Outcome::Lost(Loss::Deadlock))));
        }
        for _ in 0..9 {
            assert!(
                is_retry(state.decide(sent, Outcome::Lost(Loss::LockTimeout))),
                "deadlocks used up the budget"
            );
        }
        let end = state
            .clone()
            .decide(sent + 1000 * MS, Outcome::Lost(Loss::Deadlock));
        assert_eq!(
            end,
            Decision::GiveUp(GiveUp::DeadlineExceeded {
                attempts: 510,
                waited: 1000 * MS
            })
        );
        let end = state.decide(sent, Outcome::Lost(Loss::LockTimeout));
        assert_eq!(
            end,
            Decision::GiveUp(GiveUp::RetriesExhausted {
                attempts: 510,
                waited: Duration::ZERO
            })
        );
    }

    #[test]
    fn i08_a_deadlock_after_the_budget_is_used_up_is_still_retried() {
        let policy = RetryPolicy {
            budget: 2,
            ..RetryPolicy::default()
        };
        let (mut state, sent) = state(policy, 1000 * MS);
        assert!(is_retry(state.decide(sent, Outcome::Lost(Loss::Recheck))));
        assert!(is_retry(state.decide(sent, Outcome::Lost(Loss::Deadlock))));
        assert!(!is_retry(state.decide(sent, Outcome::Lost(Loss::Recheck))));
    }

    #[test]
    fn i08_three_lost_rechecks_in_any_order_send_it_ahead() {
        let (mut state, sent) = state(RetryPolicy::default(), 1000 * MS);
        for loss in [
            Loss::Recheck,
            Loss::Deadlock,
            Loss::Recheck,
            Loss::MapChanged,
        ] {
            state.decide(sent, Outcome::Lost(loss));
            assert!(!state.goes_first());
        }
        state.decide(sent, Outcome::Lost(Loss::Recheck));
        assert!(state.goes_first());
    }

    #[test]
    fn a_budget_of_nothing_retries_deadlocks_only() {
        for budget in [0, 1] {
            let policy = RetryPolicy {
                budget,
                ..RetryPolicy::default()
            };
            for loss in LOSSES {
                let (mut state, sent) = state(policy, 1000 * MS);
                let decision = state.decide(sent, Outcome::Lost(loss));
                assert_eq!(is_retry(decision), is_free(loss), "{loss:?}");
            }
        }
    }

    #[test]
    fn a_deadline_beyond_the_clock_is_no_deadline() {
        let (mut state, sent) = state(RetryPolicy::default(), Duration::MAX);
        assert_eq!(state.deadline(), None);
        let century = Duration::from_secs(100 * 365 * 86_400);
        assert!(is_retry(
            state.decide(sent + century, Outcome::Lost(Loss::Deadlock))
        ));
    }

    #[test]
    fn a_clock_reading_before_the_send_is_taken_as_the_send() {
        let sent = Instant::now() + 5 * MS;
        let mut state = RetryState::new(RetryPolicy::default(), sent, MS, 1);
        assert!(is_retry(
            state.decide(sent - 5 * MS, Outcome::Lost(Loss::Recheck))
        ));
    }

    fn any_loss() -> impl Strategy<Value = Loss> {
        proptest::sample::select(LOSSES.as_slice())
    }

    proptest! {
        #[test]
        fn every_transaction_ends_and_no_attempt_begins_after_the_deadline(
            losses in proptest::collection::vec((any_loss(), 0..5_000_u64), 1..400),
            budget in 0..20_u32, base in 0..50_u64, max in 0..500_u64, deadline in 0..200_000_u64, seed in any::<u64>(),
        ) {
            let us = Duration::from_micros;
            let backoff = Backoff::new(us(base), us(max), 2.0);
            let policy = RetryPolicy { budget, backoff, retry_timeouts: true };
            let (sent, deadline) = (Instant::now(), us(deadline));
            let mut state = RetryState::new(policy, sent, deadline, seed);
            let (mut now, mut attempts, mut counted) = (sent, 0, 0);
            for (loss, took) in losses {
                now += us(took);
                attempts += 1;
                counted += u32::from(!is_free(loss));
                let waited = now - sent;
                match state.decide(now, Outcome::Lost(loss)) {
                    Decision::Retry { after } => {
                        prop_assert!(after <= us(max));
                        prop_assert!(now + after < sent + deadline);
                        prop_assert!(is_free(loss) || counted < budget);
                        now += after;
                    }
                    Decision::GiveUp(GiveUp::DeadlineExceeded { attempts: n, waited: w }) => {
                        prop_assert_eq!((n, w), (attempts, waited));
                        prop_assert!(waited >= deadline);
                        return Ok(());
                    }
                    Decision::GiveUp(GiveUp::RetriesExhausted { attempts: n, waited: w }) => {
                        prop_assert_eq!((n, w), (attempts, waited));
                        prop_assert!(!is_free(loss) && counted >= budget && waited < deadline);
                        return Ok(());
                    }
                    Decision::GiveUp(GiveUp::PassThrough) => prop_assert!(false, "{:?} is retryable", loss),
                }
            }
        }

        #[test]
        fn the_same_seed_and_the_same_losses_give_the_same_decisions(
            losses in proptest::collection::vec(any_loss(), 1..40), seed in any::<u64>(),
        ) {
            let sent = Instant::now();
            let run = || {
                let mut state = RetryState::new(RetryPolicy::default(), sent, 1000 * MS, seed);
                losses.iter().map(|&loss| state.decide(sent, Outcome::Lost(loss))).collect::<Vec<_>>()
            };
            prop_assert_eq!(run(), run());
        }
    }
}
