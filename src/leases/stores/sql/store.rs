//! A store of leases in an SQL database: what is the same in all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::backend::{Kind, Taken};
use super::claim::Attempt;
use super::connections::{Connections, Place};
use super::seen_busy::SeenBusy;
use super::undo::{Undoable, Undoing};
use super::{Backend, Options};
use crate::leases::{
    Claim, Claimed, Holder, LeaseName, LeaseRecord, LeaseStore, Refresh, Refreshed, Released,
    StoreError, StoreFuture, StoreId, TableName, Wakeups,
};

/// How often what failed for no fault of its own is done again before the caller is told.
const AGAIN: u32 = 6;
/// How often a table that others make at the same time is looked for.
const LOOKS_FOR_TABLE: u32 = 100;
/// How long it may take to note that a lease is wanted.
const NOTING: Duration = Duration::from_millis(250);
/// Connections for refreshes, so that nothing stands in their way: one that is at work, and one in case that it hangs.
const UPKEEP: usize = 2;
/// Connections for releases while many claim. They have their own, since an application's transaction that has the row locked can
/// keep a release waiting.
const RETURNS: usize = 2;

/// A store of leases in an SQL database.
pub(in crate::leases::stores) struct SqlStore<B: Backend> {
    pub(super) backend: B,
    pub(super) seen_busy: SeenBusy,
    pub(super) undoing: Undoing,
    table: TableName,
    create_table: bool,
    patience: Duration,
    claims: Connections<B::Connection>,
    upkeep: Connections<B::Connection>,
    returns: Connections<B::Connection>,
    id: OnceCell<StoreId>,
}

/// Works on a connection of a group: an idle one or a new one. What fails since an idle one had grown useless is done again
/// on a new one, and so is what was in the way of another. `$again` counts the attempts before.
macro_rules! on_connection {
    ($store:expr, $group:expr, |$connection:ident, $again:ident| $work:expr) => {
        on_connection!($store, None, $group, |$connection, $again| $work)
    };
    ($store:expr, $first:expr, $group:expr, |$connection:ident, $again:ident| $work:expr) => {{
        let (store, group) = ($store, $group);
        let mut first: Option<Place<'_, B::Connection>> = $first;
        let mut $again = 0;
        loop {
            let mut place = match first.take() {
                Some(place) => place,
                None => group.place().await.ok_or_else(closed)?,
            };
            let home = place.group();
            let (mut used, fresh) = match place.idle.take() {
                Some(idle) => (idle, false),
                None => (store.backend.open(store.patience).await?, true),
            };
            let answer = {
                let $connection = &mut used;
                $work.await
            };
            match answer {
                Ok(answer) => {
                    place.put_back(used);
                    break Ok(answer);
                }
                Err(error) => {
                    drop((used, place));
                    let kind = store.backend.kind(&error);
                    $again += 1;
                    match kind {
                        Kind::Unreachable | Kind::ReadOnly if !fresh && $again < AGAIN => {
                            home.forget_idle();
                        }
                        Kind::Again if $again < AGAIN => {}
                        Kind::LockTimeout if B::ONE_LOCK && $again < AGAIN => {}
                        _ => break Err(fault(kind, error)),
                    }
                }
            }
        }
    }};
}

impl<B: Backend> SqlStore<B> {
    /// A store. Nothing is connected yet.
    pub(in crate::leases::stores) fn new(backend: B, options: &Options) -> Self {
        Self {
            backend,
            seen_busy: SeenBusy::default(),
            undoing: Undoing::default(),
            table: options.table.clone(),
            create_table: options.create_table,
            patience: options.connect_timeout,
            claims: Connections::new(if B::ONE_LOCK { 1 } else { options.connections }),
            upkeep: Connections::new(if B::ONE_LOCK { 1 } else { UPKEEP }),
            returns: Connections::new(if B::ONE_LOCK { 1 } else { RETURNS }),
            id: OnceCell::new(),
        }
    }

    /// The table.
    pub(in crate::leases::stores) const fn table(&self) -> &TableName {
        &self.table
    }

    /// The statement that makes the table.
    pub(in crate::leases::stores) fn ddl(&self) -> &str {
        self.backend.ddl()
    }

