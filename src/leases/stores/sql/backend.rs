//! What differs between the databases.

use std::future::Future;
use std::time::Duration;

use super::{Row, Shape};
use crate::leases::{
    Claim, Fence, Holder, LeaseName, Refresh, Refreshed, StoreError, StoreFuture, Wakeups,
};

/// A database that can keep leases. Its statements are single ones wherever that is possible, and each reads a clock that
/// moves while a statement waits.
///
/// A method that fails makes its connection useless: it is closed, never used again.
pub(in crate::leases::stores) trait Backend:
    Send + Sync + 'static
{
    /// A connection to it.
    type Connection: Send + 'static;

    /// Whether an update that finds nothing to change waits for locks and takes some. Then a name that was busy is looked at
    /// before it is claimed.
    const UPDATES_WAIT: bool;

    /// Whether there is one lock for all. Then more connections would only stand in each other's way, and whoever waited in
    /// vain tries again.
    const ONE_LOCK: bool = false;

    /// Opens a connection to a server that can be written to.
    fn open(
        &self,
        patience: Duration,
    ) -> impl Future<Output = Result<Self::Connection, StoreError>> + Send;

    /// Ends a connection in good order.
    fn close(&self, connection: Self::Connection) -> impl Future<Output = ()> + Send;

    /// What kind of failure an error is.
    fn kind(&self, error: &sqlx::Error) -> Kind;

    /// What the server and the database call themselves, without the table.
    fn identity(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<String>> + Send;

    /// What the table looks like; `None` if there is none.
    fn shape(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<Option<Shape>>> + Send;

    /// Whether a column can be of a type; else what it should be.
    fn fits(column: &str, kind: &str) -> Result<(), &'static str>;

    /// The statement that makes the table, if it is not there.
    fn ddl(&self) -> &str;

    /// Makes the table.
    fn create(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Takes the lease if its row is there and free, or this claim's already.
    fn take(
        &self,
        connection: &mut Self::Connection,
        claim: &Claim,
    ) -> impl Future<Output = sqlx::Result<Option<Taken>>> + Send;

    /// Takes the lease from a holder that has it still, in one step.
    fn hand(
        &self,
        connection: &mut Self::Connection,
        from: &Holder,
        claim: &Claim,
    ) -> impl Future<Output = sqlx::Result<Option<Taken>>> + Send;

    /// Adds the row of a name that nobody ever held, as dbmutex does; not if there is one that the table takes for it.
    fn add(
        &self,
        connection: &mut Self::Connection,
        name: &LeaseName,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// The row of exactly this name, without waiting for anybody.
    fn row(
        &self,
        connection: &mut Self::Connection,
        name: &LeaseName,
    ) -> impl Future<Output = sqlx::Result<Option<Row>>> + Send;

    /// All rows, ordered by the bytes of their names.
    fn rows(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<Vec<Row>>> + Send;

    /// Extends what can be extended without waiting.
    fn extend(
        &self,
        connection: &mut Self::Connection,
        leases: &[Refresh],
    ) -> impl Future<Output = sqlx::Result<Vec<Refreshed>>> + Send;

    /// Notes in a row that is locked that others want it, for its holder to see when it unlocks the row. Nobody is waited for:
    /// what cannot be noted now is noted the next time, and an error is no matter.
    fn want(
        &self,
        connection: &mut Self::Connection,
        name: &LeaseName,
    ) -> impl Future<Output = sqlx::Result<()>> + Send {
        let _ = (connection, name);
        async { Ok(()) }
    }

    /// Unlocks the row if this holder has it; whether others were noted to want it.
    fn free(
        &self,
        connection: &mut Self::Connection,
        name: &LeaseName,
        holder: &Holder,
    ) -> impl Future<Output = sqlx::Result<Option<bool>>> + Send;

    /// Unlocks the row, whoever has it, and moves the token on; what it was, if it was locked.
    fn force(
        &self,
        connection: &mut Self::Connection,
        name: &LeaseName,
    ) -> impl Future<Output = sqlx::Result<Option<Row>>> + Send;

    /// Notifications of releases, if there are any.
    fn wakeups(&self, patience: Duration) -> Option<StoreFuture<'_, Box<dyn Wakeups>>> {
        let _ = patience;
        None
    }
}

/// What a claim that was granted says.
#[derive(Debug, Clone, Copy)]
pub(in crate::leases::stores) struct Taken {
    /// The token.
    pub(in crate::leases::stores) token: Fence,
    /// The statement waited after it had read the clock, so that the expiry is nearer than it should be.
    pub(in crate::leases::stores) waited: bool,
}

/// What kind of failure an error of a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::leases::stores) enum Kind {
    /// The connection is gone, or was never made.
    Unreachable,
    /// The server only reads.
    ReadOnly,
    /// Two that stood in each other's way: once more, and it goes well.
    Again,
    /// Somebody kept the row locked for longer than a statement waits.
    LockTimeout,
    /// This user may not do this, or may not come in.
    Forbidden,
    /// The address or the options are wrong, or name what is not there.
    BadConfig,
    /// Anything else.
    Other,
}
