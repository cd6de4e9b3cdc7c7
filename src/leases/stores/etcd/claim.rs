//! Takes a lease, or hands it over: one transaction, and now and then a keep-alive before it.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{KeyValue, PutOptions};

use super::carriers::Carried;
use super::keys::time_to_live;
use super::renewals::Renewal;
use super::{
    CallError, Claim, Claimed, Compare, CompareOp, Doubt, EtcdLeases, Holder, Released, StoreError,
    Txn, TxnOp, TxnOpResponse, Written, fence, found_instead, is_of, now, token_of,
};

/// How often something is begun again because the etcd lease ended, or the leader changed, in between.
const TRIES: usize = 3;

impl EtcdLeases {
    pub(super) async fn take(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let called = now();
        self.carriers.lock().sweep(called);
        let keep = claim.expiration.saturating_add(claim.unclean_delay);
        let until = called.saturating_add(keep);
        let written = Written::new(&claim.holder, claim.unclean_delay);
        let value = written.value()?;
        let key = self.prefix.key(&claim.name);
        let mut tries = 0;
        loop {
            tries += 1;
            let (carrier, renewal) = self.carrier(time_to_live(keep), until).await?;
            let put = PutOptions::new().with_lease(carrier);
            let txn = Txn::new()
                .when([Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
                .and_then([TxnOp::put(key.clone(), value.clone(), Some(put))])
                .or_else([TxnOp::get(key.clone(), None)]);
            let mut doubt = Doubt::new(self, Some(carrier));
            let answer = match self.txn(txn).await {
                Err(CallError::Ended) if tries < TRIES => {
                    doubt.settled();
                    self.carriers.lock().ended(carrier);
                    continue;
                }
                answer => answer?,
            };
            if !answer.asked_before {
                doubt.settled();
            }
            let header = answer.value.header();
            let (revision, term) =
                header.map_or((0, 0), |header| (header.revision(), header.raft_term()));
            if answer.value.succeeded() {
                if !self.renewals.prove(carrier, renewal, term).await {
                    // The key is there, and nobody refreshes it unless this ends well.
                    doubt.carrier = Some(carrier);
                    let kv = self.confirm(&key, carrier, until).await?;
                    if kv.is_none_or(|kv| kv.mod_revision() != revision) {
                        continue;
                    }
                    doubt.settled();
                }
                return Ok(self.taken(claim, called, carrier, (revision, revision)));
            }
            let Some(TxnOpResponse::Get(mut found)) =
                answer.value.op_responses().into_iter().next()
            else {
                return Err(StoreError::Failed("a transaction answered nothing".into()));
            };
            let Some(kv) = found.take_kvs().into_iter().next() else {
                continue;
            };
            if !is_of(&kv, &claim.holder) {
                let record = self.record(claim.name.clone(), &kv).await;
                return Ok(Claimed::Busy(record));
            }
            // An answer to this claim was lost.
            match self.still_taken(claim, called, &kv).await {
                Ok(Some(claimed)) => return Ok(claimed),
                Ok(None) | Err(CallError::Ended) if tries < TRIES => {}
                Ok(None) => {
                    return Err(StoreError::Failed("the lease does not stay taken".into()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives a lease to the next holder of this process by a change of its key, which nobody else can come before.
    pub(super) async fn hand(
        &self,
        from: &Holder,
        claim: &Claim,
    ) -> Result<(Released, Claimed), StoreError> {
        let ours = (claim.name.clone(), Arc::clone(&from.id));
        let known = self.carriers.lock().of(&ours);
        let Some((known, revision)) = known.and_then(|known| Some((known, known.revision?))) else {
            return self.hand_in_two_steps(from, claim).await;
        };
        let called = now();
        let keep = claim.expiration.saturating_add(claim.unclean_delay);
        let until = called.saturating_add(keep);
        let (carrier, renewal) = self.carrier(time_to_live(keep), until).await?;
        let written = Written {
            handed: true,
            ..Written::new(&claim.holder, claim.unclean_delay)
        };
        let key = self.prefix.key(&claim.name);
        let put = PutOptions::new().with_lease(carrier);
        let txn = Txn::new()
            .when([Compare::mod_revision(
                key.clone(),
                CompareOp::Equal,
                revision,
            )])
            .and_then([TxnOp::put(key.clone(), written.value()?, Some(put))])
            .or_else([TxnOp::get(key.clone(), None)]);
        // A refresh may have moved it meanwhile.
        let known = self.carriers.lock().forget(&ours).unwrap_or(known);
        let (mut old, mut new) = (
            Doubt::new(self, Some(known.carrier)),
            Doubt::new(self, Some(carrier)),
        );
        let answer = match self.txn(txn).await {
            Err(CallError::Ended) => {
                new.settled();
                self.carriers.lock().ended(carrier);
                return self.hand_in_two_steps(from, claim).await;
            }
            answer => answer?,
        };
        // What was asked before can change nothing any more: the revision has gone by.
        let header = answer.value.header();
        let (now, term) = header.map_or((0, 0), |header| (header.revision(), header.raft_term()));
        if answer.value.succeeded() {
            old.settled();
            if !self.renewals.prove(carrier, renewal, term).await {
                let kv = self.confirm(&key, carrier, until).await?;
                if kv.is_none_or(|kv| kv.mod_revision() != now) {
                    return Ok((Released::WasOurs, self.take(claim).await?));
                }
            }
            new.settled();
            let claimed = self.taken(claim, called, carrier, (now, now));
            return Ok((Released::WasOurs, claimed));
        }
        match found_instead(&answer.value) {
            // The answer to the first of two was lost.
            Some(kv) if is_of(&kv, &claim.holder) => {
                old.settled();
                if let Some(claimed) = self.still_taken(claim, called, &kv).await? {
                    new.settled();
                    return Ok((Released::WasOurs, claimed));
                }
                Ok((Released::WasOurs, self.take(claim).await?))
            }
            kv => {
                new.settled();
                if !kv.is_some_and(|kv| is_of(&kv, from)) {
                    old.settled();
                }
                self.hand_in_two_steps(from, claim).await
            }
        }
    }

    async fn hand_in_two_steps(
        &self,
        from: &Holder,
        claim: &Claim,
    ) -> Result<(Released, Claimed), StoreError> {
        let released = self.let_go(&claim.name, from).await?;
        Ok((released, self.take(claim).await?))
    }

    /// A key that is this claim's already, if it stays so.
    async fn still_taken(
        &self,
        claim: &Claim,
        called: Duration,
        kv: &KeyValue,
    ) -> Result<Option<Claimed>, CallError> {
        let keep = claim.expiration.saturating_add(claim.unclean_delay);
        let confirmed = self.confirm(kv.key(), kv.lease(), called.saturating_add(keep));
        let stays = confirmed
            .await?
            .is_some_and(|now| now.mod_revision() == kv.mod_revision());
        let revisions = (kv.mod_revision(), token_of(kv));
        Ok(stays.then(|| self.taken(claim, called, kv.lease(), revisions)))
    }

    fn taken(
        &self,
        claim: &Claim,
        at: Duration,
        carrier: i64,
        (revision, token): (i64, i64),
    ) -> Claimed {
        let key = (claim.name.clone(), Arc::clone(&claim.holder.id));
        let carried = Carried {
            carrier,
            revision: Some(revision),
            keep: claim.expiration.saturating_add(claim.unclean_delay),
            delay: claim.unclean_delay,
            at,
        };
        self.carriers.lock().put(key, carried);
        Claimed::Ours {
            token: fence(token),
        }
    }

    /// An etcd lease for new keys, which lives at least until `until`.
    pub(super) async fn carrier(
        &self,
        ttl: i64,
        until: Duration,
    ) -> Result<(i64, Renewal), CallError> {
        for _ in 0..TRIES {
            let known = self.carriers.lock().open(ttl);
            let id = match known {
                Some(id) => id,
                None => self.grant(ttl).await?,
            };
            match self.renewals.need(&self.cluster, id, until).await {
                Ok(renewal) if renewal.end() >= until => return Ok((id, renewal)),
                // It was granted for less than was asked for.
                Ok(_) => self.carriers.lock().taint(id),
                Err(CallError::Ended) => self.carriers.lock().ended(id),
                Err(error) => return Err(error),
            }
        }
        Err(CallError::Ended)
    }

    async fn grant(&self, ttl: i64) -> Result<i64, CallError> {
        let _one_at_a_time = self.granting.lock().await;
        if let Some(id) = self.carriers.lock().open(ttl) {
            return Ok(id);
        }
        let granted = self.cluster.call(|connection| async move {
            let at = now();
            let granted = connection.client.lease_client().grant(ttl, None).await?;
            Ok((at, granted.id(), granted.ttl()))
        });
        let (at, id, ttl_granted) = granted.await?.value;
        self.renewals.granted(id, at, ttl_granted);
        self.carriers.lock().opened(ttl, id);
        Ok(id)
    }

    /// Keeps an etcd lease alive until `until`, and answers what the key is after that.
    async fn confirm(
        &self,
        key: &[u8],
        carrier: i64,
        until: Duration,
    ) -> Result<Option<KeyValue>, CallError> {
        for _ in 0..TRIES {
            let renewal = self.renewals.need(&self.cluster, carrier, until).await?;
            let (kv, term) = self.read(key).await?;
            if self.renewals.prove(carrier, renewal, term).await {
                return match renewal.end() >= until {
                    true => Ok(kv.filter(|kv| kv.lease() == carrier)),
                    false => Err(CallError::Ended),
                };
            }
        }
        Err(StoreError::Unreachable("the leader of the etcd cluster is changing".into()).into())
    }
}
