//! Pools of workers as an application uses them: a real keeper, real threads, real panics.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and so may what it shares with others"
)]

#[path = "../support/rt.rs"]
mod rt;

#[path = "../support/gate.rs"]
mod gate;
#[allow(dead_code, reason = "others need more of it")]
#[path = "../observed/layer.rs"]
mod layer;
#[path = "../support/peer.rs"]
mod process;
#[path = "../support/stop.rs"]
mod stop;

mod answered;
mod ending;
mod failing;
mod jobs;
mod jobs_ending;
mod jobs_leases;
mod jobs_support;
mod leases;
mod leases_over;
mod leases_shut;
mod life;
mod messages;
mod observers;
mod peer;
mod processes;
mod quarantine;
mod resuming;
mod seen;
mod supervision;
mod supervision_model;
mod support;
