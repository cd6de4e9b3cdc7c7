//! The threads that hold snapshots: started when they are needed, used again, and as many as there may be snapshots.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

use super::{Held, Next, Request, Snapshot};
use crate::clock::block_on;
use crate::config::Config;
use crate::env::core::Core;
use crate::env::gate::{Entry, Shut};
use crate::env::job::quietly;
use crate::env::shared::{Counters, Shared};
use crate::env::transaction::{ReadTxn, Readable};
use crate::env::view::{SLOT_RETRY, Tried, Tries, try_view};
use crate::error::{ActorPanicked, Name, Part, Site, StorageError, TxnError};

/// See the module.
pub(crate) struct Holders {
    max: usize,
    /// One for each snapshot that may be held.
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
    crew: Mutex<Crew>,
    send: flume::Sender<Task>,
    tasks: flume::Receiver<Task>,
    /// Snapshots that had to end because the gate was shut for a change.
    ousted: AtomicU64,
}

#[derive(Default)]
struct Crew {
    /// Threads that hold nothing, and that nothing is on its way to.
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    dismissed: bool,
}

/// For a thread: hold this, in that place; or end.
type Task = Option<(Hold, Place)>;

/// A place among the snapshots that may be held; free again when this is dropped.
pub(crate) struct Place(OwnedSemaphorePermit);

/// A snapshot that is wanted.
#[derive(Clone)]
struct Wanted {
    site: Site,
    name: Name,
    entry: Entry,
    deadline: Instant,
    span: Duration,
}

/// The same, on its way to a thread.
struct Hold {
    wanted: Wanted,
    /// Taken once it is held.
    reply: Option<oneshot::Sender<Result<Snapshot, TxnError>>>,
}

impl Core {
    /// A place among `snapshots` for a transaction that was admitted, which waits for one until the deadline. Whoever is to
    /// hold locks takes it before them: a place is free again when a transaction ends, and that one may wait for these locks.
    pub(crate) fn place_for_snapshot(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<Place, TxnError>> + Send + use<> {
        place_as(Arc::clone(&self.shared), Entry::Admitted, deadline)
    }

    /// Takes a snapshot that may be kept over awaits, for a transaction that was admitted: it gets one also while the keeper
    /// shuts down. It waits for the gate until the deadline; dropping the future gives everything back. `span` is the time
    /// from the caller's send to the deadline.
    pub(crate) fn hold_snapshot_in(
        &self,
        place: Place,
        site: Site,
        name: Name,
        deadline: Instant,
        span: Duration,
    ) -> impl Future<Output = Result<Snapshot, TxnError>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        let wanted = Wanted {
            site,
            name,
            entry: Entry::Admitted,
            deadline,
            span,
        };
        hold_in(shared, place, wanted)
    }

    /// A place and a snapshot, for a transaction that was admitted.
    #[cfg(test)]
    pub(crate) fn hold_snapshot(
        &self,
        site: Site,
        name: Name,
        deadline: Instant,
        span: Duration,
    ) -> impl Future<Output = Result<Snapshot, TxnError>> + Send + use<> {
        self.hold_snapshot_as(Entry::Admitted, site, name, deadline, span)
    }

    /// A place and a snapshot, perhaps for somebody new.
    pub(crate) fn hold_snapshot_as(
        &self,
        entry: Entry,
        site: Site,
        name: Name,
        deadline: Instant,
        span: Duration,
    ) -> impl Future<Output = Result<Snapshot, TxnError>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            let place = place_as(Arc::clone(&shared), entry, deadline).await?;
            let wanted = Wanted {
                site,
                name,
                entry,
                deadline,
                span,
            };
            hold_in(shared, place, wanted).await
        }
    }
}

async fn place_as(shared: Arc<Shared>, entry: Entry, deadline: Instant) -> Result<Place, TxnError> {
    // Without LMDB's lock file no update would know of the snapshot, and would write over what it shows.
    if shared.config.no_lock() {
        return Err(TxnError::SnapshotUnderNoLock);
    }
    if let Some(error) = shared.nested().or_else(|| shared.refusal(entry)) {
        return Err(error);
    }
    shared.holders.place(&shared, deadline).await
}

