//! The environment as its callers use it, from any thread: the second door beside the environment actor.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use heed::MdbError;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::config::Config;
use crate::env::claims::Claims;
use crate::env::gate::{Entry, Shut};
use crate::env::job::{
    Answer, Ask, Reply, Ticket, Typed, UpdateBody, UpdateJob, ViewBody, ViewJob, Waiting,
};
use crate::env::poison::{Listener, Poison};
use crate::env::registry::OpenSpec;
use crate::env::shared::{Command, Counters, Question, Shared, SizeRequest, UpdateTask, ViewTask};
use crate::env::transaction::ReadTxn;
use crate::env::view::{Tried, Tries, reader, try_view};
use crate::env::writer::Writer;
use crate::env::{Db, EnvId, raw, recovery};
use crate::error::{
    DatabaseError, EnvError, Name, OpenError, ShutdownError, Site, Stage, TxnError,
};

/// An open environment with its threads. Cheap to clone through an [`Arc`].
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// The writer's queue, for the time when a body keeps the writer from looking at it.
    backlog: flume::Receiver<Command>,
}

impl Core {
    /// Opens the environment in `folder` and starts its threads. Blocks for as long as that takes.
    pub(crate) fn open(
        folder: &Path,
        config: Config,
        listeners: Vec<Listener>,
    ) -> Result<Arc<Self>, OpenError> {
        raw::watch_forks();
        let folder = prepare_folder(folder)?;
        let mut claims = Claims::take(&folder, config.no_lock())?;
        // A file that has grown is opened as large as it is, not made to grow again.
        let map_size = recovery::read_size(&folder.join("data.mdb"))
            .unwrap_or(0)
            .min(config.max_map_size())
            .max(config.map_size());
        let env = raw::open(&folder, &recovery::plan(&config, map_size))
            .map_err(|source| open_error(&folder, source))?;
        first_look(&env, &folder)?;
        let file = claims.settle(&folder)?;
        let poison = Poison::default();
        for listener in listeners {
            poison.listen(listener);
        }
        let clock = Clock::start().map_err(OpenError::Thread)?;
        // Transactions are bounded by their permits; the rest is room for the other commands.
        let (commands, for_writer) = flume::bounded(config.queue() + CONTROL_ROOM);
        let (views, for_readers) = flume::bounded(config.reader_queue());
        let readers = config.reader_threads();
        let stale_interval = config.stale_reader_interval();
        let shared = Arc::new(Shared::new(
            EnvId::next(),
            folder,
            config,
            env,
            poison,
            clock,
            commands,
            views,
            file,
        ));
        let core = Arc::new(Self {
            shared: Arc::clone(&shared),
            threads: Mutex::default(),
            writer: Mutex::default(),
            backlog: for_writer.clone(),
        });
        let writer = Writer::new(Arc::clone(&shared), for_writer, claims);
        let writer = spawn("lockkeeper-writer", move || writer.run())?;
        *core.writer.lock() = Some(writer);
        for _ in 0..readers {
            let (shared, tasks) = (Arc::clone(&shared), for_readers.clone());
            match spawn("lockkeeper-reader", move || reader(&shared, &tasks)) {
                Ok(thread) => core.threads.lock().push(thread),
                Err(error) => {
                    // What has started ends by itself.
                    core.shared.stop.store(true, Ordering::Release);
                    let _ = core.shared.commands.try_send(Command::Stop);
                    return Err(error);
                }
            }
        }
        if !stale_interval.is_zero() {
            let weak = Arc::downgrade(&shared);
            shared.clock.every(stale_interval, move || {
                let Some(shared) = weak.upgrade() else {
                    return false;
                };
                shared.clear_stale_readers();
                shared.gate.shut(Entry::Admitted) != Some(Shut::Closing)
            });
        }
        Ok(core)
    }

    /// Why a transaction that begins on this thread would wait for itself (I14), or cannot begin at all.
    pub(crate) fn refusal(&self, entry: Entry) -> Option<TxnError> {
        self.shared.nested().or_else(|| self.shared.refusal(entry))
    }

