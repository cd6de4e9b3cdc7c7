//! Transactions under a lease: applied only if it is still held, and if nobody who got it later has written before.

use super::transaction::{Begin, Transaction};
use crate::env::Under;
use crate::leases::AsLease;
use crate::messages::supervisor::{RunTxn, TxnOptions};

impl TxnOptions {
    fn add_lease(&mut self, lease: &(impl AsLease + ?Sized)) {
        self.under.push(Under::from(lease.lease_view()));
    }
}

impl<T, E> RunTxn<T, E> {
    /// Runs the transaction under a lease: it is applied only if the lease is still held, and if its fencing token is not smaller
    /// than one that this environment has seen under this lease. Called again, it runs under several. Default: none.
    ///
    /// Whether the lease is held is asked of the guard, which knows it by the clock and waits for nobody: when the transaction
    /// begins, before each attempt, and by the writer before the body runs and after it. The token is compared, and remembered, in
    /// the LMDB transaction that the effect is in; so a holder that was paused, and does not know that it has lost the lease, is refused as
    /// soon as a later one has written. That outlasts restarts.
    ///
    /// Only writes are fenced by tokens. A view is answered only if the lease is held when it ends, and the same goes for an
    /// interactive transaction that has written nothing. An answer that is stored for a [key](Self::idempotent) is given under any
    /// lease that is held.
    ///
    /// The transaction fails with [`TxnError::LeaseLost`](crate::TxnError::LeaseLost) or
    /// [`TxnError::FenceTooSmall`](crate::TxnError::FenceTooSmall), and is not tried again; others of its batch notice nothing.
    ///
    /// ```
    /// use lockkeeper::{Keeper, Leases, LmdbLeases, RunTxn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let keeper = Keeper::open(folder.path())?;
    /// let leases = Leases::builder(LmdbLeases::open(folder.path())?).start()?;
    ///
    /// let guard = leases.acquire("nightly-job").await?;
    /// let booked = keeper.run(RunTxn::update(|_txn| Ok(7)).under(&guard)).await?;
    /// assert_eq!(booked, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn under(mut self, lease: &(impl AsLease + ?Sized)) -> Self {
        self.options.add_lease(lease);
        self
    }

    #[cfg(test)]
    fn under_lease(mut self, lease: Under) -> Self {
        self.options.under.push(lease);
        self
    }
}

impl<T, E, F> Transaction<'_, T, E, F> {
    /// Runs the transaction under a lease, as [`RunTxn::under`] says: the writer looks before it applies what the transaction has
    /// written, and after. Default: none.
    pub fn under(mut self, lease: &(impl AsLease + ?Sized)) -> Self {
        self.options.add_lease(lease);
        self
    }

    #[cfg(test)]
    fn under_lease(mut self, lease: Under) -> Self {
        self.options.under.push(lease);
        self
    }
}

impl Begin {
    /// Runs the transaction under a lease, as [`RunTxn::under`] says; it is looked at when the transaction begins, and when it is
    /// committed. Default: none.
    pub fn under(mut self, lease: &(impl AsLease + ?Sized)) -> Self {
        self.options.add_lease(lease);
        self
    }

    #[cfg(test)]
    fn under_lease(mut self, lease: Under) -> Self {
        self.options.under.push(lease);
        self
    }
}

#[cfg(test)]
mod tests;
