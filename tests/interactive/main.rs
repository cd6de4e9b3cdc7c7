//! Interactive transactions through all doors: as a method, as a message, and sent to the actor's address.
//!
//! What two transactions do at the same time is forced, by channels and by looking at the lock table.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod begun;
mod bounds;
mod conflicts;
mod dead;
mod door;
mod dropped;
mod ending;
mod gives_way;
mod handles;
#[path = "../observed/layer.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod layer;
mod many;
mod mixed;
mod model;
mod nested;
mod panics;
mod records;
#[path = "../support/rt.rs"]
mod rt;
mod savepoints;
mod scans;
#[path = "../failure/stage.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod stage;
mod sums;
#[path = "../failure/support.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;
mod usage;
