//! Views: in place on the caller's thread, and on reader threads for those that take long or find no reader slot.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use heed::MdbError;

use crate::clock::block_on;
use crate::env::gate::{Entry, Shut};
use crate::env::growth::{Adopt, AdoptCounter};
use crate::env::inside::{self, BodyKind};
use crate::env::job::{Ask, ViewJob, quietly};
use crate::env::shared::{Command, Shared, ViewTask};
use crate::env::transaction::ReadTxn;
use crate::env::writer::is_fatal;
use crate::error::{Name, Part, Site, Stage, StorageError, TxnError};

/// What came of one try to run a view.
pub(crate) enum Tried {
    Ran,
    /// The gate is shut for a change of the map: wait for it.
    Changing,
    /// This thread has no reader slot and gets none.
    NoSlot,
    /// Another process has changed the map; the generation that saw it.
    Resized(u64),
    Refused(TxnError),
}

/// Enters the gate, takes a snapshot and runs `body` on it.
#[inline]
pub(crate) fn try_view(
    shared: &Shared,
    site: Site,
    name: &Name,
    entry: Entry,
    body: impl FnOnce(&ReadTxn<'_>),
) -> Tried {
    if shared.forked() {
        return Tried::Refused(TxnError::Forked);
    }
    if let Some(outer_site) = inside::update(shared.id) {
        return Tried::Refused(TxnError::NestedTransaction {
            outer: BodyKind::Update,
            outer_site,
        });
    }
    let entered = match shared.gate.enter(shared.id, site, name.as_ref(), entry) {
        Ok(entered) => entered,
        Err(Shut::Changing) => return Tried::Changing,
        Err(Shut::Poisoned) => return Tried::Refused(shared.recovery_needed()),
        Err(Shut::Closing) => return Tried::Refused(TxnError::ShuttingDown),
        Err(Shut::Inside(outer_site)) => {
            return Tried::Refused(TxnError::NestedTransaction {
                outer: BodyKind::View,
                outer_site,
            });
        }
    };
    let env = shared.env.load();
    let Some(env) = env.as_ref() else {
        return Tried::Refused(shared.recovery_needed());
    };
    let scope = shared.scope();
    let generation = shared.generation.load(Ordering::Acquire);
    let txn = match env.read_txn() {
        Ok(txn) => txn,
        Err(heed::Error::Mdb(MdbError::ReadersFull)) => return Tried::NoSlot,
        Err(heed::Error::Mdb(MdbError::MapResized)) => return Tried::Resized(generation),
        Err(error) => {
            drop(entered);
            return Tried::Refused(broken(shared, "beginning a view", error, generation));
        }
    };
    let view = ReadTxn::new(&txn, scope, &shared.registry);
    body(&view);
    let fatal = view.fatal();
    drop(txn);
    drop(entered);
    if let Some(error) = fatal {
        shared.report_fatal(error, generation);
    }
    Tried::Ran
}

/// An error of LMDB's that no body caused.
#[cold]
fn broken(shared: &Shared, doing: &'static str, error: heed::Error, generation: u64) -> TxnError {
    let fatal = is_fatal(&error);
    let error = StorageError::new(doing, error);
    if fatal {
        shared.report_fatal(error, generation);
        return shared.recovery_needed();
    }
    TxnError::Storage(error)
}

/// How the tries of one view are counted.
pub(crate) struct Tries<'s> {
    shared: &'s Shared,
    adoption: AdoptCounter,
}

impl<'s> Tries<'s> {
    pub(crate) fn new(shared: &'s Shared) -> Self {
        Self {
            shared,
            adoption: AdoptCounter::new(
                shared.config.adopt_retries(),
                shared.config.adopt_backoff().clone(),
            ),
        }
    }

