//! One attempt of an interactive transaction: its locks, its reads, and what it has buffered.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::OwnedSemaphorePermit;

use super::isolation::Isolation;
use super::ops::Txn;
use super::state::{NodeId, State};
use crate::actors::lock_table::Locker;
use crate::config::Durability;
use crate::env::gate::Entry;
use crate::env::{Core, Fenced, GoesFirst, Holding, RawTable, ReadTxn, Readable, Snapshot, Ticket};
use crate::error::{DbError, LockError, Name, Site, Stage, TxnError};
use crate::locks::{LockerSpec, Mode, Object, Reason};
use crate::txn::sets::{Limits, Seen, Sets, TableRef, TooMuch};

/// What an attempt begins with.
pub(crate) struct Start {
    pub env: Arc<Core>,
    pub name: Name,
    pub site: Site,
    pub isolation: Isolation,
    pub deadline: Instant,
    /// The time from the send to the deadline.
    pub span: Duration,
    pub durability: Option<Durability>,
    /// The leases that it runs under, if it does.
    pub fenced: Option<Arc<Fenced>>,
    /// Which attempt it is: 1 for the first.
    pub number: u32,
    /// Rather than wait for a lock out of order and among others, it ends and is run again.
    pub gives_way: bool,
    pub trace: tracing::Span,
}

/// The locks that an attempt begins with.
pub(crate) struct Locked {
    pub locker: Option<Locker>,
    /// What the locker holds already of what the last attempt needed.
    pub held: Vec<(Object, Mode)>,
}

/// What others may wait for: given back at the end, also while handles of the transaction are kept.
#[derive(Default)]
pub(crate) struct Lent {
    pub permit: Option<Arc<OwnedSemaphorePermit>>,
    pub snapshot: Option<Snapshot>,
    /// It has lost so many re-checks that it goes before plain updates.
    pub first: Option<GoesFirst>,
    /// Holds the key of a transaction that has one.
    #[expect(dead_code, reason = "all that it is for is to be dropped")]
    pub key: Option<Locker>,
}

/// See the module.
pub(crate) struct Attempt {
    pub(super) start: Start,
    pub(super) root: Option<Locker>,
    state: Mutex<State>,
    pub(super) lent: Mutex<Lent>,
    /// All that it held is given back.
    released: AtomicBool,
    /// Nothing may be used any more either: there is nothing left to undo.
    over: AtomicBool,
    /// The writer has it, with its locks, which go when the writer is done (I4) or when it is given up.
    handed_over: OnceLock<Arc<Ticket>>,
}

/// What was read, and from where.
pub(super) struct Read<R> {
    /// The id of LMDB's snapshot.
    pub snapshot: usize,
    /// The number of outside writes before it.
    pub mark: u64,
    pub value: R,
}

impl<R> Read<R> {
    fn of(
        txn: &ReadTxn<'_>,
        mark: u64,
        read: impl Fn(&ReadTxn<'_>) -> Result<R, DbError>,
    ) -> Result<Self, TxnError> {
        Ok(Self {
            snapshot: txn.snapshot_id(),
            mark,
            value: read(txn)?,
        })
    }
}

/// A transaction or a child: what its handles share.
pub(super) struct Node {
    pub attempt: Arc<Attempt>,
    pub id: NodeId,
    pub holder: Holder,
}

/// Who holds the locks of a node.
pub(super) enum Holder {
    Nobody,
    /// The locker of the attempt.
    Root,
    Child(Locker),
}

impl Attempt {
    pub(crate) fn new(start: Start, locked: Locked, lent: Lent, seed: [u64; 2]) -> Arc<Self> {
        let config = &start.env.shared.config;
        let limits = Limits {
            read_entries: config.max_read_set(),
            write_bytes: usize::try_from(config.max_write_set()).unwrap_or(usize::MAX),
        };
        let attempt = Arc::new(Self {
            start,
            root: locked.locker,
            state: Mutex::new(State::new(Sets::new(limits, seed))),
            lent: Mutex::new(lent),
            released: AtomicBool::new(false),
            over: AtomicBool::new(false),
            handed_over: OnceLock::new(),
        });
        if !locked.held.is_empty()
            && let Ok(open) = attempt.state().usable(NodeId::ROOT)
        {
            let held = locked.held.into_iter();
            held.for_each(|held| open.remember(held));
        }
        attempt
    }

