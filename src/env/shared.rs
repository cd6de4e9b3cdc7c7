//! What the writer, the readers, the callers and the actor of one environment share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::clock::Clock;
use crate::config::Config;
use crate::env::answers::Answers;
use crate::env::first::First;
use crate::env::gate::{self, Closed, Entry, Gate, Shut};
use crate::env::inside::{self, BodyKind};
use crate::env::job::{Ask, Ticket, UpdateJob, ViewJob, Waiting, quietly};
use crate::env::map::Refusal;
use crate::env::outside::Outside;
use crate::env::poison::{PanicEvent, Poison};
use crate::env::registry::{OpenSpec, Registry};
use crate::env::snapshot::Holders;
use crate::env::transaction::Scope;
use crate::env::{EnvId, raw};
use crate::error::{
    DatabaseError, EnvError, Name, Part, Site, Stage, StorageError, TxnError, body_name, brief,
};
use crate::supervision::Supervision;

pub(crate) struct Shared {
    pub id: EnvId,
    pub path: PathBuf,
    pub config: Config,
    pub gate: Gate,
    /// The environment; none while it is being recovered, and after the end.
    pub env: ArcSwapOption<heed::Env>,
    pub registry: Registry,
    pub poison: Poison,
    pub clock: Clock,
    pub commands: flume::Sender<Command>,
    /// Places for commands that are no transactions, so that they take none from those.
    pub room: Arc<Semaphore>,
    pub views: flume::Sender<Option<ViewTask>>,
    /// The snapshots held over awaits.
    pub holders: Holders,
    pub sizes: Mutex<Vec<SizeRequest>>,
    /// The body that the writer is running.
    pub running: Mutex<Option<Running>>,
    pub map_size: AtomicU64,
    /// Grows with each change of the map.
    pub generation: AtomicU64,
    pub counters: Counters,
    /// Callers between their look at the gate and the end of their send; the writer ends only when there are none.
    pub sending: AtomicUsize,
    /// The writer is to end, also if its queue has no room for a command that says so.
    pub stop: AtomicBool,
    pub writer_ended: AtomicBool,
    /// The data file, by device and inode.
    pub file: Option<(u64, u64)>,
    /// The id of the last transaction that was committed here.
    pub last_committed: AtomicU64,
    pub outside: Outside,
    pub first: First,
    /// The answers that are stored for transactions with a key.
    pub answers: Arc<Answers>,
    /// Of the actor and of the threads.
    pub supervision: Arc<Supervision>,
    forks: u32,
    max_key: usize,
}

/// A body that is running on the writer thread.
#[derive(Clone)]
pub(crate) struct Running {
    pub name: Name,
    pub site: Site,
    pub since: Instant,
    pub deadline: Instant,
    pub reported: bool,
}

/// For the writer thread, in the order of arrival.
pub(crate) enum Command {
    Update(UpdateTask),
    Open(OpenSpec, Question<(), DatabaseError>),
    Clear(Arc<str>, Question<u64, DatabaseError>),
    Delete(Arc<str>, Question<u64, DatabaseError>),
    /// There is something in [`Shared::sizes`].
    Resize,
    /// Make room before a copy.
    GrowAhead(Question<(), TxnError>),
    /// Another process has changed the size of the map; the generation is the one that saw it.
    Adopt(u64, Question<(), TxnError>),
    Sync(Question<(), EnvError>),
    /// A view has met a fatal error: look at the poison.
    Fatal,
    Recover(Question<(), EnvError>),
    /// No attempt goes first any more: what was held back for it can go on.
    LookAgain,
    /// Answer what is queued behind this with [`TxnError::ShuttingDown`], close the environment and end.
    Stop,
}

/// The most commands in flight that are no transactions: openings, changes of the map, flushes.
pub(crate) const CONTROL_ROOM: usize = 256;

