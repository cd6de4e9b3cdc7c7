//! A claim that is given up while it is under way.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;

use super::{Backend, SqlStore};
use crate::leases::{Claim, Claimed, LeaseStore, StoreError};

/// How long the answer to a claim is waited for after nobody wants it any more.
const LAST_WAIT: Duration = Duration::from_secs(20);
/// How often, and how far apart, it is then tried to give back what may have been granted.
const TRIES: u32 = 5;
const BETWEEN: Duration = Duration::from_secs(1);

/// A claim that can be dropped without leaving the lease held.
///
/// The server may carry out a statement long after the client has gone, when it waited for a lock meanwhile: a release sent
/// after it on another connection would come too early. So what was sent is heard to its end on the same connection, and what
/// it brought is given back.
pub(super) struct Undoable<B: Backend> {
    running: Option<Running>,
    store: Arc<SqlStore<B>>,
    claim: Claim,
    sent: Arc<AtomicBool>,
    runtime: Option<Handle>,
}

type Running = Pin<Box<dyn Future<Output = Result<Claimed, StoreError>> + Send>>;

impl<B: Backend> Undoable<B> {
    pub(super) fn new(store: Arc<SqlStore<B>>, claim: Claim) -> Self {
        let sent = Arc::new(AtomicBool::new(false));
        let running = {
            let (store, claim, sent) = (Arc::clone(&store), claim.clone(), Arc::clone(&sent));
            async move { store.claim_with(&claim, &sent).await }
        };
        Self {
            running: Some(Box::pin(running)),
            store,
            claim,
            sent,
            runtime: None,
        }
    }
}

impl<B: Backend> Future for Undoable<B> {
    type Output = Result<Claimed, StoreError>;

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

impl<B: Backend> Drop for Undoable<B> {
    fn drop(&mut self) {
        let (Some(running), Some(runtime)) = (self.running.take(), self.runtime.take()) else {
            return;
        };
        if self.sent.load(Ordering::Acquire) {
            runtime.spawn(give_back(
                running,
                Arc::clone(&self.store),
                self.claim.clone(),
            ));
        }
    }
}

async fn give_back<B: Backend>(running: Running, store: Arc<SqlStore<B>>, claim: Claim) {
    if let Ok(Ok(Claimed::Busy(_))) = tokio::time::timeout(LAST_WAIT, running).await {
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
