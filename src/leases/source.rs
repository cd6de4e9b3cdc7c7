//! Where a keeper's leases come from: a store that is made, and leases that are started, when somebody wants the first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{LeaseConfig, LeaseStore, Leases, LmdbLeases};
use crate::clock::block_on;
use crate::error::{LeaseError, Part};
use crate::supervision::Supervision;

pub(crate) struct LeaseSource {
    state: Mutex<State>,
    folder: PathBuf,
    config: LeaseConfig,
    /// Of the actor, and of the threads of what is started here.
    pub(crate) supervision: Arc<Supervision>,
}

enum State {
    /// Nobody has asked yet. Without a store it is the default one.
    Unused(Option<Arc<dyn LeaseStore>>),
    Open(Leases),
    Closed,
}

impl LeaseSource {
    pub(crate) fn new(
        store: Option<Arc<dyn LeaseStore>>,
        folder: PathBuf,
        config: LeaseConfig,
    ) -> Self {
        Self {
            state: Mutex::new(State::Unused(store)),
            folder,
            config,
            supervision: Supervision::of(Part::Leases),
        }
    }

    /// What is open already.
    pub(crate) fn of(leases: Leases) -> Self {
        Self {
            config: leases.config().clone(),
            state: Mutex::new(State::Open(leases)),
            folder: PathBuf::new(),
            supervision: Supervision::of(Part::Leases),
        }
    }

    /// The leases, started if need be. The first time may take some milliseconds.
    pub(crate) fn leases(&self) -> Result<Leases, LeaseError> {
        let mut state = self.state.lock();
        let store = match &*state {
            State::Open(leases) if !leases.shared().is_broken() => return Ok(leases.clone()),
            // A panic has ended them.
            State::Open(leases) => Arc::clone(&leases.shared().store),
            State::Closed => return Err(LeaseError::ShuttingDown),
            State::Unused(Some(store)) => Arc::clone(store),
            State::Unused(None) => default_store(&self.folder)?,
        };
        let leases = {
            let supervision = Arc::clone(&self.supervision);
            Leases::start_supervised(store, self.config.clone(), supervision)?
        };
        *state = State::Open(leases.clone());
        Ok(leases)
    }

    /// Gives everything back and ends, within this time. It blocks.
    pub(crate) fn close(&self, time: Duration) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Closed);
        let State::Open(leases) = before else { return };
        let shutdown = block_on(leases.shutdown(time));
        for name in shutdown.maybe_still_held {
            tracing::warn!(target: "lockkeeper", lease = name.as_str(), "a lease could not be given back in time");
        }
    }
}

/// Leases without a store of the application's are kept beside the environment, in a file of their own.
fn default_store(folder: &Path) -> Result<Arc<dyn LeaseStore>, LeaseError> {
    match LmdbLeases::open(folder) {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => Err(LeaseError::Store(Arc::new(error))),
    }
}
