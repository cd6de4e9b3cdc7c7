//! A thousand hand-overs between two who know nothing of each other.

use std::time::Instant;

use lockkeeper::{Fence, Released};

use crate::ground::{Ground, Kind, MS, Pace, run, soon};

pub fn test(kind: Kind) {
    let ground = Ground::new(kind);
    let pace = Pace {
        poll: MS,
        ..Pace::LONG
    };
    let both = [ground.leases(pace), ground.leases(pace)];
    run(async {
        let mut held = soon("the lease", both[0].acquire("job")).await.unwrap();
        let mut last = Fence(0);
        let began = Instant::now();
        for round in 1..=1_000 {
            assert!(held.token() > last, "{} after {last}", held.token());
            last = held.token();
            let next = tokio::spawn(both[round % 2].acquire("job"));
            let released = soon("the release", held.release()).await.unwrap();
            assert_eq!(released, Released::WasOurs);
            held = soon("the lease", next).await.unwrap().unwrap();
        }
        assert!(held.token() > last && held.is_held());
        println!("{kind:?}: {:?} for all", began.elapsed());
    });
}
