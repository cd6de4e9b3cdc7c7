//! Extends leases: keep-alives of the few etcd leases that carry them, and one read that proves both.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{GetOptions, KeyValue, PutOptions};
use futures_util::future::{join_all, try_join_all};

use super::carriers::{Carried, Key};
use super::keys::time_to_live;
use super::renewals::Renewal;
use super::{
    CallError, Compare, CompareOp, EtcdLeases, Fence, LeaseRecord, Refresh, Refreshed, StoreError,
    Txn, TxnOp, TxnOpResponse, Written, fence, found_instead, is_of, now, token_of,
};

/// etcd takes at most so many operations in one transaction.
const OPERATIONS: usize = 128;
/// More etcd leases than a process has carriers: then those that nobody asks for any more are forgotten.
const CROWD: usize = 64;
const TRIES: usize = 4;

/// What is to be extended, and until when.
struct Wanted<'a> {
    refresh: &'a Refresh,
    key: Vec<u8>,
    ours: Key,
    known: Option<Carried>,
    /// The delay after an unclean end.
    delay: Duration,
}

impl Wanted<'_> {
    fn keep(&self) -> Duration {
        self.refresh.expiration.saturating_add(self.delay)
    }

    fn until(&self, called: Duration) -> Duration {
        called.saturating_add(self.keep())
    }

    /// It is past its expiration, and only there because of the delay.
    fn is_late(&self, called: Duration) -> bool {
        self.known.is_some_and(|known| {
            called.saturating_add(known.delay) > known.at.saturating_add(known.keep)
        })
    }

    fn is_ours(&self, kv: &KeyValue) -> bool {
        is_of(kv, &self.refresh.holder) && fence(token_of(kv)) == self.refresh.token
    }
}

/// What has become of a key that was to be moved to another carrier.
enum Moved {
    /// It is there, since this revision.
    To(i64),
    /// It is ours still, but another refresh, which may have been given up long ago, has moved it elsewhere meanwhile.
    Elsewhere,
    /// It is not ours any more.
    Gone,
}

type Kvs = HashMap<Vec<u8>, KeyValue>;
/// `None`: the etcd lease has ended.
type Renewed = BTreeMap<i64, Option<Renewal>>;

impl EtcdLeases {
    pub(super) async fn extend(&self, leases: &[Refresh]) -> Result<Vec<Refreshed>, StoreError> {
        let called = now();
        let mut wanted: Vec<_> = {
            let carriers = self.carriers.lock();
            leases
                .iter()
                .map(|refresh| {
                    let ours = (refresh.name.clone(), Arc::clone(&refresh.holder.id));
                    let known = carriers.of(&ours);
                    Wanted {
                        refresh,
                        key: self.prefix.key(&refresh.name),
                        ours,
                        known,
                        delay: known.map_or(Duration::ZERO, |known| known.delay),
                    }
                })
                .collect()
        };
        let (kvs, renewed) = self.renewed(&mut wanted, called).await?;
        let mut answers = Vec::with_capacity(wanted.len());
        let mut moving = Vec::new();
        for (index, want) in wanted.iter().enumerate() {
            let kv = kvs.get(&want.key).filter(|kv| want.is_ours(kv));
            let carried = kv.and_then(|kv| Some((kv, (*renewed.get(&kv.lease())?)?)));
            let Some((kv, renewal)) = carried.filter(|_| !want.is_late(called)) else {
                answers.push(Refreshed::Lost(None));
                continue;
            };
            answers.push(Refreshed::Held);
            let long_enough = renewal.end() >= want.until(called);
            let ttl = time_to_live(want.keep());
            if !long_enough || self.carriers.lock().should_leave(kv.lease(), ttl) {
                moving.push((index, kv, long_enough));
            } else {
                self.note(want, kv.lease(), Some(kv.mod_revision()), called);
            }
        }
        self.move_all(&wanted, moving, called, &mut answers).await?;
        self.tell_losses(&wanted, &kvs, &renewed, called, &mut answers)
            .await;
        let mut carriers = self.carriers.lock();
        carriers.sweep(called);
        if self.renewals.len() > CROWD {
            self.renewals.retain(|id| carriers.knows(id));
        }
        Ok(answers)
    }

