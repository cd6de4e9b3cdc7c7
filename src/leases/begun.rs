//! Questions to the store with which whoever waits for the answer goes on himself.
//!
//! The thread of the leases could ask everything, but a way from thread to thread is a good part of what a fast store takes to
//! answer. So the task that waits polls the question, and its thread brings the answer to the core. Such a task may be blocked
//! or have forgotten its future, and must not keep a connection from others: the thread of the leases looks for those that are
//! not answered after [`STALLED`], and goes on with them.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;

use super::boottime;
use super::shared::Shared;
use super::state::Moment;
use crate::env::quietly;

/// After so long without an answer the thread of the leases goes on with a question.
const STALLED: Duration = Duration::from_millis(50);
/// How often it looks.
pub(super) const LOOK: Duration = Duration::from_millis(25);

pub(super) type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Says that a question has to end on the thread of the leases: the application's handlers run nowhere else.
#[derive(Debug, Default)]
pub(super) struct Home(AtomicBool);

impl Home {
    pub(super) fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn want(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A question that was sent and is not answered yet.
pub(super) struct Begun {
    shared: Arc<Shared>,
    since: Moment,
    home: Arc<Home>,
    /// `None` once it has ended or been taken over.
    call: Mutex<Option<Call>>,
}

impl Begun {
    /// Goes on with it; ready if there is nothing more to be done here.
    pub(super) fn poll(self: &Arc<Self>, context: &mut Context<'_>) -> Poll<()> {
        // Its connections are a parent's.
        if self.shared.is_forked() {
            return Poll::Ready(());
        }
        let Some(mut place) = self.call.try_lock() else {
            // It is just being taken over.
            return Poll::Ready(());
        };
        let Some(call) = place.as_mut() else {
            return Poll::Ready(());
        };
        let polled = self.shared.on_runtime(|| call.as_mut().poll(context));
        if polled == Some(Poll::Pending) {
            drop(place);
            if self.home.is_wanted() {
                self.to_driver();
                return Poll::Ready(());
            }
            return Poll::Pending;
        }
        let ended = place.take();
        drop(place);
        self.shared.begun.forget(self);
        self.shared.drop_in_context(ended);
        Poll::Ready(())
    }

    /// Has the thread of the leases go on with it.
    pub(super) fn to_driver(self: &Arc<Self>) {
        // The thread is a parent's, as are the locks.
        if self.shared.is_forked() {
            return;
        }
        let call = self.call.lock().take();
        self.spawn(call);
    }

    fn spawn(self: &Arc<Self>, call: Option<Call>) {
        self.shared.begun.forget(self);
        if let Some(call) = call {
            self.shared.spawn_call(call);
        }
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct AllBegun {
    watch: Mutex<Watch>,
    /// The runtime is gone, or about to go: nothing of it can be polled.
    has_ended: RwLock<bool>,
}

#[derive(Default)]
struct Watch {
    /// By their addresses.
    calls: HashMap<usize, Arc<Begun>>,
    /// The driver looks every so often.
    is_on: bool,
    /// There were some since it looked last.
    were_some: bool,
}

impl AllBegun {
    fn forget(&self, begun: &Arc<Begun>) {
        let forgotten = self.watch.lock().calls.remove(&Arc::as_ptr(begun).addr());
        // Not under the mutex.
        drop(forgotten);
    }
}

impl Shared {
    /// Leaves a question to the caller's task.
    pub(super) fn leave(self: &Arc<Self>, call: Call, home: Arc<Home>) -> Arc<Begun> {
        let begun = Arc::new(Begun {
            shared: Arc::clone(self),
            since: boottime::now(),
            home,
            call: Mutex::new(Some(call)),
        });
        let mut watch = self.begun.watch.lock();
        watch
            .calls
            .insert(Arc::as_ptr(&begun).addr(), Arc::clone(&begun));
        watch.were_some = true;
        let was_on = std::mem::replace(&mut watch.is_on, true);
        drop(watch);
        if !was_on {
            self.wake.notify_one();
        }
        begun
    }

    /// Goes on with what nobody else went on with. Whether it has to be looked again soon.
    pub(super) fn take_over(&self, now: Moment) -> bool {
        let mut stalled = Vec::new();
        let mut watch = self.begun.watch.lock();
        for begun in watch.calls.values() {
            if now.since(begun.since) >= STALLED {
                stalled.push(Arc::clone(begun));
            }
        }
        let were_some = std::mem::take(&mut watch.were_some);
        watch.is_on = were_some || !watch.calls.is_empty();
        let is_on = watch.is_on;
        drop(watch);
        for begun in stalled {
            // Whoever polls it at this moment is not stalled.
            if let Some(mut place) = begun.call.try_lock() {
                let call = place.take();
                drop(place);
                begun.spawn(call);
            }
        }
        is_on
    }

    /// Polls something that belongs to the runtime of the leases; `None` once that is gone.
    pub(super) fn on_runtime<R>(&self, poll: impl FnOnce() -> R) -> Option<R> {
        // A poll may wake somebody who polls another at once.
        let has_ended = self.begun.has_ended.read_recursive();
        if *has_ended {
            return None;
        }
        let _context = self.runtime.enter();
        Some(poll())
    }

    /// Has the thread of the leases go on with what was begun; if its runtime is gone, nobody does.
    pub(super) fn spawn_call(&self, call: Call) {
        self.in_context(|| drop(self.runtime.spawn(call)));
    }

    /// Drops what is left of a question. A connection may leave work to the runtime when it is dropped, and panics outside of
    /// one.
    fn drop_in_context(&self, call: Option<Call>) {
        quietly(|| self.in_context(|| drop(call)));
    }

    fn in_context<R>(&self, run: impl FnOnce() -> R) -> R {
        // In the destructor of a thread-local there is no context.
        let is_possible =
            !Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed());
        let _context = is_possible.then(|| self.runtime.enter());
        run()
    }

    /// The runtime is about to go.
    pub(super) fn end_begun(&self) {
        *self.begun.has_ended.write() = true;
        let calls = std::mem::take(&mut self.begun.watch.lock().calls);
        for begun in calls.into_values() {
            let call = begun.call.lock().take();
            self.drop_in_context(call);
        }
    }
}