async fn hold_in(shared: Arc<Shared>, place: Place, wanted: Wanted) -> Result<Snapshot, TxnError> {
    // It may have waited for something else since it has its place.
    if let Some(error) = shared.nested().or_else(|| shared.refusal(wanted.entry)) {
        return Err(error);
    }
    let (reply, answer) = oneshot::channel();
    let hold = Hold {
        wanted,
        reply: Some(reply),
    };
    Holders::send(&shared, hold, place)?;
    // The thread keeps to the deadline by itself.
    answer
        .await
        .unwrap_or_else(|_| Err(shared.why_unanswered()))
}

impl Holders {
    pub(crate) fn new(config: &Config) -> Self {
        let max = config.snapshots();
        // One for each place, and one for each thread that is told to end.
        let (send, tasks) = flume::bounded(max * 2);
        Self {
            max,
            places: Arc::new(Semaphore::new(max)),
            waiting: AtomicUsize::new(0),
            most_waiting: config.queue(),
            crew: Mutex::default(),
            send,
            tasks,
            ousted: AtomicU64::new(0),
        }
    }

    pub(crate) fn ousted(&self) -> u64 {
        self.ousted.load(Ordering::Relaxed)
    }

    /// Waits for a place until the deadline.
    async fn place(&self, shared: &Shared, deadline: Instant) -> Result<Place, TxnError> {
        struct Waits<'h>(&'h AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => return Ok(Place(place)),
            Err(TryAcquireError::Closed) => return Err(TxnError::ShuttingDown),
            Err(TryAcquireError::NoPermits) => {}
        }
        let none = TxnError::NoSnapshot { max: self.max };
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        if before >= self.most_waiting {
            return Err(none);
        }
        let place = Arc::clone(&self.places).acquire_owned();
        match shared.clock.until(deadline, place).await {
            Some(Ok(place)) => Ok(Place(place)),
            Some(Err(_)) => Err(TxnError::ShuttingDown),
            None => Err(none),
        }
    }

    /// Hands it to a thread, which is started if all are busy. Whoever has a place finds one: each thread gives its place
    /// back only when it is idle.
    fn send(shared: &Arc<Shared>, hold: Hold, place: Place) -> Result<(), TxnError> {
        let holders = &shared.holders;
        let mut crew = holders.crew.lock();
        if crew.dismissed {
            return Err(TxnError::ShuttingDown);
        }
        if crew.idle > 0 {
            crew.idle -= 1;
        } else {
            let shared = Arc::clone(shared);
            let started = thread::Builder::new()
                .name("lockkeeper-snapshot".into())
                .spawn(move || holder(&shared));
            match started {
                Ok(thread) => crew.threads.push(thread),
                Err(error) => {
                    let error = StorageError::new("starting a thread", heed::Error::Io(error));
                    return Err(TxnError::Storage(error));
                }
            }
        }
        match holders.send.try_send(Some((hold, place))) {
            Ok(()) => Ok(()),
            Err(_) => Err(TxnError::ShuttingDown),
        }
    }

    /// Gives out no more places: who waits for one is told so.
    pub(crate) fn close(&self) {
        self.places.close();
    }

    /// Tells the threads to end when what they hold has ended; the gate is shut for good.
    pub(crate) fn dismiss(&self) -> Vec<JoinHandle<()>> {
        let mut crew = self.crew.lock();
        crew.dismissed = true;
        let threads = std::mem::take(&mut crew.threads);
        for _ in &threads {
            // There is room for one each.
            let _ = self.send.try_send(None);
        }
        threads
    }
}

/// A thread that holds snapshots, one after the other, until it is told to end.
fn holder(shared: &Arc<Shared>) {
    let holders = &shared.holders;
    while let Ok(Some((mut hold, place))) = holders.tasks.recv() {
        let carry_out = AssertUnwindSafe(|| hold.carry_out(shared));
        if let Err(panic) = catch_unwind(carry_out) {
            let supervision = &shared.supervision;
            let panicked = supervision.panicked(Part::SnapshotHolder, "a snapshot", panic);
            hold.fail(TxnError::ActorPanicked(panicked));
        }
        holders.crew.lock().idle += 1;
        drop(place.0);
    }
}

