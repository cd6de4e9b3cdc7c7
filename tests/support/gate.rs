//! A store of leases behind a gate. While it is shut, nobody of this process is in the store: stopped then, it keeps nothing from
//! others, neither LMDB's writer nor a lock of a file or of a row.

// Each test binary compiles its own copy, and uses only part of it.
#![allow(dead_code)]

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lockkeeper::{
    Claim, Claimed, Holder, LeaseName, LeaseRecord, LeaseStore, Refresh, Refreshed, Released,
    StoreError, StoreFuture, StoreId, TableName, Wakeups,
};

use crate::stop::now;

#[derive(Clone)]
pub struct Gate {
    store: Arc<dyn LeaseStore>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// It opens by itself, also for a process that is stopped until then.
    shut_until: u64,
    inside: usize,
}

impl Gate {
    pub fn before(store: Arc<dyn LeaseStore>) -> Self {
        Self {
            store,
            state: Arc::default(),
        }
    }

    /// Shuts it until that time; answers whether all have left in time.
    pub fn shut_until(&self, time: u64) -> bool {
        self.state.lock().unwrap().shut_until = time;
        while now() < time {
            if self.state.lock().unwrap().inside == 0 {
                return true;
            }
            thread::sleep(Duration::from_millis(1));
        }
        false
    }

    fn pass<T, F>(
        &self,
        ask: impl FnOnce(Arc<dyn LeaseStore>) -> F + Send + 'static,
    ) -> StoreFuture<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let (store, state) = (Arc::clone(&self.store), Arc::clone(&self.state));
        Box::pin(async move {
            let inside = loop {
                match Inside::enter(&state) {
                    Ok(inside) => break inside,
                    Err(shut) => tokio::time::sleep(shut).await,
                }
            };
            // Whoever is inside is so until it is done, also if nobody waits for it any more.
            let asked = tokio::spawn(async move {
                let answer = ask(store).await;
                drop(inside);
                answer
            });
            asked.await.unwrap()
        })
    }
}

struct Inside(Arc<Mutex<State>>);

impl Inside {
    /// Enters, unless the gate is shut for so long still.
    fn enter(state: &Arc<Mutex<State>>) -> Result<Self, Duration> {
        let mut now_in = state.lock().unwrap();
        match now_in.shut_until.checked_sub(now()) {
            Some(left) if left > 0 => Err(Duration::from_nanos(left)),
            _ => {
                now_in.inside += 1;
                Ok(Self(Arc::clone(state)))
            }
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.lock().unwrap().inside -= 1;
    }
}

impl LeaseStore for Gate {
    fn id(&self) -> StoreFuture<'_, StoreId> {
        self.pass(|store| async move { store.id().await })
    }

    fn prepare(&self) -> StoreFuture<'_, ()> {
        self.pass(|store| async move { store.prepare().await })
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        let claim = claim.clone();
        self.pass(|store| async move { store.claim(&claim).await })
    }

    fn refresh<'a>(&'a self, leases: &'a [Refresh]) -> StoreFuture<'a, Vec<Refreshed>> {
        let leases = leases.to_vec();
        self.pass(|store| async move { store.refresh(&leases).await })
    }

    fn release<'a>(&'a self, name: &'a LeaseName, holder: &'a Holder) -> StoreFuture<'a, Released> {
        let (name, holder) = (name.clone(), holder.clone());
        self.pass(|store| async move { store.release(&name, &holder).await })
    }

    fn give_back<'a>(
        &'a self,
        name: &'a LeaseName,
        holder: &'a Holder,
    ) -> StoreFuture<'a, (Released, bool)> {
        let (name, holder) = (name.clone(), holder.clone());
        self.pass(|store| async move { store.give_back(&name, &holder).await })
    }

    fn hand_over<'a>(
        &'a self,
        from: &'a Holder,
        claim: &'a Claim,
    ) -> StoreFuture<'a, (Released, Claimed)> {
        let (from, claim) = (from.clone(), claim.clone());
        self.pass(|store| async move { store.hand_over(&from, &claim).await })
    }

    fn look<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        let name = name.clone();
        self.pass(|store| async move { store.look(&name).await })
    }

    fn list(&self) -> StoreFuture<'_, Vec<LeaseRecord>> {
        self.pass(|store| async move { store.list().await })
    }

    fn force_release<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        let name = name.clone();
        self.pass(|store| async move { store.force_release(&name).await })
    }

    fn wakeups(&self) -> Option<StoreFuture<'_, Box<dyn Wakeups>>> {
        self.store.wakeups()
    }

    fn table(&self) -> Option<&TableName> {
        self.store.table()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.store.close()
    }
}
