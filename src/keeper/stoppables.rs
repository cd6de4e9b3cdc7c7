//! What a keeper has to stop in order before itself: whatever runs the application's code for as long as the keeper lives, such
//! as pools of workers.
//!
//! A stop first closes the registry, so that nothing joins it any more, tells everybody at once by when, and then waits for
//! each, the newest first. Meanwhile the keeper goes on serving *them*: what they have begun they can finish (see [`inside`](crate::inside)),
//! while everybody else is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::ShutdownError;

/// Something that a keeper stops in order.
pub(crate) trait Stops: Send + Sync {
    /// Names it in errors and in the log.
    fn name(&self) -> Arc<str>;

    /// Says that it is to end: it takes nothing new, and whoever works may finish until the deadline and is given up then. Returns
    /// at once; may come more than once, and the earliest deadline counts.
    fn tell(&self, deadline: Instant);

    /// Waits for the end of what was told, and joins every thread that can be joined.
    ///
    /// It blocks, on a thread of the keeper's own, until shortly after this deadline at the latest, or after an earlier one that it
    /// is told meanwhile. What runs on then is in the answer, and it is asked again until nothing does.
    fn stop(&self, deadline: Instant) -> Result<(), RunsOn>;
}

/// It has not ended.
#[derive(Debug)]
pub(crate) struct RunsOn {
    /// What runs on beyond the deadline, as whoever waits for the end is answered. None if nothing does that is not named elsewhere:
    /// it waits for another, or there is time left in which all else goes on.
    pub error: Option<ShutdownError>,
}

/// The keeper is being stopped: nothing joins any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keeper is shutting down")]
pub(crate) struct ShuttingDown;

/// What is to be stopped, in the order in which it came.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    closed: bool,
    next: u64,
    members: BTreeMap<u64, Arc<dyn Stops>>,
}

impl Registry {
    /// Adds something, which is stopped with the keeper unless the registration is dropped before.
    pub(crate) fn add(&self, member: Arc<dyn Stops>) -> Result<Registration, ShuttingDown> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(ShuttingDown);
        }
        let key = state.next;
        state.next += 1;
        state.members.insert(key, member);
        Ok(Registration {
            key,
            state: Arc::downgrade(&self.state),
        })
    }

    /// Takes no more members.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
    }

    /// Who is there, the newest first: who came later may use what came before.
    pub(crate) fn members(&self) -> Vec<Arc<dyn Stops>> {
        self.state.lock().members.values().rev().cloned().collect()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.members().iter().map(|member| member.name()).collect();
        f.debug_list().entries(names).finish()
    }
}

/// A place in the [`Registry`], given up when it is dropped.
#[must_use = "what is not registered is not stopped with the keeper"]
pub(crate) struct Registration {
    key: u64,
    state: Weak<Mutex<State>>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(state) = self.state.upgrade() else {
            return;
        };
        // Dropped behind the lock: it may be the last handle, and have registrations of its own.
        let member = state.lock().members.remove(&self.key);
        drop(member);
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registration").field(&self.key).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str);

    impl Stops for Named {
        fn name(&self) -> Arc<str> {
            self.0.into()
        }
        fn tell(&self, _: Instant) {}
        fn stop(&self, _: Instant) -> Result<(), RunsOn> {
            Ok(())
        }
    }

    fn names(registry: &Registry) -> Vec<Arc<str>> {
        let members = registry.members();
        members.iter().map(|member| member.name()).collect()
    }

    #[test]
    fn members_are_stopped_newest_first_and_leave_with_their_registration() {
        let registry = Registry::default();
        let first = registry.add(Arc::new(Named("first"))).unwrap();
        let second = registry.add(Arc::new(Named("second"))).unwrap();
        let _third = registry.add(Arc::new(Named("third"))).unwrap();
        assert_eq!(
            *names(&registry),
            ["third", "second", "first"].map(Arc::from)
        );
        drop(second);
        assert_eq!(*names(&registry), ["third", "first"].map(Arc::from));
        drop(first);
        assert_eq!(*names(&registry), ["third"].map(Arc::from));
    }

    #[test]
    fn a_closed_registry_takes_nobody_and_keeps_whom_it_has() {
        let registry = Registry::default();
        let _kept = registry.add(Arc::new(Named("kept"))).unwrap();
        registry.close();
        let refused = registry.add(Arc::new(Named("late")));
        assert_eq!(refused.err(), Some(ShuttingDown));
        assert_eq!(*names(&registry), ["kept"].map(Arc::from));
    }

    #[test]
    fn a_registration_may_outlive_its_registry() {
        let registry = Registry::default();
        let registration = registry.add(Arc::new(Named("kept"))).unwrap();
        drop(registry);
        drop(registration);
    }
}
