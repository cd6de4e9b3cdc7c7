//! The runtime as an application uses it: where a keeper works, how it stops, what the supervisor does with a transaction,
//! and what a client over HTTP sees.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and so may what it shares with others"
)]

#[path = "../support/rt.rs"]
mod rt;

mod alone;
mod deadlines;
mod disconnect;
mod doors;
mod hosts;
mod locks;
mod mock;
mod server;
mod shutdown;
mod web;
