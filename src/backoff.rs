//! How long to stand back before trying again.
//!
//! Whoever lost a conflict and comes back at once meets the same rivals in the same order. So every wait is drawn at
//! random from a span that grows with the attempts ([`Backoff`]), and the random numbers come from a seed
//! ([`RetryRng`]), so that a run can be repeated. Nothing here sleeps or reads a clock.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// A randomised exponential delay: uniform in `[0, min(max, base · factor^attempt)]`.
///
/// ```
/// # use lockkeeper::Backoff;
/// # use std::time::Duration;
/// let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(100), 2.0);
/// assert_eq!(backoff.ceiling(3), Duration::from_millis(8));
/// assert_eq!(backoff.delay(3, 0.5), Duration::from_millis(4));
/// assert_eq!(backoff.ceiling(u32::MAX), Duration::from_millis(100));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The longest delay before the first retry (attempt 0).
    pub base: Duration,
    /// No delay is ever longer than this.
    pub max: Duration,
    /// By how much the longest delay grows with each attempt. At 1 it stays, below 1 it shrinks.
    pub factor: f64,
}

impl Backoff {
    /// A backoff from its three numbers. Any numbers will do; one that is no number counts as a factor of 1.
    #[must_use]
    pub const fn new(base: Duration, max: Duration, factor: f64) -> Self {
        Self { base, max, factor }
    }

    /// The longest delay that `attempt` (counted from 0) can be given.
    #[must_use]
    pub fn ceiling(&self, attempt: u32) -> Duration {
        if self.base.is_zero() {
            return Duration::ZERO;
        }
        let factor = if self.factor.is_nan() {
            1.0
        } else {
            self.factor.max(0.0)
        };
        let grown = self.base.as_secs_f64() * factor.powf(f64::from(attempt));
        // What does not fit a duration, an infinite product included, is above every `max`.
        Duration::try_from_secs_f64(grown).map_or(self.max, |grown| grown.min(self.max))
    }

    /// The delay before retry `attempt` (counted from 0), for a `random` number in `[0, 1)`. A function that panics means none.
    ///
    /// A number outside that interval is moved to its nearer end.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let ceiling = self.ceiling(attempt);
        let random = if random.is_nan() {
            0.0
        } else {
            random.clamp(0.0, 1.0)
        };
        Duration::try_from_secs_f64(ceiling.as_secs_f64() * random)
            .map_or(ceiling, |delay| delay.min(ceiling))
    }
}

/// A delay as a function of the attempts so far: the stock [`Backoff`], or the application's own.
#[derive(Clone)]
#[non_exhaustive]
pub enum Delay {
    /// Drawn at random from a span that grows.
    Backoff(Backoff),
    /// What this function answers for the number of retries made before (0 at first), used as it is.
    Function(Arc<dyn Fn(u32) -> Duration + Send + Sync>),
}

impl Delay {
    /// A delay that `function` decides from the number of retries made before (0 at first).
    pub fn function(function: impl Fn(u32) -> Duration + Send + Sync + 'static) -> Self {
        Self::Function(Arc::new(function))
    }

    /// The delay before retry `attempt` (counted from 0), for a `random` number in `[0, 1)`. A function that panics means none.
    #[must_use]
    pub fn after(&self, attempt: u32, random: f64) -> Duration {
        match self {
            Self::Backoff(backoff) => backoff.delay(attempt, random),
            // It is asked on threads that serve everybody, and must not end them.
            Self::Function(function) => {
                catch_unwind(AssertUnwindSafe(|| function(attempt))).unwrap_or_default()
            }
        }
    }
}

impl From<Backoff> for Delay {
    fn from(backoff: Backoff) -> Self {
        Self::Backoff(backoff)
    }
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backoff(backoff) => backoff.fmt(f),
            Self::Function(_) => f.write_str("Function(..)"),
        }
    }
}

/// Random numbers for delays: the same seed gives the same numbers (splitmix64).
///
/// Good enough to spread rivals apart, and of no use for secrets.
#[derive(Clone, Debug)]
pub struct RetryRng {
    state: u64,
}

