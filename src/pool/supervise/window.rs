//! How many restarts there were lately.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Restarts that are not older than a span (OTP's `MaxT`), of which at most so many are allowed (OTP's `MaxR`). It never holds more
/// than one above that.
#[derive(Debug, Clone)]
pub(super) struct Window {
    most: u32,
    within: Duration,
    restarts: VecDeque<Instant>,
}

impl Window {
    pub(super) fn new(most: u32, within: Duration) -> Self {
        Self {
            most,
            within,
            restarts: VecDeque::new(),
        }
    }

    /// Counts a restart, and says whether it is allowed; if not, how many there are with it. As in OTP one that is exactly as old
    /// as the span counts still.
    pub(super) fn count(&mut self, now: Instant) -> Result<(), u32> {
        self.restarts.push_back(now);
        while let Some(oldest) = self.restarts.front()
            && now.saturating_duration_since(*oldest) > self.within
        {
            self.restarts.pop_front();
        }
        let counted = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        if counted > self.most {
            return Err(counted);
        }
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.restarts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_allowed_in_the_span_is_refused_and_older_ones_do_not_count() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut window = Window::new(2, Duration::from_secs(10));
        assert_eq!(window.count(at(0)), Ok(()));
        assert_eq!(window.count(at(5)), Ok(()));
        // Exactly as old as the span counts still.
        assert_eq!(window.clone().count(at(10)), Err(3));
        assert_eq!(window.count(at(11)), Ok(()));
        assert_eq!(window.clone().count(at(15)), Err(3));
        assert_eq!(window.count(at(22)), Ok(()));
    }

    #[test]
    fn none_allowed_means_that_the_first_is_refused() {
        assert_eq!(
            Window::new(0, Duration::from_secs(1)).count(Instant::now()),
            Err(1)
        );
    }
}
