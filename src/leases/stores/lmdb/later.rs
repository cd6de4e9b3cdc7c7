//! A file of leases that is opened when it is first asked something.
//!
//! Opening may wait: for another process that has LMDB's writer, for the end of an earlier store of the same file. So a thread
//! does it that does nothing else, and no executor's thread waits for it. Whoever asked may go away: the thread goes on, and
//! what it has opened is there for the next, or is closed if nobody is left. A keeper joins it at its end.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::LmdbLeases;
use crate::env::beside::{Beside, NotBegun};
use crate::leases::{
    Claim, Claimed, Holder, LeaseName, LeaseRecord, LeaseStore, Refresh, Refreshed, Released,
    StoreError, StoreFuture, StoreId,
};

/// A store that is opened by the first question, and again by the next after an opening that failed. Waiters poll.
pub(crate) struct Later<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    state: Mutex<State<S>>,
    open: Box<Open<S>>,
    /// The thread that opens, and perhaps the one before, which has failed.
    threads: Beside,
}

type Open<S> = dyn Fn() -> Result<S, StoreError> + Send + Sync;

enum State<S> {
    Shut,
    /// A thread is at it. Its end is the end of the other half.
    Opening(watch::Receiver<()>),
    Open(S),
}

enum Look<S> {
    Open(S),
    Begun(oneshot::Receiver<Result<S, StoreError>>),
    BegunByAnother(watch::Receiver<()>),
}

impl Later<LmdbLeases> {
    /// The leases in this folder.
    pub(crate) fn at(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self::new(move || LmdbLeases::open(&folder))
    }
}

impl<S: LeaseStore + Clone> Later<S> {
    fn new(open: impl Fn() -> Result<S, StoreError> + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::Shut),
                open: Box::new(open),
                threads: Beside::default(),
            }),
        }
    }

    async fn opened(&self) -> Result<S, StoreError> {
        loop {
            match self.look()? {
                Look::Open(store) => return Ok(store),
                Look::Begun(answer) => {
                    let gone = |_| StoreError::Failed("the opening was given up".into());
                    return answer.await.map_err(gone)?;
                }
                // If it fails, its error is for whoever began it.
                Look::BegunByAnother(mut running) => while running.changed().await.is_ok() {},
            }
        }
    }

    fn look(&self) -> Result<Look<S>, StoreError> {
        let mut state = self.shared.state.lock();
        match &*state {
            State::Open(store) => return Ok(Look::Open(store.clone())),
            State::Opening(running) => return Ok(Look::BegunByAnother(running.clone())),
            State::Shut => {}
        }
        let (reply, answer) = oneshot::channel();
        let (running, ended) = watch::channel(());
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("lockkeeper-leases".into());
        let run = move || {
            let opened = shared.open();
            drop((shared, running));
            // Whoever asked may be gone.
            let _ = reply.send(opened);
        };
        let started = self.shared.threads.begin_after(|earlier| {
            thread.spawn(|| {
                run();
                drop(earlier);
            })
        });
        started.map_err(|error| match error {
            NotBegun::Thread(error) => StoreError::Unreachable(Box::new(error)),
            NotBegun::Closed => StoreError::Failed("the leases have ended".into()),
        })?;
        *state = State::Opening(ended);
        Ok(Look::Begun(answer))
    }
}

impl<S: LeaseStore + Clone> Later<S> {
    /// Waits for the thread that opens, however long that takes, and closes what nobody has closed. It blocks. Nothing is opened
    /// any more.
    pub(crate) fn join(&self) {
        for thread in self.shared.threads.close() {
            // It has told whoever asked.
            let _ = thread.join();
        }
        if let State::Open(store) = self.shared.shut() {
            // It is asked nothing more, whatever it answers.
            let _ = crate::clock::block_on(store.close());
        }
    }
}

impl<S: LeaseStore + Clone> Shared<S> {
    fn open(&self) -> Result<S, StoreError> {
        let open = std::panic::AssertUnwindSafe(|| (self.open)());
        let panicked = |_| Err(StoreError::Failed("the opening panicked".into()));
        let opened = std::panic::catch_unwind(open).unwrap_or_else(panicked);
        *self.state.lock() = match &opened {
            Ok(store) => State::Open(store.clone()),
            Err(_) => State::Shut,
        };
        opened
    }
}

impl<S> Shared<S> {
    /// Gives up what is open; answers what the state was.
    fn shut(&self) -> State<S> {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut *state, State::Shut);
        if let State::Opening(running) = &before {
            *state = State::Opening(running.clone());
        }
        before
    }
}

impl<S: LeaseStore + Clone> LeaseStore for Later<S> {
    fn id(&self) -> StoreFuture<'_, StoreId> {
        Box::pin(async { self.opened().await?.id().await })
    }

    fn prepare(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { self.opened().await?.prepare().await })
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        Box::pin(async { self.opened().await?.claim(claim).await })
    }

    fn refresh<'a>(&'a self, leases: &'a [Refresh]) -> StoreFuture<'a, Vec<Refreshed>> {
        Box::pin(async { self.opened().await?.refresh(leases).await })
    }

    fn release<'a>(&'a self, name: &'a LeaseName, holder: &'a Holder) -> StoreFuture<'a, Released> {
        Box::pin(async { self.opened().await?.release(name, holder).await })
    }

    fn give_back<'a>(
        &'a self,
        name: &'a LeaseName,
        holder: &'a Holder,
    ) -> StoreFuture<'a, (Released, bool)> {
        Box::pin(async { self.opened().await?.give_back(name, holder).await })
    }

    fn hand_over<'a>(
        &'a self,
        from: &'a Holder,
        claim: &'a Claim,
    ) -> StoreFuture<'a, (Released, Claimed)> {
        Box::pin(async { self.opened().await?.hand_over(from, claim).await })
    }

    fn look<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        Box::pin(async { self.opened().await?.look(name).await })
    }

    fn list(&self) -> StoreFuture<'_, Vec<LeaseRecord>> {
        Box::pin(async { self.opened().await?.list().await })
    }

    fn force_release<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        Box::pin(async { self.opened().await?.force_release(name).await })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            loop {
                match self.shared.shut() {
                    State::Shut => return Ok(()),
                    State::Open(store) => return store.close().await,
                    // It cannot be interrupted.
                    State::Opening(mut running) => while running.changed().await.is_ok() {},
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
