//! A store that is shared is a store: what [`store_from_url`](super::store_from_url) answers goes wherever one is wanted.

use std::sync::Arc;

use super::{
    Claim, Claimed, Holder, LeaseName, LeaseRecord, LeaseStore, Refresh, Refreshed, Released,
    StoreFuture, StoreId, TableName, Wakeups,
};

/// Every method is that of the store in it, also those that have a default.
impl LeaseStore for Arc<dyn LeaseStore> {
    fn id(&self) -> StoreFuture<'_, StoreId> {
        (**self).id()
    }

    fn prepare(&self) -> StoreFuture<'_, ()> {
        (**self).prepare()
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        (**self).claim(claim)
    }

    fn refresh<'a>(&'a self, leases: &'a [Refresh]) -> StoreFuture<'a, Vec<Refreshed>> {
        (**self).refresh(leases)
    }

    fn release<'a>(&'a self, name: &'a LeaseName, holder: &'a Holder) -> StoreFuture<'a, Released> {
        (**self).release(name, holder)
    }

    fn give_back<'a>(
        &'a self,
        name: &'a LeaseName,
        holder: &'a Holder,
    ) -> StoreFuture<'a, (Released, bool)> {
        (**self).give_back(name, holder)
    }

    fn hand_over<'a>(
        &'a self,
        from: &'a Holder,
        claim: &'a Claim,
    ) -> StoreFuture<'a, (Released, Claimed)> {
        (**self).hand_over(from, claim)
    }

    fn look<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        (**self).look(name)
    }

    fn list(&self) -> StoreFuture<'_, Vec<LeaseRecord>> {
        (**self).list()
    }

    fn force_release<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        (**self).force_release(name)
    }

    fn wakeups(&self) -> Option<StoreFuture<'_, Box<dyn Wakeups>>> {
        (**self).wakeups()
    }

    fn table(&self) -> Option<&TableName> {
        (**self).table()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        (**self).close()
    }
}
