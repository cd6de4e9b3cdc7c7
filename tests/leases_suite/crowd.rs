//! Sixty processes that find nothing prepared.

use std::collections::BTreeSet;

use crate::ground::{Ground, Kind, Pace, held};
use crate::peer;
use crate::process::Peer;

const PROCESSES: usize = 60;

pub fn test(kind: Kind) {
    let ground = Ground::new(kind);
    let folder = tempfile::tempdir().unwrap();
    let mut peers: Vec<Peer> = (0..PROCESSES)
        .map(|_| peer::start(&ground.url, folder.path()))
        .collect();
    // All begin when the last one is there: they make the table, and wait for the lease.
    for peer in &mut peers {
        peer.tell("acquire for long");
        peer.tell("release");
    }
    let mut tokens = BTreeSet::new();
    for peer in &mut peers {
        let token: u64 = peer.answer().parse().unwrap();
        assert!(tokens.insert(token), "{token} was given twice");
        assert_eq!(peer.answer(), "was ours");
    }
    let leases = ground.leases(Pace::SHORT);
    assert_eq!(held(&leases, "job"), None);
}
