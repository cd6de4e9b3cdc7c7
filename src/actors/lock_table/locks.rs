//! The second door: the lock table on the caller's thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::sync::broadcast;

use super::clock::Clock;
use super::config::LockConfig;
use super::ended::Ended;
use super::events::LockEvent;
use super::locker::Locker;
use super::shared::Shared;
use crate::error::LockError;
use crate::inside;
use crate::locks::{
    DetectReport, LimitInUse, LockSnapshot, LockStats, LockerId, LockerSpec, Mode, Moment, Object,
    VictimPolicy,
};
use crate::messages::lock_table::{PastDeadlock, SetDetect, SetLimits, SetTimeouts};
use crate::supervision::Supervision;

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
        config.warn_if_endless();
        let shared = Arc::new(Shared::new(config));
        let clock = Clock::start(Arc::clone(&shared));
        Self {
            handle: Arc::new(Handle { shared, clock }),
        }
    }

    /// Makes a locker (Berkeley DB's `lock_id`).
    ///
    /// # Errors
    /// [`LockError::Limit`] when there are `max_lockers` already, [`LockError::ShuttingDown`] after
    /// [`shutdown`](Self::shutdown).
    pub fn locker(&self, spec: LockerSpec) -> Result<Locker, LockError> {
        self.make(spec, None, false)
    }

    /// [`locker`](Self::locker) for what was let in before, if new ones are refused.
    pub(crate) fn locker_in_flight(&self, spec: LockerSpec) -> Result<Locker, LockError> {
        self.make(spec, None, true)
    }

    pub(super) fn child_of(&self, parent: LockerId, spec: LockerSpec) -> Result<Locker, LockError> {
        self.make(spec, Some(parent), true)
    }

    fn make(
        &self,
        spec: LockerSpec,
        parent: Option<LockerId>,
        in_flight: bool,
    ) -> Result<Locker, LockError> {
        let mut counted = false;
        let made = self.shared().transition(|state, effects| {
            let refused = state.refusing && !in_flight && !inside::is_worker();
            if state.closed || refused {
                return Err(LockError::ShuttingDown);
            }
            // Only a deadline has to know the time exactly.
            let now = match spec.txn_timeout.is_some() || !state.config.txn_timeout.is_zero() {
                true => self.shared().now(),
                false => Moment::default(),
            };
            let id = match parent {
                None => state.table.begin(now, spec)?,
                Some(parent) => state.table.begin_child(now, parent, spec)?,
            };
            state.table.take_events(effects);
            let age = state.table.age(id).ok_or(LockError::Ended)?;
            // Under the mutex: a broken table must not begin anew between this and the handle.
            self.shared().lockers.fetch_add(1, Ordering::AcqRel);
            counted = true;
            Ok((id, age))
        });
        if made.is_err() && counted {
            self.shared().lockers.fetch_sub(1, Ordering::AcqRel);
        }
        let (id, age) = made??;
        Ok(Locker::new(id, age, self.clone()))
    }

    /// Waits until all of these lockers have ended: released everything and been dropped. A victim
    /// that begins again only when the older families of its cycle have ended does not meet them twice.
    pub fn ended(&self, lockers: &[LockerId]) -> Ended {
        Ended::new(self.clone(), lockers)
    }

    /// Looks for deadlocks now, and breaks them by the table's policy (Berkeley DB's `lock_detect`).
    pub fn detect(&self) -> DetectReport {
        self.detect_by(VictimPolicy::Default)
    }

    /// Looks for deadlocks now, and breaks them by this policy.
    pub fn detect_by(&self, policy: VictimPolicy) -> DetectReport {
        let now = self.shared().now();
        self.shared()
            .transition(|state, effects| state.detect(now, policy, effects))
            .unwrap_or_default()
    }

    /// Changes how deadlocks are looked for; see [`SetDetect`].
    pub fn set_detect(&self, change: SetDetect) {
        let now = self.shared().now();
        let config = self.changed(|config| change.apply(config));
        let _ = self.shared().transition(|state, effects| {
            let config = &state.config;
            let (on_block, policy) = (config.detect_on_block, config.detect_policy);
            state.wake_clock = true;
            state.table.set_detect(now, on_block, policy, effects);
        });
        // Who listens to the log can be anyone: not under the mutex.
        config.warn_if_endless();
    }

    /// Changes how long waits, transactions and locks last; see [`SetTimeouts`].
    pub fn set_timeouts(&self, change: SetTimeouts) {
        let now = self.shared().now();
        let config = self.changed(|config| change.apply(config));
        let _ = self.shared().transition(|state, _| {
            state.wake_clock = true;
            let timeouts = state.config.timeouts();
            state.table.set_timeouts(now, timeouts);
        });
        config.warn_if_endless();
    }

    /// Notes a change of the settings, which a broken table begins anew with.
    fn changed(&self, change: impl FnOnce(&mut LockConfig)) -> LockConfig {
        self.shared().aside(|state| {
            change(&mut state.config);
            state.config.clone()
        })
    }

    /// Changes the limits; see [`SetLimits`].
    ///
    /// # Errors
    /// [`LimitInUse`] if one would be lower than what is in use; then none changes.
    pub fn set_limits(&self, change: SetLimits) -> Result<(), LimitInUse> {
        let set = self.shared().look(|state| {
            let mut config = state.config.clone();
            change.apply(&mut config);
            state.table.set_limits(config.limits())?;
            state.config = config;
            Ok(())
        });
        set.unwrap_or_else(|_| {
            self.changed(|config| change.apply(config));
            Ok(())
        })
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> LockStats {
        self.shared().aside(|state| state.table.stats())
    }

    /// Sets the counters to zero and answers what they were. What is in use and the limits are not
    /// touched.
    pub fn clear_stats(&self) -> LockStats {
        self.shared().aside(|state| {
            let stats = state.table.stats();
            state.table.clear_stats();
            stats
        })
    }

    /// Everything that is held and waited for at this moment. The table stands still while it is copied,
    /// and no longer.
    #[must_use]
    pub fn snapshot(&self) -> LockSnapshot {
        self.copy().sorted()
    }

    /// The same, in no order.
    pub(super) fn copy(&self) -> LockSnapshot {
        let copy = self.shared().transition(|state, _| state.table.copy());
        copy.unwrap_or_default()
    }

    /// The last 64 deadlocks, the oldest first, each with its full report.
    #[must_use]
    pub fn history(&self) -> Vec<PastDeadlock> {
        let past = self.shared().aside(|state| state.table.history());
        let (now, clock) = (self.shared().now(), SystemTime::now());
        let past = past.into_iter().map(|record| {
            let at = clock.checked_sub(now.since(record.at)).unwrap_or(clock);
            PastDeadlock::new(at, record.conflict)
        });
        past.collect()
    }

    /// What happens from now on that an operator wants to know: deadlocks, locks that are held too long,
    /// limits that come near, contradicting orders. Who is more than 256 events behind loses the oldest,
    /// and is told how many.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<LockEvent> {
        self.shared().events.subscribe()
    }

    /// How the table is set: as at the start, with all changes since.
    #[must_use]
    pub fn config(&self) -> LockConfig {
        self.shared().aside(|state| state.config.clone())
    }

    /// Refuses new lockers with [`LockError::ShuttingDown`]; those that there are go on.
    pub(crate) fn refuse_new(&self) {
        // One that a panic has broken refuses everybody.
        let _ = self.shared().look(|state| state.refusing = true);
    }

    /// Refuses everything that waits, and everything that comes, with [`LockError::ShuttingDown`], and
    /// ends the clock. What is held stays held until its owners release it. Waits for the clock's
    /// thread to end, which takes no longer than a pass of the detector.
    pub fn shutdown(&self) {
        self.shared().aside(|state| state.closed = true);
        // Those who waited in a broken table were answered.
        let _ = self
            .shared()
            .transition(|state, effects| state.table.refuse_all(effects));
        self.handle.clock.stop();
    }

    /// Whether who holds the object in one mode needs no lock in the other.
    pub(crate) fn covers(&self, object: &Object, mode: Mode, other: Mode) -> bool {
        self.shared()
            .look(|state| state.table.covers(object, mode, other))
            .unwrap_or(false)
    }

    pub(crate) fn supervision(&self) -> &Arc<Supervision> {
        &self.shared().supervision
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
