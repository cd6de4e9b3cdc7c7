//! Leases are given back each on its own, and their threads end with the keeper.

use std::time::Duration;

use lockkeeper::{
    Claim, Claimed, Holder, LeaseName, LeaseRecord, LeaseStore, LmdbLeases, Refresh, Refreshed,
    Released, ShutdownError, StoreFuture, StoreId,
};

use crate::rt::{block_on, builder};

const SOON: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(20);

/// A store that never answers the release of one lease.
struct Sticky(LmdbLeases);

impl LeaseStore for Sticky {
    fn id(&self) -> StoreFuture<'_, StoreId> {
        self.0.id()
    }
    fn prepare(&self) -> StoreFuture<'_, ()> {
        self.0.prepare()
    }
    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        self.0.claim(claim)
    }
    fn refresh<'a>(&'a self, leases: &'a [Refresh]) -> StoreFuture<'a, Vec<Refreshed>> {
        self.0.refresh(leases)
    }
    fn release<'a>(&'a self, name: &'a LeaseName, holder: &'a Holder) -> StoreFuture<'a, Released> {
        match name.as_str() {
            "stuck" => Box::pin(std::future::pending()),
            _ => self.0.release(name, holder),
        }
    }
    fn look<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        self.0.look(name)
    }
    fn list(&self) -> StoreFuture<'_, Vec<LeaseRecord>> {
        self.0.list()
    }
    fn force_release<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        self.0.force_release(name)
    }
    fn close(&self) -> StoreFuture<'_, ()> {
        self.0.close()
    }
}

#[test]
fn one_that_cannot_be_given_back_keeps_no_other_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbLeases::open(folder.path()).unwrap();
    let keeper = builder(folder.path())
        .lease_store(Sticky(store.clone()))
        .open()
        .unwrap();
    let names = ["one", "other", "stuck"];
    let guards = names.map(|name| block_on(keeper.lease(name).acquire()).unwrap());
    for _ in 0..2 {
        let outcome = keeper.blocking_shutdown(SOON);
        let Err(ShutdownError::LeasesMaybeHeld { names }) = &outcome else {
            panic!("{outcome:?}");
        };
        let names: Vec<_> = names.iter().map(LeaseName::as_str).collect();
        assert_eq!(names, ["stuck"]);
        assert!(!outcome.unwrap_err().is_retryable());
    }
    let held = |name: &'static str| {
        let name = LeaseName::new(name).unwrap();
        let record = block_on(async { store.look(&name).await }).unwrap();
        record.is_some_and(|record| record.remaining.is_some())
    };
    assert_eq!(names.map(held), [false, false, true]);
    assert!(guards.iter().all(|guard| !guard.is_held()));
    // Everything else has ended.
    builder(folder.path()).open().unwrap();
}

#[test]
fn the_leases_of_a_keeper_can_be_had_by_the_next_one_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut guards = Vec::new();
    for round in 0..5 {
        let keeper = builder(folder.path()).open().unwrap();
        let guard = block_on(keeper.lease("job").try_acquire()).unwrap();
        guards.push(guard);
        keeper.blocking_shutdown(LONG).unwrap();
        assert!(!guards[round].is_held());
    }
    assert!(guards.is_sorted_by_key(|guard| guard.token()));
}
