//! Leases over a store in memory: through methods and messages, with a store that is late, hangs, fails and forgets.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod acquiring;
mod begun;
mod book;
mod book_process;
mod book_store;
mod book_world;
mod crowds;
mod dropped;
#[cfg(unix)]
mod fork;
mod held;
mod i09;
mod many;
mod messages;
mod panics;
mod releasing;
mod settings;
mod store;
#[cfg(target_os = "linux")]
mod threads;
mod turns;

use std::time::Duration;

use lockkeeper::{Leases, LeasesBuilder};

use store::Memory;

const MS: Duration = Duration::from_millis(1);

/// Short times, so that a test sees many of them; but for the expiration, which no machine is too slow for.
fn builder(store: &Memory) -> LeasesBuilder<Memory> {
    Leases::builder(store.clone())
        .refresh(50 * MS)
        .expiration(30_000 * MS)
        .poll(20 * MS)
        .max_clock_skew(10 * MS)
        .call_timeout(300 * MS)
        .release_timeout(500 * MS)
}

/// The same, for tests in which the store's answers come when the test says so, and never too late.
fn patient(store: &Memory) -> LeasesBuilder<Memory> {
    builder(store)
        .call_timeout(store::PATIENCE)
        .release_timeout(store::PATIENCE)
}

fn leases(store: &Memory) -> Leases {
    builder(store).start().unwrap()
}
