//! The writer thread: every write and every change of the map, for its whole life, in the order of arrival.
//!
//! LMDB's writer mutex belongs to a thread, a map may only be resized while nobody is on it, and two openings of databases
//! must not overlap. One thread that does all of it, one thing after the other, makes each of these true by construction.

mod collecting;

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use heed::{Env, MdbError};

use crate::backoff::RetryRng;
use crate::config::{Durability, OnFatal};
use crate::env::claims::Claims;
use crate::env::gate::Occupant;
use crate::env::gather::{Gather, Grouping};
use crate::env::job::quietly;
use crate::env::outside::UNKNOWN;
use crate::env::poison::PanicEvent;
use crate::env::registry::OpenSpec;
use crate::env::reserved::is_reserved;
use crate::env::shared::{Command, Question, Shared};
use crate::env::{raw, recovery};
use crate::error::{ActorPanicked, DatabaseError, EnvError, Part, StorageError, TxnError};

pub(crate) struct Writer {
    pub(super) shared: Arc<Shared>,
    commands: flume::Receiver<Command>,
    /// Taken from the channel, but behind what is being done.
    waiting: VecDeque<Command>,
    gather: Gather,
    pub(super) grouping: Grouping,
    pub(super) rng: RetryRng,
    /// The views that kept the map from growing; while one of them is open nobody closes the gate for that reason again.
    pub(super) blocked_by: Vec<Occupant>,
    unsynced_since: Option<Instant>,
    pub(super) meta_sync: bool,
    /// The last commit that is accounted for: see [`Writer::look_outside`].
    pub(super) accounted: u64,
    /// A body that ran before in the transaction has written what no record lock announced.
    pub(super) outside_wrote: bool,
    /// The keeper's record could not be written in this batch.
    pub(super) recordless: bool,
    /// The map was too small for the keeper's record, or for a commit with it.
    pub(super) record_in_the_way: bool,
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
            accounted: UNKNOWN,
            outside_wrote: false,
            recordless: false,
            record_in_the_way: false,
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
                self.after_panic("a turn of the writer", panic);
            }
        }
        self.shared.gate.shut_for_good();
        // Each step also if the one before panicked: whoever waits is answered, and the folder can be opened again.
        for step in [Self::close, Self::drop_all, Self::drain] {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| step(&mut self))) {
                self.after_panic("the end of the writer", panic);
            }
        }
        self.shared.writer_ended.store(true, Ordering::Release);
    }

    /// Nobody knows what was left half-way: the environment is opened anew, like after any fatal error.
    pub(super) fn after_panic(&mut self, doing: &'static str, panic: Box<dyn Any + Send>) {
        let shared = Arc::clone(&self.shared);
        let panicked = shared.supervision.panicked(Part::Writer, doing, panic);
        // The batch is gone: nobody must be told that its body keeps the writer.
        *shared.running.lock() = None;
        shared.counters.in_batch.store(0, Ordering::Relaxed);
        self.recovering = false;
        quietly(|| shared.poison(writer_panicked(&panicked)));
        for asked in std::mem::take(&mut self.recovery_asked) {
            quietly(|| asked.answer(Err(shared.recovery_needed().into())));
        }
    }

    /// One command, or what is due without one.
    fn turn(&mut self) {
        self.shared.supervision.bombs.pass("a turn of the writer");
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
        if self.shared.poison.event().is_none() && self.held_is_due() {
            self.update(None);
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
            Command::Update(task) => self.update(Some(task)),
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
        let sync_due = self.sync_due();
        let held = self.shared.first.due();
        self.shared.first.tell(held.is_some());
        // Again, since the last attempt may have ended before it was asked to tell.
        let held_due = held.and_then(|_| self.shared.first.due());
        let Some(due) = sync_due.into_iter().chain(held_due).min() else {
            return Some(self.commands.recv().unwrap_or(Command::Stop));
        };
        let outcome = self.commands.recv_deadline(due);
        if sync_due.is_some_and(|due| due <= Instant::now())
            && let Err(error) = self.sync()
        {
            tracing::error!(target: "lockkeeper", %error, "the periodic flush failed");
        }
        outcome.ok()
    }

    /// When what was committed without a flush is to be flushed.
    fn sync_due(&self) -> Option<Instant> {
        let since = self.unsynced_since?;
        Some(crate::clock::far(
            since,
            self.shared.config.flush_interval(),
        ))
    }

    fn control(&mut self, command: Command) {
        if matches!(
            command,
            Command::Clear(..) | Command::Delete(..) | Command::Stop
        ) {
            self.let_all_go();
        }
        match command {
            Command::Update(task) => self.update(Some(task)),
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
            | Command::LookAgain
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
        let held = self.shared.first.let_go().map(Command::Update);
        held.or_else(|| self.waiting.pop_front())
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
        self.shared
            .supervision
            .bombs
            .pass("closing the environment");
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
        self.drop_all();
        // Whoever looked at the gate before it was shut may still be sending.
        while self.shared.sending.load(Ordering::SeqCst) > 0 {
            self.drain();
            thread::yield_now();
        }
        self.drain();
    }

    /// Closes the environment, if that has not been done.
    fn drop_all(&mut self) {
        recovery::drop_env(&self.shared);
        self.claims = None;
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

    pub(super) fn open_database(&mut self, spec: &OpenSpec) -> Result<(), DatabaseError> {
        // LMDB has room for those of the keeper's own, too.
        let max = self.shared.config.max_databases();
        let others = spec.name.as_ref().is_some_and(|name| !is_reserved(name));
        let registry = &self.shared.registry;
        if others && !registry.is_open(&spec.name) && registry.open_count() >= max {
            return Err(DatabaseError::TooMany {
                name: spec.label(),
                max,
            });
        }
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
                        max,
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
}

/// What everybody is told from then on.
fn writer_panicked(panicked: &ActorPanicked) -> StorageError {
    let error = std::io::Error::other(format!("a panic: {}", panicked.message));
    StorageError::new("writing", heed::Error::Io(error))
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
