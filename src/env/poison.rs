//! Fatal errors: who is told, and what everyone is answered until the environment has recovered (I11).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::error::StorageError;

/// A fatal error of the environment: LMDB has panicked, found corruption, or could not flush or resize.
///
/// It answers Berkeley DB's `DB_EVENT_PANIC`.
#[derive(Debug, Clone)]
pub struct PanicEvent {
    /// The folder of the environment.
    pub path: PathBuf,
    /// What failed, and how.
    pub source: StorageError,
    /// The operating system's error number, if it was the operating system's error.
    pub errno: Option<i32>,
    /// When it happened.
    pub since: SystemTime,
    /// How many updates were queued or running.
    pub in_flight: usize,
}

impl std::fmt::Display for PanicEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for PanicEvent {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Who wants to be told of a [`PanicEvent`].
pub(crate) type Listener = Arc<dyn Fn(&PanicEvent) + Send + Sync>;

/// The fatal error that has not been recovered from, and who is told of one.
#[derive(Default)]
pub(crate) struct Poison {
    event: Mutex<Option<Arc<PanicEvent>>>,
    listeners: Mutex<Vec<Listener>>,
}

impl Poison {
    pub(crate) fn listen(&self, listener: Listener) {
        self.listeners.lock().push(listener);
    }

    /// The first error is the one that counts: `None` if there is one already.
    pub(crate) fn set(&self, event: PanicEvent) -> Option<Arc<PanicEvent>> {
        let mut current = self.event.lock();
        if current.is_some() {
            return None;
        }
        let event = Arc::new(event);
        *current = Some(Arc::clone(&event));
        Some(event)
    }

    pub(crate) fn event(&self) -> Option<Arc<PanicEvent>> {
        self.event.lock().clone()
    }

    pub(crate) fn clear(&self) {
        *self.event.lock() = None;
    }

    /// Tells everybody, on the calling thread. A listener that panics harms nobody else.
    pub(crate) fn tell(&self, event: &PanicEvent) {
        let listeners = self.listeners.lock().clone();
        for listener in listeners {
            if catch_unwind(AssertUnwindSafe(|| listener(event))).is_err() {
                tracing::error!(target: "lockkeeper", "a listener for fatal errors panicked");
            }
        }
    }
}
