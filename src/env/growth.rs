//! How large the map becomes, and how often another process's size is followed: decisions only.
//!
//! The environment asks, changes the map, and tells the outcome. What always holds: a new size is larger than the
//! present one, a whole number of pages and within the bound; and nobody is retried more often than the settings allow.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::backoff::Delay;
use crate::config::Growth;

/// The size the map should have next, or `None` if it stays as it is: the caller gets `EnvironmentFull`.
///
/// `current` is the present size, `needed_at_least` the smallest size that would help (0 if unknown), `max` the bound,
/// `page` the page size. The answer is larger than `current`, not above `max`, and a whole number of pages.
///
/// A function is asked once: an answer below `needed_at_least` is taken as a step on the way there, since the body runs
/// again and asks again. An answer that is no larger than `current` ends the growth, and so does a panic.
#[must_use]
pub fn next_size(
    policy: &Growth,
    current: u64,
    needed_at_least: u64,
    max: u64,
    page: u64,
) -> Option<u64> {
    let page = page.max(1);
    let max = max - max % page;
    // Where even the whole bound would not help, growing is in vain.
    if current >= max || needed_at_least > max {
        return None;
    }
    let needed = needed_at_least.max(current + 1);
    let wanted = match policy {
        Growth::Fixed => return None,
        Growth::Doubling => {
            let mut size = current
                .max(page)
                .saturating_mul(if current == 0 { 1 } else { 2 });
            while size < needed {
                size = size.saturating_mul(2);
            }
            size
        }
        Growth::Step(step) => {
            let step = (*step).max(1);
            let steps = (needed - current).div_ceil(step);
            current.saturating_add(steps.saturating_mul(step))
        }
        Growth::Function(function) => {
            // It is asked on the writer thread, which must not end with it.
            catch_unwind(AssertUnwindSafe(|| function(current)))
                .ok()
                .flatten()
                .filter(|&size| size > current)?
        }
    };
    Some(round_up(wanted, page).min(max))
}

/// The smallest whole number of pages that holds `bytes`; the largest there is if none does.
#[must_use]
pub fn round_up(bytes: u64, page: u64) -> u64 {
    let page = page.max(1);
    bytes
        .checked_next_multiple_of(page)
        .unwrap_or(u64::MAX - u64::MAX % page)
}

/// Whether the map is full enough to grow ahead of need: `percent` of it is used. 0 percent turns this off.
#[must_use]
pub fn should_grow_ahead(used_bytes: u64, map_size: u64, percent: u8) -> bool {
    percent != 0
        && map_size != 0
        && u128::from(used_bytes) * 100 >= u128::from(map_size) * u128::from(percent)
}

/// What to do after a transaction could not begin because another process had changed the size of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopt {
    /// Wait so long, adopt the size that is in the file, and begin again.
    Retry {
        /// How long to wait first.
        after: Duration,
    },
    /// The other process changes the size faster than it can be followed.
    GiveUp(AdoptFailed),
}

/// The size of the map changed again after each time it was adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdoptFailed {
    /// How often in a row a transaction met a changed map, the last time included.
    pub attempts: u32,
    /// The size of the map in this process.
    pub ours: u64,
    /// The size that the other process set last.
    pub theirs: u64,
}

/// Counts how often in a row the map was found changed, and says when that is too often.
#[derive(Clone, Debug)]
pub struct AdoptCounter {
    retries: u32,
    delay: Delay,
    in_a_row: u32,
}

impl AdoptCounter {
    /// A counter that allows `retries` in a row, with `delay` before each.
    #[must_use]
    pub const fn new(retries: u32, delay: Delay) -> Self {
        Self {
            retries,
            delay,
            in_a_row: 0,
        }
    }

    /// The map was found changed once more: from `ours`, the size here, to `theirs`, the size in the file.
    ///
    /// `random` is a number in `[0, 1)`. After a `GiveUp` the next change counts from the start: it is another
    /// transaction's.
    pub fn changed(&mut self, ours: u64, theirs: u64, random: f64) -> Adopt {
        let before = self.in_a_row;
        if before >= self.retries {
            self.in_a_row = 0;
            return Adopt::GiveUp(AdoptFailed {
                attempts: before.saturating_add(1),
                ours,
                theirs,
            });
        }
        self.in_a_row = before + 1;
        Adopt::Retry {
            after: self.delay.after(before, random),
        }
    }

