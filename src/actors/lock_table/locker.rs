//! Who holds locks, and the guard of a single one.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::lock::Lock;
use super::locks::Locks;
use super::shared::Shared;
use crate::locks::{Age, LockerId, Mode, Object};
use crate::messages::lock_table::{LockError, Wait};

/// Holds locks and waits for them. Made with [`Locks::locker`].
///
/// Dropping it, on any thread, takes back what it waits for and releases all that it holds.
pub struct Locker {
    id: LockerId,
    age: Age,
    locks: Locks,
}

impl Locker {
    pub(super) fn new(id: LockerId, age: Age, locks: Locks) -> Self {
        Self { id, age, locks }
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
    }

    /// Releases everything it holds. What it waits for, it goes on waiting for. If it was a victim, it
    /// may ask for locks again.
    pub fn release_all(&self) {
        self.shared()
            .transition(|state, effects| state.table.release_all(self.id, effects));
    }

    pub(super) fn shared(&self) -> &Shared {
        self.locks.shared()
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        self.shared()
            .transition(|state, effects| state.table.end(self.id, effects));
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
    held: bool,
}

impl LockGuard {
    pub(super) fn new(locker: Arc<Locker>, object: Object, mode: Mode) -> Self {
        Self {
            locker,
            object,
            mode,
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

    /// Releases it now; false if it had been released through its locker.
    pub fn release(mut self) -> bool {
        self.held = false;
        self.locker.unlock(&self.object, self.mode)
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.held {
            self.locker.unlock(&self.object, self.mode);
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