    /// Has the writer run a body; answers when its commit has returned.
    pub(crate) async fn update<T, E>(
        &self,
        ask: Ask,
        body: UpdateBody<T, E>,
    ) -> Result<Answer<T, E, UpdateBody<T, E>>, TxnError>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let wait = Wait::on(&ask, answer, Blame::Writer);
        self.submit(ask, Typed::new(body, Reply::Supervised(reply)))
            .map_err(|(error, _)| error)?;
        wait.answer(&self.shared).await
    }

    /// Queues an update for the writer, or hands it back with the reason.
    pub(crate) fn submit(
        &self,
        ask: Ask,
        job: Box<dyn UpdateJob>,
    ) -> Result<(), (TxnError, Box<dyn UpdateJob>)> {
        let _sending = Sending::begin(&self.shared);
        if let Some(error) = self.refusal(ask.entry()) {
            return Err((error, job));
        }
        let queued = &self.shared.counters.queued;
        queued.fetch_add(1, Ordering::Relaxed);
        let command = Command::Update(UpdateTask { ask, job });
        let (error, command) = match self.shared.commands.try_send(command) {
            Ok(()) => return Ok(()),
            Err(flume::TrySendError::Full(command)) => {
                let limit = self.shared.config.queue();
                (TxnError::Overloaded { limit }, command)
            }
            Err(flume::TrySendError::Disconnected(command)) => (TxnError::ShuttingDown, command),
        };
        queued.fetch_sub(1, Ordering::Relaxed);
        match command {
            Command::Update(task) => Err((error, task.job)),
            _ => unreachable!("an update was sent"),
        }
    }

    /// Has a reader thread run a body.
    pub(crate) async fn ship_view<T, E>(
        &self,
        ask: Ask,
        body: ViewBody<T, E>,
    ) -> Result<Answer<T, E, ViewBody<T, E>>, TxnError>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        if let Some(error) = self.refusal(ask.entry()) {
            return Err(error);
        }
        Counters::add(&self.shared.counters.views_shipped, 1);
        let (reply, answer) = oneshot::channel();
        let job = Typed::new(body, Reply::Supervised(reply));
        let wait = Wait::on(&ask, answer, Blame::Nobody);
        let (deadline, span) = (ask.deadline, ask.span);
        let task = ViewTask {
            ask,
            job: job as Box<dyn ViewJob>,
        };
        let sent = self
            .shared
            .clock
            .until(deadline, self.shared.views.send_async(Some(task)))
            .await;
        match sent {
            Some(Ok(())) => wait.answer(&self.shared).await,
            Some(Err(_)) => Err(TxnError::ShuttingDown),
            None => Err(TxnError::DeadlineExceeded {
                deadline: span,
                stage: Stage::WasQueued,
            }),
        }
    }

    /// Runs a body in place, on this thread, if that is possible right now; otherwise hands it back for
    /// [`Core::view_slowly`].
    #[inline]
    pub(crate) fn view_now<T, E, F>(
        &self,
        site: Site,
        mut body: F,
    ) -> Result<Result<T, TxnError<E>>, (Tried, F)>
    where
        F: FnMut(&ReadTxn<'_>) -> Result<T, TxnError<E>>,
    {
        let shared = &*self.shared;
        let mut result = None;
        let tried = try_view(shared, site, &None, Entry::New, |txn| {
            result = Some(super::job::guarded(site, || body(txn)));
        });
        match (tried, result) {
            (Tried::Ran, Some(result)) => Ok(result),
            (tried, _) => Err((tried, body)),
        }
    }

    /// A view that could not run at the first try: waits without a thread while the map changes.
    pub(crate) async fn view_slowly<T, E, F>(
        &self,
        mut tried: Tried,
        site: Site,
        name: Name,
        span: Duration,
        mut body: F,
    ) -> Result<T, TxnError<E>>
    where
        F: FnMut(&ReadTxn<'_>) -> Result<T, TxnError<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let shared = &*self.shared;
        let deadline = crate::clock::far(Instant::now(), span);
        let mut tries = Tries::new(shared);
        loop {
            match tried {
                Tried::Ran => {}
                Tried::Changing => {
                    let opened = shared.clock.until(deadline, shared.gate.opened()).await;
                    if opened.is_none() {
                        return Err(shared.gate_held(span).widen());
                    }
                }
                Tried::NoSlot => {
                    let ask = Ask::new(name, site, deadline, span);
                    let body: ViewBody<T, E> = Box::new(body);
                    let answer = self.ship_view(ask, body).await;
                    return answer.map_err(TxnError::widen)?.result;
                }
                Tried::Resized(seen) => {
                    tries
                        .adopt(seen, deadline, span)
                        .await
                        .map_err(TxnError::widen)?;
                }
                Tried::Refused(error) => return Err(error.widen()),
            }
            let mut result = None;
            tried = try_view(shared, site, &name, Entry::New, |txn| {
                result = Some(super::job::guarded(site, || body(txn)));
            });
            if let Some(result) = result {
                return result;
            }
        }
    }

    /// A handle of a database, which is opened if it is not yet.
    pub(crate) async fn database<KC, DC, C>(
        &self,
        spec: OpenSpec,
    ) -> Result<Db<KC, DC, C>, DatabaseError>
    where
        C: heed::Comparator + Send + Sync + 'static,
    {
        if let Some(name) = &spec.name
            && (name.is_empty() || name.len() > self.shared.max_key() || name.contains('\0'))
        {
            return Err(DatabaseError::BadName { len: name.len() });
        }
        if let Some(error) = self.refusal(Entry::New) {
            return Err(error.into());
        }
        let find = || {
            let found = self.shared.registry.find::<C>(&spec)?;
            Some(found.map(|found| Db::new(self.shared.id, found)))
        };
        if let Some(found) = find() {
            return found;
        }
        self.shared
            .ask_writer(Entry::New, |question| Command::Open(spec.clone(), question))
            .await?;
        find().unwrap_or_else(|| Err(DatabaseError::NoSuchDatabase { name: spec.label() }))
    }

    /// Removes every entry of a database; answers how many there were.
    pub(crate) async fn clear(&self, name: Arc<str>) -> Result<u64, DatabaseError> {
        self.shared
            .ask_writer(Entry::New, |question| Command::Clear(name, question))
            .await
    }

    /// Deletes a database.
    pub(crate) async fn delete(&self, name: Arc<str>) -> Result<(), DatabaseError> {
        let deleted = self
            .shared
            .ask_writer(Entry::New, |question| Command::Delete(name, question));
        deleted.await.map(drop)
    }

    /// Gives the map a size; answers the size that it has then. Who is in the way is waited for no longer than `resize_timeout`.
    pub(crate) async fn set_map_size(&self, bytes: u64) -> Result<u64, EnvError> {
        let span = self.shared.config.resize_timeout();
        let until = crate::clock::far(Instant::now(), span);
        let ask = |question| {
            let request = SizeRequest {
                bytes,
                until,
                question,
            };
            self.shared.sizes.lock().push(request);
            Command::Resize
        };
        if let Some(error) = self.refusal(Entry::New) {
            return Err(error.into());
        }
        // At that moment the writer names the views; only if it is kept itself, who keeps it is named here.
        self.shared
            .ask_anyway(span.saturating_add(NAMING), ask)
            .await
    }

    pub(crate) async fn sync(&self) -> Result<(), EnvError> {
        self.shared.ask_writer(Entry::New, Command::Sync).await
    }

    pub(crate) async fn grow_ahead(&self) -> Result<(), TxnError> {
        self.shared.ask_writer(Entry::New, Command::GrowAhead).await
    }

    pub(crate) async fn recover(&self) -> Result<(), EnvError> {
        // The one command that a poisoned environment takes.
        match self.refusal(Entry::New) {
            None | Some(TxnError::RecoveryNeeded(_)) => {}
            Some(error) => return Err(error.into()),
        }
        let span = self.shared.config.deadline();
        self.shared.ask_anyway(span, Command::Recover).await
    }

    /// Whether the environment is closed and its writer has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.writer_ended.load(Ordering::Acquire)
    }

    /// Ends the writer and the readers and closes the environment. Blocks, at most until `deadline`.
    ///
    /// What is queued behind this is answered with [`TxnError::ShuttingDown`].
    pub(crate) fn stop(&self, deadline: Instant) -> Result<(), ShutdownError> {
        self.shared.gate.shut_for_good();
        self.shared.stop.store(true, Ordering::Release);
        // Not left to the writer: a body may keep it for as long as it likes.
        while let Ok(command) = self.backlog.try_recv() {
            self.shared.turn_away(command, || TxnError::ShuttingDown);
        }
        // Wakes a writer that waits for commands; one that is busy looks at `stop`.
        let _ = self.shared.commands.try_send(Command::Stop);
        while !self.shared.writer_ended.load(Ordering::Acquire) {
            if Instant::now() >= deadline {
                return Err(match self.shared.running_now() {
                    Some(running) => ShutdownError::BodyRunsOn {
                        name: running.name,
                        site: running.site,
                        since: running.since.elapsed(),
                    },
                    None => ShutdownError::TimedOut {
                        what: "a view that keeps the environment open",
                    },
                });
            }
            thread::sleep(Duration::from_micros(200));
        }
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            join(writer, deadline.max(Instant::now() + MOMENT), "the writer")?;
        }
        let mut readers = std::mem::take(&mut *self.threads.lock());
        for _ in &readers {
            let _ = self.shared.views.send_deadline(None, deadline);
        }
        while let Some(thread) = readers.pop() {
            join(thread, deadline.max(Instant::now() + MOMENT), "a reader")?;
        }
        Ok(())
    }
}