    /// A handle of the transaction.
    pub(crate) fn txn(self: &Arc<Self>) -> Txn {
        Txn::new(Arc::new(Node {
            attempt: Arc::clone(self),
            id: NodeId::ROOT,
            holder: match self.start.isolation {
                // What there is are the locks that were declared.
                Isolation::Optimistic => Holder::Nobody,
                _ => Holder::Root,
            },
        }))
    }

    pub(crate) fn site(&self) -> Site {
        self.start.site
    }

    pub(crate) fn isolation(&self) -> Isolation {
        self.start.isolation
    }

    pub(crate) fn trace(&self) -> &tracing::Span {
        &self.start.trace
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.start.deadline
    }

    /// Why it is lost, if it is.
    pub(crate) fn death(&self) -> Option<TxnError> {
        self.state().death().map(TxnError::duplicate)
    }

    /// The locks that it is known to have needed before it was lost.
    pub(crate) fn needed(&self) -> Vec<(Object, Mode)> {
        self.state().needed()
    }

    /// Undoes it, unless the writer has it: nothing may be used any more, and its locks are free.
    pub(crate) fn abort(&self) {
        if self.over.load(Ordering::Acquire) {
            return;
        }
        self.state().end();
        // Given up, it is never committed, whenever the writer comes to it.
        let ticket = self.handed_over.get();
        if ticket.is_none_or(|ticket| ticket.given_up()) {
            self.release();
        }
    }

    /// It was used up in peace: what it held is given back, and there is nothing to undo.
    pub(super) fn settle(&self) {
        self.release();
        self.over.store(true, Ordering::Release);
    }

    pub(super) fn release(&self) {
        if self.released.load(Ordering::Acquire) {
            return;
        }
        if let Some(root) = &self.root {
            root.end();
        }
        let lent = std::mem::take(&mut *self.lent.lock());
        drop(lent);
        // Only now: whoever sees it may rely on all of it being free.
        self.released.store(true, Ordering::Release);
    }