/// A command's way back to whoever asked. If that one has given up, the command is not carried out.
pub(crate) struct Question<T, E> {
    pub ticket: Arc<Ticket>,
    pub reply: oneshot::Sender<Result<T, E>>,
    /// Its place among the commands, kept until it is answered.
    #[expect(dead_code, reason = "held, not read")]
    pub room: OwnedSemaphorePermit,
}

impl<T, E> Question<T, E> {
    /// Whether it is still to be done; from here on it cannot be taken back.
    pub(crate) fn begin(&self) -> bool {
        !self.reply.is_closed()
            && self.ticket.start()
            && self.ticket.returned()
            && self.ticket.begin_commit()
    }

    pub(crate) fn answer(self, answer: Result<T, E>) {
        // Whoever went away wants none.
        drop(self.reply.send(answer));
    }
}

pub(crate) struct UpdateTask {
    pub ask: Ask,
    pub job: Box<dyn UpdateJob>,
}

pub(crate) struct ViewTask {
    pub ask: Ask,
    pub job: Box<dyn ViewJob>,
}

/// Somebody wants a map of another size.
pub(crate) struct SizeRequest {
    pub bytes: u64,
    /// How long it waits for the transactions in the way.
    pub until: Instant,
    pub question: Question<u64, EnvError>,
}

