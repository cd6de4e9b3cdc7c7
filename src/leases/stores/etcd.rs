//! Leases in etcd.
//!
//! A lease is a key that is there while it is held, attached to an etcd lease that ends by etcd's clock; its token is the
//! revision that made it this holder's. See [`EtcdLeases`] for what that guarantees.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse,
    TxnResponse,
};
use parking_lot::Mutex;

use super::super::{
    Claim, Claimed, Fence, Holder, LeaseName, LeaseRecord, LeaseStore, Refresh, Refreshed,
    Released, StoreError, StoreFuture, StoreId, Wakeups,
};
use carriers::Carriers;
use cluster::{Answer, CallError, Cluster};
use keys::{Prefix, Written};
use renewals::Renewals;

mod carriers;
mod claim;
mod cluster;
mod keys;
mod options;
mod refresh;
mod renewals;
mod watch;

pub use options::EtcdOptions;

/// A store of leases in etcd (3.4 or later), one member or a cluster.
///
/// A lease is the key `{prefix}/{name}` with its holder as the value (JSON); it is there while the lease is held. Its fencing
/// token is the revision of the transaction that made it this holder's, which etcd never gives twice: it grows over releases,
/// hand-overs, expiries, forced releases and elections. (Only a cluster restored from a backup goes back in time, and its tokens with it.)
///
/// The key is attached to an etcd lease, whose time to live is the expiration in whole seconds, rounded up, and a second more:
/// when a holder dies, the next one gets the lease that much later than its expiration says. The same holds after an election,
/// when the new leader lets every etcd lease live for its whole time again. Both only lengthen: the holder itself goes by its
/// expiration. The leases of one process share etcd leases, so that 10,000 of them need ten keep-alives and not 10,000.
///
/// Reads are linearizable, and a keep-alive counts only when a majority has confirmed the leader that answered it. A request
/// that is not answered within [`EtcdOptions::request_timeout`] goes to the next member. While the cluster has no majority,
/// nothing can be acquired or refreshed, and holders lose their leases at their local deadlines.
///
/// A delay after an unclean end is that of the *holder*: its key stays for so long after its expiration.
pub struct EtcdLeases {
    prefix: Prefix,
    cluster: Arc<Cluster>,
    carriers: Mutex<Carriers>,
    renewals: Renewals,
    /// Only one asks for a new etcd lease at a time; the others use it then.
    granting: tokio::sync::Mutex<()>,
    id: OnceLock<StoreId>,
}

impl EtcdLeases {
    /// A store at a cluster; it connects when it is first used.
    ///
    /// # Errors
    /// [`StoreError::BadConfig`] without an endpoint, or if the prefix is empty or contains NUL.
    pub fn new(options: &EtcdOptions) -> Result<Self, StoreError> {
        let prefix = options.checked_prefix()?;
        let cluster = Cluster::new(options.endpoints()?, options.driver(), options.timeout());
        Ok(Self::with(prefix, cluster))
    }

