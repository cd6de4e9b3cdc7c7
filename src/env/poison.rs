//! Fatal errors: who is told, and what everyone is answered until the environment has recovered (I11).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::env::EnvId;
use crate::env::beside::{Beside, Earlier, NotBegun};
use crate::error::StorageError;
use crate::inside::{self, Owner};

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
    telling: Beside,
}

impl Poison {
    pub(crate) fn listen(&self, listener: Listener) {
        self.listeners.lock().push(listener);
    }

    /// The first error is the one that counts: `None` if there is one already. The gate is shut, by `shut`, before anybody can
    /// see the event.
    pub(crate) fn set(&self, event: PanicEvent, shut: impl FnOnce()) -> Option<Arc<PanicEvent>> {
        let mut current = self.event.lock();
        if current.is_some() {
            return None;
        }
        shut();
        let event = Arc::new(event);
        *current = Some(Arc::clone(&event));
        Some(event)
    }

    pub(crate) fn event(&self) -> Option<Arc<PanicEvent>> {
        self.event.lock().clone()
    }

    /// The environment has recovered; the gate opens, by `open`, together with it.
    pub(crate) fn clear(&self, open: impl FnOnce()) {
        let mut current = self.event.lock();
        *current = None;
        open();
    }

    /// Tells everybody, on a thread of its own: what a listener does or waits for holds nobody up.
    pub(crate) fn tell(&self, env: EnvId, event: Arc<PanicEvent>) {
        let listeners = self.listeners.lock().clone();
        if listeners.is_empty() {
            return;
        }
        let tell = move |_earlier: Earlier| {
            let _inside = inside::callback(Owner::Env(env), "a listener for fatal errors");
            for listener in listeners {
                if catch_unwind(AssertUnwindSafe(|| listener(&event))).is_err() {
                    tracing::error!(target: "lockkeeper", "a listener for fatal errors panicked");
                }
            }
        };
        let thread = thread::Builder::new().name("lockkeeper-event".into());
        let begin = |earlier| thread.spawn(move || tell(earlier));
        match self.telling.begin_after(begin) {
            Ok(()) => {}
            Err(NotBegun::Closed) => {
                tracing::error!(target: "lockkeeper", "a fatal error at the very end: nobody is told of it any more");
            }
            Err(NotBegun::Thread(error)) => {
                tracing::error!(target: "lockkeeper", %error, "no thread to tell of a fatal error");
            }
        }
    }

    /// Gives the listeners a moment to finish, before the process ends.
    pub(crate) fn let_listeners_finish(&self, most: Duration) {
        let until = Instant::now() + most;
        while Instant::now() < until && !self.telling.have_finished() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The threads that tell of fatal errors, to be joined; there are no more.
    pub(crate) fn take_listeners(&self) -> Vec<JoinHandle<()>> {
        self.telling.close()
    }
}
