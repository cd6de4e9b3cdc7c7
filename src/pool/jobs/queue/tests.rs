//! The queue by hand, and against a model that knows nothing but lists.

mod model;
mod random;
mod scenes;
mod small;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{Effect, OnFull, Queue, Rules};

/// When the tests begin; time goes on from here by hand.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn at(ms: u64) -> Instant {
    *START + Duration::from_millis(ms)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn rules(capacity: usize, on_full: OnFull) -> Rules {
    Rules {
        capacity,
        on_full,
        quarantine_after: None,
        quarantine_limit: 2,
    }
}

fn effects<T>(queue: &mut Queue<T>) -> Vec<Effect<T>> {
    std::iter::from_fn(|| queue.poll_effect()).collect()
}
