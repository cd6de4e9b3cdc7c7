//! Panics inside the runtime: caught where they happen, counted, told, answered.
//!
//! What a panic can leave half changed looks after itself: the lock table, the leases, the writer. Everything else goes on. As in
//! Erlang/OTP, so many panics in so much time are more than can be lived with: then whoever owns the part is told.

mod intensity;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures_util::FutureExt;
use parking_lot::Mutex;

use crate::bombs::Bombs;
use crate::env::panic_message;
use crate::error::{ActorPanicked, Part};
use intensity::Intensity;

/// What is known of the panics of one part of the runtime, and who is told when they are too many.
pub(crate) struct Supervision {
    part: Part,
    panics: AtomicU64,
    state: Mutex<State>,
    /// Set by whoever owns the part. Without it, an actor stops.
    gives_up: OnceLock<GivesUp>,
    pub(crate) bombs: Bombs,
}

type GivesUp = Box<dyn Fn(&ActorPanicked) + Send + Sync>;

#[derive(Default)]
struct State {
    recent: Intensity,
    last: Option<ActorPanicked>,
    has_given_up: bool,
}

impl Supervision {
    pub(crate) fn of(part: Part) -> Arc<Self> {
        Arc::new(Self {
            part,
            panics: AtomicU64::new(0),
            state: Mutex::default(),
            gives_up: OnceLock::new(),
            bombs: Bombs::default(),
        })
    }

    /// Says what is done when there are too many panics; the first one counts.
    pub(crate) fn on_giving_up(&self, what: impl Fn(&ActorPanicked) + Send + Sync + 'static) {
        let _ = self.gives_up.set(Box::new(what));
    }

    /// How many panics there were.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    pub(crate) fn last(&self) -> Option<ActorPanicked> {
        self.state.lock().last.clone()
    }

    /// Whether an actor that belongs to nobody is to stop.
    pub(crate) fn is_to_stop(&self) -> bool {
        self.gives_up.get().is_none() && self.panics() > 0 && self.state.lock().has_given_up
    }

    /// Does something that must not take its thread along; a panic is told, and answered.
    pub(crate) fn guard<R>(
        &self,
        doing: &'static str,
        what: impl FnOnce() -> R,
    ) -> Result<R, ActorPanicked> {
        let guarded = || {
            self.bombs.pass(doing);
            what()
        };
        catch_unwind(AssertUnwindSafe(guarded))
            .map_err(|panic| self.panicked(self.part, doing, panic))
    }

    /// The same for a future, which is dropped if it panics.
    pub(crate) fn guarded<T, F, A>(
        self: &Arc<Self>,
        doing: &'static str,
        future: F,
        answer: A,
    ) -> impl Future<Output = T> + use<T, F, A>
    where
        F: Future<Output = T>,
        A: FnOnce(ActorPanicked) -> T,
    {
        let this = Arc::clone(self);
        async move {
            let guarded = async {
                this.bombs.pass(doing);
                future.await
            };
            match AssertUnwindSafe(guarded).catch_unwind().await {
                Ok(value) => value,
                Err(panic) => answer(this.panicked(this.part, doing, panic)),
            }
        }
    }

    /// Counts a panic and tells of it.
    pub(crate) fn panicked(
        &self,
        part: Part,
        doing: &'static str,
        panic: Box<dyn Any + Send>,
    ) -> ActorPanicked {
        let panicked = ActorPanicked::new(part, panic_message(&*panic));
        // Its own drop may panic once more; it is small.
        std::mem::forget(panic);
        self.note(&panicked, doing);
        panicked
    }

    /// Counts a panic that was caught elsewhere.
    pub(crate) fn note(&self, panicked: &ActorPanicked, doing: &'static str) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        let too_many = {
            let mut state = self.state.lock();
            state.last = Some(panicked.clone());
            let too_many = state.recent.another(Instant::now());
            state.has_given_up |= too_many;
            too_many
        };
        // Whom this tells is the application's, and may be what has panicked.
        let told = catch_unwind(AssertUnwindSafe(|| {
            metrics::counter!("lockkeeper_panics_total", "part" => panicked.part.word())
                .increment(1);
            tracing::error!(target: "lockkeeper", part = panicked.part.word(), doing, message = &*panicked.message,
                "a part of the runtime panicked");
            if too_many {
                tracing::error!(target: "lockkeeper", part = self.part.word(), most = intensity::MOST, within = ?intensity::WITHIN,
                    "too many panics: giving up");
            }
        }));
        if let Err(panic) = told {
            std::mem::forget(panic);
        }
        if too_many
            && let Some(gives_up) = self.gives_up.get()
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| gives_up(panicked)))
        {
            std::mem::forget(panic);
        }
    }
}

impl fmt::Debug for Supervision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervision")
            .field("part", &self.part)
            .field("panics", &self.panics())
            .finish_non_exhaustive()
    }
}