impl Shared {
    /// Sends a command and waits for its answer, at most for the usual deadline.
    pub(crate) async fn ask_writer<T, E: From<TxnError>>(
        &self,
        entry: Entry,
        command: impl FnOnce(Question<T, E>) -> Command,
    ) -> Result<T, E> {
        match self.nested().or_else(|| self.refusal(entry)) {
            None => self.ask_anyway(self.config.deadline(), command).await,
            Some(error) => Err(error.into()),
        }
    }

    /// [`Shared::ask_writer`] also of a poisoned environment.
    async fn ask_anyway<T, E: From<TxnError>>(
        &self,
        span: Duration,
        command: impl FnOnce(Question<T, E>) -> Command,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::new());
        let deadline = crate::clock::far(Instant::now(), span);
        let wait = Wait::with(Arc::clone(&ticket), deadline, span, answer);
        {
            let _sending = Sending::begin(self);
            if self.gate.shut(Entry::Admitted) == Some(Shut::Closing) {
                return Err(TxnError::ShuttingDown.into());
            }
            let command = command(Question { ticket, reply });
            let sent = self.commands.send_async(command);
            match self.clock.until(deadline, sent).await {
                Some(Ok(())) => {}
                Some(Err(_)) => return Err(TxnError::ShuttingDown.into()),
                None => return Err(self.out_of_time(Waiting::Queued, span).into()),
            }
        }
        wait.answer(self).await?
    }
}

