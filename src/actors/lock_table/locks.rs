//! The second door: the lock table on the caller's thread.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::clock::Clock;
use super::config::LockConfig;
use super::ended::Ended;
use super::locker::Locker;
use super::shared::Shared;
use crate::locks::{DetectReport, LockSnapshot, LockStats, LockerId, LockerSpec};
use crate::messages::lock_table::LockError;

/// The lock table, to be used in place from any thread. Cheap to clone.
///
/// Locks that are free are granted on the caller's thread, and a release wakes from the releasing
/// thread whoever comes next. A thread of the table's own keeps its deadlines and looks for deadlocks;
/// it ends when the last handle is dropped. Lockers are handles too.
#[derive(Clone)]
pub struct Locks {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    clock: Clock,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.clock.stop();
    }
}

impl Locks {
    /// Starts a lock table with its clock.
    ///
    /// # Panics
    /// If the system has no thread left.
    #[must_use]
    pub fn start(config: LockConfig) -> Self {
        if config.lock_timeout.is_zero()
            && config.detect_interval.is_zero()
            && !config.detect_on_block
        {
            tracing::warn!(
                target: "lockkeeper",
                "lock_timeout, detect_interval and detect_on_block are all off: a deadlock would last for ever"
            );
        }
        let shared = Arc::new(Shared::new(config));
        let clock = Clock::start(Arc::clone(&shared));
        Self {
            handle: Arc::new(Handle { shared, clock }),
        }
    }

    /// Makes a locker.
    ///
    /// # Errors
    /// [`LockError::Limit`] when there are `max_lockers` already, [`LockError::ShuttingDown`] after
    /// [`shutdown`](Self::shutdown).
    pub fn locker(&self, spec: LockerSpec) -> Result<Locker, LockError> {
        let (id, age) = self.shared().look(|state| {
            if state.closed {
                return Err(LockError::ShuttingDown);
            }
            let id = state.table.begin(spec)?;
            Ok((id, state.table.age(id).ok_or(LockError::Ended)?))
        })?;
        Ok(Locker::new(id, age, self.clone()))
    }

    /// Waits until all of these lockers have ended: released everything and been dropped. A victim
    /// that begins again only when the older families of its cycle have ended does not meet them twice.
    pub fn ended(&self, lockers: &[LockerId]) -> Ended {
        Ended::new(self.clone(), lockers)
    }

    /// Looks for deadlocks now, and breaks them.
    pub fn detect(&self) -> DetectReport {
        let begun = Instant::now();
        let mut report = self
            .shared()
            .transition(|state, effects| state.table.detect(effects));
        report.took = begun.elapsed();
        report
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> LockStats {
        self.shared().look(|state| state.table.stats())
    }

    /// Everything that is held and waited for at this moment.
    #[must_use]
    pub fn snapshot(&self) -> LockSnapshot {
        self.shared().look(|state| state.table.snapshot())
    }

    /// How the table was set.
    #[must_use]
    pub fn config(&self) -> &LockConfig {
        &self.shared().config
    }

    /// Refuses everything that waits, and everything that comes, with [`LockError::ShuttingDown`], and
    /// ends the clock. What is held stays held until its owners release it. Waits for the clock's
    /// thread to end, which takes no longer than a pass of the detector.
    pub fn shutdown(&self) {
        self.shared().transition(|state, effects| {
            state.closed = true;
            state.table.refuse_all(effects);
        });
        self.handle.clock.stop();
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    pub(super) fn shared_arc(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locks")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
