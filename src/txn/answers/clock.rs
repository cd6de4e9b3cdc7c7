//! The clock that answers expire by.
//!
//! A window is promised in real time, and no machine's clock can be trusted with it: a wall clock that jumps ahead would let
//! entries expire early, and what they guard would happen twice; one that is set back would keep them for ever. So the answers
//! have a clock of their own, persisted with them. While a process runs, it goes as the monotonic clock does, whatever the
//! wall clock says. Between two processes of one boot the monotonic clock still tells the time. Only over a reboot the wall clock
//! is asked, and only for how far it is beyond anything it has ever shown.

use super::fingerprint::hash;
use super::{AnswerError, Ticks};

/// What the clocks of this machine show at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// What the monotonic clock counts from: two readings can be compared only if it is the same.
    pub boot: [u8; 16],
    /// In nanoseconds; runs through suspend.
    pub monotonic: u64,
    /// In nanoseconds since 1970.
    pub wall: u64,
}

/// The clock as it is persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub ticks: Ticks,
    /// When it showed that; the wall time is the latest that was ever seen.
    pub at: Reading,
}

/// The clock of one process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnswerClock {
    ticks: Ticks,
    at: Reading,
}

impl AnswerClock {
    /// The clock of a process that started at `at`, from what was persisted, if anything was.
    pub(crate) fn start(persisted: Option<Anchor>, at: Reading) -> Self {
        let Some(anchor) = persisted else {
            return Self {
                ticks: Ticks::default(),
                at,
            };
        };
        let passed = if anchor.at.boot == at.boot {
            at.monotonic.saturating_sub(anchor.at.monotonic)
        } else {
            at.wall.saturating_sub(anchor.at.wall)
        };
        Self {
            ticks: Ticks(anchor.ticks.0.saturating_add(passed)),
            at: Reading {
                wall: latest(at.wall, anchor.at.wall),
                ..at
            },
        }
    }

    /// What it shows at `reading`, which is of this process.
    pub(crate) fn now(&self, reading: Reading) -> Ticks {
        let passed = reading.monotonic.saturating_sub(self.at.monotonic);
        Ticks(self.ticks.0.saturating_add(passed))
    }

    /// Follows the clock of another process that has the same file, if that is ahead: it was started later or earlier, and
    /// counted as carefully.
    pub(crate) fn follow(&mut self, persisted: Anchor, reading: Reading) {
        let passed = if persisted.at.boot == reading.boot {
            reading.monotonic.saturating_sub(persisted.at.monotonic)
        } else {
            // Persisted while this process runs; nobody knows how long ago.
            0
        };
        let theirs = Ticks(persisted.ticks.0.saturating_add(passed));
        let wall = latest(self.at.wall, persisted.at.wall);
        if theirs > self.now(reading) {
            self.ticks = theirs;
            self.at = reading;
        }
        self.at.wall = latest(self.at.wall, wall);
    }

    /// What is to be persisted at `reading`.
    pub(crate) fn anchor(&self, reading: Reading) -> Anchor {
        Anchor {
            ticks: self.now(reading),
            at: Reading {
                wall: reading.wall.max(self.at.wall),
                ..reading
            },
        }
    }
}

/// The later of two wall clocks, as far as they are known.
fn latest(one: u64, other: u64) -> u64 {
    match (one, other) {
        (u64::MAX, known) | (known, u64::MAX) => known,
        (one, other) => one.max(other),
    }
}

const VERSION: u8 = 1;

