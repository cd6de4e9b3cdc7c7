//! Pools of workers as an application uses them: a real keeper, real threads, real panics.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and so may what it shares with others"
)]

mod failing;
mod leases;
mod life;
mod messages;
mod peer;
mod processes;
mod supervision;
mod supervision_model;
mod support;
