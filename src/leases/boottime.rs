//! The clock of leases: it runs on while the machine sleeps, since the store's clock does too.

use super::state::Moment;

/// This instant.
#[cfg(target_os = "linux")]
pub(crate) fn now() -> Moment {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (secs, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    Moment(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// This instant. Elsewhere than on Linux the clock may stand still while the machine sleeps: only the token protects then.
#[cfg(not(target_os = "linux"))]
pub(crate) fn now() -> Moment {
    let now = crate::clock::exact_now();
    Moment(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}