    /// Keeps alive what carries them, and reads all the keys after that.
    async fn renewed(
        &self,
        wanted: &mut [Wanted<'_>],
        called: Duration,
    ) -> Result<(Kvs, Renewed), StoreError> {
        let mut needed: BTreeMap<i64, Duration> = BTreeMap::new();
        for want in wanted.iter().filter(|want| !want.is_late(called)) {
            if let Some(known) = want.known {
                let until = needed.entry(known.carrier).or_default();
                *until = (*until).max(want.until(called));
            }
        }
        let mut kvs = Kvs::new();
        for _ in 0..TRIES {
            let asked = needed.iter().map(|(&id, &until)| async move {
                match self.renewals.need(&self.cluster, id, until).await {
                    Ok(renewal) => Ok((id, Some(renewal))),
                    Err(CallError::Ended) => Ok((id, None)),
                    Err(error) => Err(StoreError::from(error)),
                }
            });
            let renewed: Renewed = try_join_all(asked).await?.into_iter().collect();
            let keys: Vec<_> = wanted.iter().map(|want| want.key.clone()).collect();
            let term;
            (kvs, term) = self.read_all(keys).await?;
            let mut proven = true;
            for (&id, renewal) in &renewed {
                if let Some(renewal) = renewal {
                    proven &= self.renewals.prove(id, *renewal, term).await;
                }
            }
            let mut complete = true;
            for want in wanted.iter_mut() {
                let Some(kv) = kvs.get(&want.key).filter(|kv| want.is_ours(kv)) else {
                    continue;
                };
                if kv.lease() != 0 && !renewed.contains_key(&kv.lease()) && !want.is_late(called) {
                    // Another store of this process has taken it, or moved it.
                    complete = false;
                    let written = Written::read(kv.value());
                    want.delay = written.map_or(Duration::ZERO, |w| w.unclean_delay());
                    let until = needed.entry(kv.lease()).or_default();
                    *until = (*until).max(want.until(called));
                }
            }
            if proven && complete {
                return Ok((kvs, renewed));
            }
        }
        drop(kvs);
        Err(StoreError::Unreachable(
            "the leader of the etcd cluster is changing".into(),
        ))
    }

    fn note(&self, want: &Wanted<'_>, carrier: i64, revision: Option<i64>, at: Duration) {
        let carried = Carried {
            carrier,
            revision,
            keep: want.keep(),
            delay: want.delay,
            at,
        };
        let mut carriers = self.carriers.lock();
        // A lease that was released meanwhile is not to be known again.
        if carriers.of(&want.ours).is_some() || want.known.is_none() {
            carriers.put(want.ours.clone(), carried);
        } else if want.known.is_some_and(|known| known.carrier != carrier) {
            // Whoever released it may know the other carrier alone, and have had no answer.
            carriers.taint(carrier);
        }
    }

    /// Moves leases to a carrier that lives as long as they should and has nothing unknown on it.
    async fn move_all(
        &self,
        wanted: &[Wanted<'_>],
        moving: Vec<(usize, &KeyValue, bool)>,
        called: Duration,
        answers: &mut [Refreshed],
    ) -> Result<(), StoreError> {
        let mut by_ttl: BTreeMap<i64, Vec<_>> = BTreeMap::new();
        for (index, kv, long_enough) in moving {
            if let Some(want) = wanted.get(index) {
                let moves = by_ttl.entry(time_to_live(want.keep())).or_default();
                moves.push((index, want, kv, long_enough));
            }
        }
        for (ttl, moves) in by_ttl {
            for part in moves.chunks(OPERATIONS) {
                let until = part.iter().map(|(_, want, ..)| want.until(called)).max();
                let carrier = self.carrier(ttl, until.unwrap_or(called)).await;
                let moved = match &carrier {
                    Ok((id, renewal)) => self.move_some(*id, *renewal, part).await,
                    Err(_) => Err(CallError::Ended),
                };
                let (carrier, moved) = match (carrier, moved) {
                    (Ok((carrier, _)), Ok(moved)) => (carrier, moved),
                    (carrier, Err(error)) => {
                        for (_, want, kv, _) in part {
                            // They may be on their way to the other one: from now on both are kept alive.
                            let at = carrier.as_ref().map_or(kv.lease(), |(id, _)| *id);
                            self.note(want, at, None, called);
                        }
                        match part.iter().all(|(.., long_enough)| *long_enough) {
                            // They are held where they are, and move another time.
                            true => continue,
                            false => return Err(carrier.err().unwrap_or(error).into()),
                        }
                    }
                    (Err(error), Ok(_)) => return Err(error.into()),
                };
                for ((index, want, ..), moved) in part.iter().zip(moved) {
                    match (moved, answers.get_mut(*index)) {
                        (Moved::To(revision), _) => {
                            self.note(want, carrier, Some(revision), called);
                        }
                        // How long it lives there the next refresh finds out.
                        (Moved::Elsewhere, Some(answer)) => *answer = Refreshed::Skipped,
                        (Moved::Gone, Some(answer)) => *answer = Refreshed::Lost(None),
                        (Moved::Elsewhere | Moved::Gone, None) => {}
                    }
                }
            }
        }
        Ok(())
    }

    async fn move_some(
        &self,
        carrier: i64,
        renewal: Renewal,
        part: &[(usize, &Wanted<'_>, &KeyValue, bool)],
    ) -> Result<Vec<Moved>, CallError> {
        let operations = part.iter().map(|(_, want, kv, _)| {
            let key = want.key.clone();
            let put = PutOptions::new().with_lease(carrier);
            let same = Compare::mod_revision(key.clone(), CompareOp::Equal, kv.mod_revision());
            let written = Written::read(kv.value());
            let written = Written {
                token: Some(token_of(kv)),
                ..written.unwrap_or_else(|| Written::new(&want.refresh.holder, want.delay))
            };
            let put = TxnOp::put(key.clone(), written.value()?, Some(put));
            let found = TxnOp::get(key, None);
            let moving = Txn::new().when([same]).and_then([put]).or_else([found]);
            Ok(TxnOp::txn(moving))
        });
        let operations: Vec<_> = operations.collect::<Result<_, StoreError>>()?;
        let answer = self.txn(Txn::new().and_then(operations)).await?.value;
        let header = answer.header();
        let (revision, term) =
            header.map_or((0, 0), |header| (header.revision(), header.raft_term()));
        if !self.renewals.prove(carrier, renewal, term).await {
            return Err(StoreError::Unreachable("the leader is changing".into()).into());
        }
        let responses = part.iter().zip(answer.op_responses());
        let moved = responses.map(|((_, want, ..), response)| match response {
            TxnOpResponse::Txn(response) if response.succeeded() => Moved::To(revision),
            // It was done before: when this was asked for the first time, or by a refresh before this one.
            TxnOpResponse::Txn(response) => match found_instead(&response) {
                Some(kv) if !want.is_ours(&kv) => Moved::Gone,
                Some(kv) if kv.lease() == carrier => Moved::To(kv.mod_revision()),
                Some(_) => Moved::Elsewhere,
                None => Moved::Gone,
            },
            _ => Moved::Gone,
        });
        Ok(moved.collect())
    }

    /// Says who has the leases that are lost, and forgets them.
    async fn tell_losses(
        &self,
        wanted: &[Wanted<'_>],
        kvs: &Kvs,
        renewed: &Renewed,
        called: Duration,
        answers: &mut [Refreshed],
    ) {
        let lost = wanted
            .iter()
            .zip(answers)
            .filter(|(_, answer)| matches!(answer, Refreshed::Lost(_)));
        let told = lost.map(|(want, answer)| async move {
            let carried = self.carriers.lock().forget(&want.ours);
            let kv = kvs.get(&want.key);
            // It may be there still, within the delay after its end: nobody is to keep that alive.
            if let (Some(kv), Some(_)) = (kv, carried)
                && want.is_ours(kv)
            {
                self.carriers.lock().taint(kv.lease());
            }
            let name = want.refresh.name.clone();
            let lives = |known: Carried| matches!(renewed.get(&known.carrier), Some(Some(_)));
            if let Some(kv) = kv {
                *answer = Refreshed::Lost(Some(self.record(name, kv).await));
            } else if want.known.is_some_and(lives) && !want.is_late(called) {
                // What it was attached to lives still: it has not expired, but was taken away, and its token has moved on.
                let token = Fence(want.refresh.token.0.saturating_add(1));
                *answer = Refreshed::Lost(Some(LeaseRecord::new(name, None, token, None)));
            }
        });
        join_all(told).await;
    }

    /// Reads keys, all at once if they are neighbours, and the term in which a majority has confirmed the last of them.
    async fn read_all(&self, mut keys: Vec<Vec<u8>>) -> Result<(Kvs, u64), CallError> {
        keys.sort_unstable();
        let mut kvs = Kvs::new();
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
            return Ok((kvs, 0));
        };
        let limit = keys.len() * 2 + 16;
        let mut end = last.clone();
        end.push(0);
        let options = GetOptions::new()
            .with_range(end)
            .with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
        let answer = self
            .cluster
            .call(|connection| {
                let (first, options) = (first.clone(), options.clone());
                async move {
                    connection
                        .client
                        .kv_client()
                        .get(first, Some(options))
                        .await
                }
            })
            .await?;
        let mut answer = answer.value;
        let mut term = answer.header().map_or(0, |header| header.raft_term());
        let more = answer.more();
        let found = answer.take_kvs().into_iter();
        kvs.extend(found.map(|kv| (kv.key().to_vec(), kv)));
        if !more {
            return Ok((kvs, term));
        }
        keys.retain(|key| !kvs.contains_key(key));
        for part in keys.chunks(OPERATIONS) {
            let gets: Vec<_> = part.iter().map(|key| TxnOp::get(&**key, None)).collect();
            let answer = self.txn(Txn::new().and_then(gets)).await?.value;
            let now = answer.header().map_or(0, |header| header.raft_term());
            // All of them have to be from one term: a change in between proves nothing.
            term = if now == term { now } else { 0 };
            for response in answer.op_responses() {
                if let TxnOpResponse::Get(mut found) = response {
                    let found = found.take_kvs().into_iter();
                    kvs.extend(found.map(|kv| (kv.key().to_vec(), kv)));
                }
            }
        }
        Ok((kvs, term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::{Holder, LeaseName};

    #[test]
    fn what_is_moved_while_it_is_released_keeps_nothing_alive_where_it_was_moved_to() {
        let store = EtcdLeases::from_url("etcd://127.0.0.1:1/t").unwrap();
        let holder = Holder {
            id: "me".into(),
            host: "here".into(),
            pid: 1,
        };
        let refresh = Refresh {
            name: LeaseName::new("job").unwrap(),
            holder,
            token: Fence(1),
            expiration: Duration::from_secs(5),
        };
        let carried = Carried {
            carrier: 10,
            revision: Some(1),
            keep: refresh.expiration,
            delay: Duration::ZERO,
            at: Duration::ZERO,
        };
        let ours = (refresh.name.clone(), Arc::clone(&refresh.holder.id));
        let want = Wanted {
            key: store.prefix.key(&refresh.name),
            refresh: &refresh,
            ours: ours.clone(),
            known: Some(carried),
            delay: Duration::ZERO,
        };
        store.carriers.lock().opened(6, 10);
        store.carriers.lock().opened(7, 11);
        store.carriers.lock().put(ours.clone(), carried);
        store.note(&want, 10, Some(2), Duration::ZERO);
        store.note(&want, 11, Some(3), Duration::ZERO);
        assert_eq!(store.carriers.lock().of(&ours).unwrap().carrier, 11);
        assert_eq!(store.carriers.lock().open(7), Some(11));
        // Its release has no answer yet, and knows of the first alone.
        store.carriers.lock().forget(&ours);
        store.note(&want, 10, Some(2), Duration::ZERO);
        assert_eq!(store.carriers.lock().open(6), Some(10));
        store.note(&want, 11, Some(3), Duration::ZERO);
        assert_eq!(store.carriers.lock().of(&ours), None);
        assert_eq!(store.carriers.lock().open(7), None);
    }
}
