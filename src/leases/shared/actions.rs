//! What is left to do when the mutex has been let go: stores are asked, answers given, events told.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Shared;
use crate::clock::coarse_now;
use crate::env::quietly;
use crate::error::LeaseError;
use crate::leases::begun::{Begun, Home};
use crate::leases::limit::Verdict;
use crate::leases::seen::{self, Acquiring};
use crate::leases::state::{RefreshItem, SendId};
use crate::leases::view::{Cell, Ending};
use crate::leases::waiting::Answer;
use crate::leases::{Fence, LeaseEvent, LeaseGuard, LeaseName, Leases, LostReason, calls};

/// What is left to the caller, if anything.
pub(in crate::leases) type Left = Option<Arc<Begun>>;

/// One of them.
pub(super) enum Action {
    Claim(Arc<Cell>, SendId, Option<Fence>),
    HandOver(Arc<Cell>, Arc<Cell>, SendId),
    Refresh(Vec<(Arc<Cell>, RefreshItem)>),
    Release(Arc<Cell>),
    Grant(oneshot::Sender<Answer>, Arc<Cell>),
    Refuse(oneshot::Sender<Answer>, LeaseError),
    Tell(LeaseEvent),
    Confirm(Arc<Cell>, SendId),
    Lost(Arc<Cell>, LostReason),
    Waits(Arc<Acquiring>, LeaseName),
    NotHeld,
    End(Arc<Cell>, Ending),
    Listen,
}

impl Shared {
    /// `left`: whoever asks goes on himself with one question that is not answered at once.
    ///
    /// Who is told of something is the application's, wakers, subscriber and recorder: a panic of theirs is theirs. One on the way
    /// to the store leaves the core without an answer that it waits for, and breaks it.
    pub(super) fn carry_out(self: &Arc<Self>, action: Action, left: Option<&mut Left>) {
        match action {
            Action::Claim(cell, send, left_with) => {
                let shared = Arc::clone(self);
                self.begin(left, |home| {
                    calls::claim(shared, home, cell, send, left_with)
                });
            }
            Action::HandOver(from, to, send) => {
                let shared = Arc::clone(self);
                self.begin(left, |home| calls::hand_over(shared, home, from, to, send));
            }
            Action::Release(cell) => {
                let shared = Arc::clone(self);
                self.begin(left, |home| calls::release(shared, home, cell));
            }
            Action::Refresh(items) => {
                let only = match items.as_slice() {
                    [(cell, _)] => Some(Arc::clone(cell)),
                    _ => None,
                };
                let task = self.serve(calls::refresh(Arc::clone(self), items));
                if let Some(cell) = only {
                    *cell.refreshing.lock() = Some(task.abort_handle());
                }
            }
            Action::Grant(reply, cell) => self.grant(reply, cell),
            Action::Refuse(reply, error) => quietly(|| drop(reply.send(Err(error)))),
            Action::Lost(cell, reason) => {
                cell.tell_lost(reason.clone());
                seen::lost(&reason);
                quietly(|| self.log_lost(&cell, &reason));
                self.tell(LeaseEvent::Lost {
                    name: cell.name.clone(),
                    token: cell.token(),
                    reason,
                });
            }
            Action::End(cell, ending) => {
                // A claim that came to nobody was told to nobody either.
                if let Ending::Released(outcome) = ending
                    && cell.was_granted()
                {
                    self.tell(LeaseEvent::Released {
                        name: cell.name.clone(),
                        token: cell.token(),
                        outcome,
                    });
                }
                quietly(|| drop(cell.ending.send_replace(ending)));
            }
            Action::Tell(event) => self.tell(event),
            Action::Waits(seen, name) => seen.waits(&name),
            Action::NotHeld => seen::not_held(),
            Action::Confirm(cell, send) => quietly(|| cell.confirm(send)),
            Action::Listen => {
                if !self.is_listening.swap(true, Ordering::Relaxed) {
                    self.serve(calls::listen(Arc::clone(self)));
                }
            }
        }
    }

    /// Asks the store something. What can be sent at once is sent by the thread that wants it, which saves the way to the
    /// driver's thread; whoever waits goes on with it, or else the driver.
    fn begin<F>(self: &Arc<Self>, left: Option<&mut Left>, call: impl FnOnce(Arc<Home>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.ended.borrow().is_some() {
            return;
        }
        let home = Arc::new(Home::default());
        let mut call = Box::pin(self.guarded(call(Arc::clone(&home))));
        // In the destructor of a thread-local nothing can be polled.
        if Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed()) {
            self.runtime.spawn(call);
            return;
        }
        // Whoever goes on with it looks again, whatever is woken until then.
        let mut context = Context::from_waker(Waker::noop());
        let begun = self.on_runtime(|| call.as_mut().poll(&mut context));
        if begun != Some(Poll::Pending) {
            return;
        }
        match left {
            Some(left @ None) if !home.is_wanted() => *left = Some(self.leave(call, home)),
            _ => self.spawn_call(call),
        }
    }

    fn grant(self: &Arc<Self>, reply: oneshot::Sender<Answer>, cell: Arc<Cell>) {
        seen::held();
        if let Some(id) = self.store_id.get() {
            // It has been asked for before anything else.
            let _ = cell.store.set(id.clone());
        }
        self.tell(LeaseEvent::Acquired {
            name: cell.name.clone(),
            token: cell.token(),
        });
        match self.owner.get().and_then(Weak::upgrade) {
            // An answer that nobody takes comes back, and its guard gives the lease back.
            Some(owner) => {
                let guard = LeaseGuard::new(cell, Leases::of(owner));
                quietly(|| drop(reply.send(Ok(guard))));
            }
            None => self.release(&cell, true, None),
        }
    }

    /// All leases may be lost at once.
    fn log_lost(self: &Arc<Self>, cell: &Cell, reason: &LostReason) {
        match self.losses.another(coarse_now()) {
            Verdict::Log => {
                tracing::warn!(target: "lockkeeper", lease = cell.name.as_str(), token = cell.token().0, %reason, "a lease was lost");
            }
            Verdict::First => {
                let shared = Arc::clone(self);
                self.runtime.spawn(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    shared.log_lost_rest();
                });
            }
            Verdict::Count => {}
        }
    }

    /// Says how many losses were not logged.
    pub(in crate::leases) fn log_lost_rest(&self) {
        if let Some(more) = self.losses.held_back() {
            quietly(|| tracing::warn!(target: "lockkeeper", more, "more leases were lost"));
        }
    }
}
