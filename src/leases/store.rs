//! What a store of leases has to do. Anyone can implement it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::{Fence, Holder, LeaseName, LeaseRecord, StoreId, TableName};

/// What a store answers, later.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store of leases.
///
/// It keeps a record for each name and decides by a clock of its own; whoever calls it keeps deadlines, retries, and tells
/// when a lease is lost. Every method may be called from several tasks at once. Every future may be dropped at any point: what
/// it had asked may then happen or not, and the store must never give the answer to somebody else. The futures are polled in
/// the context of a tokio runtime with timers and I/O, which they must not block: on the thread of the leases, or on that of
/// whoever waits for the answer, and now on the one, now on the other. They are dropped in that context, too.
pub trait LeaseStore: Send + Sync + 'static {
    /// Which store this is. Asked after [`prepare`](Self::prepare), and the same for as long as it is used.
    fn id(&self) -> StoreFuture<'_, StoreId>;

    /// Makes what it needs, such as a table, or looks whether it is there. Called before the first use, and again after an
    /// error.
    fn prepare(&self) -> StoreFuture<'_, ()>;

    /// Takes the lease, if nobody holds it, in one atomic step that makes the token grow.
    ///
    /// The expiry counts from an instant that is not before the one at which this was called, by the store's clock. If the
    /// holder of the record *is* this claim (its answer was lost), it is [`Claimed::Ours`] again with its token.
    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed>;

    /// Extends leases that are still held by these holders, at most 500, ordered by name. Answers one
    /// outcome for each, in their order. A record that somebody has locked is skipped, without waiting for it. A lease whose
    /// expiry has passed by the store's clock is [`Refreshed::Lost`], also if nobody took it since.
    fn refresh<'a>(&'a self, leases: &'a [Refresh]) -> StoreFuture<'a, Vec<Refreshed>>;

    /// Gives a lease back, if it is held by this holder still; also when its expiry has passed and nobody took it.
    fn release<'a>(&'a self, name: &'a LeaseName, holder: &'a Holder) -> StoreFuture<'a, Released>;

    /// Gives a lease back, and says whether another process asked for it in vain since it was claimed: then it is left to others
    /// until the next poll (between half an interval and a whole one). Where waiters are not woken, nothing else keeps a
    /// process that takes it again at once from having it all the time.
    ///
    /// As it is here, it is a release, and nothing is known of others.
    fn give_back<'a>(
        &'a self,
        name: &'a LeaseName,
        holder: &'a Holder,
    ) -> StoreFuture<'a, (Released, bool)> {
        Box::pin(async move { Ok((self.release(name, holder).await?, false)) })
    }

    /// Gives a lease back and grants it to the next of the same process, in one step if the store can: the token grows as with
    /// every claim. If it was not the first one's any more, the claim is decided as any other.
    ///
    /// As it is here, it is a release and a claim, between which another process may come.
    fn hand_over<'a>(
        &'a self,
        from: &'a Holder,
        claim: &'a Claim,
    ) -> StoreFuture<'a, (Released, Claimed)> {
        Box::pin(async move {
            let released = self.release(&claim.name, from).await?;
            Ok((released, self.claim(claim).await?))
        })
    }

    /// The record of a name; `None` if it has none.
    fn look<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>>;

    /// All records, ordered by name.
    fn list(&self) -> StoreFuture<'_, Vec<LeaseRecord>>;

    /// Takes a lease away from whoever holds it; its token moves on. Answers what it was; `None` if nobody held it.
    fn force_release<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>>;

    /// Tells of releases as they happen, on a connection of its own. `None`: this store cannot, and is polled. The stream of
    /// wake-ups ends with an error when its connection is lost, and is asked for anew.
    fn wakeups(&self) -> Option<StoreFuture<'_, Box<dyn Wakeups>>> {
        None
    }

    /// The table in which it keeps the leases, if it is one that an SQL transaction of the application can look at:
    /// [`LeaseGuard::check`](crate::LeaseGuard) asks for it. Default: none.
    fn table(&self) -> Option<&TableName> {
        None
    }

    /// Ends its connections. Nothing is called after that.
    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Tells which leases have been given back; see [`LeaseStore::wakeups`].
pub trait Wakeups: Send {
    /// Waits for the next: the name of the lease that was released, or `None` for "anything may have been", after which every
    /// waiter looks.
    fn next(&mut self) -> StoreFuture<'_, Option<LeaseName>>;
}

/// A wish for a lease.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Which lease.
    pub name: LeaseName,
    /// Who wants it.
    pub holder: Holder,
    /// For how long, unless it is refreshed.
    pub expiration: Duration,
    /// Nobody gets the lease before it has been expired for so long, if it was not released: for resources that cannot check
    /// tokens. Zero: at once.
    pub unclean_delay: Duration,
}

/// What came of a [`Claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is held by the claim's holder now.
    Ours {
        /// Larger than that of any holder before.
        token: Fence,
    },
    /// Somebody else holds it.
    Busy(LeaseRecord),
}

/// A lease that is to be extended.
#[derive(Debug, Clone)]
pub struct Refresh {
    /// Which lease.
    pub name: LeaseName,
    /// Who holds it.
    pub holder: Holder,
    /// With which token.
    pub token: Fence,
    /// For how long, from now.
    pub expiration: Duration,
}

/// What came of a [`Refresh`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refreshed {
    /// It is held for the whole expiration again.
    Held,
    /// Somebody else holds it, or its expiry has passed; the record, if there is one.
    Lost(Option<LeaseRecord>),
    /// Its record was locked by somebody: nothing is known, and it is to be tried again.
    Skipped,
}

/// What came of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It was this holder's until now.
    WasOurs,
    /// It was not this holder's any more.
    WasLost,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store could not be reached, or the connection broke: what was asked may have happened. Tried again.
    #[error("the lease store cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It was reached, and answered with an error. Tried again.
    #[error("the lease store answered with an error")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server only reads: a replica, or one that is just being taken over. Tried again, on a new connection.
    #[error("the lease store is read-only: a replica, or a failover is under way")]
    ReadOnly(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The table is not there, and was not to be made. Not tried again.
    #[error("the table {table} of leases is missing; this makes it:\n{ddl}")]
    TableMissing {
        /// The table.
        table: String,
        /// The statements that make it.
        ddl: String,
    },
    /// The table is not there, and the store's user may not make it. Not tried again.
    #[error(
        "the table {table} of leases is missing and may not be made by this user; this makes it:\n{ddl}"
    )]
    MayNotCreate {
        /// The table.
        table: String,
        /// The statements that make it.
        ddl: String,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is there is no table of leases. Not tried again.
    #[error("the table {table} is no table of leases: {why}")]
    WrongTable {
        /// The table.
        table: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no room for a name that was never held before: names are for ever, and none makes room by itself. Leases whose
    /// names are in the store go on. Not tried again.
    #[error("the lease store {table} has no room for another name: it may have {bytes} bytes")]
    Full {
        /// The store, or its table.
        table: String,
        /// How large it may be.
        bytes: usize,
    },
    /// The store's URL or options are wrong, or what they name is not there: a database, a folder. Not tried again.
    #[error("bad lease store: {0}")]
    BadConfig(String),
    /// The store does not let this user in, or not do this: an unknown user, a wrong password, a right that is lacking, a file
    /// that may not be opened. Not tried again.
    #[error("the lease store denies access")]
    Denied(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// Whether it may go better when it is tried again. An acquire and a release end at the first error that waiting does not
    /// heal, unless their handler says [`Insist`](crate::LeaseVerdict::Insist).
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Failed(_) | Self::ReadOnly(_)
        )
    }
}
