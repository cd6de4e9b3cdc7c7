//! What an operator asks of leases, and does to them, whoever holds them.

use std::future::Future;
use std::sync::Arc;

use super::shared::Shared;
use super::{LeaseName, LeaseRecord, LeaseStore, Leases, StoreError, boottime};
use crate::env::quietly;
use crate::error::LeaseError;
use crate::messages::lease::LeaseStatus;

impl Leases {
    /// What the store knows of a lease; `None` if nothing.
    ///
    /// # Errors
    /// [`LeaseError::BadName`], [`LeaseError::Unreachable`], [`LeaseError::Store`].
    pub fn holder(
        &self,
        name: impl Into<Arc<str>>,
    ) -> impl Future<Output = Result<Option<LeaseRecord>, LeaseError>> + Send + 'static {
        let (name, shared) = (LeaseName::new(name), Arc::clone(self.shared()));
        async move {
            let name = name?;
            let ask = |store: Arc<dyn LeaseStore>| async move { store.look(&name).await };
            inspect(shared, ask).await
        }
    }

    /// All leases that the store knows of, ordered by name.
    ///
    /// # Errors
    /// [`LeaseError::Unreachable`], [`LeaseError::Store`].
    pub fn list(
        &self,
    ) -> impl Future<Output = Result<Vec<LeaseRecord>, LeaseError>> + Send + 'static + use<> {
        let shared = Arc::clone(self.shared());
        inspect(shared, |store: Arc<dyn LeaseStore>| async move {
            store.list().await
        })
    }

    /// Takes a lease away from whoever holds it; its token moves on. Answers what it was; `None` if nobody held it. A holder
    /// in this process is told at once, one elsewhere at its next refresh.
    ///
    /// # Errors
    /// [`LeaseError::BadName`], [`LeaseError::Unreachable`], [`LeaseError::Store`].
    pub fn force_release(
        &self,
        name: impl Into<Arc<str>>,
    ) -> impl Future<Output = Result<Option<LeaseRecord>, LeaseError>> + Send + 'static {
        let (name, shared) = (LeaseName::new(name), Arc::clone(self.shared()));
        async move {
            let name = name?;
            let ask = |store: Arc<dyn LeaseStore>| async move { store.force_release(&name).await };
            let record = inspect(Arc::clone(&shared), ask).await?;
            if let Some(record) = &record {
                // Its holder hears of it first: the application's subscriber may panic.
                shared.step(|book, now, fx| book.forced(now, record, fx));
                quietly(
                    || tracing::warn!(target: "lockkeeper", lease = record.name.as_str(), token = record.token.0, "a lease was released by force"),
                );
            }
            Ok(record)
        }
    }

    /// What the store and this process know of a lease.
    ///
    /// # Errors
    /// As [`holder`](Self::holder).
    pub fn status(
        &self,
        name: impl Into<Arc<str>>,
    ) -> impl Future<Output = Result<LeaseStatus, LeaseError>> + Send + 'static {
        let (name, leases) = (LeaseName::new(name), self.clone());
        async move {
            let name = name?;
            let record = leases.holder(name.as_str()).await?;
            let (waiting, held_here) = leases.shared().local(&name);
            Ok(LeaseStatus {
                record,
                waiting,
                held_here,
            })
        }
    }
}

/// Asks the store something once, on its own thread.
async fn inspect<T, F, A>(shared: Arc<Shared>, ask: A) -> Result<T, LeaseError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, StoreError>> + Send + 'static,
    A: FnOnce(Arc<dyn LeaseStore>) -> F + Send + 'static,
{
    // The thread is a parent's.
    if shared.is_forked() {
        return Err(shared.gone());
    }
    let begun = boottime::now();
    let runtime = shared.runtime.clone();
    let gone = Arc::clone(&shared);
    let task = async move {
        let asked = ask(Arc::clone(&shared.store));
        shared.call(shared.config.call_timeout, asked).await
    };
    match runtime.spawn(task).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if error.is_retryable() => Err(LeaseError::Unreachable {
            errors: 1,
            waited: boottime::now().since(begun),
            last: Arc::new(error),
        }),
        Ok(Err(error)) => Err(LeaseError::Store(Arc::new(error))),
        Err(_) => Err(gone.gone()),
    }
}
