//! How often is too often, as Erlang/OTP's supervisors count: at most so many in so much time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many panics of one part are lived with in [`WITHIN`].
pub(super) const MOST: usize = 5;
/// See [`MOST`].
pub(super) const WITHIN: Duration = Duration::from_secs(10);

/// The panics of the last while.
#[derive(Debug, Default)]
pub(super) struct Intensity {
    recent: VecDeque<Instant>,
}

impl Intensity {
    /// Another one. True if it is one too many; then they are counted anew.
    pub(super) fn another(&mut self, now: Instant) -> bool {
        while let Some(first) = self.recent.front()
            && now.saturating_duration_since(*first) > WITHIN
        {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        let too_many = self.recent.len() > MOST;
        if too_many {
            self.recent.clear();
        }
        too_many
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_in_ten_seconds_are_lived_with_and_a_sixth_is_not() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut intensity = Intensity::default();
        let told: Vec<bool> = (0..6).map(|n| intensity.another(at(n))).collect();
        assert_eq!(told, [false, false, false, false, false, true]);
        // Counted anew.
        assert!((0..5).all(|n| !intensity.another(at(6 + n))));
    }

    #[test]
    fn those_that_are_far_apart_are_never_too_many() {
        let begun = Instant::now();
        let mut intensity = Intensity::default();
        assert!((0..100).all(|n| !intensity.another(begun + WITHIN / 4 * n)));
    }
}
