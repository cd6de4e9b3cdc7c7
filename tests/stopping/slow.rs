//! A store that takes its time to take leases back.

use std::path::Path;
use std::sync::Arc;

use lockkeeper::{
    Claim, Claimed, Holder, LeaseName, LeaseRecord, LeaseStore, LmdbLeases, Refresh, Refreshed,
    Released, StoreFuture, StoreId,
};
use tokio::sync::watch;

use crate::rt::until;

/// Leases in a file. Whoever gives a lease back waits until the door is open.
#[derive(Clone)]
pub struct Slow {
    pub store: LmdbLeases,
    is_slow: fn(&LeaseName) -> bool,
    door: Arc<watch::Sender<bool>>,
    waiting: Arc<watch::Sender<usize>>,
}

impl Slow {
    pub fn of(folder: &Path, is_slow: fn(&LeaseName) -> bool) -> Self {
        Self {
            store: LmdbLeases::open(folder).unwrap(),
            is_slow,
            door: Arc::default(),
            waiting: Arc::default(),
        }
    }

    pub fn open(&self) {
        self.door.send_replace(true);
    }

    /// Waits until somebody gives one back.
    pub fn until_asked(&self) {
        until(|| self.asked() > 0);
    }

    /// How many were to be given back.
    pub fn asked(&self) -> usize {
        *self.waiting.borrow()
    }
}

impl LeaseStore for Slow {
    fn id(&self) -> StoreFuture<'_, StoreId> {
        self.store.id()
    }
    fn prepare(&self) -> StoreFuture<'_, ()> {
        self.store.prepare()
    }
    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        self.store.claim(claim)
    }
    fn refresh<'a>(&'a self, leases: &'a [Refresh]) -> StoreFuture<'a, Vec<Refreshed>> {
        self.store.refresh(leases)
    }
    fn release<'a>(&'a self, name: &'a LeaseName, holder: &'a Holder) -> StoreFuture<'a, Released> {
        if !(self.is_slow)(name) {
            return self.store.release(name, holder);
        }
        let mut door = self.door.subscribe();
        self.waiting.send_modify(|waiting| *waiting += 1);
        Box::pin(async move {
            // An error means "gone".
            let _ = door.wait_for(|is_open| *is_open).await;
            self.store.release(name, holder).await
        })
    }
    fn look<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        self.store.look(name)
    }
    fn list(&self) -> StoreFuture<'_, Vec<LeaseRecord>> {
        self.store.list()
    }
    fn force_release<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        self.store.force_release(name)
    }
    fn close(&self) -> StoreFuture<'_, ()> {
        self.store.close()
    }
}