    /// A claim that may be dropped at any point.
    pub(in crate::leases::stores) fn claim_undoable(
        self: &Arc<Self>,
        claim: Claim,
    ) -> StoreFuture<'static, Claimed> {
        let busy = |claimed: &Claimed| matches!(claimed, Claimed::Busy(_));
        let run = |store: Arc<Self>, claim: Claim, sent: Arc<AtomicBool>| async move {
            store.claim_with(&claim, &sent).await
        };
        Box::pin(Undoable::new(Arc::clone(self), claim, busy, run))
    }

    /// A hand-over that may be dropped at any point.
    pub(in crate::leases::stores) fn hand_over_undoable(
        self: &Arc<Self>,
        from: Holder,
        claim: Claim,
    ) -> StoreFuture<'static, (Released, Claimed)> {
        let busy = |(_, claimed): &(Released, Claimed)| matches!(claimed, Claimed::Busy(_));
        let run = |store: Arc<Self>, claim: Claim, sent: Arc<AtomicBool>| async move {
            store.hand_over_with(&from, &claim, &sent).await
        };
        Box::pin(Undoable::new(Arc::clone(self), claim, busy, run))
    }

    async fn hand_over_with(
        &self,
        from: &Holder,
        claim: &Claim,
        sent: &AtomicBool,
    ) -> Result<(Released, Claimed), StoreError> {
        self.undoing.take_over(claim, sent).await;
        sent.store(true, Ordering::Release);
        let handed: Result<_, StoreError> =
            on_connection!(self, &self.claims, |connection, again| {
                self.backend.hand(connection, from, claim)
            });
        match handed? {
            Some(Taken {
                token,
                waited: false,
            }) => Ok((Released::WasOurs, Claimed::Ours { token })),
            // Ours already: its expiry is made to count from now.
            Some(_) => Ok((Released::WasOurs, self.claim_with(claim, sent).await?)),
            None => Ok((Released::WasLost, self.claim_with(claim, sent).await?)),
        }
    }

    pub(super) async fn claim_with(
        &self,
        claim: &Claim,
        sent: &AtomicBool,
    ) -> Result<Claimed, StoreError> {
        self.undoing.take_over(claim, sent).await;
        let attempt = on_connection!(self, &self.claims, |connection, again| {
            self.attempt(connection, claim, sent)
        })?;
        match attempt {
            Attempt::Claimed(claimed) => Ok(claimed),
            Attempt::Unnoted(claimed) => {
                self.note(&claim.name).await;
                Ok(claimed)
            }
            Attempt::Clash => Err(StoreError::WrongTable {
                table: self.table.to_string(),
                why: format!(
                    "its key takes {:?} for a name that has a row already; the names differ in case, accents or spaces at \
                     the end, which a table made with the statement of this store can tell apart",
                    claim.name.as_str()
                ),
            }),
            Attempt::Restless => Err(StoreError::Failed(
                "the record of the lease was another each time it was looked at".into(),
            )),
        }
    }

    /// Notes for the holder that others want it. That is a courtesy: the answer to the claim stands, whatever comes of it, and
    /// does not wait for it for long.
    async fn note(&self, name: &LeaseName) {
        let noting = async {
            on_connection!(self, &self.claims, |connection, again| {
                self.backend.want(connection, name)
            })
        };
        let noted: Result<Result<(), StoreError>, _> = tokio::time::timeout(NOTING, noting).await;
        if let Ok(Err(error)) = noted {
            tracing::debug!(target: "lockkeeper", %error, "it cannot be noted that a lease is wanted");
        }
    }

    async fn prepare_table(&self) -> Result<(), StoreError> {
        for _ in 0..LOOKS_FOR_TABLE {
            let shape = on_connection!(self, &self.upkeep, |connection, again| {
                self.backend.shape(connection)
            })?;
            if let Some(shape) = shape {
                return match shape.why_wrong(B::fits) {
                    None => Ok(()),
                    Some(why) => Err(StoreError::WrongTable {
                        table: self.table.to_string(),
                        why,
                    }),
                };
            }
            let (table, ddl) = (self.table.to_string(), self.backend.ddl().to_owned());
            if !self.create_table {
                return Err(StoreError::TableMissing { table, ddl });
            }
            let created: Result<_, StoreError> =
                on_connection!(self, &self.upkeep, |connection, again| {
                    self.create(connection)
                });
            match created? {
                Created::Done | Created::ByAnother => {}
                Created::Forbidden(source) => {
                    return Err(StoreError::MayNotCreate {
                        table,
                        ddl,
                        source: Box::new(source),
                    });
                }
            }
        }
        Err(StoreError::Failed(
            "the table of leases was made and is not there".into(),
        ))
    }

    /// "Create if it does not exist" fails all the same when several do it at once.
    async fn create(&self, connection: &mut B::Connection) -> sqlx::Result<Created> {
        let Err(error) = self.backend.create(connection).await else {
            return Ok(Created::Done);
        };
        let known = error.as_database_error();
        if known.is_some_and(sqlx::error::DatabaseError::is_unique_violation) {
            return Ok(Created::ByAnother);
        }
        match self.backend.kind(&error) {
            Kind::Again => Ok(Created::ByAnother),
            Kind::Forbidden => Ok(Created::Forbidden(error)),
            _ => Err(error),
        }
    }

    /// Whether others want it, if it was freed.
    async fn free(&self, name: &LeaseName, holder: &Holder) -> Result<Option<bool>, StoreError> {
        // What has just claimed is the quickest, and its server process the warmest, as long as no claim stands in the way.
        let left_for_claims = usize::from(!B::ONE_LOCK);
        let spare = self.claims.spare(left_for_claims);
        on_connection!(self, spare, &self.returns, |connection, again| {
            self.free_on(connection, name, holder, again > 0)
        })
    }

    /// If the answer to a first attempt was lost, the row may be free by it: then it still names this holder.
    async fn free_on(
        &self,
        connection: &mut B::Connection,
        name: &LeaseName,
        holder: &Holder,
        again: bool,
    ) -> sqlx::Result<Option<bool>> {
        let freed = self.backend.free(connection, name, holder).await?;
        if freed.is_some() || !again {
            return Ok(freed);
        }
        let row = self.backend.row(connection, name).await?;
        let by_the_first = row.is_some_and(|row| !row.locked && row.is_of(&holder.id));
        Ok(by_the_first.then_some(false))
    }
}

