//! The example `leader`, in two processes: one leads, is killed, and the other takes over within the expiration.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

#[path = "support/example.rs"]
mod example;

use example::Example;

const EXPIRATION: Duration = Duration::from_secs(4);

/// What a busy machine with a slow disk may take longer.
const SLACK: Duration = Duration::from_secs(10);

/// A process that wants to lead.
fn start(folder: &Path) -> Example {
    let store = format!("lmdb:{}", folder.display());
    let pace = ["--expiration", "4s", "--refresh", "500ms", "--poll", "50ms"];
    Example::start("leader", &[&["--store", &store], &pace[..]].concat())
}

#[test]
fn one_leads_and_when_it_is_killed_the_other_takes_over_within_the_expiration() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path());
    first.waits_to_say("leading with token 1");
    let second = start(folder.path());
    second.waits_to_say("waiting for \"leader\" in lmdb");
    first.waits_to_say("still leading");

    let killed = Instant::now();
    first.kill();
    second.waits_to_say("leading with token 2");
    // One poll, and what a busy machine takes.
    let took = killed.elapsed();
    assert!(took < EXPIRATION + SLACK, "{took:?}");
}

#[test]
fn one_that_is_told_to_end_gives_the_lease_back_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(folder.path());
    first.waits_to_say("leading with token 1");
    let second = start(folder.path());
    second.waits_to_say("waiting");
    let told = Instant::now();
    first.signal(Signal::TERM);
    first.waits_to_say("given back: WasOurs");
    assert!(first.wait().success());
    second.waits_to_say("leading with token 2");
    assert!(told.elapsed() < EXPIRATION, "{:?}", told.elapsed());
}
