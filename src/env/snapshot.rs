//! Snapshots that are held over awaits.
//!
//! LMDB's read transactions belong to the thread that began them, and nothing else in this crate keeps one over an await. So
//! a held snapshot lives on a thread of its own kind, which answers what is asked of it, one request after the other. It is
//! inside the gate all that time, but as a [lodger](lodgers): when the gate shuts, for whatever reason, it leaves at once, or
//! when the request that it is running has returned. What is asked of it afterwards is answered with the reason.

mod holders;
mod lodgers;

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, oneshot};

use crate::env::gate::Shut;
use crate::env::job::guarded;
use crate::env::shared::Shared;
use crate::env::transaction::ReadTxn;
use crate::error::{Site, TxnError};

pub(crate) use holders::Holders;
pub(crate) use lodgers::{Lodgers, Lodging};

/// One state of the environment, held over awaits. Every clone is the same snapshot; dropping the last one ends it.
///
/// While it is held, LMDB uses no page again that was freed since: the file grows with every update.
#[derive(Clone)]
pub struct Snapshot(Arc<Handle>);

impl Snapshot {
    fn new(shared: &Arc<Shared>, held: Arc<Held>) -> Self {
        let shared = Arc::downgrade(shared);
        Self(Arc::new(Handle { shared, held }))
    }

    /// Which state it is: LMDB's transaction id.
    #[must_use]
    pub fn id(&self) -> usize {
        self.0.held.id
    }

    /// Runs `f` in the snapshot, on the thread that holds it, and answers what it returns.
    ///
    /// Requests run one after the other, in the order in which their futures were first polled, as long as there are no more
    /// than 64; what is more waits with its callers. A future that is dropped before its turn takes its request with it; later,
    /// the request runs to its end and the answer is dropped.
    ///
    /// # Errors
    ///
    /// [`TxnError::SnapshotTooOld`] once it had to end for a change of the map or of a database: begin again with a new one.
    /// [`TxnError::RecoveryNeeded`] and [`TxnError::ShuttingDown`] once it ended for that. [`TxnError::BodyPanicked`] if `f`
    /// panicked; the snapshot goes on. [`TxnError::NestedTransaction`] when it is polled inside a body of the same keeper, and
    /// [`TxnError::Forked`].
    pub fn ask<R, F>(&self, f: F) -> impl Future<Output = Result<R, TxnError>> + Send + use<R, F>
    where
        F: FnOnce(&ReadTxn<'_>) -> R + Send + 'static,
        R: Send + 'static,
    {
        // It is held as long as somebody waits for an answer.
        let handle = Arc::clone(&self.0);
        async move {
            handle.refusal()?;
            let held = &handle.held;
            let Ok(room) = Arc::clone(&held.room).acquire_owned().await else {
                return Err(held.why_ended());
            };
            let (reply, answer) = oneshot::channel();
            let site = held.site;
            held.push(Box::new(move |txn| {
                let _room = room;
                if !reply.is_closed() {
                    // Who went away meanwhile wants no answer.
                    drop(reply.send(guarded(site, || Ok(f(txn)))));
                }
            }))?;
            answer.await.unwrap_or_else(|_| Err(held.why_ended()))
        }
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("id", &self.id()).finish()
    }
}

/// What the clones of a snapshot and the requests under way share; it does not keep a stopped environment's remains.
struct Handle {
    shared: Weak<Shared>,
    held: Arc<Held>,
}

impl Handle {
    /// Why nothing can be asked from here.
    fn refusal(&self) -> Result<(), TxnError> {
        let Some(shared) = self.shared.upgrade() else {
            return Err(TxnError::ShuttingDown);
        };
        if shared.forked() {
            return Err(TxnError::Forked);
        }
        shared.nested().map_or(Ok(()), Err)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // In the child of a fork there is no such thread, and its lock may be shut for ever.
        if self.shared.upgrade().is_some_and(|shared| !shared.forked()) {
            self.held.release();
        }
    }
}

/// A request: it runs in the snapshot, and carries its way back with it. Dropped, its caller is told why it all ended.
type Request = Box<dyn FnOnce(&ReadTxn<'_>) + Send>;

/// A held snapshot, as its thread, those who ask, and the gate know it.
pub(crate) struct Held {
    id: usize,
    site: Site,
    state: Mutex<State>,
    /// There is something for its thread to do.
    wake: Condvar,
    /// Places in the queue; closed when the snapshot ends.
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    asked: VecDeque<Request>,
    /// The gate was shut.
    leave: Option<Shut>,
    /// Nobody has a handle any more.
    released: bool,
    ended: Option<TxnError>,
}

/// What the thread of a snapshot does next.
enum Next {
    Run(Request),
    Leave(Shut),
    Release,
}

/// Requests of one snapshot that wait for its thread; more wait with their callers (I13).
const ROOM: usize = 64;

impl Held {
    fn new(id: usize, site: Site) -> Self {
        Self {
            id,
            site,
            state: Mutex::default(),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(ROOM)),
        }
    }

    fn push(&self, request: Request) -> Result<(), TxnError> {
        let mut state = self.state.lock();
        if let Some(error) = state.refusal() {
            drop(state);
            // What the application put into it is not dropped under the lock.
            drop(request);
            return Err(error);
        }
        state.asked.push_back(request);
        self.wake.notify_one();
        Ok(())
    }

    /// The gate is shut: the snapshot ends as soon as it can.
    fn leave(&self, why: Shut) {
        self.state.lock().leave.get_or_insert(why);
        self.wake.notify_one();
    }

    fn release(&self) {
        self.state.lock().released = true;
        self.wake.notify_one();
    }

    /// Waits for what is to be done; leaving comes first.
    fn next(&self) -> Next {
        let mut state = self.state.lock();
        loop {
            if let Some(why) = state.leave {
                return Next::Leave(why);
            }
            if state.released {
                return Next::Release;
            }
            if let Some(request) = state.asked.pop_front() {
                return Next::Run(request);
            }
            self.wake.wait(&mut state);
        }
    }

    /// From here on `why` is the answer, also to the requests that are handed back.
    fn end(&self, why: TxnError) -> VecDeque<Request> {
        let mut state = self.state.lock();
        state.ended = Some(why);
        self.room.close();
        std::mem::take(&mut state.asked)
    }

    fn why_ended(&self) -> TxnError {
        let state = self.state.lock();
        state.refusal().unwrap_or(TxnError::ShuttingDown)
    }
}

impl State {
    fn refusal(&self) -> Option<TxnError> {
        match (&self.ended, self.leave) {
            (Some(why), _) => Some(why.duplicate()),
            // Its thread is still busy, but the end is settled.
            (None, Some(Shut::Changing)) => Some(TxnError::SnapshotTooOld),
            (None, _) => None,
        }
    }
}
