//! Where a keeper's leases come from: they are started when somebody wants the first.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::Mutex;

use super::stores::lmdb::Later;
use super::{LeaseConfig, LeaseName, LeaseStore, Leases, LmdbLeases};
use crate::env::quietly;
use crate::error::{LeaseError, Part};
use crate::inside::{self, Owner};
use crate::supervision::Supervision;

pub(crate) struct LeaseSource {
    state: Mutex<State>,
    /// Whose code the handlers of these leases are. A lock of its own, which nobody has for long: who is inside has to be told so at
    /// any time.
    owner: Mutex<Option<Owner>>,
    /// Nobody new gets at them.
    refusing: AtomicBool,
    folder: PathBuf,
    /// The default store, if it is used: it may be at its opening still when the leases end.
    later: Mutex<Option<Arc<Later<LmdbLeases>>>>,
    /// The threads of leases that a panic has ended.
    before: Mutex<Vec<JoinHandle<()>>>,
    config: LeaseConfig,
    /// Of the actor, and of the threads of what is started here.
    pub(crate) supervision: Arc<Supervision>,
}

enum State {
    /// Nobody has asked yet. Without a store it is the default one.
    Unused(Option<Arc<dyn LeaseStore>>),
    Open(Leases),
    /// What was open is kept until its thread has been joined.
    Closed(Option<Leases>),
}

impl LeaseSource {
    pub(crate) fn new(
        store: Option<Arc<dyn LeaseStore>>,
        folder: PathBuf,
        config: LeaseConfig,
    ) -> Self {
        Self {
            state: Mutex::new(State::Unused(store)),
            owner: Mutex::default(),
            refusing: AtomicBool::new(false),
            folder,
            later: Mutex::default(),
            before: Mutex::default(),
            config,
            supervision: Supervision::of(Part::Leases),
        }
    }

    /// What is open already.
    pub(crate) fn of(leases: Leases) -> Self {
        Self {
            config: leases.config().clone(),
            owner: Mutex::new(Some(leases.owner())),
            state: Mutex::new(State::Open(leases)),
            refusing: AtomicBool::new(false),
            folder: PathBuf::new(),
            later: Mutex::default(),
            before: Mutex::default(),
            supervision: Supervision::of(Part::Leases),
        }
    }

    /// The leases, started if need be, which takes a thread and asks the store nothing.
    pub(crate) fn leases(&self) -> Result<Leases, LeaseError> {
        if self.refusing.load(Ordering::Acquire) && !inside::is_worker() {
            return Err(LeaseError::ShuttingDown);
        }
        let mut state = self.state.lock();
        let store = match &*state {
            State::Open(leases) if !leases.shared().is_broken() => return Ok(leases.clone()),
            // A panic has ended them.
            State::Open(leases) => Arc::clone(&leases.shared().store),
            State::Closed(_) => return Err(LeaseError::ShuttingDown),
            State::Unused(Some(store)) => Arc::clone(store),
            // Without a store of the application's they are kept beside the environment, in a file of their own.
            State::Unused(None) => {
                let later = Arc::new(Later::at(&self.folder));
                *self.later.lock() = Some(Arc::clone(&later));
                later
            }
        };
        let leases = {
            let supervision = Arc::clone(&self.supervision);
            Leases::start_supervised(store, self.config.clone(), supervision)?
        };
        *self.owner.lock() = Some(leases.owner());
        if let State::Open(broken) = std::mem::replace(&mut *state, State::Open(leases.clone())) {
            // It ends by itself, and is joined at the end: whoever wants a lease waits for nothing.
            self.before.lock().extend(broken.thread());
        }
        Ok(leases)
    }

    /// Whether these are what is open.
    pub(crate) fn has(&self, leases: &Leases) -> bool {
        match &*self.state.lock() {
            State::Open(open) => open.owner() == leases.owner(),
            State::Unused(_) | State::Closed(_) => false,
        }
    }

    /// Refuses whoever is new; what is held stays held.
    pub(crate) fn refuse_new(&self) {
        self.refusing.store(true, Ordering::Release);
        // Somebody may be starting them, and takes a moment for it: they are refused when that is asked for again.
        if let Some(state) = self.state.try_lock()
            && let State::Open(leases) = &*state
        {
            leases.refuse_new();
        }
    }

    /// Whose code the handlers of these leases are, if there are any.
    pub(crate) fn owner(&self) -> Option<Owner> {
        *self.owner.lock()
    }

    /// Gives everything back until the deadline, which may be moved meanwhile; answers what may be held in the store still. It
    /// blocks.
    pub(crate) fn close(&self, deadline: impl Fn() -> Instant) -> Vec<LeaseName> {
        let leases = {
            let mut state = self.state.lock();
            let open = match std::mem::replace(&mut *state, State::Closed(None)) {
                State::Open(leases) | State::Closed(Some(leases)) => Some(leases),
                State::Unused(_) | State::Closed(None) => None,
            };
            *state = State::Closed(open.clone());
            open
        };
        let Some(leases) = leases else {
            return Vec::new();
        };
        let held = leases.close(deadline);
        for name in &held {
            quietly(
                || tracing::warn!(target: "lockkeeper", lease = name.as_str(), "a lease could not be given back in time"),
            );
        }
        held
    }

    /// Waits for the end of the threads; everything has been given back.
    pub(crate) fn join(&self) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Closed(None));
        if let State::Closed(Some(leases)) = before {
            leases.join();
        }
        let ended = std::mem::take(&mut *self.before.lock());
        for thread in ended {
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
        let later = self.later.lock().take();
        if let Some(later) = later {
            later.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i14_whoever_is_inside_is_known_also_while_the_leases_are_being_ended() {
        let folder = tempfile::tempdir().unwrap();
        let config = LeaseConfig::default();
        let source = LeaseSource::new(None, folder.path().to_owned(), config);
        assert_eq!(source.owner(), None);
        let owner = source.leases().unwrap().owner();
        {
            let _is_ending = source.state.lock();
            assert_eq!(source.owner(), Some(owner));
        }
        assert!(source.close(Instant::now).is_empty());
        // Its thread may be in a handler still when it is joined.
        source.join();
        assert_eq!(source.owner(), Some(owner));
    }
}
