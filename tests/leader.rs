//! The example `leader`, in two processes: one leads, is killed, and the other takes over within the expiration.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const EXPIRATION: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that wants to lead. It is killed when dropped.
struct Leader {
    child: Child,
    says: mpsc::Receiver<String>,
}

impl Leader {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(example("leader"))
            .args(["--store", &format!("lmdb:{}", folder.display())])
            .args(["--expiration", "4s", "--refresh", "500ms", "--poll", "50ms"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example runs");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, says) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, says }
    }

    /// Waits until it says something with these words in it.
    #[track_caller]
    fn waits_to_say(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.says.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("it never said {words:?}"));
            if line.contains(words) {
                return;
            }
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example's program; `cargo test --test leader` alone does not build it.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program = profile.join("examples").join(name);
    assert!(
        program.exists(),
        "{} is missing: cargo build --example {name}",
        program.display()
    );
    program
}

#[test]
fn one_leads_and_when_it_is_killed_the_other_takes_over_within_the_expiration() {
    let folder = tempfile::tempdir().unwrap();
    let first = Leader::start(folder.path());
    first.waits_to_say("leading with token 1");
    let second = Leader::start(folder.path());
    second.waits_to_say("waiting for \"leader\" in lmdb");
    first.waits_to_say("still leading");

    let killed = Instant::now();
    first.kill();
    second.waits_to_say("leading with token 2");
    // One poll, and what a busy machine takes.
    let took = killed.elapsed();
    assert!(took < EXPIRATION + Duration::from_secs(2), "{took:?}");
}

#[test]
fn one_that_is_told_to_end_gives_the_lease_back_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Leader::start(folder.path());
    first.waits_to_say("leading with token 1");
    let second = Leader::start(folder.path());
    second.waits_to_say("waiting");
    let pid = i32::try_from(first.child.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let told = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    first.waits_to_say("given back: WasOurs");
    assert!(first.child.wait().unwrap().success());
    second.waits_to_say("leading with token 2");
    assert!(told.elapsed() < EXPIRATION, "{:?}", told.elapsed());
}
