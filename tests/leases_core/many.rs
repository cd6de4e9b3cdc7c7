//! Many leases at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lockkeeper::{LeaseGuard, Leases};

use crate::store::{Memory, Op, PATIENCE, soon};

#[tokio::test]
async fn ten_thousand_leases_are_refreshed_in_two_passes_a_second_of_twenty_questions() {
    let store = Memory::new();
    // The defaults: a refresh a second.
    let leases = Leases::builder(store.clone()).start().unwrap();
    let all = (0..10_000).map(|n| leases.acquire(format!("job{n:05}")));
    let guards: Vec<LeaseGuard> = soon(futures_util::future::join_all(all))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    // From here on every lease is in its pass.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    store.forget_questions();
    let begun = Instant::now();
    // Each three times at least, however long this machine takes for it.
    let often_enough = || {
        let mut times = HashMap::new();
        for (names, _) in store.questions(Op::Refresh) {
            for name in names {
                *times.entry(name).or_insert(0) += 1;
            }
        }
        times.len() == 10_000 && times.values().all(|times| *times >= 3)
    };
    while !often_enough() {
        assert!(begun.elapsed() < PATIENCE, "they are not refreshed");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let questions = store.questions(Op::Refresh);
    let seconds = begun.elapsed().as_secs_f64();
    let most = (2.0 * 20.0 * (seconds + 1.0)).ceil() as usize;
    assert!(
        questions.len() <= most,
        "{} in {seconds} s",
        questions.len()
    );
    assert!(guards.iter().all(LeaseGuard::is_held));
}