    /// A store from a URL; see [`EtcdOptions::from_url`].
    ///
    /// # Errors
    /// As there, and as of [`new`](Self::new).
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        Self::new(&EtcdOptions::from_url(url)?)
    }

    /// A store that uses a client which the application already has, under `prefix`. The client decides which member is asked,
    /// and how it logs in; it should have all of them as endpoints, and HTTP/2 keep-alives of 5 s or more, since otherwise a member that
    /// no longer answers can keep it for long. An answer is waited for at most 1 s.
    ///
    /// # Errors
    /// [`StoreError::BadConfig`] if the prefix is empty or contains NUL.
    pub fn from_client(client: Client, prefix: &str) -> Result<Self, StoreError> {
        let options = EtcdOptions::new([""; 0]).prefix(prefix);
        let cluster = Cluster::of_client(client, options.timeout());
        Ok(Self::with(options.checked_prefix()?, cluster))
    }

    fn with(prefix: Prefix, cluster: Cluster) -> Self {
        Self {
            prefix,
            cluster: Arc::new(cluster),
            carriers: Mutex::default(),
            renewals: Renewals::default(),
            granting: tokio::sync::Mutex::default(),
            id: OnceLock::new(),
        }
    }

    async fn store_id(&self) -> Result<StoreId, StoreError> {
        if let Some(id) = self.id.get() {
            return Ok(id.clone());
        }
        // It also tells whether this user may read here.
        let begin = self.prefix.begin();
        let options = GetOptions::new().with_prefix().with_count_only();
        let answer = self
            .cluster
            .call(|connection| {
                let (begin, options) = (begin.clone(), options.clone());
                async move {
                    let mut client = connection.client.kv_client();
                    client.get(begin, Some(options)).await
                }
            })
            .await?;
        let header = answer.value.header();
        let cluster = header.map_or(0, etcd_client::ResponseHeader::cluster_id);
        let id = StoreId::new(format!("etcd:{cluster:016x}/{}", self.prefix.as_str()));
        Ok(self.id.get_or_init(|| id).clone())
    }

    async fn txn(&self, txn: Txn) -> Result<Answer<TxnResponse>, CallError> {
        self.cluster
            .call(|connection| {
                let txn = txn.clone();
                async move { connection.client.kv_client().txn(txn).await }
            })
            .await
    }

    /// The key of a lease as it is now, and the term in which a majority has confirmed that.
    async fn read(&self, key: &[u8]) -> Result<(Option<KeyValue>, u64), CallError> {
        let answer = self
            .cluster
            .call(|connection| {
                let key = key.to_vec();
                async move { connection.client.kv_client().get(key, None).await }
            })
            .await?;
        let mut answer = answer.value;
        let term = answer.header().map_or(0, |header| header.raft_term());
        Ok((answer.take_kvs().into_iter().next(), term))
    }

    /// How long an etcd lease lives still; `None`: it has ended, or is none.
    async fn remaining(&self, carrier: i64) -> Result<Option<Duration>, CallError> {
        let asked = self.cluster.call(|connection| async move {
            let mut client = connection.client.lease_client();
            client.time_to_live(carrier, None).await
        });
        match asked.await {
            Ok(answer) => Ok(u64::try_from(answer.value.ttl())
                .ok()
                .map(Duration::from_secs)),
            Err(CallError::Ended) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A key as a record. If it cannot be found out for how long it is held, that is zero.
    async fn record(&self, name: LeaseName, kv: &KeyValue) -> LeaseRecord {
        let written = Written::read(kv.value());
        let delay = written
            .as_ref()
            .map_or(Duration::ZERO, Written::unclean_delay);
        let remaining = match kv.lease() {
            0 => Some(Duration::MAX),
            carrier => self.remaining(carrier).await.unwrap_or_default(),
        };
        let remaining = remaining.unwrap_or_default().saturating_sub(delay);
        let holder = written.map(|written| written.holder());
        LeaseRecord::new(name, holder, fence(token_of(kv)), Some(remaining))
    }

    async fn let_go(&self, name: &LeaseName, holder: &Holder) -> Result<Released, StoreError> {
        let key = self.prefix.key(name);
        let ours = (name.clone(), Arc::clone(&holder.id));
        let known = self.carriers.lock().forget(&ours);
        // What is not known to be gone must not be kept alive by what else is on its carrier.
        let mut doubt = Doubt::new(self, known.map(|known| known.carrier));
        let mut revision = known.and_then(|known| known.revision);
        for _ in 0..TRIES {
            let known_revision = match revision {
                Some(revision) => revision,
                None => match self.read(&key).await? {
                    (Some(kv), _) if is_of(&kv, holder) => {
                        doubt.carrier = Some(kv.lease());
                        kv.mod_revision()
                    }
                    _ => {
                        doubt.settled();
                        return Ok(Released::WasLost);
                    }
                },
            };
            let same = Compare::mod_revision(key.clone(), CompareOp::Equal, known_revision);
            let txn = Txn::new()
                .when([same])
                .and_then([TxnOp::delete(key.clone(), None)])
                .or_else([TxnOp::get(key.clone(), None)]);
            let answer = self.txn(txn).await?;
            if answer.value.succeeded() {
                doubt.settled();
                return Ok(Released::WasOurs);
            }
            match found_instead(&answer.value).filter(|kv| is_of(kv, holder)) {
                // It was moved to another etcd lease meanwhile.
                Some(kv) => {
                    doubt.carrier = Some(kv.lease());
                    revision = Some(kv.mod_revision());
                }
                None => {
                    doubt.settled();
                    // It may have been ours when it was asked for before.
                    return match answer.asked_before && known.is_some() {
                        true => Err(StoreError::Unreachable(
                            "the answer to a release was lost".into(),
                        )),
                        false => Ok(Released::WasLost),
                    };
                }
            }
        }
        Err(StoreError::Failed(
            "the lease was another each time it was given back".into(),
        ))
    }

    async fn take_away(&self, name: &LeaseName) -> Result<Option<LeaseRecord>, StoreError> {
        let key = self.prefix.key(name);
        let (Some(kv), _) = self.read(&key).await? else {
            return Ok(None);
        };
        let record = self.record(name.clone(), &kv).await;
        // Whoever holds it when the order arrives: it is to be free.
        let answer = self
            .cluster
            .call(|connection| {
                let key = key.clone();
                let options = DeleteOptions::new().with_prev_key();
                async move {
                    let mut client = connection.client.kv_client();
                    client.delete(key, Some(options)).await
                }
            })
            .await?;
        Ok(match answer.value.prev_kvs() {
            [] if !answer.asked_before => None,
            [other, ..] if token_of(other) != token_of(&kv) => {
                Some(self.record(name.clone(), other).await)
            }
            _ => Some(record),
        })
    }

    async fn all(&self) -> Result<Vec<LeaseRecord>, StoreError> {
        let begin = self.prefix.begin();
        let mut end = self.prefix.as_str().as_bytes().to_vec();
        // The byte after the slash.
        end.push(b'0');
        let mut from = begin;
        let mut records = Vec::new();
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            let answer = self
                .cluster
                .call(|connection| {
                    let (from, options) = (from.clone(), options.clone());
                    async move { connection.client.kv_client().get(from, Some(options)).await }
                })
                .await?;
            let kvs = answer.value.kvs();
            let named = kvs
                .iter()
                .filter_map(|kv| Some((self.prefix.name(kv.key())?, kv)));
            let mut carriers = std::collections::HashMap::new();
            for (name, kv) in named {
                // Many share one.
                let record = match carriers.get(&kv.lease()) {
                    Some(&remaining) => {
                        let holder = Written::read(kv.value()).map(|written| written.holder());
                        LeaseRecord::new(name, holder, fence(token_of(kv)), remaining)
                    }
                    None => {
                        let record = self.record(name, kv).await;
                        carriers.insert(kv.lease(), record.remaining);
                        record
                    }
                };
                records.push(record);
            }
            match kvs.last() {
                Some(last) if answer.value.more() => {
                    from = last.key().to_vec();
                    from.push(0);
                }
                _ => break,
            }
        }
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }
}

