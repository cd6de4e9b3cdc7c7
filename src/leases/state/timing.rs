//! How often a lease is refreshed, how long it lasts without, and by how much its holder stops believing before that.

use std::time::Duration;

/// The share of the expiration by which a holder stops believing early: twice what two good clocks differ by.
const MARGIN: u32 = 50;
/// Nobody means a longer one; and sums stay far from the end of the clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The times of a lease, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    refresh: Duration,
    expiration: Duration,
    max_clock_skew: Duration,
}

impl Timing {
    /// Checks them.
    ///
    /// # Errors
    /// [`LeaseSettingsError`]: a zero, a refresh of more than a third of the expiration, an expiration that the margin leaves
    /// no room in.
    pub fn new(
        refresh: Duration,
        expiration: Duration,
        max_clock_skew: Duration,
    ) -> Result<Self, LeaseSettingsError> {
        if refresh.is_zero() {
            return Err(LeaseSettingsError::ZeroRefresh);
        }
        if expiration.is_zero() {
            return Err(LeaseSettingsError::ZeroExpiration);
        }
        if expiration > LONGEST {
            return Err(LeaseSettingsError::ExpirationTooLong { expiration });
        }
        if refresh.saturating_mul(3) > expiration {
            return Err(LeaseSettingsError::RefreshTooSlow {
                refresh,
                expiration,
            });
        }
        let timing = Self {
            refresh,
            expiration,
            max_clock_skew,
        };
        if timing.usable() <= refresh {
            let margin = timing.margin_of(expiration);
            return Err(LeaseSettingsError::ExpirationTooShort {
                expiration,
                margin,
                refresh,
            });
        }
        Ok(timing)
    }

    /// The same with another expiration.
    ///
    /// # Errors
    /// As [`Timing::new`].
    pub fn with_expiration(self, expiration: Duration) -> Result<Self, LeaseSettingsError> {
        Self::new(self.refresh, expiration, self.max_clock_skew)
    }

    /// Checks a delay after an unclean end, which stores add to an expiry.
    ///
    /// # Errors
    /// [`LeaseSettingsError::DelayTooLong`].
    pub fn check_delay(delay: Duration) -> Result<Duration, LeaseSettingsError> {
        match delay > LONGEST {
            true => Err(LeaseSettingsError::DelayTooLong { delay }),
            false => Ok(delay),
        }
    }

    /// From one refresh to the next.
    #[must_use]
    pub const fn refresh(&self) -> Duration {
        self.refresh
    }

    /// How long the store keeps the lease after a refresh.
    #[must_use]
    pub const fn expiration(&self) -> Duration {
        self.expiration
    }

    /// How long after the sending of a refresh the holder believes in it.
    #[must_use]
    pub fn usable(&self) -> Duration {
        self.usable_of(self.expiration)
    }

    /// The same for an expiration that is, or was, another.
    #[must_use]
    pub(super) fn usable_of(&self, expiration: Duration) -> Duration {
        expiration.saturating_sub(self.margin_of(expiration))
    }

    /// How long after the sending of a question that is under way for so long at most the store has let the lease go.
    #[must_use]
    pub(super) fn gone_after(&self, expiration: Duration, way: Duration) -> Duration {
        way.saturating_add(expiration)
            .saturating_add(self.margin_of(expiration))
    }

    fn margin_of(&self, expiration: Duration) -> Duration {
        (expiration / MARGIN).saturating_add(self.max_clock_skew)
    }
}

/// Settings of a lease that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseSettingsError {
    /// It would be refreshed without a pause.
    #[error("the refresh interval of a lease is zero")]
    ZeroRefresh,
    /// It would never be held.
    #[error("the expiration of a lease is zero")]
    ZeroExpiration,
    /// It would ask without a pause.
    #[error("the poll interval of a lease is zero")]
    ZeroPoll,
    /// Nobody means that.
    #[error("an expiration of {expiration:?} is too long: at most ten years are possible")]
    ExpirationTooLong {
        /// The expiration.
        expiration: Duration,
    },
    /// One or two refreshes that fail would lose it. Refresh more often, or let it expire later.
    #[error(
        "a refresh every {refresh:?} is too slow for an expiration of {expiration:?}: at most a third of it is possible"
    )]
    RefreshTooSlow {
        /// The refresh interval.
        refresh: Duration,
        /// The expiration.
        expiration: Duration,
    },
    /// The margin of 2 % and `max_clock_skew` leaves less than one refresh interval. Let it expire later, or state a smaller
    /// skew if the store's clock is that good.
    #[error(
        "an expiration of {expiration:?} is too short: less the margin of {margin:?} it does not last from one refresh, every \
         {refresh:?}, to the next"
    )]
    ExpirationTooShort {
        /// The expiration.
        expiration: Duration,
        /// 2 % and `max_clock_skew`.
        margin: Duration,
        /// The refresh interval.
        refresh: Duration,
    },
    /// Nobody means that.
    #[error(
        "a delay of {delay:?} after an unclean end is too long: at most ten years are possible"
    )]
    DelayTooLong {
        /// The delay.
        delay: Duration,
    },
    /// A label and what makes the holder's id unique have to fit into 255 bytes, without NUL.
    #[error("a label of {length} bytes is not possible: at most {most}, without NUL")]
    BadLabel {
        /// Its length in bytes.
        length: usize,
        /// The longest.
        most: usize,
    },
    /// Nobody could ever wait, or wait for the store.
    #[error("{setting} is zero")]
    Zero {
        /// Which setting.
        setting: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    #[test]
    fn the_defaults_are_possible_and_what_cannot_work_is_refused() {
        let timing = Timing::new(SEC, 300 * SEC, SEC).unwrap();
        assert_eq!(timing.usable(), 293 * SEC);
        assert!(Timing::new(SEC, 3 * SEC, SEC).is_ok());
        let refused = |refresh, expiration| Timing::new(refresh, expiration, SEC).unwrap_err();
        assert_eq!(
            refused(Duration::ZERO, SEC),
            LeaseSettingsError::ZeroRefresh
        );
        assert_eq!(
            refused(SEC, Duration::ZERO),
            LeaseSettingsError::ZeroExpiration
        );
        let slow = refused(SEC, 3 * SEC - Duration::from_nanos(1));
        assert!(matches!(slow, LeaseSettingsError::RefreshTooSlow { .. }));
        let short = refused(SEC / 4, SEC);
        assert!(
            matches!(short, LeaseSettingsError::ExpirationTooShort { .. }),
            "{short}"
        );
        let long = refused(SEC, Duration::MAX);
        assert!(matches!(long, LeaseSettingsError::ExpirationTooLong { .. }));
    }
}
