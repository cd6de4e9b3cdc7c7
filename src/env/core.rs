//! The environment as its callers use it, from any thread: the second door beside the environment actor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::env::Db;
use crate::env::asking::{Blame, Sending, Wait};
use crate::env::beside::Beside;
use crate::env::gate::Entry;
use crate::env::job::{Answer, Ask, Reply, Typed, UpdateBody, UpdateJob, ViewBody, ViewJob};
use crate::env::registry::OpenSpec;
use crate::env::reserved::not_reserved;
use crate::env::shared::{Command, Counters, Shared, SizeRequest, UpdateTask, ViewTask};
use crate::env::transaction::ReadTxn;
use crate::env::view::{Tried, Tries, try_view};
use crate::error::{DatabaseError, EnvError, Name, Site, Stage, TxnError};

/// An open environment with its threads. Cheap to clone through an [`Arc`].
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
    pub(super) writer: Mutex<Option<JoinHandle<()>>>,
    /// The writer's queue, for the time when a body keeps the writer from looking at it.
    pub(super) backlog: flume::Receiver<Command>,
    /// The readers' queue, for the same reason; given up at the end, so that whoever sends then is told.
    pub(super) views_backlog: Mutex<Option<flume::Receiver<Option<ViewTask>>>>,
    /// Threads that copy the environment.
    pub(super) copying: Beside,
}

impl Core {
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
        entry: Entry,
        mut body: F,
    ) -> Result<Result<T, TxnError<E>>, (Tried, F)>
    where
        F: FnMut(&ReadTxn<'_>) -> Result<T, TxnError<E>>,
    {
        let shared = &*self.shared;
        let mut result = None;
        let tried = try_view(shared, site, &None, entry, |txn| {
            result = Some(super::job::guarded(site, || body(txn)));
        });
        match (tried, result) {
            (Tried::Ran, Some(result)) => Ok(result),
            (tried, _) => Err((tried, body)),
        }
    }

    /// A view that could not run at the first try: waits without a thread while the map changes. One that belongs to a
    /// transaction with a `permit` was let in before.
    pub(crate) async fn view_slowly<T, E, F>(
        &self,
        mut tried: Tried,
        (site, name): (Site, Name),
        permit: Option<Arc<OwnedSemaphorePermit>>,
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
        let entry = match permit {
            Some(_) => Entry::Admitted,
            None => Entry::New,
        };
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
                    let mut ask = Ask::new(name, site, deadline, span);
                    ask.permit = permit;
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
            tried = try_view(shared, site, &name, entry, |txn| {
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
        spec.name.as_ref().map_or(Ok(()), not_reserved)?;
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
        not_reserved(&name)?;
        self.shared
            .ask_writer(Entry::New, |question| Command::Clear(name, question))
            .await
    }

    /// Deletes a database.
    pub(crate) async fn delete(&self, name: Arc<str>) -> Result<(), DatabaseError> {
        not_reserved(&name)?;
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
}

/// What the writer has, after the end of a wait, to say who was in the way.
const NAMING: Duration = Duration::from_millis(100);