/// For a thread that has nothing to do but end.
const MOMENT: Duration = Duration::from_millis(500);

/// Counts a caller from its look at the gate to the end of its send.
struct Sending<'s>(&'s Shared);

impl<'s> Sending<'s> {
    fn begin(shared: &'s Shared) -> Self {
        shared.sending.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.sending.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Joins a thread, unless it is the calling one.
fn join(
    thread: JoinHandle<()>,
    deadline: Instant,
    what: &'static str,
) -> Result<(), ShutdownError> {
    if thread.thread().id() == thread::current().id() {
        return Ok(());
    }
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return Err(ShutdownError::TimedOut { what });
        }
        thread::sleep(Duration::from_micros(200));
    }
    // One that panicked has nothing more to tell.
    let _ = thread.join();
    Ok(())
}

/// What the writer has, after the end of a wait, to say who was in the way.
const NAMING: Duration = Duration::from_millis(100);

/// Commands that are no transactions: openings, changes of the map, flushes.
const CONTROL_ROOM: usize = 256;

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(OpenError::Thread)
}

fn prepare_folder(folder: &Path) -> Result<PathBuf, OpenError> {
    let refused = |source| OpenError::Folder {
        path: folder.to_owned(),
        source,
    };
    match fs::metadata(folder) {
        Ok(meta) if !meta.is_dir() => {
            return Err(OpenError::NotAFolder {
                path: folder.to_owned(),
            });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).map_err(refused)?;
        }
        Err(error) => return Err(refused(error)),
    }
    warn_of_network(folder);
    folder.canonicalize().map_err(refused)
}

