//! Who holds locks, and the guard of a single one.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::lock::Lock;
use super::locks::Locks;
use super::several::LocksRun;
use super::shared::Shared;
use crate::error::LockError;
use crate::locks::{Age, LockId, LockerId, LockerSpec, Mode, Object, Request, Taken};
use crate::messages::lock_table::{LockOps, Wait};

/// Holds locks and waits for them (Berkeley DB's locker id, from `lock_id`). Made with
/// [`Locks::locker`], or with [`child`](Self::child) for one that shares with its family.
///
/// Dropping it, on any thread, takes back what it and its children wait for and releases all that they
/// hold.
pub struct Locker {
    id: LockerId,
    age: Age,
    locks: Locks,
    /// Its end is over and done: to end it again needs no look at the table.
    ended: AtomicBool,
}

impl Locker {
    /// Of a locker that [`Shared::lockers`] counts already.
    pub(super) fn new(id: LockerId, age: Age, locks: Locks) -> Self {
        Self {
            id,
            age,
            locks,
            ended: AtomicBool::new(false),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> LockerId {
        self.id
    }

    /// Its age; the next attempt of the same work passes it on.
    #[must_use]
    pub fn age(&self) -> Age {
        self.age
    }

    /// The table it belongs to.
    #[must_use]
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// Locks the object. What is free is granted at the first poll, on the caller's thread.
    ///
    /// A lock that the locker holds already, in the same mode, is counted: it is released when it has
    /// been unlocked as many times. A lock in another mode is granted beside it if others allow it; so
    /// write after read is an upgrade, which comes before all who do not hold the object.
    ///
    /// Dropping the future takes the request back and leaves nothing behind, also if the lock had been
    /// granted and nobody had seen it.
    ///
    /// # Errors
    /// [`LockError`]: a deadlock whose victim this locker is, the end of the time to wait, not
    /// available at once ([`Wait::No`]), a limit, a locker that was a victim before, a table that is
    /// shutting down.
    #[track_caller]
    pub fn lock(&self, object: &Object, mode: Mode, wait: Wait) -> Lock<'_> {
        Lock::new(self, object, mode, wait, Location::caller())
    }

    /// Changes one reference of a lock from one mode to another, waiting if need be: the new mode is
    /// granted, and only then the old one given up. Who waits for an upgrade comes before all who do not
    /// hold the object. Two who hold it both and want to upgrade are a deadlock; [`Mode::Update`] in the
    /// place of read avoids it.
    ///
    /// Dropping the future takes the request back, and the lock keeps its mode. (A grant that nobody has
    /// seen is given back too, except where the old mode is not weaker than the new one and others have
    /// taken its place.)
    ///
    /// # Errors
    /// As [`lock`](Self::lock), and [`LockError::NotHeld`].
    #[track_caller]
    pub fn upgrade(&self, object: &Object, from: Mode, to: Mode, wait: Wait) -> Lock<'_> {
        Lock::new(self, object, to, wait, Location::caller()).upgrading(from)
    }

    /// Changes one reference of a lock to a weaker mode, without a wait; whoever that lets in goes on.
    ///
    /// # Errors
    /// [`LockError::NotHeld`]; [`LockError::NotWeaker`] if the new mode would exclude somebody whom the
    /// old one does not; [`LockError::Dead`], [`LockError::Ended`].
    pub fn downgrade(&self, object: &Object, from: Mode, to: Mode) -> Result<(), LockError> {
        let done = self.shared().transition(|state, effects| {
            state.table.downgrade(self.id, object, from, to, effects)
        })?;
        Ok(done?)
    }

