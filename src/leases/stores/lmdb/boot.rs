//! The clock of the machine: which boot, and how long ago that was, suspend included.

use super::record::Moment;

/// What has to be known to read the clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct BootClock {
    boot: [u8; 16],
    /// What the time namespace of this process adds to the clock of the machine, in nanoseconds.
    offset: i128,
}

impl BootClock {
    /// Finds out which boot this is.
    ///
    /// # Errors
    /// What keeps the boot's id from being read. Without it a lease from before the last boot could not be told from one of today.
    #[cfg(target_os = "linux")]
    pub(super) fn read() -> std::io::Result<Self> {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let digits: String = id.chars().filter(char::is_ascii_hexdigit).collect();
        let boot = u128::from_str_radix(&digits, 16).map_err(std::io::Error::other)?;
        let offsets = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        Ok(Self {
            boot: boot.to_be_bytes(),
            offset: offset(&offsets).unwrap_or(0),
        })
    }

    /// Elsewhere there is no id of a boot: the wall clock is used, which must not be turned back while leases are held.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read() -> std::io::Result<Self> {
        Ok(Self {
            boot: [0; 16],
            offset: 0,
        })
    }

    #[cfg(target_os = "linux")]
    pub(super) fn now(self) -> Moment {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
        self.moment(nanos)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn now(self) -> Moment {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = now.map_or(0, |now| i128::try_from(now.as_nanos()).unwrap_or(i128::MAX));
        self.moment(nanos)
    }

    /// The same clock in another boot.
    #[cfg(test)]
    pub(super) fn of_boot(self, boot: u128) -> Self {
        Self {
            boot: boot.to_be_bytes(),
            ..self
        }
    }

    fn moment(self, nanos: i128) -> Moment {
        Moment {
            boot: self.boot,
            nanos: u64::try_from(nanos.saturating_sub(self.offset)).unwrap_or(0),
        }
    }
}

/// The offset of the boot clock in a `timens_offsets`: processes of two time namespaces of one machine have to agree.
#[cfg(target_os = "linux")]
fn offset(offsets: &str) -> Option<i128> {
    let line = offsets
        .lines()
        .find_map(|line| line.strip_prefix("boottime"))?;
    let mut numbers = line.split_whitespace().map(str::parse::<i128>);
    let (seconds, nanos) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(seconds * 1_000_000_000 + nanos)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn containers_with_a_clock_of_their_own_agree_with_the_machine() {
        let offsets = "monotonic           0         0\nboottime        86400         5\n";
        assert_eq!(offset(offsets), Some(86_400_000_000_005));
        assert_eq!(offset(""), None);
    }

    #[test]
    fn the_clock_goes_on_within_one_boot() {
        let clock = BootClock::read().unwrap();
        let (first, second) = (clock.now(), BootClock::read().unwrap().now());
        assert_eq!(first.boot, second.boot);
        assert!(first.nanos > 0 && first.nanos <= second.nanos);
    }
}
