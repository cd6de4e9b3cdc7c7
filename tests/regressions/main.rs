//! Defects that were found once, each as the promise that it broke.
//!
//! Where a write has to fail, or memory to run out, it really does, in a process of its own (see `tests/failure/stage.rs`).
//! Where two things have to happen at once, one of them is held until the other is there.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod answers;
mod bombs;
mod databases;
mod fatal;
mod handlers;
mod interactive;
#[path = "../support/listening.rs"]
mod listening;
mod locks_core;
mod locks_door;
mod locks_growth;
mod memory;
mod messages;
mod neighbours;
mod recovery;
#[path = "../support/rt.rs"]
mod rt;
mod shutdown;
#[path = "../failure/stage.rs"]
#[allow(dead_code, reason = "shared with the tests of failures")]
mod stage;
#[path = "../failure/support.rs"]
#[allow(dead_code, reason = "shared with the tests of failures")]
mod support;

use std::path::PathBuf;

use crate::support::folder;

/// Runs the calling test, `name` as `module::function`, in a process of its own, for what changes the whole process. There it
/// answers the folder of its environment; in the parent `None`, once the child has passed.
fn alone(name: &str) -> Option<PathBuf> {
    if let Some(folder) = stage::role(name) {
        return Some(folder);
    }
    let dir = folder();
    let (status, output) = stage::run(stage::program(name, &dir.path().join("env")), dir.path());
    assert!(
        status.success() && output.contains("1 passed"),
        "{name} by itself: {status}\n{output}"
    );
    None
}
