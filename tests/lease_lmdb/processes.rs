//! Two processes and one lease.

use std::time::{Duration, Instant};

use lockkeeper::{Claimed, Fence, LeaseStore, LmdbLeases, Refreshed, Released};
use rustix::process::Signal;

use crate::peer::Peer;
use crate::support::{block_on, extension, holder, name, taken, until, wish};

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(700);

#[test]
fn a_second_process_on_the_same_folder_is_excluded_until_the_first_gives_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbLeases::open(folder.path()).unwrap();
    let mut peer = Peer::start(folder.path());
    assert_eq!(peer.claim("job", "them", LONG), Some(Fence(1)));

    let Claimed::Busy(record) = block_on(store.claim(&wish("job", "us", LONG))).unwrap() else {
        panic!("two holders");
    };
    let them = record.holder.unwrap();
    assert_eq!((&*them.id, them.pid), ("them", peer.pid()));
    assert!(record.remaining.unwrap() > LONG / 2);
    // Another name is another lease.
    taken(&store, &wish("other", "us", LONG));

    assert_eq!(peer.ask("release job them"), "was ours");
    assert_eq!(taken(&store, &wish("job", "us", LONG)), Fence(2));
    assert_eq!(peer.claim("job", "them", LONG), None);
    assert_eq!(peer.ask("release job them"), "was lost");
}

#[test]
fn after_kill_9_of_the_holder_the_lease_is_free_at_its_expiry_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbLeases::open(folder.path()).unwrap();
    let mut peer = Peer::start(folder.path());
    let sent = Instant::now();
    assert!(peer.claim("job", "them", SHORT).is_some());
    peer.kill();

    let token = until("the lease", || {
        match block_on(store.claim(&wish("job", "us", LONG))).unwrap() {
            Claimed::Ours { token } => Some(token),
            Claimed::Busy(_) => None,
        }
    });
    assert!(sent.elapsed() >= SHORT, "taken after {:?}", sent.elapsed());
    assert_eq!(token, Fence(2));
}

#[test]
fn a_process_that_is_killed_while_it_writes_leaves_nothing_broken() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbLeases::open(folder.path()).unwrap();
    let mut last = 0;
    for round in 0..10 {
        let mut peer = Peer::start(folder.path());
        assert_eq!(peer.ask("contend 600000"), "contending");
        // In the middle of claims and releases.
        let before = until("a claim", || {
            let found = block_on(store.look(&name("crowd"))).unwrap();
            found.filter(|found| found.token.0 > last + 10)
        });
        peer.kill();
        let after = block_on(store.look(&name("crowd"))).unwrap().unwrap();
        assert!(after.token >= before.token, "round {round}");
        last = after.token.0;
        // What it held is taken away, for the next round.
        block_on(store.force_release(&name("crowd"))).unwrap();
        taken(&store, &wish("mine", &round.to_string(), LONG));
        let released = block_on(store.release(&name("mine"), &holder(&round.to_string())));
        assert_eq!(released.unwrap(), Released::WasOurs);
    }
}

#[test]
fn i10_tokens_grow_over_a_thousand_hand_overs_between_processes() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbLeases::open(folder.path()).unwrap();
    let mut peer = Peer::start(folder.path());
    let mut last = Fence(0);
    for round in 0..500 {
        let id = round.to_string();
        for token in [taken(&store, &wish("job", &id, LONG)), {
            block_on(store.release(&name("job"), &holder(&id))).unwrap();
            peer.claim("job", &id, LONG).unwrap()
        }] {
            assert!(token > last, "{token} after {last}");
            last = token;
        }
        assert_eq!(peer.ask(&format!("release job {id}")), "was ours");
    }
}

#[test]
fn a_holder_that_was_stopped_past_its_expiry_is_told_that_it_has_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbLeases::open(folder.path()).unwrap();
    let mut peer = Peer::start(folder.path());
    let theirs = peer.claim("job", "them", SHORT).unwrap();
    // It waits for its next order, and has nothing of LMDB's.
    peer.signal(Signal::STOP);
    let ours = until("the lease", || {
        match block_on(store.claim(&wish("job", "us", LONG))).unwrap() {
            Claimed::Ours { token } => Some(token),
            Claimed::Busy(_) => None,
        }
    });
    assert!(ours > theirs);
    peer.signal(Signal::CONT);
    assert_eq!(
        peer.ask(&format!("refresh job them 600000 {theirs}")),
        "lost"
    );
    assert_eq!(peer.ask("release job them"), "was lost");
    let record = block_on(store.look(&name("job"))).unwrap().unwrap();
    assert_eq!(record.token, ours);
}

#[test]
fn one_pass_extends_what_is_held_and_tells_of_each_that_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbLeases::open(folder.path()).unwrap();
    let mut peer = Peer::start(folder.path());
    let lease = |number: u64| format!("lease {number:03}").replace(' ', "-");
    let mut pass = Vec::new();
    for number in 0..500 {
        let token = taken(&store, &wish(&lease(number), "us", LONG));
        pass.push(extension(&lease(number), "us", token, 2 * LONG));
    }
    block_on(store.force_release(&name(&lease(7)))).unwrap();
    assert_eq!(peer.claim(&lease(7), "them", LONG), Some(Fence(3)));

    let outcomes = block_on(store.refresh(&pass)).unwrap();
    for (number, outcome) in outcomes.iter().enumerate() {
        match (number, outcome) {
            (7, Refreshed::Lost(Some(record))) => {
                assert_eq!(&*record.holder.as_ref().unwrap().id, "them");
            }
            (7, other) => panic!("{other:?}"),
            (_, outcome) => assert_eq!(*outcome, Refreshed::Held, "{number}"),
        }
    }
    let all = block_on(store.list()).unwrap();
    assert_eq!(all.len(), 500);
    assert!(all.is_sorted_by_key(|record| record.name.clone()));
    let extended = |record: &lockkeeper::LeaseRecord| record.remaining.unwrap() > LONG;
    assert_eq!(all.iter().filter(|record| extended(record)).count(), 499);
}
