//! Leases in an LMDB file, between real processes of one machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod beside;
mod crowd;
mod folder;
mod fork;
mod leader;
mod opening;
mod peer;
mod processes;
mod support;

#[path = "../support/gate.rs"]
mod gate;
#[path = "../support/peer.rs"]
mod process;
#[path = "../support/stop.rs"]
mod stop;
