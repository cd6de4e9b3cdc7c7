//! lmdbsync's `testresize`: processes that resize the map under each other.

use super::folder;
use super::peer::Peer;

use super::KIB;

const PROCESSES: u64 = 3;
const ITEMS: u64 = 5_120;
const STEP: u64 = 128 * KIB;
const RUNS: usize = 10;

#[test]
fn three_processes_that_grow_the_map_under_each_other_lose_nothing() {
    for run in 0..RUNS {
        let folder = folder();
        let mut peers: Vec<_> = (0..PROCESSES).map(|_| Peer::start(folder.path())).collect();
        // All have the small map of the beginning.
        let open = format!("keeper {STEP} {STEP}");
        peers.iter_mut().for_each(|peer| peer.order(&open));
        for peer in &mut peers {
            assert_eq!(peer.answer(), "open", "run {run}");
        }
        let mut next: Vec<u64> = (0..PROCESSES).map(|nth| nth * ITEMS).collect();
        let end = |nth: usize| (nth as u64 + 1) * ITEMS;

        // In turn, so that it does not depend on luck: each stores until it had to grow the map itself, and a little more. Whoever
        // comes after it has a smaller map than the data needs by then; the first one, once more.
        for (nth, peer) in peers.iter_mut().enumerate() {
            next[nth] = peer.ask_number(&format!("put_until_grown {}", next[nth]));
            assert!(next[nth] < end(nth) / 2 + nth as u64 * ITEMS / 2);
        }
        let (from, to) = (next[0], next[0] + 100);
        assert_eq!(
            peers[0].ask(&format!("put {from} {to}")),
            "stored",
            "run {run}"
        );
        next[0] = to;
        for (nth, peer) in peers.iter_mut().enumerate() {
            assert!(peer.ask_number("resizes") >= 1, "run {run}, process {nth}");
            assert!(peer.ask_number("adopted") >= 1, "run {run}, process {nth}");
        }

        // And all at once.
        for (nth, peer) in peers.iter_mut().enumerate() {
            peer.order(&format!("put {} {}", next[nth], end(nth)));
        }
        for (nth, peer) in peers.iter_mut().enumerate() {
            assert_eq!(peer.answer(), "stored", "run {run}, process {nth}");
        }

        let mut reader = Peer::heed(folder.path(), STEP * 64);
        assert_eq!(reader.ask_number("count"), PROCESSES * ITEMS, "run {run}");
    }
}
