//! I8 for as long as the issue asks for: everybody wants the same two locks, in whatever order.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and so may what it shares with others"
)]

#[path = "support/rt.rs"]
mod rt;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::Object;

use rt::{bump, open};

const CALLERS: usize = 64;
const TIME: Duration = Duration::from_secs(60);

#[test]
fn i08_64_callers_on_a_hot_pair_for_60_s_none_ends_by_its_budget() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    let pair = [Object::new("pair", b"left"), Object::new("pair", b"right")];
    let committed = Arc::new(AtomicU64::new(0));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let slowest = runtime.block_on(async {
        let end = Instant::now() + TIME;
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (keeper, pair) = (keeper.clone(), pair.clone());
                let committed = Arc::clone(&committed);
                tokio::spawn(async move {
                    // xorshift; the seed is printed with a failure by way of the caller's number.
                    let mut random = 0x9E37_79B9_7F4A_7C15 ^ (caller as u64 + 1);
                    let mut slowest = Duration::ZERO;
                    while Instant::now() < end {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let [left, right] = pair.clone();
                        let (first, second) = if random & 1 == 0 {
                            (left, right)
                        } else {
                            (right, left)
                        };
                        let txn = bump(counters, "n")
                            .name("hot")
                            .write_lock(first)
                            .write_lock(second)
                            .in_order();
                        let sent = Instant::now();
                        // Neither the budget of 10 attempts nor the deadline of 30 s may end it.
                        let outcome = if random & 2 == 0 {
                            keeper.run(txn).await
                        } else {
                            keeper.send(txn).await
                        };
                        slowest = slowest.max(sent.elapsed());
                        outcome.unwrap_or_else(|error| panic!("caller {caller}: {error}"));
                        committed.fetch_add(1, Ordering::Relaxed);
                    }
                    slowest
                })
            })
            .collect();
        let mut slowest = Duration::ZERO;
        for caller in callers {
            slowest = slowest.max(caller.await.unwrap());
        }
        slowest
    });
    let stats = rt::block_on(keeper.stats());
    let committed = committed.load(Ordering::Relaxed);
    println!(
        "{committed} committed, {} deadlocks, slowest {slowest:?}",
        stats.locks.deadlocks
    );
    assert_eq!(rt::read(&keeper, counters, "n"), Some(committed));
    assert!(stats.locks.deadlocks > 0, "the pair was hot");
    assert_eq!(stats.transactions.failed, 0);
    assert_eq!((stats.locks.lockers.now, stats.locks.locks.now), (0, 0));
}