/// What is counted, and when: see [`EnvStats`](crate::EnvStats).
#[derive(Default)]
pub(crate) struct Counters {
    pub batches: AtomicU64,
    pub commits: AtomicU64,
    pub bodies: AtomicU64,
    pub bodies_rerun: AtomicU64,
    pub bodies_failed: AtomicU64,
    pub map_resizes: AtomicU64,
    pub resizes_adopted: AtomicU64,
    pub map_fulls: AtomicU64,
    pub stalls: AtomicU64,
    pub poisonings: AtomicU64,
    pub recoveries: AtomicU64,
    pub stale_readers: AtomicU64,
    pub views_shipped: AtomicU64,
    pub queued: AtomicUsize,
    /// Updates of the current batch that have not been answered.
    pub in_batch: AtomicUsize,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

impl Shared {
    #[expect(
        clippy::too_many_arguments,
        reason = "made once, from what `open` has at hand"
    )]
    pub(crate) fn new(
        id: EnvId,
        path: PathBuf,
        config: Config,
        env: heed::Env,
        poison: Poison,
        clock: Clock,
        commands: flume::Sender<Command>,
        views: flume::Sender<Option<ViewTask>>,
        file: Option<(u64, u64)>,
    ) -> Self {
        let map_size = env.info().map_size as u64;
        let answers = Arc::new(Answers::new(config.idempotency_window()));
        let max_key = env.max_key_size();
        let holders = Holders::new(&config);
        Self {
            id,
            path,
            config,
            gate: Gate::new(),
            env: ArcSwapOption::from_pointee(env),
            registry: Registry::new(),
            poison,
            clock,
            commands,
            room: Arc::new(Semaphore::new(CONTROL_ROOM)),
            views,
            holders,
            sizes: Mutex::default(),
            running: Mutex::default(),
            map_size: AtomicU64::new(map_size),
            generation: AtomicU64::new(0),
            counters: Counters::default(),
            sending: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            writer_ended: AtomicBool::new(false),
            file,
            last_committed: AtomicU64::new(0),
            outside: Outside::default(),
            first: First::default(),
            answers,
            supervision: Supervision::of(Part::Environment),
            forks: raw::forks(),
            max_key,
        }
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope {
            env: self.id,
            epoch: self.registry.epoch(),
            opened: self.registry.opened(),
            max_key: self.max_key,
        }
    }

    pub(crate) fn max_key(&self) -> usize {
        self.max_key
    }

    /// The child of a fork must not use the environment.
    #[inline]
    pub(crate) fn forked(&self) -> bool {
        raw::forks() != self.forks
    }

    /// Why nothing can be begun, if so. A gate that is shut for a change of the map is not a reason: that is waited for.
    pub(crate) fn refusal(&self, entry: Entry) -> Option<TxnError> {
        if self.forked() {
            return Some(TxnError::Forked);
        }
        // Nearly always it is open.
        self.gate.shut(entry)?;
        match self.gate.shut(gate::served(self.id, entry))? {
            Shut::Changing => None,
            Shut::Poisoned => Some(self.recovery_needed()),
            Shut::Closing => Some(TxnError::ShuttingDown),
            Shut::Inside(_) => None,
        }
    }

    /// The body on this thread that something which is begun now would wait for (I14).
    pub(crate) fn nested(&self) -> Option<TxnError> {
        let (outer, outer_site) = match inside::update(self.id) {
            Some(site) => (BodyKind::Update, site),
            None => (BodyKind::View, self.gate.inside(self.id)?),
        };
        Some(TxnError::NestedTransaction { outer, outer_site })
    }

    /// The error of everybody who comes between a fatal error and the recovery.
    pub(crate) fn recovery_needed(&self) -> TxnError {
        match self.poison.event() {
            Some(event) => TxnError::RecoveryNeeded(event),
            // Recovered a moment ago: the caller may simply try again.
            None => TxnError::DeadlineExceeded {
                deadline: Duration::ZERO,
                stage: Stage::WaitedForGate,
            },
        }
    }

    /// Shuts the gate after a fatal error and tells who wants to know, once for each poisoning.
    pub(crate) fn poison(&self, source: StorageError) {
        let event = PanicEvent {
            path: self.path.clone(),
            errno: source.errno(),
            source,
            since: SystemTime::now(),
            in_flight: self.counters.queued.load(Ordering::Relaxed)
                + self.counters.in_batch.load(Ordering::Relaxed),
        };
        let Some(event) = self.poison.set(event, || self.gate.poison()) else {
            return;
        };
        Counters::add(&self.counters.poisonings, 1);
        metrics::counter!("lockkeeper_poisonings_total").increment(1);
        tracing::error!(target: "lockkeeper", path = %self.path.display(), error = %event.source, in_flight = event.in_flight,
            "fatal error of the environment: every call is refused until it has recovered");
        self.poison.tell(self.id, event);
    }

    /// Under `no_lock` whoever writes has to be alone: shuts the gate until the answer is dropped. Only for the writer thread.
    pub(crate) fn exclude_views(&self, until: Instant) -> Result<Option<Closed<'_>>, TxnError> {
        if !self.config.no_lock() {
            return Ok(None);
        }
        // Those who waited for the last update get their turn first.
        let turn = Instant::now() + Duration::from_millis(2);
        while self.gate.anyone_waits() && Instant::now() < turn {
            std::thread::yield_now();
        }
        self.close_gate(until)
            .map(Some)
            .map_err(|busy| busy.error(Some("an update under `no_lock`".into())))
    }

    /// Shuts the gate and waits until it is empty. Only for the writer thread.
    pub(crate) fn close_gate(&self, until: Instant) -> Result<Closed<'_>, Refusal> {
        let begun = Instant::now();
        self.gate.close(until).map_err(|views| Refusal::Busy {
            views,
            waited: begun.elapsed(),
        })
    }

    /// Answers a command with an error instead of carrying it out.
    pub(crate) fn turn_away(&self, command: Command, error: impl Fn() -> TxnError) {
        match command {
            Command::Update(mut task) => {
                self.counters.queued.fetch_sub(1, Ordering::Relaxed);
                task.ask.let_go();
                quietly(|| task.job.fail(error()));
            }
            Command::Open(_, question) => question.answer(Err(error().into())),
            Command::Clear(_, question) | Command::Delete(_, question) => {
                question.answer(Err(error().into()));
            }
            Command::Resize => {
                for request in std::mem::take(&mut *self.sizes.lock()) {
                    request.question.answer(Err(error().into()));
                }
            }
            Command::GrowAhead(question) | Command::Adopt(_, question) => {
                question.answer(Err(error()));
            }
            Command::Sync(question) | Command::Recover(question) => {
                question.answer(Err(error().into()));
            }
            Command::Fatal | Command::LookAgain | Command::Stop => {}
        }
    }

    /// Removes the reader slots of processes that died; answers how many there were.
    pub(crate) fn clear_stale_readers(&self) -> usize {
        let env = self.env.load();
        let cleared = env
            .as_ref()
            .and_then(|env| env.clear_stale_readers().ok())
            .unwrap_or(0);
        if cleared > 0 {
            Counters::add(&self.counters.stale_readers, cleared as u64);
            tracing::info!(target: "lockkeeper", cleared, "reader slots of dead processes cleared");
        }
        cleared
    }

    pub(crate) fn running_now(&self) -> Option<Running> {
        self.running.lock().clone()
    }

    /// The answer at the deadline of a caller that waited for the writer, by what it was waiting for.
    pub(crate) fn out_of_time(&self, waiting: Waiting, span: Duration) -> TxnError {
        let own = TxnError::DeadlineExceeded {
            deadline: span,
            stage: waiting.stage(),
        };
        let (running, first) = {
            let mut running = self.running.lock();
            let Some(running) = running.as_mut() else {
                return own;
            };
            let late = Instant::now() >= running.deadline;
            let first = late && !std::mem::replace(&mut running.reported, late);
            (running.clone(), first)
        };
        let since = running.since.elapsed();
        if first {
            Counters::add(&self.counters.stalls, 1);
            metrics::counter!("lockkeeper_writer_stalls_total").increment(1);
            tracing::error!(target: "lockkeeper", body = %body_name(running.name.as_deref(), running.site), ran = %brief(since),
                "a body keeps the writer beyond its deadline");
        }
        // Who waited for the writer wants to know who has it: a body past its time, or one that took most of the wait.
        if waiting != Waiting::Running && (running.reported || since * 2 >= span) {
            return TxnError::WriterStalled {
                name: running.name,
                site: running.site,
                since,
            };
        }
        own
    }

    /// The answer at the deadline of a view that found the gate shut.
    pub(crate) fn gate_held(&self, span: Duration) -> TxnError {
        TxnError::DeadlineExceeded {
            deadline: span,
            stage: Stage::WaitedForGate,
        }
    }

    /// Has too many panics of a part of the keeper count as a fatal error (I11): everybody is told so, and the environment is
    /// opened anew, by policy.
    pub(crate) fn gives_up_with(self: &Arc<Self>, part: &Supervision) {
        let shared = Arc::downgrade(self);
        part.on_giving_up(move |panicked| {
            if let Some(shared) = shared.upgrade() {
                let generation = shared.generation.load(Ordering::Acquire);
                shared.report_fatal(StorageError::panicked(panicked), generation);
            }
        });
    }

    /// Why whoever waited for an answer has not got any, although its time is not over: its way back was dropped.
    pub(crate) fn why_unanswered(&self) -> TxnError {
        if let Some(event) = self.poison.event() {
            return TxnError::RecoveryNeeded(event);
        }
        if self.gate.shut(Entry::Admitted) == Some(Shut::Closing) {
            return TxnError::ShuttingDown;
        }
        match self.supervision.last() {
            Some(panicked) => TxnError::ActorPanicked(panicked),
            None => TxnError::ShuttingDown,
        }
    }

    /// A view of that generation met an error that no transaction can go on after.
    pub(crate) fn report_fatal(&self, source: StorageError, generation: u64) {
        if self.generation.load(Ordering::Acquire) != generation {
            // Recovered from, or mapped anew, in the meantime.
            return;
        }
        self.poison(source);
        // If the queue is full the writer is awake, and looks at the poison before the next command.
        let _ = self.commands.try_send(Command::Fatal);
    }
}