impl std::fmt::Debug for EtcdLeases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdLeases")
            .field("prefix", &self.prefix.as_str())
            .finish_non_exhaustive()
    }
}

impl LeaseStore for EtcdLeases {
    fn id(&self) -> StoreFuture<'_, StoreId> {
        Box::pin(self.store_id())
    }

    fn prepare(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { self.store_id().await.map(drop) })
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        Box::pin(self.take(claim))
    }

    fn refresh<'a>(&'a self, leases: &'a [Refresh]) -> StoreFuture<'a, Vec<Refreshed>> {
        Box::pin(self.extend(leases))
    }

    fn release<'a>(&'a self, name: &'a LeaseName, holder: &'a Holder) -> StoreFuture<'a, Released> {
        Box::pin(self.let_go(name, holder))
    }

    fn hand_over<'a>(
        &'a self,
        from: &'a Holder,
        claim: &'a Claim,
    ) -> StoreFuture<'a, (Released, Claimed)> {
        Box::pin(self.hand(from, claim))
    }

    fn look<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        Box::pin(async {
            match self.read(&self.prefix.key(name)).await?.0 {
                Some(kv) => Ok(Some(self.record(name.clone(), &kv).await)),
                None => Ok(None),
            }
        })
    }

    fn list(&self) -> StoreFuture<'_, Vec<LeaseRecord>> {
        Box::pin(self.all())
    }

    fn force_release<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        Box::pin(self.take_away(name))
    }

    fn wakeups(&self) -> Option<StoreFuture<'_, Box<dyn Wakeups>>> {
        let begin = watch::Watch::begin(Arc::clone(&self.cluster), self.prefix.clone());
        Some(Box::pin(async {
            let watch: Box<dyn Wakeups> = Box::new(begin.await?);
            Ok(watch)
        }))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.renewals.clear();
        self.cluster.close();
        Box::pin(std::future::ready(Ok(())))
    }
}

/// How often a lease that is moved at the same time is given back.
const TRIES: usize = 4;

/// So many keys are read at a time.
const PAGE: i64 = 1_000;

/// Taints a carrier unless it turns out that there is nothing unknown on it; also if a future is dropped.
struct Doubt<'a> {
    store: &'a EtcdLeases,
    carrier: Option<i64>,
}

impl<'a> Doubt<'a> {
    const fn new(store: &'a EtcdLeases, carrier: Option<i64>) -> Self {
        Self { store, carrier }
    }

    fn settled(&mut self) {
        self.carrier = None;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(carrier) = self.carrier {
            self.store.carriers.lock().taint(carrier);
        }
    }
}

fn is_of(kv: &KeyValue, holder: &Holder) -> bool {
    Written::read(kv.value()).is_some_and(|written| written.id == holder.id)
}

/// The key as it is, in the answer to a transaction that changes it or else reads it.
fn found_instead(answer: &TxnResponse) -> Option<KeyValue> {
    match answer.op_responses().into_iter().next() {
        Some(TxnOpResponse::Get(mut found)) => found.take_kvs().into_iter().next(),
        _ => None,
    }
}

/// The token of the lease that a key is.
fn token_of(kv: &KeyValue) -> i64 {
    match Written::read(kv.value()) {
        Some(Written {
            token: Some(token), ..
        }) => token,
        Some(Written { handed: true, .. }) => kv.mod_revision(),
        _ => kv.create_revision(),
    }
}

fn fence(revision: i64) -> Fence {
    Fence(u64::try_from(revision).unwrap_or(0))
}

/// A clock that runs through suspend: an etcd lease does not wait while this machine sleeps.
#[cfg(target_os = "linux")]
fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// The system's monotonic clock.
#[cfg(not(target_os = "linux"))]
fn now() -> Duration {
    static START: std::sync::LazyLock<std::time::Instant> =
        std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed()
}
