//! Removing what has expired while nobody stores anything: small updates, one after the other, in the writer's queue like any.

use std::panic::Location;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{ANSWERS, AnswerStore, Answers, spec};
use crate::env::Core;
use crate::env::gate::{Entry, Shut};
use crate::env::job::{Ask, Ran, Ticket, UpdateJob, guarded};
use crate::env::shared::{Command, Question};
use crate::env::transaction::WriteTxn;
use crate::env::view::try_view;
use crate::error::{DatabaseError, Site, TxnError};

/// Most answers that one update of the sweep removes.
const AT_ONCE: usize = 64;

/// How often somebody looks: an entry outlives its window by an eighth, and by a minute at most.
fn period(window: Duration) -> Duration {
    (window / 8).clamp(Duration::from_millis(10), Duration::from_secs(60))
}

impl Core {
    /// Has the timer look for expired answers, also for those of an earlier process.
    pub(in crate::env) fn watch_answers(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        let mut opening = Opening::NotAsked;
        let period = period(self.shared.config.idempotency_window());
        self.shared.clock.every(period, move || {
            let Some(core) = weak.upgrade() else {
                return false;
            };
            opening.step(&core);
            if let Some(Ok(store)) = core.find_answers() {
                core.look_for_expired(store);
            }
            core.shared.gate.shut(Entry::Admitted) != Some(Shut::Closing)
        });
    }

    /// On the timer thread: nothing here waits.
    fn look_for_expired(self: &Arc<Self>, store: AnswerStore) {
        let mut expired = false;
        try_view(&self.shared, site(), &None, Entry::New, |txn| {
            expired = store.anything_expired(txn).unwrap_or(false);
        });
        if expired && let Some(sweep) = Sweep::begin(self, store) {
            sweep.send();
        }
    }
}

/// The database is opened if it exists; if it does not, there is nothing to be swept until somebody makes it.
enum Opening {
    NotAsked,
    Asked(oneshot::Receiver<Result<(), DatabaseError>>),
    Done,
}

impl Opening {
    fn step(&mut self, core: &Core) {
        match self {
            Self::NotAsked => {
                if let Some(answer) = ask(core) {
                    *self = Self::Asked(answer);
                }
            }
            Self::Asked(answer) => {
                if !matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                    *self = Self::Done;
                }
            }
            Self::Done => {}
        }
    }
}

fn ask(core: &Core) -> Option<oneshot::Receiver<Result<(), DatabaseError>>> {
    let (reply, answer) = oneshot::channel();
    let room = Arc::clone(&core.shared.room).try_acquire_owned().ok()?;
    let ticket = Arc::new(Ticket::new());
    let question = Question {
        ticket,
        reply,
        room,
    };
    let command = Command::Open(spec(false), question);
    core.shared.commands.try_send(command).ok()?;
    Some(answer)
}

/// One update that removes some.
struct Sweep {
    core: Weak<Core>,
    store: AnswerStore,
    removed: usize,
    /// Its place in the writer's queue, which is none of a transaction's.
    #[expect(dead_code, reason = "held, not read")]
    room: OwnedSemaphorePermit,
    #[expect(dead_code, reason = "held, not read")]
    only: Only,
}

/// There is one sweep at a time.
struct Only(Arc<Answers>);

impl Drop for Only {
    fn drop(&mut self) {
        self.0.sweeping.store(false, Ordering::Release);
    }
}

impl Sweep {
    fn begin(core: &Arc<Core>, store: AnswerStore) -> Option<Self> {
        let room = Arc::clone(&core.shared.room).try_acquire_owned().ok()?;
        if store.answers.sweeping.swap(true, Ordering::AcqRel) {
            return None;
        }
        let only = Only(Arc::clone(&store.answers));
        Some(Self {
            core: Arc::downgrade(core),
            store,
            removed: 0,
            room,
            only,
        })
    }

    fn send(self) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        let span = core.shared.config.deadline();
        let deadline = crate::clock::far(Instant::now(), span);
        let ask = Ask::new(Some(ANSWERS.into()), site(), deadline, span);
        // Refused: the keeper goes down, or has to recover. The next process, or the next look, begins again.
        drop(core.submit(ask, Box::new(self)));
    }
}

impl UpdateJob for Sweep {
    fn run(&mut self, txn: &mut WriteTxn<'_>, site: Site) -> Ran {
        let swept =
            guarded::<_, std::convert::Infallible>(site, || Ok(self.store.sweep(txn, AT_ONCE)?));
        self.removed = *swept.as_ref().unwrap_or(&0);
        match swept {
            Ok(_) => Ran::Done,
            Err(_) => Ran::Failed,
        }
    }

    fn refuse(&mut self, _: TxnError) -> Ran {
        self.removed = 0;
        Ran::Failed
    }

    fn answer(self: Box<Self>) {
        // Behind whatever has come meanwhile.
        if self.removed == AT_ONCE {
            self.send();
        }
    }

    fn fail(self: Box<Self>, error: TxnError) {
        tracing::debug!(target: "lockkeeper", %error, "expired answers were not removed");
    }
}

fn site() -> Site {
    Location::caller()
}