impl Anchor {
    /// In the place of one that was lost: nobody knows when it showed this, so no time counts as passed since.
    pub(crate) fn lost(ticks: Ticks) -> Self {
        Self {
            ticks,
            at: Reading {
                boot: [0; 16],
                monotonic: u64::MAX,
                wall: u64::MAX,
            },
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let numbers = [self.ticks.0, self.at.monotonic, self.at.wall].map(u64::to_be_bytes);
        let body = [&self.at.boot[..], numbers.as_flattened()].concat();
        [&[VERSION][..], &hash(&[&body]), &body].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, AnswerError> {
        let (&version, rest) = bytes.split_first().ok_or(AnswerError::Damaged)?;
        if version != VERSION {
            return Err(AnswerError::UnknownFormat(version));
        }
        let (check, body) = rest.split_first_chunk().ok_or(AnswerError::Damaged)?;
        if hash(&[body]) != *check {
            return Err(AnswerError::Damaged);
        }
        let (&boot, rest) = body.split_first_chunk().ok_or(AnswerError::Damaged)?;
        let number = |bytes: &[u8]| {
            let bytes = bytes.first_chunk().ok_or(AnswerError::Damaged)?;
            Ok(u64::from_be_bytes(*bytes))
        };
        Ok(Self {
            ticks: Ticks(number(rest)?),
            at: Reading {
                boot,
                monotonic: number(rest.get(8..).unwrap_or_default())?,
                wall: number(rest.get(16..).unwrap_or_default())?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000_000_000;
    const DAY: u64 = 24 * HOUR;
    const YEAR: u64 = 365 * DAY;

    fn at(boot: u8, monotonic: u64, wall: u64) -> Reading {
        Reading {
            boot: [boot; 16],
            monotonic,
            wall,
        }
    }

    #[test]
    fn while_it_runs_a_jump_of_the_wall_clock_counts_for_nothing() {
        let clock = AnswerClock::start(None, at(1, HOUR, 50 * YEAR));
        assert_eq!(clock.now(at(1, 3 * HOUR, 51 * YEAR)), Ticks(2 * HOUR));
        assert_eq!(clock.now(at(1, 3 * HOUR, 0)), Ticks(2 * HOUR));
    }

    #[test]
    fn over_a_restart_in_one_boot_the_monotonic_clock_counts_alone() {
        let first = AnswerClock::start(None, at(1, HOUR, 50 * YEAR));
        let anchor = first.anchor(at(1, 2 * HOUR, 50 * YEAR));
        for wall in [0, 50 * YEAR, 60 * YEAR] {
            let next = AnswerClock::start(Some(anchor), at(1, 5 * HOUR, wall));
            assert_eq!(next.now(at(1, 6 * HOUR, wall)), Ticks(5 * HOUR), "{wall}");
        }
    }

    #[test]
    fn over_a_reboot_the_wall_clock_counts_as_far_as_it_was_never_seen_before() {
        let first = AnswerClock::start(None, at(1, 0, 50 * YEAR));
        let anchor = first.anchor(at(1, HOUR, 50 * YEAR + HOUR));
        let next = AnswerClock::start(Some(anchor), at(2, 7, 50 * YEAR + 3 * HOUR));
        assert_eq!(next.now(at(2, 7, 0)), Ticks(3 * HOUR));
        // Set back: the time in between counts for nothing, but what comes then does.
        let next = AnswerClock::start(Some(anchor), at(2, 7, 40 * YEAR));
        assert_eq!(next.now(at(2, 7 + DAY, 0)), Ticks(HOUR + DAY));
    }

    /// A machine without a battery starts in 1970, and learns the time a little later.
    #[test]
    fn a_boot_in_1970_does_not_let_everything_expire_at_the_next() {
        let first = AnswerClock::start(None, at(1, 0, 50 * YEAR)).anchor(at(1, 0, 50 * YEAR));
        let in_1970 = AnswerClock::start(Some(first), at(2, 0, 0)).anchor(at(2, HOUR, HOUR));
        let next = AnswerClock::start(Some(in_1970), at(3, 0, 50 * YEAR + DAY));
        assert_eq!(next.now(at(3, 0, 0)), Ticks(HOUR + DAY));
    }

    #[test]
    fn of_two_processes_both_show_the_later_time() {
        let mut old = AnswerClock::start(None, at(1, 0, 0));
        let mut new = AnswerClock::start(Some(old.anchor(at(1, HOUR, 0))), at(1, 2 * HOUR, 0));
        let reading = at(1, 5 * HOUR, 0);
        assert_eq!(old.now(reading), new.now(reading));
        let ahead = Anchor {
            ticks: Ticks(DAY),
            at: at(9, 0, YEAR),
        };
        old.follow(ahead, reading);
        assert_eq!(old.now(at(1, 6 * HOUR, 0)), Ticks(DAY + HOUR));
        new.follow(old.anchor(reading), reading);
        assert_eq!(new.now(reading), Ticks(DAY));
        // Who is behind is not followed.
        new.follow(
            Anchor {
                ticks: Ticks(1),
                ..ahead
            },
            reading,
        );
        assert_eq!(new.now(reading), Ticks(DAY));
        assert_eq!(new.anchor(reading).at.wall, YEAR);
    }

    #[test]
    fn a_clock_that_was_lost_goes_on_from_where_it_is_put() {
        let clock = AnswerClock::start(Some(Anchor::lost(Ticks(DAY))), at(1, HOUR, YEAR));
        assert_eq!(clock.now(at(1, 2 * HOUR, 0)), Ticks(DAY + HOUR));
        assert_eq!(clock.anchor(at(1, 2 * HOUR, 0)).at.wall, YEAR);
    }

    proptest! {
        #[test]
        fn an_anchor_is_read_as_it_was_written(ticks: u64, boot: u8, monotonic: u64, wall: u64, place in 0..57_usize) {
            let anchor = Anchor { ticks: Ticks(ticks), at: at(boot, monotonic, wall) };
            let bytes = anchor.encode();
            prop_assert_eq!(Anchor::decode(&bytes).unwrap(), anchor);
            let mut other = bytes.clone();
            other[place] ^= 1;
            prop_assert!(Anchor::decode(&other).is_err());
            prop_assert!(Anchor::decode(&bytes[..place]).is_err());
        }

        /// However often it is persisted, read, and followed in between, and wherever the wall clock is.
        #[test]
        fn it_advances_by_the_monotonic_clock_exactly(steps in proptest::collection::vec((0..DAY, any::<u64>(), 0..3_u8), 1..50)) {
            let mut reading = at(1, 0, 0);
            let mut clock = AnswerClock::start(None, reading);
            for (passed, wall, what) in steps {
                reading.monotonic += passed;
                reading.wall = wall;
                match what {
                    0 => clock = AnswerClock::start(Some(clock.anchor(reading)), reading),
                    1 => clock.follow(clock.anchor(reading), reading),
                    _ => {}
                }
                prop_assert_eq!(clock.now(reading), Ticks(reading.monotonic));
            }
        }
    }
}
