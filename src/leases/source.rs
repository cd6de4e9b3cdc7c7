//! Where a keeper's leases come from: they are started when somebody wants the first.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::stores::lmdb::Later;
use super::{LeaseConfig, LeaseStore, Leases};
use crate::clock::block_on;
use crate::error::LeaseError;

pub(crate) struct LeaseSource {
    state: Mutex<State>,
    folder: PathBuf,
    config: LeaseConfig,
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
        }
    }

    /// What is open already.
    pub(crate) fn of(leases: Leases) -> Self {
        Self {
            config: leases.config().clone(),
            state: Mutex::new(State::Open(leases)),
            folder: PathBuf::new(),
        }
    }

    /// The leases, started if need be, which takes a thread and asks the store nothing.
    pub(crate) fn leases(&self) -> Result<Leases, LeaseError> {
        let mut state = self.state.lock();
        let store = match &*state {
            State::Open(leases) => return Ok(leases.clone()),
            State::Closed => return Err(LeaseError::ShuttingDown),
            State::Unused(Some(store)) => Arc::clone(store),
            // Without a store of the application's they are kept beside the environment, in a file of their own.
            State::Unused(None) => Arc::new(Later::at(&self.folder)),
        };
        let leases = Leases::start_shared(store, self.config.clone())?;
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