    /// Asks the writer to adopt the size that another process gave the map.
    pub(crate) async fn adopt(
        &mut self,
        seen: u64,
        deadline: Instant,
        span: Duration,
    ) -> Result<(), TxnError> {
        let out_of_time = || TxnError::DeadlineExceeded {
            deadline: span,
            stage: Stage::WaitedForGate,
        };
        let ours = self.shared.map_size.load(Ordering::Acquire);
        let theirs = super::recovery::size_in_file(self.shared).unwrap_or(ours);
        let after = match self.adoption.changed(ours, theirs, random_unit()) {
            Adopt::Retry { after } => after,
            Adopt::GiveUp(failed) => {
                return Err(TxnError::MapChanging {
                    attempts: failed.attempts,
                    ours,
                    theirs,
                });
            }
        };
        let wake = Instant::now() + after;
        if wake >= deadline {
            return Err(out_of_time());
        }
        self.shared.clock.sleep_until(wake).await;
        let adopted = self
            .shared
            .ask_writer(Entry::Admitted, |question| Command::Adopt(seen, question));
        match self.shared.clock.until(deadline, adopted).await {
            Some(outcome) => outcome,
            None => Err(out_of_time()),
        }
    }
}

fn random_unit() -> f64 {
    crate::backoff::RetryRng::new(super::writer::random_seed()).next_unit()
}

/// A reader thread: runs views that were sent to it, one after the other, until it is told to end.
pub(crate) fn reader(shared: &Arc<Shared>, tasks: &flume::Receiver<Option<ViewTask>>) {
    // Claims this thread's reader slot while there are some.
    let _ = try_view(
        shared,
        std::panic::Location::caller(),
        &None,
        Entry::New,
        |_| {},
    );
    while let Ok(Some(task)) = tasks.recv() {
        let ViewTask { mut ask, mut job } = task;
        if !ask.ticket.start() {
            continue;
        }
        let served = catch_unwind(AssertUnwindSafe(|| serve(shared, &ask, &mut *job)));
        let failure = served.unwrap_or_else(|panic| {
            let supervision = &shared.supervision;
            let panicked = supervision.panicked(Part::Reader, "a view", panic);
            Some(TxnError::ActorPanicked(panicked))
        });
        ask.let_go();
        quietly(|| match failure {
            None => job.answer(),
            Some(error) => job.fail(error),
        });
    }
    let mut others = 0;
    while let Ok(task) = tasks.try_recv() {
        match task {
            Some(mut task) => {
                task.ask.let_go();
                quietly(|| task.job.fail(TxnError::ShuttingDown));
            }
            None => others += 1,
        }
    }
    // Those were for other readers, who would wait for them for ever.
    for _ in 0..others {
        let _ = shared.views.try_send(None);
    }
}

/// Runs one view; or answers why that cannot be.
fn serve(shared: &Arc<Shared>, ask: &Ask, job: &mut dyn ViewJob) -> Option<TxnError> {
    let mut tries = Tries::new(shared);
    let trace = ask.trace.clone();
    let _trace = trace.enter();
    let traced = !ask.trace.is_disabled();
    shared.supervision.bombs.pass("a view on a reader thread");
    loop {
        if ask.ticket.given_up() {
            return None;
        }
        let tried = try_view(shared, ask.site, &ask.name, ask.entry(), |txn| {
            let began = traced.then(Instant::now);
            job.run(txn, ask.site);
            if let Some(began) = began {
                ask.ran(began, Instant::now());
            }
        });
        match tried {
            Tried::Ran => return None,
            Tried::Changing => {
                let opened = shared.clock.until(ask.deadline, shared.gate.opened());
                if block_on(opened).is_none() {
                    return Some(TxnError::DeadlineExceeded {
                        deadline: ask.span,
                        stage: Stage::WaitedForGate,
                    });
                }
            }
            Tried::NoSlot => {
                if Instant::now() >= ask.deadline {
                    return Some(TxnError::ReadersFull {
                        max: shared.config.max_readers(),
                    });
                }
                shared.clear_stale_readers();
                thread::sleep(SLOT_RETRY);
            }
            Tried::Resized(seen) => {
                if let Err(error) = block_on(tries.adopt(seen, ask.deadline, ask.span)) {
                    return Some(error);
                }
            }
            Tried::Refused(error) => return Some(error),
        }
    }
}

/// A slot becomes free when a thread or a process ends, which nobody announces.
pub(super) const SLOT_RETRY: Duration = Duration::from_millis(2);