enum Created {
    Done,
    ByAnother,
    Forbidden(sqlx::Error),
}

impl<B: Backend> LeaseStore for SqlStore<B> {
    fn id(&self) -> StoreFuture<'_, StoreId> {
        Box::pin(async move {
            let ask = async || -> Result<StoreId, StoreError> {
                let identity = on_connection!(self, &self.upkeep, |connection, again| {
                    self.backend.identity(connection)
                })?;
                Ok(StoreId::new(identity))
            };
            self.id.get_or_try_init(ask).await.cloned()
        })
    }

    fn prepare(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.prepare_table())
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        Box::pin(async move {
            let sent = AtomicBool::new(false);
            self.claim_with(claim, &sent).await
        })
    }

    fn refresh<'a>(&'a self, leases: &'a [Refresh]) -> StoreFuture<'a, Vec<Refreshed>> {
        Box::pin(async move {
            on_connection!(self, &self.upkeep, |connection, again| {
                self.backend.extend(connection, leases)
            })
        })
    }

    fn release<'a>(&'a self, name: &'a LeaseName, holder: &'a Holder) -> StoreFuture<'a, Released> {
        Box::pin(async move { Ok(self.give_back(name, holder).await?.0) })
    }

    fn give_back<'a>(
        &'a self,
        name: &'a LeaseName,
        holder: &'a Holder,
    ) -> StoreFuture<'a, (Released, bool)> {
        Box::pin(async move {
            let freed = self.free(name, holder).await?;
            self.seen_busy.note(name, false);
            Ok(match freed {
                Some(wanted) => (Released::WasOurs, wanted),
                None => (Released::WasLost, false),
            })
        })
    }

    fn look<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        Box::pin(async move {
            let row = on_connection!(self, &self.claims, |connection, again| {
                self.backend.row(connection, name)
            })?;
            Ok(row.and_then(super::Row::record))
        })
    }

    fn list(&self) -> StoreFuture<'_, Vec<LeaseRecord>> {
        Box::pin(async move {
            let rows = on_connection!(self, &self.claims, |connection, again| {
                self.backend.rows(connection)
            })?;
            Ok(rows.into_iter().filter_map(super::Row::record).collect())
        })
    }

    fn force_release<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        Box::pin(async move {
            let row = on_connection!(self, &self.returns, |connection, again| {
                self.backend.force(connection, name)
            })?;
            let record = row.and_then(super::Row::record);
            Ok(record.filter(|record| record.remaining.is_some()))
        })
    }

    fn wakeups(&self) -> Option<StoreFuture<'_, Box<dyn Wakeups>>> {
        self.backend.wakeups(self.patience)
    }

    fn table(&self) -> Option<&TableName> {
        Some(&self.table)
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            // What was dropped is given back first, as far as the server answers.
            self.undoing.ended().await;
            for group in [&self.claims, &self.upkeep, &self.returns] {
                for connection in group.close() {
                    self.backend.close(connection).await;
                }
            }
            Ok(())
        })
    }
}

/// What a caller is told of an error.
pub(in crate::leases::stores) fn fault(kind: Kind, error: sqlx::Error) -> StoreError {
    match kind {
        Kind::Unreachable => StoreError::Unreachable(Box::new(error)),
        Kind::ReadOnly => StoreError::ReadOnly(Some(Box::new(error))),
        Kind::BadConfig => StoreError::BadConfig(error.to_string()),
        Kind::Forbidden => StoreError::Denied(Box::new(error)),
        Kind::Again | Kind::LockTimeout | Kind::Other => StoreError::Failed(Box::new(error)),
    }
}

fn closed() -> StoreError {
    StoreError::Failed("the lease store was closed".into())
}