/// LMDB's locks and its shared map do not work across machines.
fn warn_of_network(folder: &Path) {
    #[cfg(target_os = "linux")]
    {
        const NETWORKS: [(u32, &str); 4] = [
            (0x6969, "NFS"),
            (0xFF53_4D42, "CIFS"),
            (0xFE53_4D42, "SMB2"),
            (0x517B, "SMB"),
        ];
        if let Ok(stat) = rustix::fs::statfs(folder)
            && let Some((_, name)) = NETWORKS
                .iter()
                .find(|(magic, _)| u64::from(*magic) == stat.f_type as u64 & 0xFFFF_FFFF)
        {
            tracing::warn!(target: "lockkeeper", path = %folder.display(), file_system = name,
                "an LMDB environment on a network file system is not safe");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = folder;
}

fn open_error(folder: &Path, source: heed::Error) -> OpenError {
    let path = folder.to_owned();
    match source {
        heed::Error::EnvAlreadyOpened => OpenError::AlreadyOpen { path },
        heed::Error::Mdb(MdbError::Invalid | MdbError::VersionMismatch | MdbError::Corrupted) => {
            OpenError::NotLmdb {
                path: path.join("data.mdb"),
                source,
            }
        }
        heed::Error::Io(source) => OpenError::Folder { path, source },
        source => OpenError::Lmdb { path, source },
    }
}

/// Clears what dead processes left, and takes one snapshot: that is where a process with our pid shows.
fn first_look(env: &heed::Env, folder: &Path) -> Result<(), OpenError> {
    let failed = |source| open_error(folder, source);
    env.clear_stale_readers().map_err(failed)?;
    match env.read_txn() {
        Ok(txn) => {
            drop(txn);
            Ok(())
        }
        Err(heed::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(OpenError::SamePidInOtherNamespace {
                path: folder.to_owned(),
            })
        }
        // Both are dealt with when they come again.
        Err(heed::Error::Mdb(MdbError::ReadersFull | MdbError::MapResized)) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// A caller that waits for the answer to its transaction; going away, it gives up.
pub(crate) struct Wait<A> {
    ticket: Arc<Ticket>,
    answer: A,
    deadline: Instant,
    span: Duration,
    blame: Blame,
}

/// Who is named when the time runs out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// The body that keeps the writer.
    Writer,
    Nobody,
}

impl<R, X, A: Future<Output = Result<R, X>> + Unpin> Wait<A> {
    fn on(ask: &Ask, answer: A, blame: Blame) -> Self {
        Self {
            ticket: Arc::clone(&ask.ticket),
            answer,
            deadline: ask.deadline,
            span: ask.span,
            blame,
        }
    }

    /// Waits for the writer.
    pub(crate) fn with(ticket: Arc<Ticket>, deadline: Instant, span: Duration, answer: A) -> Self {
        Self {
            ticket,
            answer,
            deadline,
            span,
            blame: Blame::Writer,
        }
    }

    pub(crate) async fn answer(mut self, shared: &Shared) -> Result<R, TxnError> {
        let answer = shared.clock.until(self.deadline, &mut self.answer).await;
        let in_time = answer.is_some();
        if let Some(Ok(answer)) = answer {
            return Ok(answer);
        }
        match self.ticket.give_up() {
            // The commit has begun, or a command that cannot be taken back.
            None => Err(TxnError::MaybeCommitted { cause: None }),
            Some(_) if in_time => Err(TxnError::ShuttingDown),
            Some(waiting) if self.blame == Blame::Writer => {
                Err(shared.out_of_time(waiting, self.span))
            }
            Some(waiting) => Err(TxnError::DeadlineExceeded {
                deadline: self.span,
                stage: waiting.stage(),
            }),
        }
    }
}

impl<A> Drop for Wait<A> {
    fn drop(&mut self) {
        self.ticket.abandon();
    }
}