    /// Does several operations in their order (Berkeley DB's `lock_vec`): what is asked for is held
    /// while later requests wait. By default all is done or nothing; see [`LockOps`].
    ///
    /// They begin at the first poll. Dropping the future releases what they took.
    ///
    /// # Errors
    /// [`LocksFailed`](crate::LocksFailed): which operation failed and why, and what became of the
    /// others.
    #[track_caller]
    pub fn run(&self, ops: LockOps) -> LocksRun<'_> {
        LocksRun::new(self, ops, Location::caller())
    }

    /// Makes a child: a locker of the same family, which does not conflict with this one, nor with its
    /// other children. [`commit`](Self::commit) gives its locks to this locker; dropping it releases
    /// them. It has the age and the priority of its family, and ends with its parent.
    ///
    /// # Errors
    /// [`LockError::Limit`] when there are `max_lockers` already; [`LockError::Dead`],
    /// [`LockError::Ended`], [`LockError::ShuttingDown`].
    pub fn child(&self, spec: LockerSpec) -> Result<Locker, LockError> {
        self.locks.child_of(self.id, spec)
    }

    /// Ends it. A child gives its locks, and those of its children, to its parent; a root releases them.
    /// What it waits for is refused.
    ///
    /// # Errors
    /// [`LockError::Dead`] if it, or a child of it, was aborted: then it ends all the same, and its
    /// locks are released. [`LockError::Ended`] if it had ended with its parent.
    pub fn commit(self) -> Result<(), LockError> {
        self.pass_up()
    }

    pub(crate) fn pass_up(&self) -> Result<(), LockError> {
        let done = self
            .shared()
            .transition(|state, effects| state.table.commit(self.id, effects))?;
        if done.is_ok() {
            self.ended.store(true, Ordering::Release);
        }
        Ok(done?)
    }

    /// Ends it now, with its children, also while others still have a handle of it: what they wait for is
    /// refused, what they hold is released. False if it had ended before.
    pub fn end(&self) -> bool {
        if self.ended.load(Ordering::Acquire) {
            return false;
        }
        let ended = self
            .shared()
            .transition(|state, effects| state.table.end(self.id, effects))
            .unwrap_or(true);
        // Only now: whoever is told that it had ended may rely on its locks being free.
        self.ended.store(true, Ordering::Release);
        ended
    }

    /// Takes the lock if that needs no wait, on behalf of the line that asked for it; says whether it did.
    pub(crate) fn lock_now(
        &self,
        object: &Object,
        mode: Mode,
        site: &'static Location<'static>,
    ) -> Result<bool, LockError> {
        self.shared().try_ask(Request {
            locker: self.id,
            object,
            mode,
            from: None,
            site,
        })
    }

    /// [`lock`](Self::lock) for a transaction, on behalf of the line that asked for it. That it holds another lock for long is
    /// told once, and no reason to fail.
    pub(crate) async fn lock_for_transaction(
        &self,
        object: &Object,
        mode: Mode,
        site: &'static Location<'static>,
    ) -> Result<(), LockError> {
        let ask = || self.lock_at(object, mode, Wait::Default, site);
        match ask().await {
            Err(LockError::HeldTooLong(_)) => ask().await,
            answer => answer,
        }
    }

    /// [`lock`](Self::lock) on behalf of the line that asked for it.
    pub(crate) fn lock_at(
        &self,
        object: &Object,
        mode: Mode,
        wait: Wait,
        site: &'static Location<'static>,
    ) -> Lock<'_> {
        Lock::new(self, object, mode, wait, site)
    }

    /// Does what [`lock`](Self::lock) does, and parks the calling thread while it waits. Not for tasks
    /// of an executor.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    #[track_caller]
    pub fn blocking_lock(&self, object: &Object, mode: Mode, wait: Wait) -> Result<(), LockError> {
        let mut lock = std::pin::pin!(Lock::new(self, object, mode, wait, Location::caller()));
        THREAD_WAKER.with(|waker| {
            let mut context = Context::from_waker(waker);
            loop {
                match lock.as_mut().poll(&mut context) {
                    Poll::Ready(result) => return result,
                    Poll::Pending => thread::park(),
                }
            }
        })
    }

    /// Releases one lock, or takes one from its count; false if it is not held.
    pub fn unlock(&self, object: &Object, mode: Mode) -> bool {
        self.shared()
            .transition(|state, effects| state.table.unlock(self.id, object, mode, effects))
            .unwrap_or(false)
    }

    /// Releases all of its locks on the object, in whatever mode and however often they were taken;
    /// answers how many locks that were. (Berkeley DB's `DB_LOCK_PUT_OBJ` releases everybody's.)
    pub fn unlock_object(&self, object: &Object) -> usize {
        self.shared()
            .transition(|state, effects| state.table.unlock_object(self.id, object, effects))
            .unwrap_or(0)
    }

    /// Releases what it holds for reading, its read and intent-read locks; answers how many that were.
    /// (Berkeley DB's `DB_LOCK_PUT_READ`.)
    pub fn release_reads(&self) -> usize {
        self.shared()
            .transition(|state, effects| state.table.release_reads(self.id, effects))
            .unwrap_or(0)
    }

    /// Releases everything it holds itself, and answers how many locks that were. What it waits for, it
    /// goes on waiting for. If it was aborted, it may ask for locks again.
    pub fn release_all(&self) -> usize {
        self.shared()
            .transition(|state, effects| state.table.release_all(self.id, effects))
            .unwrap_or(0)
    }

    /// Whether others wait for what it waits for, or for what its family holds.
    pub(crate) fn waits_among_others(&self) -> bool {
        self.shared()
            .look(|state| state.table.waits_among_others(self.id))
            .unwrap_or(false)
    }

    /// Whether it may ask for something, or why not.
    pub(crate) fn is_usable(&self) -> Result<(), LockError> {
        let usable = self
            .shared()
            .look(|state| state.table.check_usable(self.id))?;
        Ok(usable?)
    }

    pub(super) fn shared(&self) -> &Shared {
        self.locks.shared()
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        self.end();
        self.shared().lockers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Locker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locker")
            .field("id", &self.id)
            .field("age", &self.age)
            .finish_non_exhaustive()
    }
}