impl Hold {
    /// Takes the snapshot and serves it until it ends, or answers why there is none.
    fn carry_out(&mut self, shared: &Arc<Shared>) {
        shared.supervision.bombs.pass("taking a snapshot");
        match self.hold(shared) {
            Ok(unserved) => {
                // Only now, when the thread is not inside any more: the application's values may do anything as they are dropped.
                for request in unserved {
                    quietly(|| drop(request));
                }
            }
            Err(error) => self.fail(error),
        }
    }

    /// Answers why there is none, if nobody has been answered.
    fn fail(&mut self, error: TxnError) {
        if let Some(reply) = self.reply.take() {
            quietly(|| drop(reply.send(Err(error))));
        }
    }

    fn hold(&mut self, shared: &Arc<Shared>) -> Result<VecDeque<Request>, TxnError> {
        let mut tries = Tries::new(shared);
        let Wanted {
            site,
            name,
            entry,
            deadline,
            span,
        } = self.wanted.clone();
        // Whoever goes away meanwhile wants none.
        while let Some(reply) = &self.reply
            && !reply.is_closed()
        {
            let mut unserved = VecDeque::new();
            let tried = try_view(shared, site, &name, entry, |txn| {
                unserved = self.serve(shared, txn);
            });
            match tried {
                Tried::Ran if self.reply.is_none() => return Ok(unserved),
                // The gate was shut before anybody knew of the snapshot.
                Tried::Ran | Tried::Changing => {
                    let opened = shared.clock.until(deadline, shared.gate.opened());
                    if block_on(opened).is_none() {
                        return Err(shared.gate_held(span));
                    }
                }
                Tried::NoSlot => {
                    if Instant::now() >= deadline {
                        return Err(TxnError::ReadersFull {
                            max: shared.config.max_readers(),
                        });
                    }
                    shared.clear_stale_readers();
                    thread::sleep(SLOT_RETRY);
                }
                Tried::Resized(seen) => {
                    block_on(tries.adopt(seen, deadline, span))?;
                }
                Tried::Refused(error) => return Err(error),
            }
        }
        Ok(VecDeque::new())
    }

    /// Does what is asked of the snapshot until it has to end, or nobody has it any more; hands back what is still queued.
    fn serve(&mut self, shared: &Arc<Shared>, txn: &ReadTxn<'_>) -> VecDeque<Request> {
        let held = Arc::new(Held::new(txn.snapshot_id(), self.wanted.site));
        let Some(_lodging) = shared.gate.lodge(shared.id, Arc::clone(&held)) else {
            return VecDeque::new();
        };
        if let Some(reply) = self.reply.take() {
            let snapshot = Snapshot::new(shared, Arc::clone(&held));
            quietly(|| drop(reply.send(Ok(snapshot))));
        }
        let generation = shared.generation.load(Ordering::Acquire);
        let mut ends = Ends(Some(&held));
        let why = loop {
            match held.next() {
                Next::Run(request) => {
                    // Goes before the request, so that whoever asked finds the reason.
                    let mut before = Ends(Some(&held));
                    shared.supervision.bombs.pass("holding a snapshot");
                    before.0 = None;
                    quietly(|| request(txn));
                    if let Some(error) = txn.fatal() {
                        quietly(|| shared.report_fatal(error, generation));
                    }
                }
                Next::Release => break TxnError::ShuttingDown,
                Next::Leave(Shut::Changing) => break TxnError::SnapshotTooOld,
                Next::Leave(Shut::Poisoned) => break shared.recovery_needed(),
                Next::Leave(Shut::Closing | Shut::Inside(_)) => break TxnError::ShuttingDown,
            }
        };
        let ousted = matches!(why, TxnError::SnapshotTooOld);
        ends.0 = None;
        let unserved = held.end(why);
        if ousted {
            Counters::add(&shared.holders.ousted, 1);
            metrics::counter!("lockkeeper_snapshots_ousted_total").increment(1);
            tracing::debug!(target: "lockkeeper", snapshot = held.id, name = self.wanted.name.as_deref(), site = %self.wanted.site,
                "a snapshot held over awaits had to end: the gate is shut for a change");
        }
        unserved
    }
}

/// Ends a snapshot whose thread panics: whoever asks something of it is told so.
struct Ends<'h>(Option<&'h Held>);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.0 {
            let panicked = ActorPanicked::new(Part::SnapshotHolder, "the snapshot ended in it");
            for request in held.end(TxnError::ActorPanicked(panicked)) {
                quietly(|| drop(request));
            }
        }
    }
}
