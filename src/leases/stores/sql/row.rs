//! A row of the table, as the statements read it.

use std::time::Duration;

use crate::leases::{Fence, Holder, LeaseName, LeaseRecord};

/// What of a row matters. `left` is in microseconds, by the database's clock, and negative after the expiry.
#[derive(Debug, Clone)]
pub(in crate::leases::stores) struct Row {
    pub(in crate::leases::stores) name: String,
    pub(in crate::leases::stores) locked: bool,
    pub(in crate::leases::stores) count: i64,
    pub(in crate::leases::stores) host: Option<String>,
    pub(in crate::leases::stores) pid: Option<i64>,
    pub(in crate::leases::stores) id: Option<String>,
    pub(in crate::leases::stores) left: i64,
    /// Others were noted to want it, or need not be.
    pub(in crate::leases::stores) noted: bool,
}

impl Row {
    /// Whether somebody else than this holder keeps others out, also for some time after the expiry.
    pub(super) fn keeps_out(&self, id: &str, unclean_delay: Duration) -> bool {
        let delay = micros(unclean_delay);
        self.locked && !self.is_of(id) && self.left.saturating_add(delay) >= 0
    }

    /// Whether this holder has it, or had it last.
    pub(in crate::leases::stores) fn is_of(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id)
    }

    /// As a record; `None` if the name is none of ours, such as an empty one.
    pub(in crate::leases::stores) fn record(self) -> Option<LeaseRecord> {
        self.record_delayed(Duration::ZERO)
    }

    /// As a record for somebody who has to wait for some time after the expiry.
    pub(super) fn record_delayed(self, delay: Duration) -> Option<LeaseRecord> {
        let held = |left: i64| u64::try_from(left).ok().map(Duration::from_micros);
        let remaining = held(self.left).or_else(|| match delay.is_zero() {
            true => None,
            false => held(self.left.saturating_add(micros(delay))),
        });
        let name = LeaseName::new(self.name).ok()?;
        let holder = self.id.map(|id| Holder {
            id: id.into(),
            host: self.host.unwrap_or_default().into(),
            pid: self
                .pid
                .and_then(|pid| u32::try_from(pid).ok())
                .unwrap_or(0),
        });
        let token = Fence(u64::try_from(self.count).unwrap_or(0));
        Some(LeaseRecord::new(
            name,
            holder,
            token,
            remaining.filter(|_| self.locked),
        ))
    }
}

/// In the unit of the statements. No expiration is so long that it is cut here: 292,000 years.
pub(in crate::leases::stores) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(locked: bool, left: i64) -> Row {
        Row {
            name: "n".to_owned(),
            locked,
            count: 3,
            host: None,
            pid: Some(-1),
            id: Some("a".to_owned()),
            left,
            noted: false,
        }
    }

    #[test]
    fn a_row_is_free_when_it_is_unlocked_or_its_expiry_and_the_delay_have_passed() {
        let second = Duration::from_secs(1);
        assert!(row(true, 0).keeps_out("b", Duration::ZERO));
        assert!(!row(true, 0).keeps_out("a", Duration::ZERO));
        assert!(!row(false, 5).keeps_out("b", Duration::ZERO));
        assert!(!row(true, -1).keeps_out("b", Duration::ZERO));
        assert!(row(true, -1).keeps_out("b", second));
        assert!(!row(true, -1_000_001).keeps_out("b", second));
    }

    #[test]
    fn a_record_says_how_long_it_is_held_and_nothing_of_what_has_passed() {
        let left = |row: Row| row.record().unwrap().remaining;
        assert_eq!(left(row(true, 7)), Some(Duration::from_micros(7)));
        assert_eq!(left(row(true, -7)), None);
        assert_eq!(left(row(false, 7)), None);
        let delayed = row(true, -7).record_delayed(Duration::from_micros(10));
        assert_eq!(delayed.unwrap().remaining, Some(Duration::from_micros(3)));
    }
}
