//! The writer thread: every write and every change of the map, for its whole life, in the order of arrival.
//!
//! LMDB's writer mutex belongs to a thread, a map may only be resized while nobody is on it, and two openings of databases
//! must not overlap. One thread that does all of it, one thing after the other, makes each of these true by construction.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use heed::{Env, MdbError};

use crate::backoff::RetryRng;
use crate::config::page_size;
use crate::config::{Durability, OnFatal};
use crate::env::claims::Claims;
use crate::env::gate::{Closed, Occupant};
use crate::env::gather::{Gather, Grouping};
use crate::env::growth::{self, Adopt, AdoptCounter};
use crate::env::job::panic_message;
use crate::env::poison::PanicEvent;
use crate::env::registry::OpenSpec;
use crate::env::shared::{Command, Counters, Question, Shared, UpdateTask};
use crate::env::{raw, recovery};
use crate::error::{DatabaseError, EnvError, MapBusy, StorageError, TxnError};

pub(crate) struct Writer {
    pub(super) shared: Arc<Shared>,
    commands: flume::Receiver<Command>,
    /// Taken from the channel, but behind what is being done.
    waiting: VecDeque<Command>,
    gather: Gather,
    pub(super) grouping: Grouping,
    pub(super) rng: RetryRng,
    /// The views that kept the map from growing; while one of them is open nobody closes the gate for that reason again.
    blocked_by: Vec<Occupant>,
    unsynced_since: Option<Instant>,
    pub(super) meta_sync: bool,
    /// When the last body began.
    pub(super) body_began: Option<Instant>,
    stopping: bool,
    /// Who asked for a recovery while one was under way.
    pub(super) recovery_asked: Vec<Question<(), EnvError>>,
    pub(super) recovering: bool,
    /// Recovery was refused for good: only an explicit request tries again.
    pub(super) recovery_refused: bool,
    /// The fatal error that the policy was carried out for.
    handled: Option<Arc<PanicEvent>>,
    /// What keeps others from opening the same files; given back when the environment is closed.
    claims: Option<Claims>,
}

/// Whether the map could be changed.
pub(super) enum Change {
    Done,
    Refused(Refusal),
}

/// Why the map stays as it is.
#[derive(Clone)]
pub(crate) enum Refusal {
    Full {
        size: u64,
        max: u64,
    },
    Busy {
        views: Vec<Occupant>,
        waited: Duration,
    },
    Failed(StorageError),
}