    /// Nobody else can have written what it has locked: none of its locks was taken away.
    pub(super) fn has_its_locks(&self) -> bool {
        self.root
            .as_ref()
            .is_none_or(|root| root.is_usable().is_ok())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Runs `read` on the newest committed state, or on the transaction's snapshot.
    pub(super) async fn read<R, F>(&self, read: F) -> Result<Read<R>, TxnError>
    where
        F: Fn(&ReadTxn<'_>) -> Result<R, DbError> + Send + 'static,
        R: Send + 'static,
    {
        // Whoever writes after this is noticed: the mark is older than what is read.
        let mark = self.start.env.shared.outside();
        let read = move |txn: &ReadTxn<'_>| Read::of(txn, mark, &read);
        if self.start.isolation == Isolation::Snapshot {
            let snapshot = self.lent.lock().snapshot.clone();
            let snapshot = snapshot.ok_or(TxnError::TransactionEnded)?;
            let asked = self.clock().until(self.start.deadline, snapshot.ask(read));
            return match Box::pin(asked).await {
                Some(answer) => answer?,
                None => Err(self.out_of_time(Stage::Ran)),
            };
        }
        self.view(read).await
    }

    /// [`read`](Self::read), if that is possible right now and right here.
    pub(super) fn read_now<R>(
        &self,
        read: impl Fn(&ReadTxn<'_>) -> Result<R, DbError>,
    ) -> Option<Result<Read<R>, TxnError>> {
        if self.start.isolation == Isolation::Snapshot {
            return None;
        }
        let Start { env, site, .. } = &self.start;
        let mark = env.shared.outside();
        let read = |txn: &ReadTxn<'_>| Read::of(txn, mark, &read);
        env.view_now(site, Entry::Admitted, read).ok()
    }

    /// Runs a view in place, outside of the transaction.
    pub(super) async fn view<R, F>(&self, read: F) -> Result<R, TxnError>
    where
        F: Fn(&ReadTxn<'_>) -> Result<R, TxnError> + Send + 'static,
        R: Send + 'static,
    {
        let Start {
            env,
            site,
            name,
            deadline,
            ..
        } = &self.start;
        match env.view_now(site, Entry::Admitted, &read) {
            Ok(result) => result,
            Err((tried, _)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let permit = self.lent.lock().permit.clone();
                let slowly = env.view_slowly(tried, (site, name.clone()), permit, left, read);
                // Boxed: it is large, and hardly ever needed.
                Box::pin(slowly).await
            }
        }
    }

    pub(crate) fn out_of_time(&self, stage: Stage) -> TxnError {
        TxnError::DeadlineExceeded {
            deadline: self.start.span,
            stage,
        }
    }

    pub(super) fn clock(&self) -> &crate::clock::Clock {
        &self.start.env.shared.clock
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.release();
    }
}

impl Node {
    /// The locker of the node, if it takes locks.
    pub(super) fn locker(&self) -> Option<&Locker> {
        match &self.holder {
            Holder::Nobody => None,
            Holder::Root => self.attempt.root.as_ref(),
            Holder::Child(locker) => Some(locker),
        }
    }

    /// The node may be used, or why not.
    pub(super) fn check(&self) -> Result<(), TxnError> {
        self.attempt.state().usable(self.id).map(drop)
    }

    /// [`lock`](Self::lock), if that needs no wait: then nothing has to be kept for a wait. `None` if it may need one, and
    /// if it is refused. With the state, in which the node may be used.
    pub(super) fn lock_now(
        &self,
        object: Object,
        mode: Mode,
        site: Site,
    ) -> Option<Result<MutexGuard<'_, State>, TxnError>> {
        let mut state = self.attempt.state();
        if let Err(error) = state.usable(self.id) {
            return Some(Err(error));
        }
        if state.holds(&object, mode) {
            return Some(Ok(state));
        }
        drop(state);
        let locker = self.locker();
        if let Some(locker) = locker
            && !matches!(locker.lock_now(&object, mode, site), Ok(true))
        {
            return None;
        }
        let mut state = self.attempt.state();
        match state.usable(self.id) {
            Ok(open) if locker.is_some() => open.remember((object, mode)),
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(state))
    }

    fn remember(&self, object: &Object, mode: Mode) -> Result<(), TxnError> {
        let mut state = self.attempt.state();
        state.usable(self.id)?.remember((object.clone(), mode));
        Ok(())
    }

    /// Locks the object until the transaction ends.
    pub(super) async fn lock(
        &self,
        object: &Object,
        mode: Mode,
        site: Site,
    ) -> Result<(), TxnError> {
        let done = self.lock_now(object.clone(), mode, site);
        match done.map(|done| done.map(drop)) {
            Some(done) => done,
            // Boxed: most locks are free.
            None => Box::pin(self.lock_slowly(object, mode, site)).await,
        }
    }

    async fn lock_slowly(&self, object: &Object, mode: Mode, site: Site) -> Result<(), TxnError> {
        let Some(locker) = self.locker() else {
            return Ok(());
        };
        let mut lock = Box::pin(locker.lock_for_transaction(object, mode, site));
        if self.attempt.start.gives_way && self.attempt.state().is_beyond(object) {
            let polled = poll_fn(|cx| Poll::Ready(lock.as_mut().poll(cx))).await;
            match polled {
                // A cycle that it closed is broken by now.
                Poll::Pending if locker.waits_among_others() => {
                    drop(lock);
                    return self.give_way(object, mode);
                }
                Poll::Pending => {}
                Poll::Ready(answer) => return self.locked(object, mode, Some(answer)),
            }
        }
        let deadline = self.attempt.start.deadline;
        let answer = self.attempt.clock().until(deadline, lock).await;
        self.locked(object, mode, answer)
    }

    /// What a request for a lock came to; `None` when its time ran out.
    fn locked(
        &self,
        object: &Object,
        mode: Mode,
        answer: Option<Result<(), LockError>>,
    ) -> Result<(), TxnError> {
        match answer {
            Some(Ok(())) => self.remember(object, mode),
            Some(Err(LockError::ShuttingDown)) => Err(TxnError::ShuttingDown),
            // It ended while this waited, in another task.
            Some(Err(LockError::Ended)) => {
                self.check()?;
                Err(TxnError::TransactionEnded)
            }
            Some(Err(error)) => {
                let is_dead = self
                    .locker()
                    .is_some_and(|locker| locker.is_usable().is_err());
                let error = first_news(error);
                self.attempt.state().refused(object, mode);
                // It may have ended or died while this waited.
                self.check()?;
                if is_dead {
                    self.die(&error);
                }
                Err(error)
            }
            None => {
                let error = self.attempt.out_of_time(Stage::WaitedForLocks);
                self.die(&error);
                Err(error)
            }
        }
    }

    /// Ends the transaction in the place of a wait.
    fn give_way(&self, object: &Object, mode: Mode) -> Result<(), TxnError> {
        self.check()?;
        self.attempt.state().refused(object, mode);
        let error = TxnError::GaveWay {
            database: object.namespace().into(),
        };
        self.die(&error);
        Err(error)
    }

    /// The transaction is lost: it may not be used any more and holds nothing. Of a child only the child, if its family
    /// survives.
    pub(super) fn die(&self, why: &TxnError) {
        let root = self.attempt.root.as_ref();
        let is_conflict = matches!(why, TxnError::Conflict(_));
        let whole = !is_conflict || root.is_none_or(|root| root.is_usable().is_err());
        self.attempt.state().die(self.id, whole, why);
        match whole {
            true => self.attempt.release(),
            false => {
                if let Some(locker) = self.locker() {
                    locker.end();
                }
            }
        }
    }

    /// The lock table's name for a record of the table.
    pub(super) fn record(table: &RawTable, key: &[u8]) -> Object {
        Object::new(Arc::clone(table.name()), key)
    }

    /// What was read is to be compared at the commit: it may have changed by now.
    pub(super) fn noted(
        &self,
        table: &RawTable,
        seen: Result<Seen, TooMuch>,
    ) -> Result<(), TxnError> {
        match seen {
            Ok(Seen::First | Seen::Same) => Ok(()),
            Ok(Seen::Changed) => {
                let error = TxnError::ReadChanged {
                    database: Arc::clone(table.name()),
                };
                self.die(&error);
                Err(error)
            }
            Err(error) => Err(too_much(error)),
        }
    }

    pub(super) fn child_locker(&self, site: Site) -> Result<Holder, TxnError> {
        let Some(locker) = self.locker() else {
            return Ok(Holder::Nobody);
        };
        let spec = LockerSpec {
            name: self.attempt.start.name.clone().map(Into::into),
            site,
            ..LockerSpec::new()
        };
        let child = locker.child(spec).map_err(first_news)?;
        Ok(Holder::Child(child))
    }
}

pub(super) fn table_ref(table: &RawTable) -> TableRef {
    TableRef {
        id: table.id(),
        order: table.order(),
    }
}

/// A conflict that the transaction has not been told of yet, also if the table has told somebody: a request that was dropped.
pub(super) fn first_news(error: LockError) -> TxnError {
    match error {
        LockError::Dead(conflict) => TxnError::Conflict(Reason::Conflict(conflict).into()),
        LockError::ShuttingDown => TxnError::ShuttingDown,
        error => TxnError::Conflict(error),
    }
}

pub(super) fn too_much(error: TooMuch) -> TxnError {
    TxnError::TooMuch {
        which: error.which,
        limit: error.limit,
    }
}

/// The locks of a transaction on their way through the writer (I4): released when this is dropped, also while handles of the
/// transaction are kept.
pub(super) struct Riding(Arc<Attempt>);

impl Riding {
    pub(super) fn on(attempt: &Arc<Attempt>, ticket: &Arc<Ticket>) -> Self {
        attempt.handed_over.get_or_init(|| Arc::clone(ticket));
        Self(Arc::clone(attempt))
    }
}

impl Holding for Riding {
    fn check(&self) -> Result<(), TxnError> {
        match &self.0.root {
            Some(root) => root.is_usable().map_err(first_news),
            None => Ok(()),
        }
    }
}

impl Drop for Riding {
    fn drop(&mut self) {
        self.0.release();
    }
}
