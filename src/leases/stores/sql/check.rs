//! Whether a lease is still held, asked inside the application's own SQL transaction.

use std::future::Future;
use std::pin::Pin;

use crate::leases::{Fence, LeaseName, TableName};

/// What [`CheckLease::check_lease`] answers, later.
pub(in crate::leases::stores) type Checking<'a> =
    Pin<Box<dyn Future<Output = Result<bool, sqlx::Error>> + Send + 'a>>;

/// A connection of the application on which it can be asked whether a lease is still held.
///
/// It is for sqlx's transactions and connections (`PgConnection`, `MySqlConnection`, `SqliteConnection`) in the database that
/// keeps the leases; a pool's connection comes as `&mut *connection`. In Postgres and MySQL the lease's row is locked against changes until the transaction ends:
/// what the transaction does is done under the lease, even if the lease expires meanwhile. Nobody else gets it before the end.
/// In SQLite the transaction has to be one that writes (`BEGIN IMMEDIATE`), and nobody else writes anyway.
///
/// Its user needs the right to update the table, since that is what locking a row takes in Postgres and MySQL.
///
/// Check late in a long transaction: the lease cannot be refreshed while its row is locked. In Postgres under `REPEATABLE
/// READ` and above check first of all: a refresh since the transaction began makes it fail with a serialization failure.
pub trait CheckLease: Send {
    /// Whether the holder with this id has the lease with this token, and its expiry has not passed.
    ///
    /// `false` means that the transaction must be rolled back.
    ///
    /// # Errors
    /// What the database answers. In doubt nothing is held.
    fn check_lease<'a>(
        &'a mut self,
        table: &'a TableName,
        name: &'a LeaseName,
        holder_id: &'a str,
        token: Fence,
    ) -> Pin<Box<dyn Future<Output = Result<bool, sqlx::Error>> + Send + 'a>>;
}

/// A transaction is asked on its connection.
impl<DB> CheckLease for sqlx::Transaction<'_, DB>
where
    DB: sqlx::Database<Connection: CheckLease>,
{
    fn check_lease<'a>(
        &'a mut self,
        table: &'a TableName,
        name: &'a LeaseName,
        holder_id: &'a str,
        token: Fence,
    ) -> Checking<'a> {
        (**self).check_lease(table, name, holder_id, token)
    }
}