impl Refusal {
    /// The error of the update, or of the explicit change (`None`), that needed it.
    pub(crate) fn error(self, update: Option<String>) -> TxnError {
        match self {
            Self::Full { size, max } => TxnError::EnvironmentFull { size, max },
            Self::Busy { views, waited } => TxnError::MapBusy(MapBusy {
                update,
                views,
                waited,
            }),
            Self::Failed(error) => TxnError::Storage(error),
        }
    }
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        commands: flume::Receiver<Command>,
        claims: Claims,
    ) -> Self {
        // Company is worth waiting for only where a commit waits for the disk.
        let gather = Gather::new(match shared.config.durability() {
            Durability::NoSync => Duration::ZERO,
            _ => shared.config.gather(),
        });
        let meta_sync = true;
        Self {
            shared,
            commands,
            waiting: VecDeque::new(),
            gather,
            grouping: Grouping::default(),
            rng: RetryRng::new(random_seed()),
            blocked_by: Vec::new(),
            unsynced_since: None,
            meta_sync,
            body_began: None,
            stopping: false,
            recovery_asked: Vec::new(),
            recovering: false,
            recovery_refused: false,
            handled: None,
            claims: Some(claims),
        }
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        while !self.stopping && !self.shared.stop.load(Ordering::Acquire) {
            let turn = catch_unwind(AssertUnwindSafe(|| self.turn()));
            if let Err(panic) = turn {
                // Nobody knows what was left half-way: the environment is opened anew, like after any fatal error.
                let message = panic_message(&*panic);
                std::mem::forget(panic);
                let error = heed::Error::Io(std::io::Error::other(format!("a panic: {message}")));
                self.shared.poison(StorageError::new("writing", error));
            }
        }
        self.shared.gate.shut_for_good();
        self.close();
        self.shared.writer_ended.store(true, Ordering::Release);
    }

    /// One command, or what is due without one.
    fn turn(&mut self) {
        if let Some(event) = self.shared.poison.event()
            && !self
                .handled
                .as_ref()
                .is_some_and(|handled| Arc::ptr_eq(handled, &event))
        {
            self.handled = Some(event);
            recovery::after_fatal(self);
            return;
        }
        let Some(command) = self.next() else {
            return;
        };
        if self.shared.poison.event().is_some() {
            self.refuse(command);
            return;
        }
        match command {
            Command::Update(task) => self.update(task),
            other => self.control(other),
        }
    }

    /// The next command; `None` when there was none for so long that something periodic is due.
    fn next(&mut self) -> Option<Command> {
        if let Some(command) = self.waiting.pop_front() {
            return Some(command);
        }
        if self.shared.poison.event().is_some() {
            if self.shared.config.on_fatal() != OnFatal::Recover || self.recovery_refused {
                return Some(self.commands.recv().unwrap_or(Command::Stop));
            }
            // What failed a moment ago may work now: the disk is there again, the last view has ended.
            return match self.commands.recv_timeout(RECOVERY_RETRY) {
                Ok(command) => Some(command),
                Err(flume::RecvTimeoutError::Disconnected) => Some(Command::Stop),
                Err(flume::RecvTimeoutError::Timeout) => {
                    recovery::after_fatal(self);
                    None
                }
            };
        }
        let Some(due) = self.sync_due() else {
            return Some(self.commands.recv().unwrap_or(Command::Stop));
        };
        match self.commands.recv_deadline(due) {
            Ok(command) if Instant::now() < due => Some(command),
            outcome => {
                if let Err(error) = self.sync() {
                    tracing::error!(target: "lockkeeper", %error, "the periodic flush failed");
                }
                outcome.ok()
            }
        }
    }

    /// When what was committed without a flush is to be flushed.
    fn sync_due(&self) -> Option<Instant> {
        let since = self.unsynced_since?;
        Some(crate::clock::far(
            since,
            self.shared.config.flush_interval(),
        ))
    }

    /// Collects a batch behind `first` and commits it.
    fn update(&mut self, first: UpdateTask) {
        let most = self.shared.config.batch();
        let mut batch = vec![first];
        self.take_queued(&mut batch, most);
        let before = batch.len();
        if self.waiting.is_empty()
            && let Some((expected, limit)) = self.gather.wait_for(before)
        {
            let expected = expected.min(most);
            let until = Instant::now() + limit;
            // Yielding, not parking: a parked receiver would cost each sender a system call.
            while before + self.commands.len() < expected && Instant::now() < until {
                thread::yield_now();
            }
            self.take_queued(&mut batch, most);
            self.gather.waited(before, batch.len());
        }
        self.shared
            .counters
            .queued
            .fetch_sub(batch.len(), Ordering::Relaxed);
        let bodies = batch.len();
        let started = Instant::now();
        self.run_batch(batch);
        tracing::trace!(target: "lockkeeper", bodies, elapsed = ?started.elapsed(), "batch");
        self.gather.answered(bodies, self.commands.len());
        if self.shared.config.durability() == Durability::NoSync && self.unsynced_since.is_none() {
            self.unsynced_since = Some(Instant::now());
        }
        self.grow_ahead();
    }

    /// Takes updates from the queue, up to the first command that is something else.
    fn take_queued(&mut self, batch: &mut Vec<UpdateTask>, most: usize) {
        while batch.len() < most {
            let next = match self.waiting.pop_front() {
                Some(next) => Ok(next),
                None => self.commands.try_recv(),
            };
            match next {
                Ok(Command::Update(task)) => batch.push(task),
                Ok(other) => {
                    self.waiting.push_front(other);
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn control(&mut self, command: Command) {
        match command {
            Command::Update(task) => self.update(task),
            Command::Open(spec, question) if question.begin() => {
                let outcome = self.open_database(&spec);
                question.answer(outcome);
            }
            Command::Clear(name, question) if question.begin() => {
                let outcome = self.empty_database(&name, false);
                question.answer(outcome);
            }
            Command::Delete(name, question) if question.begin() => {
                let outcome = self.empty_database(&name, true);
                question.answer(outcome);
            }
            Command::Resize => self.resize(),
            Command::GrowAhead(question) if question.begin() => {
                self.grow_ahead();
                question.answer(Ok(()));
            }
            Command::Adopt(seen, question) if question.begin() => {
                let outcome = if self.shared.generation.load(Ordering::Acquire) == seen {
                    self.adopt()
                } else {
                    Ok(())
                };
                question.answer(outcome);
            }
            Command::Sync(question) if question.begin() => {
                let outcome = self.sync();
                question.answer(outcome);
            }
            // Nothing is wrong.
            Command::Recover(question) => question.answer(Ok(())),
            // Whoever asked has given up.
            Command::Open(..)
            | Command::Clear(..)
            | Command::Delete(..)
            | Command::GrowAhead(_)
            | Command::Adopt(..)
            | Command::Sync(_)
            | Command::Fatal => {}
            Command::Stop => self.stopping = true,
        }
    }

    /// Answers a command that came after a fatal error.
    pub(super) fn refuse(&mut self, command: Command) {
        match command {
            Command::Recover(question) if self.recovering => self.recovery_asked.push(question),
            Command::Recover(question) => {
                let outcome = recovery::recover(self);
                question.answer(outcome);
            }
            Command::Stop => self.stopping = true,
            other => {
                let shared = Arc::clone(&self.shared);
                shared.turn_away(other, || shared.recovery_needed());
            }
        }
    }

    fn take_one(&mut self) -> Option<Command> {
        self.waiting
            .pop_front()
            .or_else(|| self.commands.try_recv().ok())
    }

    /// Refuses everything that is queued right now.
    pub(super) fn refuse_queued(&mut self) {
        while self.shared.poison.event().is_some()
            && !self.is_stopping()
            && let Some(command) = self.take_one()
        {
            self.refuse(command);
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping || self.shared.stop.load(Ordering::Acquire)
    }

    /// At the end: everything that is still queued is answered.
    fn drain(&mut self) {
        while let Some(command) = self.take_one() {
            self.shared.turn_away(command, || TxnError::ShuttingDown);
        }
    }

    /// Flushes what no commit has flushed and closes the environment once the last view has ended.
    fn close(&mut self) {
        if self.unsynced_since.is_some()
            && self.shared.poison.event().is_none()
            && let Err(error) = self.sync()
        {
            tracing::error!(target: "lockkeeper", %error, "the last flush failed");
        }
        while !self.shared.gate.is_empty() {
            self.drain();
            thread::sleep(Duration::from_micros(200));
        }
        recovery::drop_env(&self.shared);
        self.claims = None;
        // Whoever looked at the gate before it was shut may still be sending.
        while self.shared.sending.load(Ordering::SeqCst) > 0 {
            self.drain();
            thread::yield_now();
        }
        self.drain();
    }

    /// The environment, unless it is poisoned: a failed resize has unmapped it, and nobody may look.
    pub(super) fn env(&self) -> Result<Arc<Env>, TxnError> {
        if self.shared.poison.event().is_some() {
            return Err(self.shared.recovery_needed());
        }
        self.shared
            .env
            .load_full()
            .ok_or_else(|| self.shared.recovery_needed())
    }

    fn sync(&mut self) -> Result<(), EnvError> {
        let env = self.env()?;
        match env.force_sync() {
            Ok(()) => {
                self.unsynced_since = None;
                Ok(())
            }
            Err(error) => {
                // The kernel has marked the pages clean: trying again would prove nothing.
                let error = StorageError::new("flush", error);
                self.shared.poison(error.clone());
                Err(self.shared.recovery_needed().into())
            }
        }
    }

    fn open_database(&mut self, spec: &OpenSpec) -> Result<(), DatabaseError> {
        let mut adoption = self.adoption();
        loop {
            let env = self.env()?;
            let shared = Arc::clone(&self.shared);
            let alone = shared.exclude_views(crate::clock::far(
                Instant::now(),
                self.shared.config.deadline(),
            ))?;
            self.restore_meta_sync(&env);
            let outcome = self.shared.registry.open(&env, spec);
            drop(alone);
            let error = match outcome {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(DatabaseError::NoSuchDatabase { name: spec.label() }),
                Err(error) => error,
            };
            match error {
                heed::Error::Mdb(MdbError::DbsFull) => {
                    return Err(DatabaseError::TooMany {
                        name: spec.label(),
                        max: self.shared.config.max_databases(),
                    });
                }
                heed::Error::Mdb(MdbError::Incompatible) => {
                    return Err(DatabaseError::Incompatible { name: spec.label() });
                }
                heed::Error::Mdb(MdbError::BadValSize) => {
                    return Err(DatabaseError::BadName {
                        len: spec.label().len(),
                    });
                }
                error => self.overcome(error, "opening a database", &mut adoption)?,
            }
        }
    }

    /// Clears a database, or deletes it; answers the number of entries it had.
    fn empty_database(&mut self, name: &Arc<str>, delete: bool) -> Result<u64, DatabaseError> {
        let spec = OpenSpec::any(name);
        // It has to be open to be cleared, under whatever types.
        self.open_database(&spec)?;
        let mut adoption = self.adoption();
        loop {
            let env = self.env()?;
            let until = crate::clock::far(Instant::now(), self.shared.config.resize_timeout());
            // A handle must not go while anybody might use it.
            let shared = Arc::clone(&self.shared);
            let closed = if delete {
                Some(shared.close_gate(until).map_err(|busy| busy.error(None))?)
            } else {
                shared.exclude_views(until)?
            };
            self.restore_meta_sync(&env);
            let outcome = self.shared.registry.empty(&env, name, delete);
            drop(closed);
            match outcome {
                Ok(entries) => return Ok(entries),
                Err(error) => {
                    let doing = if delete {
                        "deleting a database"
                    } else {
                        "clearing a database"
                    };
                    self.overcome(error, doing, &mut adoption)?;
                }
            }
        }
    }

    /// The last batch may have left out the flush of the meta page; what is not a transaction gets the environment's durability.
    fn restore_meta_sync(&mut self, env: &Env) {
        let wanted = self.shared.config.durability() == Durability::Full;
        if wanted && !self.meta_sync && raw::set_meta_sync(env, true).is_ok() {
            self.meta_sync = true;
        }
    }

    pub(super) fn adoption(&self) -> AdoptCounter {
        AdoptCounter::new(
            self.shared.config.adopt_retries(),
            self.shared.config.adopt_backoff().clone(),
        )
    }

    /// Does what makes trying again worthwhile, or answers why it is not.
    pub(super) fn overcome(
        &mut self,
        error: heed::Error,
        doing: &'static str,
        adoption: &mut AdoptCounter,
    ) -> Result<(), TxnError> {
        match error {
            heed::Error::Mdb(MdbError::MapFull) => match self.grow() {
                Change::Done => Ok(()),
                Change::Refused(refusal) => Err(refusal.error(Some(doing.into()))),
            },
            heed::Error::Mdb(MdbError::MapResized) => self.adopt_again(adoption),
            error if is_fatal(&error) => {
                self.shared.poison(StorageError::new(doing, error));
                Err(self.shared.recovery_needed())
            }
            error => Err(TxnError::Storage(StorageError::new(doing, error))),
        }
    }

    /// Another process has grown the map: adopts its size, a bounded number of times in a row.
    pub(super) fn adopt_again(&mut self, adoption: &mut AdoptCounter) -> Result<(), TxnError> {
        let ours = self.shared.map_size.load(Ordering::Acquire);
        let theirs = recovery::size_in_file(&self.shared).unwrap_or(ours);
        let pause = match adoption.changed(ours, theirs, self.rng.next_unit()) {
            Adopt::Retry { after } => after,
            Adopt::GiveUp(failed) => {
                return Err(TxnError::MapChanging {
                    attempts: failed.attempts,
                    ours,
                    theirs,
                });
            }
        };
        thread::sleep(pause);
        self.adopt()
    }

    fn adopt(&mut self) -> Result<(), TxnError> {
        match self.change_unless_blocked(0) {
            Change::Done => {
                Counters::add(&self.shared.counters.resizes_adopted, 1);
                metrics::counter!("lockkeeper_map_adoptions_total").increment(1);
                Ok(())
            }
            Change::Refused(refusal) => Err(refusal.error(None)),
        }
    }

    /// Changes the map for a transaction that needs it, unless views that were in the way of one before are still open (I14).
    fn change_unless_blocked(&mut self, bytes: u64) -> Change {
        if let Some(views) = self.still_blocked() {
            return Change::Refused(Refusal::Busy {
                views,
                waited: Duration::ZERO,
            });
        }
        let until = crate::clock::far(Instant::now(), self.shared.config.resize_timeout());
        let change = self.change_map(bytes, until);
        if let Change::Refused(Refusal::Busy { views, .. }) = &change {
            self.blocked_by.clone_from(views);
        }
        change
    }

    /// One larger map, by the policy.
    pub(super) fn grow(&mut self) -> Change {
        Counters::add(&self.shared.counters.map_fulls, 1);
        let size = self.shared.map_size.load(Ordering::Acquire);
        let max = self.shared.config.max_map_size();
        match self.next_size(size) {
            Some(next) => self.change_unless_blocked(next),
            None => Change::Refused(Refusal::Full { size, max }),
        }
    }

    fn next_size(&self, size: u64) -> Option<u64> {
        growth::next_size(
            self.shared.config.growth(),
            size,
            size.saturating_add(1),
            self.shared.config.max_map_size(),
            page_size(),
        )
    }

    /// The views that kept the map from growing and are still open.
    fn still_blocked(&mut self) -> Option<Vec<Occupant>> {
        self.blocked_by
            .retain_mut(|view| self.shared.gate.refresh(view));
        (!self.blocked_by.is_empty()).then(|| self.blocked_by.clone())
    }

    /// A larger map before it is needed, if nobody is in the way right now.
    fn grow_ahead(&mut self) {
        let percent = self.shared.config.grow_ahead();
        let Ok(env) = self.env() else { return };
        let info = env.info();
        let used = (info.last_page_number as u64 + 1) * page_size();
        if !growth::should_grow_ahead(used, info.map_size as u64, percent) {
            return;
        }
        let Some(next) = self.next_size(info.map_size as u64) else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        if let Some(closed) = shared.gate.try_close() {
            self.change_closed(&env, next, &closed);
        }
    }

    /// Changes the size of the map; 0 adopts the one in the file.
    fn change_map(&mut self, bytes: u64, until: Instant) -> Change {
        let env = match self.env() {
            Ok(env) => env,
            Err(error) => {
                tracing::debug!(target: "lockkeeper", %error, "no map to change");
                return Change::Refused(Refusal::Full { size: 0, max: 0 });
            }
        };
        let shared = Arc::clone(&self.shared);
        let begun = Instant::now();
        match shared.gate.close(until) {
            Ok(closed) => self.change_closed(&env, bytes, &closed),
            Err(views) => {
                tracing::warn!(target: "lockkeeper", views = views.len(), oldest = %views.first().map(ToString::to_string).unwrap_or_default(),
                    "the map cannot change: views are open");
                Change::Refused(Refusal::Busy {
                    views,
                    waited: begun.elapsed(),
                })
            }
        }
    }

    fn change_closed(&mut self, env: &Env, bytes: u64, closed: &Closed<'_>) -> Change {
        let from = self.shared.map_size.load(Ordering::Acquire);
        let span =
            tracing::info_span!(target: "lockkeeper", "resize", from, to = tracing::field::Empty);
        let _entered = span.enter();
        let Ok(size) = usize::try_from(bytes) else {
            return Change::Refused(Refusal::Full {
                size: from,
                max: usize::MAX as u64,
            });
        };
        if let Err(error) = raw::resize(env, size, closed) {
            // LMDB has unmapped the file: nothing may touch it until it has been opened anew.
            let error = StorageError::new("changing the size of the map", error);
            self.shared.poison(error.clone());
            return Change::Refused(Refusal::Failed(error));
        }
        let to = env.info().map_size as u64;
        self.shared.map_size.store(to, Ordering::Release);
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        span.record("to", to);
        if bytes != 0 {
            Counters::add(&self.shared.counters.map_resizes, 1);
            metrics::counter!("lockkeeper_map_resizes_total").increment(1);
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("lockkeeper_map_bytes").set(to as f64);
        Change::Done
    }

    /// All requests that are there at once are one change: the largest wins.
    fn resize(&mut self) {
        let mut requests = std::mem::take(&mut *self.shared.sizes.lock());
        requests.retain(|request| request.question.begin());
        let Some(asked) = requests.iter().map(|request| request.bytes).max() else {
            return;
        };
        let until = requests.iter().map(|request| request.until).max();
        let outcome = self.resize_to(asked, until.unwrap_or_else(Instant::now));
        let size = self.shared.map_size.load(Ordering::Acquire);
        for request in requests {
            let answer = match &outcome {
                Ok(()) => Ok(size),
                Err(Ok(refusal)) => Err(EnvError::Txn(refusal.clone().error(None))),
                Err(Err(why)) => Err(EnvError::BadSize {
                    asked: request.bytes,
                    why: why.clone(),
                }),
            };
            request.question.answer(answer);
        }
    }

    fn resize_to(&mut self, asked: u64, until: Instant) -> Result<(), Result<Refusal, String>> {
        let page = page_size();
        let max = self.shared.config.max_map_size();
        let bytes = asked.div_ceil(page).saturating_mul(page);
        if bytes > max {
            return Err(Err(format!("`max_map_size` is {max}")));
        }
        let env = self.env().map_err(|error| Err(error.to_string()))?;
        let used = (env.info().last_page_number as u64 + 1) * page;
        if bytes < used {
            return Err(Err(format!("{used} bytes are in use")));
        }
        if bytes == self.shared.map_size.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.change_map(bytes, until) {
            Change::Done => Ok(()),
            Change::Refused(refusal) => Err(Ok(refusal)),
        }
    }
}

/// How long a failed recovery is left alone before it is tried again.
const RECOVERY_RETRY: Duration = Duration::from_millis(500);

/// Whether LMDB can go on after this error.
pub(crate) fn is_fatal(error: &heed::Error) -> bool {
    const EIO: i32 = 5;
    match error {
        heed::Error::Mdb(error) => matches!(
            error,
            MdbError::Panic | MdbError::Corrupted | MdbError::PageNotFound
        ),
        heed::Error::Io(error) => error.raw_os_error() == Some(EIO),
        _ => false,
    }
}

pub(crate) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}
