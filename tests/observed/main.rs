//! What can be seen of a keeper from outside: the spans and events of `tracing`, and the figures of `metrics`.
//!
//! A binary of its own, since subscriber and recorder are one for each process.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and so may what it shares with others"
)]

#[path = "../support/rt.rs"]
mod rt;

#[allow(dead_code, reason = "others need more of it")]
#[path = "../leases_core/store.rs"]
mod store;

mod figures;
mod layer;
mod leases;
mod spans;
