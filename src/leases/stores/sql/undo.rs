//! A claim that is given up while it is under way.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Backend, SqlStore};
use crate::leases::{Claim, LeaseName, LeaseStore, StoreError};

/// How long the answer to a claim is waited for after nobody wants it any more: longer than a statement waits for a lock.
const LAST_WAIT: Duration = Duration::from_secs(4);
/// How often, and how far apart, it is then tried to give back what may have been granted.
const TRIES: u32 = 5;
const BETWEEN: Duration = Duration::from_secs(1);

/// A claim that can be dropped without leaving the lease held.
///
/// The server may carry out a statement long after the client has gone, when it waited for a lock meanwhile: a release sent
/// after it on another connection would come too early. So what was sent is heard to its end on the same connection, and what
/// it brought is given back.
pub(super) struct Undoable<B: Backend, T: 'static> {
    running: Option<Running<T>>,
    busy: fn(&T) -> bool,
    store: Arc<SqlStore<B>>,
    claim: Claim,
    sent: Arc<AtomicBool>,
    runtime: Option<Handle>,
}

type Running<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

impl<B: Backend, T: 'static> Undoable<B, T> {
    /// What runs says when it begins to send. `busy` tells from an answer that nothing was granted.
    pub(super) fn new<F>(
        store: Arc<SqlStore<B>>,
        claim: Claim,
        busy: fn(&T) -> bool,
        run: impl FnOnce(Arc<SqlStore<B>>, Claim, Arc<AtomicBool>) -> F,
    ) -> Self
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let sent = Arc::new(AtomicBool::new(false));
        let running = run(Arc::clone(&store), claim.clone(), Arc::clone(&sent));
        Self {
            running: Some(Box::pin(running)),
            busy,
            store,
            claim,
            sent,
            runtime: None,
        }
    }
}

impl<B: Backend, T: 'static> Future for Undoable<B, T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.runtime.is_none() {
            self.runtime = Handle::try_current().ok();
        }
        let Some(running) = &mut self.running else {
            return Poll::Pending;
        };
        let answer = running.as_mut().poll(context);
        if answer.is_ready() {
            self.running = None;
        }
        answer
    }
}

impl<B: Backend, T: 'static> Drop for Undoable<B, T> {
    fn drop(&mut self) {
        let (Some(running), Some(runtime)) = (self.running.take(), self.runtime.take()) else {
            return;
        };
        if self.sent.load(Ordering::Acquire) {
            let store = Arc::clone(&self.store);
            let undo = store.undoing.begin(&self.claim);
            let busy = self.busy;
            let granted = async move { !running.await.is_ok_and(|answer| busy(&answer)) };
            let claim = self.claim.clone();
            runtime.spawn(give_back(Box::pin(granted), store, claim, undo));
        }
    }
}

async fn give_back<B: Backend>(
    granted: Pin<Box<dyn Future<Output = bool> + Send>>,
    store: Arc<SqlStore<B>>,
    claim: Claim,
    undo: Arc<Undo>,
) {
    let _ended = Ended(Arc::clone(&store), &claim, &undo);
    // What is not heard may have been granted.
    let granted = tokio::time::timeout(LAST_WAIT, granted).await;
    if granted == Ok(false) || undo.is_taken_over() {
        return;
    }
    for _ in 0..TRIES {
        let release = store.release(&claim.name, &claim.holder);
        match tokio::time::timeout(LAST_WAIT, release).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) if !error.is_retryable() => return,
            _ => tokio::time::sleep(BETWEEN).await,
        }
    }
    tracing::warn!(
        lease = %claim.name,
        "a lease that was claimed and given up may be held until its expiry: the store cannot be reached"
    );
}

/// The claims that are given up, but not yet given back. A claim of the same holder for the same name that comes after waits
/// for it, and what that one brought is then not given back: it would be taken from the later claim.
#[derive(Debug, Default)]
pub(super) struct Undoing(Mutex<HashMap<Key, Arc<Undo>>>);

type Key = (LeaseName, Arc<str>);

#[derive(Debug, Default)]
struct Undo {
    phase: Mutex<Phase>,
    done: CancellationToken,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Its answer is waited for.
    #[default]
    Listening,
    /// A later claim wants what it brings.
    TakenOver,
    /// It is being given back.
    Releasing,
}

impl Undoing {
    fn begin(&self, claim: &Claim) -> Arc<Undo> {
        let undo = Arc::new(Undo::default());
        self.0.lock().insert(key(claim), Arc::clone(&undo));
        undo
    }

    /// Waits until everything is given back, or cannot be.
    pub(super) async fn ended(&self) {
        let all: Vec<_> = self.0.lock().values().cloned().collect();
        for undo in all {
            undo.done.cancelled().await;
        }
    }

    /// Waits for the end of an earlier claim of the same holder. From here on this claim has something to give back.
    pub(super) async fn take_over(&self, claim: &Claim, sent: &AtomicBool) {
        let earlier = {
            let all = self.0.lock();
            if all.is_empty() {
                return;
            }
            all.get(&key(claim)).cloned()
        };
        if let Some(earlier) = earlier {
            sent.store(true, Ordering::Release);
            earlier.take_over();
            earlier.done.cancelled().await;
        }
    }
}

impl Undo {
    fn take_over(&self) {
        let mut phase = self.phase.lock();
        if *phase == Phase::Listening {
            *phase = Phase::TakenOver;
        }
    }

    fn is_taken_over(&self) -> bool {
        let mut phase = self.phase.lock();
        if *phase == Phase::Listening {
            *phase = Phase::Releasing;
        }
        *phase == Phase::TakenOver
    }
}

fn key(claim: &Claim) -> Key {
    (claim.name.clone(), Arc::clone(&claim.holder.id))
}

/// Tells those who wait, also if the runtime ends before.
struct Ended<'a, B: Backend>(Arc<SqlStore<B>>, &'a Claim, &'a Arc<Undo>);

impl<B: Backend> Drop for Ended<'_, B> {
    fn drop(&mut self) {
        let Self(store, claim, undo) = self;
        let mut all = store.undoing.0.lock();
        if all
            .get(&key(claim))
            .is_some_and(|last| Arc::ptr_eq(last, undo))
        {
            all.remove(&key(claim));
        }
        undo.done.cancel();
    }
}
