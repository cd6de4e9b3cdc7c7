//! Tells of deleted keys, which are leases that are free.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Error, EventType, WatchFilterType, WatchOptions, WatchResponse, WatchStream};

use super::cluster::{Cluster, to_store_error};
use super::keys::Prefix;
use crate::leases::{LeaseName, StoreError, StoreFuture, Wakeups};

/// After so long without a word the server is asked for one; after as long again the connection is taken for lost.
const QUIET: Duration = Duration::from_secs(5);

pub(super) struct Watch {
    prefix: Prefix,
    cluster: Arc<Cluster>,
    /// The member that was asked.
    member: usize,
    stream: WatchStream,
    names: VecDeque<LeaseName>,
    asked: bool,
}

impl Watch {
    /// Begins; what is deleted after this has returned is told.
    pub(super) async fn begin(cluster: Arc<Cluster>, prefix: Prefix) -> Result<Self, StoreError> {
        let member = cluster.current();
        let client = cluster.own().await?;
        let options = WatchOptions::new()
            .with_prefix()
            .with_filters([WatchFilterType::NoPut]);
        let begin = prefix.begin();
        let beginning = async {
            let mut stream = client.watch_client().watch(begin, Some(options)).await?;
            match stream.message().await? {
                Some(first) if first.created() && !first.canceled() => Ok(stream),
                Some(first) => Err(Error::WatchError(first.cancel_reason().to_owned())),
                None => Err(Error::WatchError("it ended at once".to_owned())),
            }
        };
        let begun = tokio::time::timeout(cluster.timeout(), beginning).await;
        let stream = match begun {
            Ok(Ok(stream)) => stream,
            failed => {
                cluster.suspect(member);
                return Err(match failed {
                    Ok(Err(error)) => to_store_error(error),
                    _ => StoreError::Unreachable("the watch does not begin".into()),
                });
            }
        };
        Ok(Self {
            prefix,
            cluster,
            member,
            stream,
            names: VecDeque::new(),
            asked: false,
        })
    }

    /// Nothing is lost if this is dropped and called anew.
    async fn advance(&mut self) -> Result<Option<LeaseName>, StoreError> {
        loop {
            if let Some(name) = self.names.pop_front() {
                return Ok(Some(name));
            }
            match tokio::time::timeout(QUIET, self.stream.message()).await {
                Ok(Ok(Some(response))) => {
                    self.asked = false;
                    self.take(&response)?;
                }
                Ok(Ok(None)) => return Err(self.lost("the watch has ended".into())),
                Ok(Err(error)) => return Err(self.lost(error.into())),
                Err(_) if self.asked => {
                    return Err(self.lost("the watch does not answer".into()));
                }
                Err(_) => {
                    self.asked = true;
                    if let Err(error) = self.stream.request_progress().await {
                        return Err(self.lost(error.into()));
                    }
                }
            }
        }
    }

    fn take(&mut self, response: &WatchResponse) -> Result<(), StoreError> {
        if response.canceled() {
            let why = response.cancel_reason().to_owned();
            return Err(self.lost(why.into()));
        }
        let deleted = |event: &&etcd_client::Event| event.event_type() == EventType::Delete;
        let names = response.events().iter().filter(deleted);
        let names = names.filter_map(|event| self.prefix.name(event.kv()?.key()));
        self.names.extend(names);
        Ok(())
    }

    fn lost(&self, why: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
        self.cluster.suspect(self.member);
        StoreError::Unreachable(why)
    }
}

impl Wakeups for Watch {
    fn next(&mut self) -> StoreFuture<'_, Option<LeaseName>> {
        Box::pin(self.advance())
    }
}