impl RetryRng {
    /// Numbers that follow from `seed`; every seed will do, 0 included.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number in `[0, 1)`.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits are exactly what a double holds"
    )]
    pub fn next_unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn any_duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::from_nanos(1)),
            Just(Duration::MAX),
            (any::<u64>(), 0..1_000_000_000_u32)
                .prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
            (0..1_000_000_000_u64).prop_map(Duration::from_nanos),
        ]
    }

    fn any_factor() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>(),
            0.0..4.0_f64,
            Just(0.0),
            Just(1.0),
            Just(f64::NAN),
            Just(f64::INFINITY),
            Just(-1.0),
        ]
    }

    fn any_attempt() -> impl Strategy<Value = u32> {
        prop_oneof![0..64_u32, any::<u32>(), Just(u32::MAX)]
    }

    #[test]
    fn the_ceiling_doubles_up_to_its_maximum() {
        let backoff = Backoff::new(MS, 5 * MS, 2.0);
        let ceilings: Vec<_> = (0..5).map(|n| backoff.ceiling(n)).collect();
        assert_eq!(ceilings, [MS, 2 * MS, 4 * MS, 5 * MS, 5 * MS]);
        // Beyond what a duration holds, and beyond what a double holds.
        for attempt in [100, 2000, u32::MAX] {
            assert_eq!(backoff.ceiling(attempt), 5 * MS);
        }
    }

    #[test]
    fn a_factor_of_one_stays_and_a_smaller_one_shrinks() {
        assert_eq!(
            Backoff::new(3 * MS, 100 * MS, 1.0).ceiling(u32::MAX),
            3 * MS
        );
        assert_eq!(Backoff::new(4 * MS, 100 * MS, 0.5).ceiling(2), MS);
        assert_eq!(
            Backoff::new(4 * MS, 100 * MS, 0.5).ceiling(u32::MAX),
            Duration::ZERO
        );
        assert_eq!(Backoff::new(MS, 9 * MS, f64::NAN).ceiling(7), MS);
    }

    #[test]
    fn no_base_means_no_delay_whatever_the_factor() {
        assert_eq!(
            Backoff::new(Duration::ZERO, MS, f64::INFINITY).delay(u32::MAX, 0.9),
            Duration::ZERO
        );
    }

    #[test]
    fn delays_fill_their_span_evenly() {
        let backoff = Backoff::new(MS, 100 * MS, 2.0);
        let mut rng = RetryRng::new(7);
        let mut tenths = [0_u32; 10];
        for _ in 0..10_000 {
            let share =
                backoff.delay(5, rng.next_unit()).as_secs_f64() / backoff.ceiling(5).as_secs_f64();
            tenths[(share * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|n| (850..1150).contains(n)), "{tenths:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_seeds_differ() {
        let numbers = |seed| {
            let mut rng = RetryRng::new(seed);
            [rng.next_u64(), rng.next_u64(), rng.next_u64()]
        };
        assert_eq!(numbers(42), numbers(42));
        assert_ne!(numbers(0), numbers(1));
        // The published first output of splitmix64 for seed 0.
        assert_eq!(numbers(0)[0], 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn a_function_sees_the_attempt_and_is_taken_as_it_is() {
        let delay = Delay::function(|attempt| MS * attempt);
        assert_eq!(delay.after(0, 0.9), Duration::ZERO);
        assert_eq!(delay.after(7, 0.1), 7 * MS);
        assert_eq!(Delay::from(Backoff::new(MS, MS, 1.0)).after(3, 0.5), MS / 2);
    }

    proptest! {
        #[test]
        fn no_numbers_overflow_and_no_delay_leaves_its_span(
            base in any_duration(), max in any_duration(), factor in any_factor(),
            attempt in any_attempt(), random in any::<f64>(),
        ) {
            let backoff = Backoff::new(base, max, factor);
            prop_assert!(backoff.ceiling(attempt) <= max);
            prop_assert!(backoff.delay(attempt, random) <= backoff.ceiling(attempt));
            prop_assert_eq!(backoff.delay(attempt, 0.0), Duration::ZERO);
        }

        #[test]
        fn with_a_factor_of_at_least_one_no_later_ceiling_is_lower(
            base in any_duration(), max in any_duration(), factor in 1.0..10.0_f64, attempt in 0..u32::MAX,
        ) {
            let backoff = Backoff::new(base, max, factor);
            prop_assert!(backoff.ceiling(attempt) <= backoff.ceiling(attempt + 1));
        }

        #[test]
        fn units_are_at_least_zero_and_below_one(seed in any::<u64>()) {
            let mut rng = RetryRng::new(seed);
            for _ in 0..32 {
                let unit = rng.next_unit();
                prop_assert!((0.0..1.0).contains(&unit));
            }
        }
    }
}
