//! Warnings that come by the thousand: some are logged, the rest are counted.

use std::time::Duration;

use parking_lot::Mutex;

/// Most warnings of one kind in a second.
const MOST: u32 = 10;

/// Lets ten through in each second, and counts the others.
#[derive(Debug, Default)]
pub(super) struct Limit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    second: u64,
    passed: u32,
    held_back: u64,
}

/// What becomes of one warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is logged.
    Log,
    /// It is counted, as the first since the count was told: somebody is to tell it in a second.
    First,
    /// It is counted.
    Count,
}

impl Limit {
    /// Another warning.
    pub(super) fn another(&self, now: Duration) -> Verdict {
        let mut state = self.state.lock();
        if state.second != now.as_secs() {
            state.second = now.as_secs();
            state.passed = 0;
        }
        if state.passed < MOST {
            state.passed += 1;
            return Verdict::Log;
        }
        state.held_back += 1;
        match state.held_back {
            1 => Verdict::First,
            _ => Verdict::Count,
        }
    }

    /// How many were not logged since this was asked last; `None` if none.
    pub(super) fn held_back(&self) -> Option<u64> {
        let held_back = std::mem::take(&mut self.state.lock().held_back);
        Some(held_back).filter(|count| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_second_are_logged_and_the_rest_is_counted() {
        let limit = Limit::default();
        assert_eq!(limit.held_back(), None);
        for second in 3..6 {
            let now = Duration::from_secs(second);
            let verdicts: Vec<_> = (0..10_000).map(|_| limit.another(now)).collect();
            let count = |wanted| verdicts.iter().filter(|one| **one == wanted).count();
            assert_eq!((count(Verdict::Log), count(Verdict::First)), (10, 1));
            assert_eq!(limit.held_back(), Some(9_990));
            assert_eq!(limit.held_back(), None);
        }
    }
}
