//! What the clocks of this machine show.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::txn::answers::{Reading, hash};

pub(super) fn now() -> Reading {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    Reading {
        boot: *BOOT,
        monotonic: monotonic(),
        wall: wall.map_or(0, |wall| u64::try_from(wall.as_nanos()).unwrap_or(0)),
    }
}

/// The boot of the machine, and the namespace whose clock this process sees.
static BOOT: LazyLock<[u8; 16]> = LazyLock::new(|| {
    #[cfg(target_os = "linux")]
    if let Ok(boot) = std::fs::read("/proc/sys/kernel/random/boot_id") {
        let namespace = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
        return hash(&[&boot, namespace.as_os_str().as_encoded_bytes()]);
    }
    // Nobody else's: what another process has persisted is then compared by the wall clock.
    let random = crate::env::random_seed().to_be_bytes();
    hash(&[&random, &std::process::id().to_be_bytes()])
});

#[cfg(target_os = "linux")]
fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = now.tv_sec.unsigned_abs().saturating_mul(1_000_000_000);
    seconds.saturating_add(now.tv_nsec.unsigned_abs())
}

#[cfg(not(target_os = "linux"))]
fn monotonic() -> u64 {
    u64::try_from(crate::clock::exact_now().as_nanos()).unwrap_or(u64::MAX)
}
