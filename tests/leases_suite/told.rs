//! In which order a holder is told of a loss.

use crate::ground::{Ground, Kind, Pace, block_on, soon};

/// Whoever waits for the loss and then looks at the token that is cancelled by it sees one thing.
#[test]
fn when_the_loss_is_told_the_cancellation_token_is_cancelled() {
    let ground = Ground::new(Kind::Lmdb);
    let leases = ground.leases(Pace::LONG);
    for round in 0..200 {
        let guard = block_on(soon("the lease", leases.acquire("job"))).unwrap();
        let (lost, cancellation) = (guard.lost(), guard.cancellation());
        let waiting = std::thread::spawn(move || {
            block_on(lost);
            cancellation.is_cancelled()
        });
        block_on(soon("the store", leases.force_release("job"))).unwrap();
        assert!(waiting.join().unwrap(), "not in round {round}");
    }
}