    /// A transaction began on the adopted size: the next change counts from the start.
    pub const fn succeeded(&mut self) {
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Backoff;
    use proptest::prelude::*;

    const PAGE: u64 = 4096;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const TOP: u64 = u64::MAX - u64::MAX % PAGE;

    fn doubling(current: u64, needed: u64, max: u64) -> Option<u64> {
        next_size(&Growth::Doubling, current, needed, max, PAGE)
    }

    #[test]
    fn doubling_goes_on_until_it_is_enough() {
        assert_eq!(doubling(MIB, 0, GIB), Some(2 * MIB));
        assert_eq!(doubling(MIB, 2 * MIB, GIB), Some(2 * MIB));
        assert_eq!(doubling(MIB, 2 * MIB + 1, GIB), Some(4 * MIB));
        assert_eq!(doubling(MIB, 100 * MIB, GIB), Some(128 * MIB));
        assert_eq!(doubling(0, 0, GIB), Some(PAGE));
    }

    #[test]
    fn the_bound_caps_growth_and_ends_it() {
        assert_eq!(doubling(600 * MIB, 700 * MIB, 1000 * MIB), Some(1000 * MIB));
        assert_eq!(doubling(GIB, 0, GIB), None);
        assert_eq!(
            doubling(2 * GIB, 0, GIB),
            None,
            "a map set larger elsewhere does not shrink"
        );
        assert_eq!(
            doubling(MIB, GIB + 1, GIB),
            None,
            "growing to the bound would not help"
        );
        assert_eq!(doubling(MIB, 0, 0), None);
        assert_eq!(
            doubling(MIB, 0, 2 * MIB - 1),
            Some(2 * MIB - PAGE),
            "the bound is in whole pages"
        );
    }

    #[test]
    fn a_fixed_map_never_grows() {
        assert_eq!(next_size(&Growth::Fixed, MIB, 0, GIB, PAGE), None);
    }

    #[test]
    fn steps_are_as_many_as_are_needed() {
        let step = Growth::Step(128 << 10);
        assert_eq!(next_size(&step, MIB, 0, GIB, PAGE), Some(MIB + (128 << 10)));
        assert_eq!(
            next_size(&step, MIB, MIB + (129 << 10), GIB, PAGE),
            Some(MIB + (256 << 10))
        );
        assert_eq!(
            next_size(&Growth::Step(1), MIB, 0, GIB, PAGE),
            Some(MIB + PAGE),
            "rounded up to a page"
        );
        assert_eq!(
            next_size(&Growth::Step(0), MIB, 0, GIB, PAGE),
            Some(MIB + PAGE)
        );
        assert_eq!(
            next_size(&Growth::Step(u64::MAX), MIB, 0, GIB, PAGE),
            Some(GIB)
        );
    }

    #[test]
    fn a_function_decides_within_the_bound() {
        let with =
            |answer: Option<u64>| next_size(&Growth::function(move |_| answer), MIB, 0, GIB, PAGE);
        assert_eq!(with(Some(3 * MIB)), Some(3 * MIB));
        assert_eq!(with(Some(MIB + 1)), Some(MIB + PAGE));
        assert_eq!(with(Some(u64::MAX)), Some(GIB));
        assert_eq!(with(Some(MIB)), None, "no larger");
        assert_eq!(with(Some(0)), None);
        assert_eq!(with(None), None);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        assert_eq!(doubling(u64::MAX / 2 + PAGE, 0, u64::MAX), Some(TOP));
        assert_eq!(doubling(1, TOP, u64::MAX), Some(TOP));
        assert_eq!(doubling(u64::MAX, u64::MAX, u64::MAX), None);
        assert_eq!(
            next_size(&Growth::Step(TOP), 1, TOP, u64::MAX, PAGE),
            Some(TOP)
        );
        assert_eq!(
            next_size(&Growth::Doubling, 5, 0, 100, 0),
            Some(10),
            "a page of nothing counts as a byte"
        );
        assert_eq!(round_up(u64::MAX, PAGE), TOP);
    }

    #[test]
    fn growing_ahead_starts_at_its_share_and_can_be_off() {
        assert!(!should_grow_ahead(74, 100, 75));
        assert!(should_grow_ahead(75, 100, 75));
        assert!(!should_grow_ahead(u64::MAX, u64::MAX, 0));
        assert!(should_grow_ahead(u64::MAX, u64::MAX, 100));
        assert!(!should_grow_ahead(u64::MAX - 1, u64::MAX, 100));
        assert!(!should_grow_ahead(0, 0, 75), "a map that is not there yet");
        assert!(!should_grow_ahead(0, 1, 1));
    }

    fn counter(retries: u32) -> AdoptCounter {
        AdoptCounter::new(
            retries,
            Delay::function(|n| Duration::from_millis(u64::from(n))),
        )
    }

    fn retry(millis: u64) -> Adopt {
        Adopt::Retry {
            after: Duration::from_millis(millis),
        }
    }

    #[test]
    fn adopting_ends_after_its_retries_with_attempts_and_both_sizes() {
        let mut counter = counter(2);
        assert_eq!(counter.changed(MIB, 2 * MIB, 0.0), retry(0));
        assert_eq!(counter.changed(2 * MIB, 3 * MIB, 0.0), retry(1));
        let failed = AdoptFailed {
            attempts: 3,
            ours: 3 * MIB,
            theirs: 4 * MIB,
        };
        assert_eq!(
            counter.changed(3 * MIB, 4 * MIB, 0.0),
            Adopt::GiveUp(failed)
        );
        assert_eq!(
            counter.changed(4 * MIB, 5 * MIB, 0.0),
            retry(0),
            "another transaction's first"
        );
    }

    #[test]
    fn a_success_starts_the_count_anew() {
        let mut counter = counter(2);
        for size in 1..=50 {
            assert_eq!(counter.changed(size, size + 1, 0.0), retry(0));
            counter.succeeded();
        }
    }

    #[test]
    fn a_peer_that_grows_fifty_times_in_a_row_is_followed_if_that_is_allowed() {
        let mut counter = counter(50);
        for n in 0..50 {
            assert_eq!(counter.changed(n, n + 1, 0.0), retry(n));
        }
        assert!(matches!(
            counter.changed(50, 51, 0.0),
            Adopt::GiveUp(AdoptFailed { attempts: 51, .. })
        ));
    }

    #[test]
    fn no_retries_means_giving_up_at_once_and_the_most_do_not_overflow() {
        assert!(matches!(
            counter(0).changed(1, 2, 0.0),
            Adopt::GiveUp(AdoptFailed { attempts: 1, .. })
        ));
        let mut most = counter(u32::MAX);
        most.in_a_row = u32::MAX;
        assert!(matches!(
            most.changed(1, 2, 0.0),
            Adopt::GiveUp(AdoptFailed {
                attempts: u32::MAX,
                ..
            })
        ));
    }

    #[test]
    fn the_stock_delay_is_drawn_from_its_span() {
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5), 2.0);
        let mut counter = AdoptCounter::new(9, backoff.into());
        assert_eq!(
            counter.changed(1, 2, 0.5),
            Adopt::Retry {
                after: Duration::from_micros(500)
            }
        );
        assert_eq!(
            counter.changed(1, 2, 0.5),
            Adopt::Retry {
                after: Duration::from_millis(1)
            }
        );
    }

    fn any_size() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            0..4 * MIB,
            Just(0),
            Just(u64::MAX),
            (0..64_u32).prop_map(|n| 1 << n)
        ]
    }

    fn any_policy() -> impl Strategy<Value = Growth> {
        prop_oneof![
            Just(Growth::Fixed),
            Just(Growth::Doubling),
            any_size().prop_map(Growth::Step),
            proptest::option::of(any_size()).prop_map(|answer| Growth::function(move |_| answer)),
        ]
    }

    proptest! {
        #[test]
        fn a_new_size_is_larger_within_the_bound_and_in_whole_pages(
            policy in any_policy(), current in any_size(), needed in any_size(), max in any_size(),
            page in prop_oneof![Just(PAGE), Just(16_384_u64), Just(0), any_size()],
        ) {
            if let Some(size) = next_size(&policy, current, needed, max, page) {
                prop_assert!(size > current);
                prop_assert!(size <= max);
                prop_assert_eq!(size % page.max(1), 0);
                if !matches!(policy, Growth::Function(_)) {
                    prop_assert!(size >= needed.min(max - max % page.max(1)));
                }
            }
        }

        #[test]
        fn stock_policies_grow_whenever_the_bound_leaves_room(
            policy in prop_oneof![Just(Growth::Doubling), any_size().prop_map(Growth::Step)],
            current in any_size(), needed in any_size(), max in any_size(),
        ) {
            let bound = max - max % PAGE;
            let room = current < bound && needed <= bound;
            prop_assert_eq!(next_size(&policy, current, needed, max, PAGE).is_some(), room);
        }

        #[test]
        fn a_fuller_map_never_stops_growing_ahead(
            used in any_size(), more in any_size(), size in any_size(), percent in 0..=100_u8,
        ) {
            if should_grow_ahead(used, size, percent) {
                prop_assert!(should_grow_ahead(used.saturating_add(more), size, percent));
            }
        }
    }
}
