//! Releases told by PostgreSQL's notifications.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Connection, Row as _};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::sql::{Backend, fault};
use super::PostgresBackend;
use super::ask::Ask;
use super::server::{self, kind};
use super::statements::CHANNEL;
use crate::leases::{LeaseName, StoreError, StoreFuture, Wakeups, boottime};

/// How long the first notification may take, which we send ourselves, before it is certain that none ever arrives.
const PROOF: Duration = Duration::from_secs(2);
/// No name of a lease contains a NUL, but neither may a notification: these bytes can only be ours since a name that is equal
/// merely wakes somebody for nothing.
const PROOF_PREFIX: &str = "lockkeeper proof ";
/// How often the connection is asked whether it is alive while nothing comes.
const QUIET: Duration = Duration::from_secs(30);

impl PostgresBackend {
    pub(super) fn listen(&self, patience: Duration) -> Option<StoreFuture<'_, Box<dyn Wakeups>>> {
        if self.deaf.load(Ordering::Relaxed) {
            return None;
        }
        if self.plainly() {
            self.say_deaf("there is a pooler between");
            return None;
        }
        Some(Box::pin(async move {
            let (mut listening, at) = self.connect(patience).await?;
            if self.prove(&mut listening, at, patience).await? {
                return Ok(Box::new(listening) as Box<dyn Wakeups>);
            }
            self.say_deaf("notifications do not arrive");
            Err(StoreError::Failed(
                "LISTEN was answered, but notifications do not arrive".into(),
            ))
        }))
    }

    fn say_deaf(&self, why: &str) {
        if !self.deaf.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                table = %self.statements.table,
                "waiters for leases are not woken, but poll PostgreSQL: {why}"
            );
        }
    }

    /// Listens on a connection of its own to the server that was written to last; says which that is.
    async fn connect(&self, patience: Duration) -> Result<(Listening, usize), StoreError> {
        let failed = |error: sqlx::Error| fault(kind(&error), error);
        // Finds the server that can be written to.
        let mut connection = self.open(patience).await?;
        let row = Ask::of("select to_regclass($1)::oid::text")
            .bind(&*self.statements.table)
            .row(&mut connection, self.plainly())
            .await;
        let channel = row.and_then(|row| row.map(|row| row.try_get(0)).transpose());
        let channel: Option<Option<String>> = channel.map_err(failed)?;
        let _ = connection.close().await;
        let table = channel
            .flatten()
            .ok_or_else(|| StoreError::Failed("the table is missing".into()))?;
        let at = self.last.load(Ordering::Relaxed);
        let server = self.servers.get(at).or_else(|| self.servers.first());
        let server = server.ok_or_else(|| StoreError::BadConfig("no server".to_owned()))?;
        let began = boottime::now();
        let pool: PgPool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(patience)
            .connect_lazy_with(server.clone());
        let mut listener = PgListener::connect_with(&pool).await.map_err(failed)?;
        listener.eager_reconnect(false);
        // In a session that others have after us, all of them would be told.
        server::look_for_pooler(&mut listener, began, &self.pooled)
            .await
            .map_err(failed)?;
        if self.plainly() {
            self.say_deaf("there is a pooler between");
            return Err(StoreError::Failed("a pooler is no place to listen".into()));
        }
        let channel = format!("{CHANNEL}{table}");
        listener.listen(&channel).await.map_err(failed)?;
        let listening = Listening {
            listener: Some(listener),
            channel,
            runtime: Handle::current(),
            waiting: Vec::new(),
        };
        Ok((listening, at))
    }

    /// Whether a notification that we send ourselves arrives.
    async fn prove(
        &self,
        listening: &mut Listening,
        at: usize,
        patience: Duration,
    ) -> Result<bool, StoreError> {
        let proof = format!("{PROOF_PREFIX}{:p}", std::ptr::from_ref(listening));
        let mut connection = self.open(patience).await?;
        Ask::of("select pg_notify($1, $2)")
            .bind(&*listening.channel)
            .bind(&*proof)
            .rows(&mut connection, self.plainly())
            .await
            .map_err(|error| fault(kind(&error), error))?;
        let _ = connection.close().await;
        if self.last.load(Ordering::Relaxed) != at {
            return Err(StoreError::Unreachable(
                "another server is written to by now".into(),
            ));
        }
        if listening.hears(&proof, PROOF).await? {
            return Ok(true);
        }
        // The server may stand still for a while. Whatever it has to tell comes before its next answer.
        listening.ask().await?;
        listening.hears(&proof, Duration::ZERO).await
    }
}

/// A connection that listens.
struct Listening {
    listener: Option<PgListener>,
    channel: String,
    runtime: Handle,
    waiting: Vec<String>,
}

impl Listening {
    /// Whether a notification comes within some time. Others that come before it are kept.
    async fn hears(&mut self, proof: &str, patience: Duration) -> Result<bool, StoreError> {
        let deadline = Instant::now() + patience;
        while let Ok(payload) = timeout_at(deadline, self.payload()).await {
            match payload? {
                payload if payload == proof => return Ok(true),
                payload => self.waiting.push(payload),
            }
        }
        Ok(false)
    }

    async fn payload(&mut self) -> Result<String, StoreError> {
        let lost = || StoreError::Unreachable("the connection that listens was lost".into());
        let listener = self.listener.as_mut().ok_or_else(lost)?;
        match listener.try_recv().await {
            Ok(Some(notification)) => Ok(notification.payload().to_owned()),
            Ok(None) => Err(lost()),
            Err(error) => Err(fault(kind(&error), error)),
        }
    }

    /// Whether the connection still answers; one that a firewall has forgotten never says that it is lost.
    async fn ask(&mut self) -> Result<(), StoreError> {
        let lost = || StoreError::Unreachable("the connection that listens does not answer".into());
        let listener = self.listener.as_mut().ok_or_else(lost)?;
        let asked = timeout(PROOF, sqlx::raw_sql("select 1").execute(&mut *listener)).await;
        asked
            .map_err(|_| lost())?
            .map_err(|error| fault(kind(&error), error))
            .map(drop)
    }
}

impl Wakeups for Listening {
    fn next(&mut self) -> StoreFuture<'_, Option<LeaseName>> {
        Box::pin(async move {
            loop {
                let payload = match self.waiting.pop() {
                    Some(payload) => payload,
                    None => match timeout(QUIET, self.payload()).await {
                        Ok(payload) => payload?,
                        Err(_) => {
                            self.ask().await?;
                            continue;
                        }
                    },
                };
                if !payload.starts_with(PROOF_PREFIX) {
                    return Ok(LeaseName::new(payload).ok());
                }
            }
        })
    }
}

/// The listener ends its listening in a task, which can be made only inside a runtime.
impl Drop for Listening {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        drop(self.listener.take());
    }
}
