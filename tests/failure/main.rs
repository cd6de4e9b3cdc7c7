//! What failures get: a typed error for whoever met them, and an environment that goes on.
//!
//! Where a write has to fail, it really does: see `stage.rs`, which runs a test again under a library that lets the disk
//! fail. Where two things have to happen at once, one of them is held until the other is there.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bodies;
mod disk_full;
mod dropped;
mod flush;
mod input;
mod large;
#[path = "../support/listening.rs"]
mod listening;
mod nested;
mod poison;
mod process;
mod queue;
mod shutdown;
mod snapshots;
mod stage;
mod support;
