//! Pools under leases, between real processes of one machine, which are killed and stopped.

use std::path::Path;
use std::time::Duration;

use crate::leases::{EXPIRATION, POLL};
use crate::peer::{Peer, checked, nanos};
use crate::stop::now;
use crate::support::{lease_folder, until};

/// What a busy machine may take longer.
const SLACK: Duration = Duration::from_secs(3);

/// Waits until one of two works, and stops it beyond its lease: it, the other one, which works now, and how often it had lost its
/// lease before.
fn one_is_stopped(one: Peer, other: Peer) -> (Peer, Peer, usize) {
    let (mut holder, mut other) = (one, other);
    let mut lost = None;
    until("one of them is stopped", || {
        if holder.number("running") == 0 {
            std::mem::swap(&mut holder, &mut other);
        }
        lost = holder.stop_at_rest();
        lost.is_some()
    });
    until("the other one runs", || other.number("running") == 2);
    (holder, other, lost.unwrap())
}

/// Has one that was stopped go on: it notices, and does nothing any more.
fn goes_on_and_does_nothing(folder: &Path, stopped: &mut Peer, lost: usize) {
    let began = now();
    stopped.goes_on();
    until("it has noticed", || stopped.number("lost") == lost + 1);
    until("it waits", || stopped.ask("state") == "WaitingForLease");
    assert_eq!(stopped.number("running"), 0);
    let beats = &checked(folder)["import"];
    let mut late = beats
        .iter()
        .filter(|beat| beat.at > began && beat.pid == stopped.pid());
    assert!(late.next().is_none());
}

#[test]
fn i09_after_kill_9_another_process_takes_over_within_expiration_and_poll_and_never_overlaps() {
    let folder = lease_folder();
    let mut first = Peer::start(folder.path(), "whole");
    until("the first runs", || first.number("running") == 2);
    let mut second = Peer::start(folder.path(), "whole");
    let mut third = Peer::start(folder.path(), "whole");
    assert_eq!(second.number("running") + third.number("running"), 0);
    let (dead, killed) = (first.pid(), now());
    first.kill();
    until("another runs", || {
        second.number("running") + third.number("running") == 2
    });
    // It is decided that they run; what they do stands in the log.
    let mut began = None;
    until("it works", || {
        let beats = &checked(folder.path())["import"];
        let other = beats.iter().find(|beat| beat.pid != dead);
        began = other.map(|beat| beat.at);
        began.is_some()
    });
    let began = began.unwrap();
    let late = Duration::from_nanos(began - killed);
    assert!(late < EXPIRATION + POLL + SLACK, "{late:?}");
    // One of the two, not both.
    let (mut holder, mut other) = match second.number("running") {
        2 => (second, third),
        _ => (third, second),
    };

    // What is stopped in order is handed over at once.
    assert_eq!(holder.ask("stop"), "true");
    until("the last one runs", || other.number("running") == 2);
    assert_eq!(other.number("lost"), 0);
    checked(folder.path());
}

#[test]
fn i09_a_lease_that_is_lost_stops_the_workers_before_another_process_starts_its_own() {
    let folder = lease_folder();
    let mut first = Peer::start(folder.path(), "whole");
    until("the first runs", || first.number("running") == 2);
    let mut second = Peer::start(folder.path(), "whole");

    // Taken away by force: the holder is told, and another one gets it, or it itself again.
    for _ in 1..=5 {
        let mut lost = 0;
        until("it is taken away", || {
            if first.number("running") < 2 {
                std::mem::swap(&mut first, &mut second);
            }
            lost = first.number("lost");
            first.number("running") == 2 && first.ask("force import") == "true"
        });
        until("it was lost", || first.number("lost") > lost);
    }
    until("somebody runs", || {
        first.number("running") + second.number("running") == 2
    });

    // Stopped beyond the expiration: when it goes on, it does nothing any more.
    let (mut holder, _other, lost) = one_is_stopped(first, second);
    goes_on_and_does_nothing(folder.path(), &mut holder, lost);
}

#[test]
fn i09_a_process_that_was_stopped_beyond_its_lease_begins_no_job_when_it_goes_on() {
    let folder = lease_folder();
    let first = Peer::start(folder.path(), "jobs");
    let second = Peer::start(folder.path(), "jobs");
    let (mut holder, other, lost) = one_is_stopped(first, second);
    until("the other one works", || {
        let beats = &checked(folder.path())["import"];
        beats.iter().any(|beat| beat.pid == other.pid())
    });
    goes_on_and_does_nothing(folder.path(), &mut holder, lost);
}

#[test]
fn i09_three_processes_share_eight_partitions_and_take_over_from_a_dead_one_and_for_a_new_one() {
    let folder = lease_folder();
    let mut peers: Vec<Peer> = (0..3).map(|_| Peer::start(folder.path(), "8")).collect();
    let shares = |peers: &mut Vec<Peer>| {
        let mut shares: Vec<usize> = peers
            .iter_mut()
            .map(|peer| peer.number("running"))
            .collect();
        shares.sort_unstable();
        shares
    };
    until("all have their share", || shares(&mut peers) == [2, 3, 3]);

    let killed = now();
    peers.remove(1).kill();
    until("the others take over", || shares(&mut peers) == [4, 4]);
    let took = Duration::from_nanos(now() - killed);
    assert!(took < EXPIRATION + POLL + SLACK, "{took:?}");

    peers.push(Peer::start(folder.path(), "8"));
    until("the new one has its share", || {
        shares(&mut peers) == [2, 3, 3]
    });
    // It stays so; a machine that is held up for longer than a lease lasts is asked again.
    let moved = |peers: &mut Vec<Peer>| -> usize {
        let of_one = |peer: &mut Peer| peer.number("given") + peer.number("lost");
        peers.iter_mut().map(of_one).sum()
    };
    until("it stays so", || {
        let before = moved(&mut peers);
        std::thread::sleep(10 * POLL);
        moved(&mut peers) == before && shares(&mut peers) == [2, 3, 3]
    });

    // One that is stopped beyond its expiration goes on without what it had, and gets its share again.
    let began = now();
    until("one of them is stopped", || {
        peers[0].stop_at_rest().is_some()
    });
    std::thread::sleep(EXPIRATION);
    until("the others take over", || {
        let running: usize = peers[1..]
            .iter_mut()
            .map(|peer| peer.number("running"))
            .sum();
        running == 8
    });
    peers[0].goes_on();
    until("all have their share", || shares(&mut peers) == [2, 3, 3]);
    let beats = checked(folder.path());
    assert_eq!(beats.len(), 8);
    // Each was worked on by somebody all the time, but for a moment.
    let longest = nanos(EXPIRATION + POLL + SLACK);
    for (partition, beats) in beats {
        let since = beats.iter().filter(|beat| beat.at > began);
        let times: Vec<u64> = since.map(|beat| beat.at).collect();
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] < longest, "{partition} lay idle");
        }
    }
}
