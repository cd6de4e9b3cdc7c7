//! Whether this process leads.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use lockkeeper::{LeaseError, LeaseGuard, Leases};

/// The lease of the leader, which this process wants for as long as it runs.
pub struct Leadership {
    leases: Leases,
    name: &'static str,
    guard: Arc<RwLock<Option<Arc<LeaseGuard>>>>,
}

impl Leadership {
    /// Begins to ask for the lease, on this runtime.
    pub fn of(leases: Leases, name: &'static str) -> Self {
        let guard = Arc::default();
        tokio::spawn(keep(leases.clone(), name, Arc::clone(&guard)));
        Self {
            leases,
            name,
            guard,
        }
    }

    /// The lease that this process had last. It may have lost it: that is for the transaction under it to find out.
    pub fn guard(&self) -> Option<Arc<LeaseGuard>> {
        let guard = self.guard.read().unwrap_or_else(PoisonError::into_inner);
        guard.clone()
    }

    /// The process that leads, if one does.
    pub async fn leader(&self) -> Result<Option<u32>, LeaseError> {
        let record = self.leases.holder(self.name).await?;
        let held = record.filter(|record| record.remaining.is_some());
        Ok(held.and_then(|record| Some(record.holder?.pid)))
    }
}

/// Takes the lease whenever it is free. Whatever comes under an earlier one is refused by its guard.
async fn keep(leases: Leases, name: &'static str, place: Arc<RwLock<Option<Arc<LeaseGuard>>>>) {
    let put = |guard| *place.write().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    loop {
        match leases.acquire(name).await {
            Ok(guard) => {
                let (token, lost) = (guard.token(), guard.lost());
                put(Arc::new(guard));
                println!("leading with token {token}");
                println!("leading no more: {}", lost.await);
            }
            Err(LeaseError::ShuttingDown) => return,
            Err(error) => {
                eprintln!("leader_web: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
