//! A store that counts what it is asked.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use lockkeeper::{
    Claim, Claimed, Holder, LeaseName, LeaseRecord, LeaseStore, Refresh, Refreshed, Released,
    StoreFuture, StoreId, Wakeups,
};

pub struct Counting {
    store: Arc<dyn LeaseStore>,
    pub counts: Arc<Counts>,
}

#[derive(Default)]
pub struct Counts {
    /// Each request to refresh: when it began, when it ended, for how many leases.
    pub refreshes: Mutex<Vec<(Instant, Instant, usize)>>,
    /// Who asked for a lease.
    pub claimants: Mutex<HashSet<Arc<str>>>,
}

impl Counting {
    pub fn new(store: Arc<dyn LeaseStore>) -> Self {
        Self {
            store,
            counts: Arc::default(),
        }
    }
}

impl LeaseStore for Counting {
    fn id(&self) -> StoreFuture<'_, StoreId> {
        self.store.id()
    }

    fn prepare(&self) -> StoreFuture<'_, ()> {
        self.store.prepare()
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        let id = Arc::clone(&claim.holder.id);
        self.counts.claimants.lock().unwrap().insert(id);
        self.store.claim(claim)
    }

    fn refresh<'a>(&'a self, leases: &'a [Refresh]) -> StoreFuture<'a, Vec<Refreshed>> {
        Box::pin(async {
            let begun = Instant::now();
            let answer = self.store.refresh(leases).await;
            let entry = (begun, Instant::now(), leases.len());
            self.counts.refreshes.lock().unwrap().push(entry);
            answer
        })
    }

    fn release<'a>(&'a self, name: &'a LeaseName, holder: &'a Holder) -> StoreFuture<'a, Released> {
        self.store.release(name, holder)
    }

    fn give_back<'a>(
        &'a self,
        name: &'a LeaseName,
        holder: &'a Holder,
    ) -> StoreFuture<'a, (Released, bool)> {
        self.store.give_back(name, holder)
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

    fn wakeups(&self) -> Option<StoreFuture<'_, Box<dyn Wakeups>>> {
        self.store.wakeups()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.store.close()
    }
}
