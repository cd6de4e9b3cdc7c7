//! Pools of workers as an application uses them: a real keeper, real threads, real panics.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and so may what it shares with others"
)]

mod failing;
mod life;
mod messages;
mod supervision;
mod supervision_model;
mod support;
