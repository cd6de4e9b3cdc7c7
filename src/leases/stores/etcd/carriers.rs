//! Which etcd lease carries which of this process's leases: pure bookkeeping, times are parameters.
//!
//! An etcd lease ("carrier" here) has a time to live, and each key that is attached to it goes when it ends. One carrier for
//! each lease would need one keep-alive for each, 10,000 a second; so the leases of a process that live equally long share
//! carriers, and a pass needs one keep-alive for a thousand leases.
//!
//! What shares a carrier is kept alive by its neighbours. So a carrier on which there may be a key that nobody will refresh (a
//! claim or a release whose answer was lost, or a lease that its holder gave up) is *tainted*: it gets no new keys, what is
//! refreshed on it moves to another, and then nobody keeps it alive, and it ends with what is left on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::leases::LeaseName;

/// So many keys go with one etcd lease: the end of one is one entry of etcd's log, which must not become too large.
const ROOM: usize = 1_000;
/// How often somebody looks for leases that nobody refreshes any more.
const SWEEP: Duration = Duration::from_secs(1);

/// One of this process's leases.
pub(super) type Key = (LeaseName, Arc<str>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carried {
    /// The etcd lease.
    pub(super) carrier: i64,
    /// The revision of the last change of its key, if that is known.
    pub(super) revision: Option<i64>,
    /// For how long after a refresh nobody else may have it: the expiration, and the delay after an unclean end.
    pub(super) keep: Duration,
    /// The part of `keep` that is the delay.
    pub(super) delay: Duration,
    /// When it was last refreshed.
    pub(super) at: Duration,
}

#[derive(Debug)]
struct Carrier {
    /// The time to live that was asked for, in seconds.
    ttl: i64,
    tainted: bool,
    keys: usize,
}

#[derive(Debug, Default)]
pub(super) struct Carriers {
    /// The one that takes new keys, by time to live.
    open: HashMap<i64, i64>,
    carriers: HashMap<i64, Carrier>,
    leases: HashMap<Key, Carried>,
    swept: Duration,
}

impl Carriers {
    /// The carrier for new keys that live so long; `None`: one has to be made.
    pub(super) fn open(&self, ttl: i64) -> Option<i64> {
        let id = *self.open.get(&ttl)?;
        let carrier = self.carriers.get(&id)?;
        (!carrier.tainted && carrier.keys < ROOM).then_some(id)
    }

    /// A carrier was made.
    pub(super) fn opened(&mut self, ttl: i64, id: i64) {
        let fresh = Carrier {
            ttl,
            tainted: false,
            keys: 0,
        };
        self.carriers.insert(id, fresh);
        let before = self.open.insert(ttl, id);
        if let Some(before) = before {
            self.drop_empty(before);
        }
    }

    /// A carrier has ended, and everything on it.
    pub(super) fn ended(&mut self, id: i64) {
        self.taint(id);
        self.drop_empty(id);
    }

    /// There may be a key on it that nobody will refresh.
    pub(super) fn taint(&mut self, id: i64) {
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.tainted = true;
            if self.open.get(&carrier.ttl) == Some(&id) {
                self.open.remove(&carrier.ttl);
            }
        }
        self.drop_empty(id);
    }

    /// Whether what is on it should move to one that was asked to live for `ttl`. One that is not ours is let be.
    pub(super) fn should_leave(&self, id: i64, ttl: i64) -> bool {
        self.carriers
            .get(&id)
            .is_some_and(|carrier| carrier.tainted || carrier.ttl != ttl)
    }

    /// A lease is on a carrier now; perhaps it was on another before.
    pub(super) fn put(&mut self, key: Key, carried: Carried) {
        self.forget(&key);
        if let Some(carrier) = self.carriers.get_mut(&carried.carrier) {
            carrier.keys += 1;
        }
        self.leases.insert(key, carried);
    }

    pub(super) fn of(&self, key: &Key) -> Option<Carried> {
        self.leases.get(key).copied()
    }

    /// A lease was released, or is lost.
    pub(super) fn forget(&mut self, key: &Key) -> Option<Carried> {
        let carried = self.leases.remove(key)?;
        if let Some(carrier) = self.carriers.get_mut(&carried.carrier) {
            carrier.keys = carrier.keys.saturating_sub(1);
        }
        self.drop_empty(carried.carrier);
        Some(carried)
    }

    /// Taints the carriers of leases that nobody has refreshed in time.
    pub(super) fn sweep(&mut self, now: Duration) {
        if now < self.swept.saturating_add(SWEEP) {
            return;
        }
        self.swept = now;
        let late = |carried: &Carried| now > carried.at.saturating_add(carried.keep);
        let late: Vec<_> = self
            .leases
            .iter()
            .filter(|(_, carried)| late(carried))
            .map(|(key, carried)| (key.clone(), carried.carrier))
            .collect();
        for (key, carrier) in late {
            self.taint(carrier);
            self.forget(&key);
        }
    }

    /// The carriers that somebody may still ask for.
    pub(super) fn knows(&self, id: i64) -> bool {
        self.carriers.contains_key(&id)
    }

    fn drop_empty(&mut self, id: i64) {
        let Some(carrier) = self.carriers.get(&id) else {
            return;
        };
        if carrier.keys == 0 && self.open.get(&carrier.ttl) != Some(&id) {
            self.carriers.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(5);

    fn key(n: usize) -> Key {
        (LeaseName::new(format!("lease {n}")).unwrap(), "me".into())
    }

    fn on(carrier: i64, at: u64) -> Carried {
        Carried {
            carrier,
            revision: Some(1),
            keep: KEEP,
            delay: Duration::ZERO,
            at: Duration::from_secs(at),
        }
    }

    #[test]
    fn a_tainted_carrier_gets_no_new_keys_and_is_left_by_those_it_has() {
        let mut carriers = Carriers::default();
        assert_eq!(carriers.open(6), None);
        carriers.opened(6, 10);
        assert_eq!((carriers.open(6), carriers.open(7)), (Some(10), None));
        carriers.put(key(1), on(10, 0));
        assert!(!carriers.should_leave(10, 6));
        assert!(carriers.should_leave(10, 7));
        carriers.taint(10);
        assert_eq!(carriers.open(6), None);
        assert!(carriers.should_leave(10, 6));
        carriers.opened(6, 11);
        carriers.put(key(1), on(11, 1));
        assert!(!carriers.knows(10));
        assert!(carriers.knows(11));
    }

    #[test]
    fn a_full_carrier_is_followed_by_another_and_forgotten_when_it_is_empty() {
        let mut carriers = Carriers::default();
        carriers.opened(6, 10);
        (0..ROOM).for_each(|n| carriers.put(key(n), on(10, 0)));
        assert_eq!(carriers.open(6), None);
        carriers.opened(6, 11);
        assert_eq!(carriers.open(6), Some(11));
        (0..ROOM).for_each(|n| assert!(carriers.forget(&key(n)).is_some()));
        assert!(!carriers.knows(10));
        assert!(carriers.knows(11));
    }

    #[test]
    fn what_nobody_refreshes_is_not_kept_alive_by_its_neighbours() {
        let mut carriers = Carriers::default();
        carriers.opened(6, 10);
        carriers.put(key(1), on(10, 0));
        carriers.put(key(2), on(10, 4));
        carriers.sweep(Duration::from_secs(5));
        assert_eq!(carriers.open(6), Some(10));
        carriers.sweep(Duration::from_secs(6));
        assert_eq!(carriers.of(&key(1)), None);
        assert!(carriers.should_leave(10, 6));
        assert_eq!(carriers.of(&key(2)), Some(on(10, 4)));
    }
}
