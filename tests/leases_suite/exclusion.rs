//! Sixteen contenders in four processes, and a critical section that is watched from outside.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::{LeaseGuard, Leases};

use crate::ground::{Ground, Kind, MS, PATIENCE, Pace, block_on, held, until};
use crate::peer;
use crate::process::Peer;

const PROCESSES: usize = 4;
const CONTENDERS: usize = 4;
const LASTING: Duration = Duration::from_secs(10);

/// The contenders of one process, until it ends.
pub fn contend(leases: &Leases, folder: &Path) {
    for _ in 0..CONTENDERS {
        let (leases, folder) = (leases.clone(), folder.to_owned());
        thread::spawn(move || {
            loop {
                let guard = match block_on(leases.acquire("crowd")) {
                    Ok(guard) => guard,
                    Err(error) => return std::fs::write(folder.join("failed"), error.to_string()),
                };
                enter(&guard, &folder);
                // It may be lost, or the store slow: others have to see to it.
                let _ = block_on(guard.release());
            }
        });
    }
}

/// The critical section.
fn enter(guard: &LeaseGuard, folder: &Path) {
    // A lock of the kernel's that a killed process loses: whoever finds it taken is not alone.
    let inside = File::create(folder.join("inside")).unwrap();
    let is_alone = inside.try_lock().is_ok();
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(folder.join("log"));
    let mut log = log.unwrap();
    let token = guard.token();
    let late = format!("{token} late\n");
    if !guard.is_held() {
        log.write_all(late.as_bytes()).unwrap();
        return;
    }
    let how = if is_alone { "alone" } else { "not alone" };
    let entry = format!("{token} {how}\n");
    log.write_all(entry.as_bytes()).unwrap();
    thread::sleep(2 * MS + u32::try_from(token.0 % 8).unwrap() * MS);
    if !guard.is_held() {
        // It was kept from running for longer than the lease lasts, and knows.
        log.write_all(late.as_bytes()).unwrap();
    }
}

pub fn test(kind: Kind) {
    let ground = Ground::new(kind);
    // In memory where that can be had: a write that waits for the disk inside the critical section only makes it late.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let folder = folder.unwrap();
    let start = || {
        let mut other = peer::start(&ground.url, folder.path());
        other.tell("contend");
        other
    };
    let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let mut peers: Vec<Peer> = (0..PROCESSES).map(|_| start()).collect();
    let leases = ground.leases(Pace::SHORT);
    let mut killed = 0;
    let began = Instant::now();
    while began.elapsed() < LASTING || killed < 2 || log().lines().count() < 80 {
        assert!(
            began.elapsed() < 2 * PATIENCE,
            "{killed} holders were killed"
        );
        let before = log().lines().count();
        until("the next hand-overs", || {
            (log().lines().count() >= before + 20).then_some(())
        });
        let holder = held(&leases, "crowd").and_then(|record| record.holder);
        let at = holder.and_then(|holder| peers.iter().position(|peer| peer.pid() == holder.pid));
        let Some(at) = at else { continue };
        let pid = peers[at].pid();
        peers.swap_remove(at).kill();
        let holder = held(&leases, "crowd").and_then(|record| record.holder);
        if holder.is_some_and(|holder| holder.pid == pid) {
            killed += 1;
        }
        peers.push(start());
    }
    for peer in &mut peers {
        assert_eq!(peer.answer(), "contending");
    }
    drop(peers);
    let failed = std::fs::read_to_string(folder.path().join("failed"));
    assert!(failed.is_err(), "an acquire failed: {failed:?}");

    let log = log();
    let entries = log.lines().map(|entry| entry.split_once(' ').unwrap());
    let entries: Vec<(u64, &str)> = entries
        .map(|(token, how)| (token.parse().unwrap(), how))
        .collect();
    // Who was kept from running is inside until it has said that it is late, and others enter meanwhile.
    let is_late = |(_, how): &&(u64, &str)| *how == "late";
    let (mut last, mut before, mut entered) = (0, 0, 0);
    for (at, &(token, how)) in entries.iter().enumerate() {
        if how == "late" {
            continue;
        }
        let mut since = entries[before..].iter().filter(is_late);
        let excused = since.any(|(late, _)| *late < token);
        assert!(how == "alone" || excused, "with {token}: two inside");
        let mut after = entries[at..].iter().filter(is_late);
        let is_late = after.any(|(late, _)| *late == token);
        assert!(token > last || is_late, "token {token} after {last}");
        last = last.max(token);
        before = at;
        entered += 1;
    }
    let late = entries.iter().filter(is_late).count();
    println!("{kind:?}: {entered} entered, {late} late, {killed} holders were killed");
    assert!(entered > 40, "{entered} entered");
    // Who is late excuses the next.
    assert!(late * 4 < entered, "{late} of {entered} were late");
}
