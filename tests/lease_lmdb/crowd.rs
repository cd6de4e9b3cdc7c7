//! Sixteen contenders in four processes, and a critical section that is watched from outside.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::{Claimed, LeaseStore, LmdbLeases};

use crate::peer::Peer;
use crate::support::{block_on, holder, name, until, wish};

/// What a contender has seen that must not be.
static FAILURE: Mutex<Option<String>> = Mutex::new(None);

pub fn failure() -> Option<String> {
    FAILURE.lock().unwrap().clone()
}

/// Four contenders, each on a thread of its own, until the process ends.
pub fn contend(store: &LmdbLeases, folder: &Path, expiration: Duration) {
    for thread in 0..4 {
        let (store, folder) = (store.clone(), folder.to_owned());
        thread::spawn(move || {
            for round in 0_u64.. {
                let id = format!("{}.{thread}.{round}", std::process::id());
                if !enter(&store, &folder, &id, expiration) {
                    thread::sleep(Duration::from_millis(1 + round % 5));
                }
            }
        });
    }
}

/// Takes the lease if it is free, goes through the critical section, and gives it back.
fn enter(store: &LmdbLeases, folder: &Path, id: &str, expiration: Duration) -> bool {
    let asked = Instant::now();
    let claimed = block_on(store.claim(&wish("crowd", id, expiration)));
    let Claimed::Ours { token } = claimed.unwrap() else {
        return false;
    };
    // A lock of the kernel's that a killed process loses: whoever finds it taken is not alone.
    let inside = File::create(folder.join("inside")).unwrap();
    let is_alone = inside.try_lock().is_ok();
    let path = folder.join("tokens");
    let log = OpenOptions::new().append(true).create(true).open(path);
    let mut log = log.unwrap();
    // Whoever was kept from running for so long comes after those who had it later.
    if asked.elapsed() < expiration {
        if !is_alone {
            let mut failure = FAILURE.lock().unwrap();
            failure.get_or_insert(format!("{id} with token {token} is not alone"));
        }
        // In one piece: whoever is killed between two has the next number put behind its own.
        log.write_all(format!("{token}\n").as_bytes()).unwrap();
    }
    thread::sleep(Duration::from_millis(token.0 % 4));
    drop(inside);
    block_on(store.release(&name("crowd"), &holder(id))).unwrap();
    true
}

#[test]
fn sixteen_contenders_in_four_processes_are_never_two_inside_while_holders_are_killed() {
    const EXPIRATION: Duration = Duration::from_millis(1500);
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbLeases::open(folder.path()).unwrap();
    let start = || {
        let mut peer = Peer::start(folder.path());
        peer.ask(&format!("contend {}", EXPIRATION.as_millis()));
        peer
    };
    let mut peers: Vec<Peer> = (0..4).map(|_| start()).collect();
    let tokens = || {
        let log = std::fs::read_to_string(folder.path().join("tokens")).unwrap_or_default();
        log.lines()
            .map(|line| line.parse().unwrap())
            .collect::<Vec<u64>>()
    };
    let mut killed = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        let before = tokens().len();
        until("the next hand-overs", || {
            (tokens().len() > before + 20).then_some(())
        });
        let record = block_on(store.look(&name("crowd"))).unwrap().unwrap();
        let pid = record.holder.unwrap().pid;
        if record.remaining.is_some()
            && let Some(at) = peers.iter().position(|peer| peer.pid() == pid)
        {
            peers.swap_remove(at).kill();
            killed += 1;
            peers.push(start());
        }
    }
    for peer in &mut peers {
        assert_eq!(peer.ask("failure"), "none");
    }
    drop(peers);
    let tokens = tokens();
    assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
    assert!(
        killed > 1 && tokens.len() > 100,
        "{killed} kills, {} holders",
        tokens.len()
    );
}
