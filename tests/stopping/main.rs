//! How a keeper stops: in which order, for whom it waits, what it answers to whom, and that nothing of it is left.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and so may what it shares with others"
)]

#[path = "../support/rt.rs"]
mod rt;
#[path = "../runtime/server.rs"]
mod server;

mod alone;
mod asked;
mod begun;
mod dropped;
mod drops;
mod inside;
mod leaks;
mod leases;
mod left;
mod order;
mod pools;
mod signals;
mod slow;
mod threads;
mod unasked;
mod urgent;
mod wakers;