/// A lock that is released when this is dropped.
pub struct LockGuard {
    locker: Arc<Locker>,
    object: Object,
    mode: Mode,
    /// Which lock it is: its locker can have released it, and taken another like it since.
    lock: Option<LockId>,
    held: bool,
}

impl LockGuard {
    pub(super) fn new(locker: Arc<Locker>, object: Object, mode: Mode) -> Self {
        let lock = locker
            .shared()
            .look(|state| state.table.lock_id(locker.id, &object, mode))
            .unwrap_or_default();
        Self {
            locker,
            object,
            mode,
            lock,
            held: true,
        }
    }

    /// The guard of one of several locks that were just granted.
    pub(super) fn of_taken(locker: &Arc<Locker>, taken: Taken) -> Self {
        Self {
            locker: Arc::clone(locker),
            object: taken.object,
            mode: taken.mode,
            lock: taken.lock,
            held: true,
        }
    }

    /// What is locked.
    #[must_use]
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// In which mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Who holds it.
    #[must_use]
    pub fn locker(&self) -> &Arc<Locker> {
        &self.locker
    }

    /// Changes the mode of the lock, waiting if need be; see [`Locker::upgrade`].
    ///
    /// # Errors
    /// As [`Locker::upgrade`]; the lock keeps its mode then.
    #[track_caller]
    pub fn upgrade(&mut self, to: Mode, wait: Wait) -> Lock<'_> {
        self.upgrade_at(to, wait, Location::caller())
    }

    /// [`upgrade`](Self::upgrade) on behalf of the line that asked for it.
    pub(crate) fn upgrade_at(
        &mut self,
        to: Mode,
        wait: Wait,
        site: &'static Location<'static>,
    ) -> Lock<'_> {
        Lock::new(&self.locker, &self.object, to, wait, site)
            .upgrading_guard(&mut self.mode, &mut self.lock)
    }

    /// Weakens the lock; see [`Locker::downgrade`].
    ///
    /// # Errors
    /// As [`Locker::downgrade`]; the lock keeps its mode then.
    pub fn downgrade(&mut self, to: Mode) -> Result<(), LockError> {
        let (id, object, from) = (self.locker.id, &self.object, self.mode);
        let lock = self.locker.shared().transition(|state, effects| {
            state.table.downgrade(id, object, from, to, effects)?;
            Ok::<_, LockError>(state.table.lock_id(id, object, to))
        })??;
        (self.mode, self.lock) = (to, lock);
        Ok(())
    }

    /// Releases all of these now, those of one table in one step; false if one of them had been released
    /// through its locker.
    pub fn release_all(mut guards: Vec<LockGuard>) -> bool {
        let table = |guard: &LockGuard| Arc::as_ptr(guard.locker.locks.shared_arc());
        let of_one_table = |one: &LockGuard, other: &LockGuard| {
            Arc::ptr_eq(&one.locker, &other.locker) || table(one) == table(other)
        };
        if !guards.is_sorted_by(of_one_table) {
            guards.sort_by_key(table);
        }
        let mut held = true;
        for group in guards.chunk_by_mut(of_one_table) {
            for guard in &mut *group {
                guard.held = false;
            }
            let Some(first) = group.first() else {
                continue;
            };
            let released = first.locker.shared().transition(|state, effects| {
                let locks = group.iter().map(|guard| guard.lock);
                state.table.unlock_these(locks, effects)
            });
            held &= released.unwrap_or(false);
        }
        held
    }

    /// Releases it now; false if it had been released through its locker.
    pub fn release(mut self) -> bool {
        self.held = false;
        self.unlock()
    }

    fn unlock(&self) -> bool {
        let shared = self.locker.shared();
        let released =
            shared.transition(|state, effects| state.table.unlock_these([self.lock], effects));
        released.unwrap_or(false)
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.held {
            self.unlock();
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("object", &self.object)
            .field("mode", &self.mode)
            .field("locker", &self.locker.id())
            .finish_non_exhaustive()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    // Made once for each thread, so that a lock that is free costs no allocation.
    static THREAD_WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}
