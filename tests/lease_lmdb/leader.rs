//! A leader, its environment, and the one that comes after it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockkeeper::heed::types::Str;
use lockkeeper::{
    Db, ErrorClass, Fence, Keeper, LeaseGuard, LeaseStore, Leases, LmdbLeases, LostReason, RunTxn,
    TxnError,
};
use rustix::process::Signal;

use crate::gate::Gate;
use crate::peer::Peer;
use crate::stop::{now, stop_before};
use crate::support::{PATIENCE, block_on, name, until};

/// How long a leader stays away from the store, to be stopped meanwhile.
const AWAY: Duration = Duration::from_millis(500);

/// A process that leads, with an environment that all share.
pub struct Leader {
    keeper: Keeper,
    texts: Db<Str, Str>,
    gate: Gate,
    leases: Leases,
    guard: LeaseGuard,
}

impl Leader {
    /// Waits until it leads.
    pub fn new(folder: &Path) -> Self {
        let keeper = Keeper::open(folder).unwrap();
        let texts = keeper.blocking_database("texts").unwrap();
        let gate = Gate::before(Arc::new(LmdbLeases::open(folder).unwrap()));
        let leases = Leases::builder(gate.clone())
            .refresh(Duration::from_millis(200))
            .expiration(Duration::from_secs(3))
            .poll(Duration::from_millis(50))
            .max_clock_skew(Duration::from_millis(100))
            .start()
            .unwrap();
        let guard = block_on(leases.acquire_timeout("leader", PATIENCE)).unwrap();
        Self {
            keeper,
            texts,
            gate,
            leases,
            guard,
        }
    }

    pub fn token(&self) -> String {
        self.guard.token().to_string()
    }

    /// Answers until when it is not in the store, and leads for sure.
    pub fn stay_away(&self) -> String {
        let began = Instant::now();
        loop {
            let end = now() + u64::try_from(AWAY.as_nanos()).unwrap();
            let away = self.gate.shut_until(end);
            if away && self.guard.remaining() > AWAY {
                return end.to_string();
            }
            assert!(began.elapsed() < PATIENCE && self.guard.is_held());
        }
    }

    fn writing(&self, text: &str) -> RunTxn<()> {
        let (texts, text) = (self.texts, text.to_owned());
        RunTxn::update(move |txn| Ok(texts.put(txn, "text", &text)?)).under(&self.guard)
    }

    pub fn write(&self, text: &str) -> String {
        match self.keeper.blocking_run(self.writing(text)) {
            Ok(()) => "written".into(),
            Err(error) if error.class() == ErrorClass::LeaseLost => "not the leader".into(),
            Err(error) => format!("{error:?}"),
        }
    }

    fn text(&self) -> Option<String> {
        let texts = self.texts;
        self.keeper
            .blocking_view(move |txn| Ok(texts.get(txn, "text")?.map(str::to_owned)))
            .unwrap()
    }
}

#[test]
fn a_leader_that_was_stopped_writes_nothing_after_its_successor() {
    let folder = tempfile::tempdir().unwrap();
    let mut peer = Peer::start(folder.path());
    assert_eq!(peer.ask("lead"), "1");
    assert_eq!(peer.ask("write first"), "written");
    until("it is stopped", || {
        let away: u64 = peer.ask("stay away").parse().unwrap();
        stop_before(peer.pid(), away).then_some(())
    });
    let successor = Leader::new(folder.path());
    assert_eq!(successor.guard.token(), Fence(2));
    assert_eq!(successor.write("second"), "written");
    peer.signal(Signal::CONT);
    assert_eq!(peer.ask("write late"), "not the leader");
    assert_eq!(successor.text().as_deref(), Some("second"));
    assert_eq!(successor.write("third"), "written");
}

#[test]
fn a_leader_that_is_killed_is_followed_within_its_expiration() {
    let folder = tempfile::tempdir().unwrap();
    let mut peer = Peer::start(folder.path());
    assert_eq!(peer.ask("lead"), "1");
    assert_eq!(peer.ask("write first"), "written");
    peer.kill();
    let successor = Leader::new(folder.path());
    assert_eq!(successor.token(), "2");
    assert_eq!(successor.write("second"), "written");
}

#[test]
fn every_way_of_running_under_a_guard_ends_when_its_lease_is_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let leader = Leader::new(folder.path());
    let records = leader.keeper.records_of(leader.texts).unwrap();
    let (keeper, guard) = (&leader.keeper, &leader.guard);
    let all = || {
        let by_message = keeper.blocking_send(leader.writing("text"));
        let by_method = keeper.blocking_run(leader.writing("text"));
        let interactive = block_on(async {
            keeper
                .transaction("write", |txn| async move {
                    txn.put(records, "text", "text").await?;
                    Ok::<_, TxnError>(())
                })
                .under(guard)
                .await
        });
        let by_hand = block_on(async {
            let txn = keeper.begin().under(guard).await?;
            txn.put(records, "text", "text").await?;
            txn.commit().await
        });
        let view = keeper.blocking_run(RunTxn::view(|_| Ok(())).under(guard));
        [by_message, by_method, interactive, by_hand, view]
    };
    assert!(all().iter().all(Result::is_ok));
    block_on(leader.leases.force_release("leader")).unwrap();
    for outcome in all() {
        let refused = matches!(
            &outcome,
            Err(TxnError::LeaseLost {
                token: Fence(1),
                ..
            })
        );
        assert!(refused, "{outcome:?}");
    }
    assert_eq!(block_on(guard.lost()), LostReason::Forced);
}

#[test]
fn i12_a_guard_that_is_dropped_gives_the_lease_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbLeases::open(folder.path()).unwrap();
    let Leader { leases, guard, .. } = Leader::new(folder.path());
    let theirs = guard.holder().clone();
    drop(guard);
    let record = until("the release", || {
        let record = block_on(store.look(&name("leader"))).unwrap();
        record.filter(|record| record.remaining.is_none())
    });
    assert_eq!((record.token, record.holder), (Fence(1), Some(theirs)));
    drop(leases);
}

#[test]
fn a_process_that_shuts_its_leases_down_gives_each_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbLeases::open(folder.path()).unwrap();
    let Leader { leases, guard, .. } = Leader::new(folder.path());
    let ended = block_on(leases.shutdown(PATIENCE));
    assert_eq!(ended.maybe_still_held, []);
    assert_eq!(block_on(guard.lost()), LostReason::Shutdown);
    let record = block_on(store.look(&name("leader"))).unwrap().unwrap();
    assert_eq!(record.remaining, None);
}
