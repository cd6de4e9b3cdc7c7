//! A thousand hand-overs between two who know nothing of each other.

use std::time::Instant;

use lockkeeper::{Fence, LeaseGuard, Released};

use crate::ground::{Ground, Kind, Pace, run, soon};
use crate::peer::{self, given_back};

pub fn in_one_process(kind: Kind) {
    let ground = Ground::new(kind);
    let both = [ground.leases(Pace::QUICK), ground.leases(Pace::QUICK)];
    run(async {
        let mut held = soon("the lease", both[0].acquire("job")).await.unwrap();
        let mut last = Fence(0);
        let began = Instant::now();
        for round in 1..=1_000 {
            assert!(held.token() > last, "{} after {last}", held.token());
            last = held.token();
            let next = tokio::spawn(both[round % 2].acquire("job"));
            give_back(held).await;
            held = soon("the lease", next).await.unwrap().unwrap();
        }
        assert!(held.token() > last && held.is_held());
        println!("{kind:?}: {:?} for all", began.elapsed());
    });
}

/// Whoever gets it next waits already when it is given back.
pub fn between_processes(kind: Kind) {
    let ground = Ground::new(kind);
    let folder = tempfile::tempdir().unwrap();
    let mut other = peer::start(&ground.url, folder.path());
    assert_eq!(other.ask("be quick"), "quick");
    let leases = ground.leases(Pace::QUICK);
    run(async {
        let mut held = soon("the lease", leases.acquire("job")).await.unwrap();
        let mut last = Fence(0);
        let began = Instant::now();
        for _ in 0..500 {
            assert!(held.token() > last, "{} after {last}", held.token());
            last = held.token();
            other.tell("acquire");
            give_back(held).await;
            let theirs = Fence(other.answer().parse().unwrap());
            assert!(theirs > last, "{theirs} after {last}");
            last = theirs;
            let next = tokio::spawn(leases.acquire("job"));
            other.tell("release");
            held = soon("the lease", next).await.unwrap().unwrap();
            assert_eq!(other.answer(), "was ours");
        }
        assert!(held.token() > last && held.is_held());
        println!("{kind:?}: {:?} for all between processes", began.elapsed());
    });
}

async fn give_back(held: LeaseGuard) {
    let released = soon("the release", given_back(held)).await;
    assert_eq!(released, Released::WasOurs);
}
