//! A connection to one of several servers.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::leases::StoreError;

/// Opens a connection to one of several servers, beginning with the one that answered last. One that can be written to is
/// preferred to an error; "it only reads" is a better answer than "it cannot be reached".
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
                let worse = !matches!(failure, Some(StoreError::ReadOnly(_)));
                if worse || matches!(error, StoreError::ReadOnly(_)) {
                    failure = Some(error);
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| StoreError::BadConfig("no server was named".to_owned())))
}
