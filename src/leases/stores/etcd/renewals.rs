//! Keeps etcd leases alive, and proves that they are.
//!
//! A keep-alive is answered by whoever believes to be the leader. One that was paused, and has been replaced without knowing,
//! answers too, while the lease ends on its successor. So a keep-alive counts only when a later answer, which needed the
//! consent of a majority, comes from the same term: then nobody else was leader in between. An election after it only
//! lengthens the lease: the new leader lets every lease live for its whole time again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Error, LeaseKeepAliveStream, LeaseKeeper};
use parking_lot::Mutex;

use super::cluster::{CallError, Cluster};
use super::now;

/// The last keep-alive of an etcd lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewal {
    /// Just before it was sent.
    pub(super) at: Duration,
    /// How long the lease lives from then.
    pub(super) ttl: Duration,
    /// The term of the member that was asked, before it was done.
    pub(super) term: u64,
    /// See above.
    pub(super) proven: bool,
}

impl Renewal {
    /// The lease lives until then, if nobody keeps it alive.
    pub(super) const fn end(&self) -> Duration {
        self.at.saturating_add(self.ttl)
    }
}

#[derive(Default)]
pub(super) struct Renewals {
    leases: Mutex<HashMap<i64, Arc<tokio::sync::Mutex<State>>>>,
}

#[derive(Default)]
struct State {
    last: Option<Renewal>,
    stream: Option<Stream>,
}

/// One for each etcd lease, kept from one keep-alive to the next. It is given back only after the answer to what was sent on
/// it: an older answer must not be taken for a newer one.
struct Stream {
    connection: u64,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl Renewals {
    /// A lease that was just granted, by a majority.
    pub(super) fn granted(&self, id: i64, at: Duration, ttl: i64) {
        let last = Renewal {
            at,
            ttl: seconds(ttl),
            term: 0,
            proven: true,
        };
        let state = State {
            last: Some(last),
            stream: None,
        };
        let state = Arc::new(tokio::sync::Mutex::new(state));
        self.leases.lock().insert(id, state);
    }

    /// Sees to it that a lease lives until `until`, with a keep-alive if there is need of one. If it cannot live so long, it is
    /// kept alive all the same.
    pub(super) async fn need(
        &self,
        cluster: &Cluster,
        id: i64,
        until: Duration,
    ) -> Result<Renewal, CallError> {
        let state = Arc::clone(self.leases.lock().entry(id).or_default());
        // Whoever comes while another waits for an answer has use of it as well, or asks for a newer one.
        let mut state = state.lock().await;
        if let Some(last) = state.last.filter(|last| last.end() >= until) {
            return Ok(last);
        }
        let mut kept = state.stream.take();
        let asked = cluster
            .call(|connection| {
                let kept = kept
                    .take()
                    .filter(|kept| kept.connection == connection.number);
                async move {
                    let mut stream = match kept {
                        Some(stream) => stream,
                        None => {
                            let mut client = connection.client.lease_client();
                            let (keeper, answers) = client.keep_alive(id).await?;
                            Stream {
                                connection: connection.number,
                                keeper,
                                answers,
                            }
                        }
                    };
                    let at = now();
                    stream.keeper.keep_alive().await?;
                    let answer = stream.answers.message().await?;
                    let Some(answer) = answer else {
                        return Err(Error::WatchError("the keep-alive stream has ended".into()));
                    };
                    let term = answer
                        .header()
                        .map_or(0, etcd_client::ResponseHeader::raft_term);
                    Ok((at, answer.ttl(), term, stream))
                }
            })
            .await;
        let (at, ttl, term, stream) = match asked {
            Ok(answer) => answer.value,
            Err(error) => {
                if matches!(error, CallError::Ended) {
                    self.leases.lock().remove(&id);
                }
                return Err(error);
            }
        };
        if ttl <= 0 {
            self.leases.lock().remove(&id);
            return Err(CallError::Ended);
        }
        let renewal = Renewal {
            at,
            ttl: seconds(ttl),
            term,
            proven: false,
        };
        state.last = Some(renewal);
        state.stream = Some(stream);
        Ok(renewal)
    }

    /// Whether a keep-alive counts, now that a majority has answered something in `term`. One that does not is not used again.
    pub(super) async fn prove(&self, id: i64, renewal: Renewal, term: u64) -> bool {
        let proven = renewal.proven || renewal.term == term;
        let state = self.leases.lock().get(&id).map(Arc::clone);
        if let Some(state) = state
            && !renewal.proven
        {
            let mut state = state.lock().await;
            if let Some(last) = &mut state.last
                && last.at == renewal.at
            {
                match proven {
                    true => last.proven = true,
                    false => state.last = None,
                }
            }
        }
        proven
    }

    /// Forgets those that nobody will ask for.
    pub(super) fn retain(&self, mut wanted: impl FnMut(i64) -> bool) {
        self.leases.lock().retain(|id, _| wanted(*id));
    }

    pub(super) fn len(&self) -> usize {
        self.leases.lock().len()
    }

    pub(super) fn clear(&self) {
        self.leases.lock().clear();
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(id: i64, term: u64) -> (Renewals, Renewal) {
        let renewals = Renewals::default();
        renewals.granted(id, Duration::ZERO, 6);
        let renewal = Renewal {
            at: Duration::from_secs(1),
            ttl: Duration::from_secs(6),
            term,
            proven: false,
        };
        if let Some(state) = renewals.leases.lock().get(&id) {
            state.try_lock().unwrap().last = Some(renewal);
        }
        (renewals, renewal)
    }

    fn last(renewals: &Renewals, id: i64) -> Option<Renewal> {
        let state = Arc::clone(&renewals.leases.lock()[&id]);
        state.try_lock().unwrap().last
    }

    #[tokio::test]
    async fn i09_the_keep_alive_of_a_leader_that_was_replaced_does_not_count() {
        let (renewals, renewal) = answered(1, 4);
        assert!(!renewals.prove(1, renewal, 5).await);
        assert!(last(&renewals, 1).is_none());
    }

    #[tokio::test]
    async fn i09_a_keep_alive_counts_once_a_majority_has_confirmed_its_term() {
        let (renewals, renewal) = answered(1, 4);
        assert!(renewals.prove(1, renewal, 4).await);
        let renewal = last(&renewals, 1).unwrap();
        assert!(renewal.proven);
        // A later election only lengthens it.
        assert!(renewals.prove(1, renewal, 5).await);
    }
}
