//! A connection to one of several servers, and what becomes of it.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::error::DatabaseError;

use super::Kind;
use crate::leases::StoreError;

/// What kind of failure an error is; `said` tells it of those that the server itself has told.
pub(in crate::leases::stores) fn kind_by(
    error: &sqlx::Error,
    said: impl FnOnce(&dyn DatabaseError) -> Kind,
) -> Kind {
    match error {
        sqlx::Error::Database(error) => said(&**error),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Kind::Unreachable,
        sqlx::Error::Configuration(_) => Kind::BadConfig,
        _ => Kind::Other,
    }
}

/// The same while connecting: what is not known to be for good may pass.
pub(in crate::leases::stores) fn connecting(kind: Kind) -> Kind {
    match kind {
        Kind::Other => Kind::Unreachable,
        kind => kind,
    }
}

/// Opens a connection to one of several servers, beginning with the one that answered last. One that can be written to is
/// preferred to an error; "it only reads" is a better answer than "it cannot be reached", and that is a better one than what is
/// for good with one server, as long as another may come back.
pub(in crate::leases::stores) async fn connect_to_one_of<'a, O, C, F>(
    servers: &'a [O],
    last: &AtomicUsize,
    patience: Duration,
    open: impl Fn(&'a O) -> F,
) -> Result<C, StoreError>
where
    F: Future<Output = Result<C, StoreError>>,
{
    let first = last.load(Ordering::Relaxed);
    let mut failure = None;
    let order = (first..servers.len()).chain(0..first);
    for (index, server) in order.filter_map(|at| servers.get(at).map(|server| (at, server))) {
        let opened = match tokio::time::timeout(patience, open(server)).await {
            Ok(opened) => opened,
            Err(late) => Err(StoreError::Unreachable(Box::new(late))),
        };
        match opened {
            Ok(connection) => {
                last.store(index, Ordering::Relaxed);
                return Ok(connection);
            }
            Err(error) => {
                if failure
                    .as_ref()
                    .is_none_or(|last| hope(&error) >= hope(last))
                {
                    failure = Some(error);
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| StoreError::BadConfig("no server was named".to_owned())))
}

const fn hope(error: &StoreError) -> u8 {
    match error {
        StoreError::ReadOnly(_) => 2,
        error => error.is_retryable() as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answers(servers: &[fn() -> StoreError]) -> StoreError {
        let open = |server: &fn() -> StoreError| std::future::ready(Err::<(), _>(server()));
        let (patience, last) = (Duration::from_secs(1), AtomicUsize::new(0));
        let opened = connect_to_one_of(servers, &last, patience, open);
        opened.await.unwrap_err()
    }

    #[tokio::test]
    async fn of_several_servers_the_one_that_may_come_back_decides() {
        let away = || StoreError::Unreachable("refused".into());
        let denied = || StoreError::Denied("password".into());
        let reads = || StoreError::ReadOnly(None);
        for servers in [[away, denied, denied], [denied, denied, away]] {
            assert!(matches!(
                answers(&servers).await,
                StoreError::Unreachable(_)
            ));
        }
        for servers in [[away, reads, denied], [denied, reads, away]] {
            assert!(matches!(answers(&servers).await, StoreError::ReadOnly(_)));
        }
        assert!(matches!(answers(&[denied]).await, StoreError::Denied(_)));
    }
}
