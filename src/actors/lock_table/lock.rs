//! The future of one lock request.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::locker::Locker;
use super::shared::Asked;
use super::waiting::WaitSpan;
use crate::error::LockError;
use crate::locks::{LockId, Mode, Object, Request, WaitId};
use crate::messages::lock_table::Wait;

/// A request for a lock; see [`Locker::lock`] and [`Locker::upgrade`].
///
/// The request is made at the first poll. Dropping the future takes it back, whether it waits or has
/// been granted unseen.
#[must_use = "a lock is asked for when the future is polled"]
pub struct Lock<'a> {
    locker: &'a Locker,
    object: Object,
    mode: Mode,
    from: Option<Mode>,
    /// What the guard that is upgraded knows of its lock.
    guard: Option<(&'a mut Mode, &'a mut Option<LockId>)>,
    wait: Wait,
    site: &'static Location<'static>,
    stage: Stage,
}

enum Stage {
    Unasked,
    Waiting(WaitId, WaitSpan),
    Done,
}

impl<'a> Lock<'a> {
    pub(super) fn new(
        locker: &'a Locker,
        object: &Object,
        mode: Mode,
        wait: Wait,
        site: &'static Location<'static>,
    ) -> Self {
        Self {
            locker,
            object: object.clone(),
            mode,
            from: None,
            guard: None,
            wait,
            site,
            stage: Stage::Unasked,
        }
    }

    /// Makes it an upgrade of a lock that is held in this mode.
    pub(super) fn upgrading(mut self, from: Mode) -> Self {
        self.from = Some(from);
        self
    }

    /// Makes it an upgrade of the lock of a guard, which has this mode.
    pub(super) fn upgrading_guard(
        mut self,
        mode: &'a mut Mode,
        lock: &'a mut Option<LockId>,
    ) -> Self {
        self.from = Some(*mode);
        self.guard = Some((mode, lock));
        self
    }

    /// The guard's lock has this mode now.
    fn guard_has(&mut self, mode: Mode) {
        if let Some((place, lock)) = &mut self.guard {
            let (locker, object) = (self.locker.id(), &self.object);
            let shared = self.locker.shared();
            **place = mode;
            let id = shared.look(|state| state.table.lock_id(locker, object, mode));
            **lock = id.ok().flatten();
        }
    }
}

impl Future for Lock<'_> {
    type Output = Result<(), LockError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let shared = this.locker.shared();
        if let Stage::Unasked = this.stage {
            let request = Request {
                locker: this.locker.id(),
                object: &this.object,
                mode: this.mode,
                from: this.from,
                site: this.site,
            };
            match shared.ask(request, this.wait) {
                Ok(Some(id)) => {
                    let span = WaitSpan::begin(this.locker.id(), &this.object, this.mode);
                    this.stage = Stage::Waiting(id, span);
                }
                done => {
                    if done.is_ok() {
                        this.guard_has(this.mode);
                    }
                    this.stage = Stage::Done;
                    return Poll::Ready(done.map(|_| ()));
                }
            }
        }
        let Stage::Waiting(id, span) = &this.stage else {
            // Polled again after its end, which no executor does.
            return Poll::Pending;
        };
        let Some(outcome) = shared.poll_wait(*id, context.waker()) else {
            return Poll::Pending;
        };
        let result = outcome.map_err(LockError::from);
        span.end(result.as_ref().err());
        if result.is_ok() {
            this.guard_has(this.mode);
        }
        this.stage = Stage::Done;
        Poll::Ready(result)
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        if let Stage::Waiting(id, _) = self.stage {
            let asked = Asked {
                locker: self.locker.id(),
                object: &self.object,
                mode: self.mode,
                from: self.from,
            };
            let taken_back = self.locker.shared().withdraw(id, &asked);
            match (taken_back, self.from) {
                (true, Some(from)) => self.guard_has(from),
                _ => self.guard_has(self.mode),
            }
        }
    }
}

impl fmt::Debug for Lock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("locker", &self.locker.id())
            .field("object", &self.object)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
