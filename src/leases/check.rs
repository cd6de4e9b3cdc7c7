//! A lease and the application's own SQL transaction: it is committed only under the lease.

use super::{CheckLease, LeaseGuard, LeaseName, LeaseStanding, LeaseView, LostReason};
use crate::error::ErrorClass;

/// Why [`LeaseGuard::check`] says no. In each case the transaction must be rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The lease is not held any more, or the connection is to another database than the one that keeps it. Roll back, and
    /// acquire the lease anew.
    #[error("the lease {name:?} is not held{}", because(.reason.as_ref()))]
    Lost {
        /// The lease.
        name: LeaseName,
        /// Why, if this process knows already.
        reason: Option<LostReason>,
    },
    /// The lease is not in an SQL database, or its store does not say in which table. Compare tokens instead.
    #[error("the lease {name:?} is not in a table that a transaction can look at")]
    NoTable {
        /// The lease.
        name: LeaseName,
    },
    /// The database did not answer the question. Whether the lease is held is not known.
    #[error("the database could not be asked for the lease")]
    Sql(#[from] sqlx::Error),
}

impl CheckError {
    /// What kind of error this is.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Lost { .. } => ErrorClass::LeaseLost,
            Self::NoTable { .. } => ErrorClass::BadConfig,
            Self::Sql(_) => ErrorClass::StoreUnreachable,
        }
    }
}

impl LeaseGuard {
    /// Makes an SQL transaction of the application depend on this lease, in the database that keeps it: fails unless the lease
    /// is still held, and in Postgres and MySQL nobody else gets it from then on until the transaction ends.
    ///
    /// Give it the connection of a transaction that has begun; outside of one it says only how things stand. The row of the
    /// lease stays locked until the end of the transaction, so ask shortly before the commit: a lease cannot be refreshed
    /// meanwhile, while others of the same process can. See [`CheckLease`] for what differs from database to database.
    ///
    /// # Errors
    /// [`CheckError`]; the transaction must be rolled back then. Dropping the future is as an error.
    ///
    /// ```no_run
    /// # #[cfg(feature = "sqlite")]
    /// # async fn pay(leases: lockkeeper::Leases) -> Result<(), Box<dyn std::error::Error>> {
    /// use sqlx::{Connection, SqliteConnection};
    ///
    /// let lease = leases.acquire("payments").await?;
    /// let mut connection = SqliteConnection::connect("sqlite://app.db").await?;
    /// let mut txn = connection.begin_with("BEGIN IMMEDIATE").await?;
    /// sqlx::query("update accounts set cents = cents - 100 where id = 1")
    ///     .execute(&mut *txn)
    ///     .await?;
    /// lease.check(&mut txn).await?;
    /// txn.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn check<C>(&self, connection: &mut C) -> Result<(), CheckError>
    where
        C: CheckLease + ?Sized,
    {
        self.claim_view().check(connection).await
    }
}

impl LeaseView {
    /// Makes an SQL transaction of the application depend on this lease, as [`LeaseGuard::check`] does.
    ///
    /// # Errors
    /// As [`LeaseGuard::check`].
    pub async fn check<C>(&self, connection: &mut C) -> Result<(), CheckError>
    where
        C: CheckLease + ?Sized,
    {
        let name = self.name();
        let Some(table) = &self.cell.table else {
            return Err(CheckError::NoTable { name: name.clone() });
        };
        let holder = &self.holder().id;
        let is_held = self.is_held()
            && connection
                .check_lease(table, name, holder, self.token())
                .await?;
        match is_held {
            true => Ok(()),
            false => Err(CheckError::Lost {
                name: name.clone(),
                reason: match self.standing() {
                    LeaseStanding::Lost(reason) => Some(reason),
                    LeaseStanding::Held | LeaseStanding::Doubtful => None,
                },
            }),
        }
    }
}

fn because(reason: Option<&LostReason>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}
