//! A server of a test: a process of an unprivileged user, with a folder and a port of its own, that ends with its owner.

// Each test binary compiles its own copy, and uses only part of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};

#[allow(
    clippy::duplicate_mod,
    reason = "some binaries have servers of both kinds"
)]
#[path = "ports.rs"]
mod ports;

pub use ports::free_port;

/// How long a server may take to start or to end.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Runs a server, and ends it when its own input ends: when its owner does, in whatever way.
const KEEPER: &str = r#""$@" >>"$LOG" 2>&1 </dev/null & server=$!; echo $server; cat >/dev/null; kill -9 $server 2>/dev/null"#;
/// Removes a folder when its own input ends.
const SWEEPER: &str =
    r#"cat >/dev/null; for i in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" && break; sleep 0.5; done"#;
/// `nobody`: servers refuse to run as root.
const NOBODY: u32 = 65_534;

/// A folder that is gone when its owner is.
pub struct Folder {
    path: PathBuf,
    _sweeper: Child,
}

impl Folder {
    pub fn new() -> Self {
        let path = tempfile::tempdir().unwrap().keep();
        if geteuid().is_root() {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let sweeper = as_nobody(Path::new("sh"))
            .args(["-c", SWEEPER, "sh"])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            path,
            _sweeper: sweeper,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A process that runs.
pub struct Process {
    pid: Pid,
    keeper: Child,
}

impl Process {
    /// Starts it; what it says goes to a file.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Self {
        let mut keeper = as_nobody(Path::new("sh"))
            .args(["-c", KEEPER, "sh"])
            .arg(program)
            .args(arguments)
            .env("LOG", log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        let said = keeper.stdout.take().unwrap();
        BufReader::new(said).read_line(&mut pid).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        Self { pid, keeper }
    }

    /// Whether it has not ended by itself.
    pub fn runs(&self) -> bool {
        is_alive(self.pid)
    }

    /// Sends it a signal and waits until it is gone.
    pub fn end(mut self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while is_alive(self.pid) {
            assert!(Instant::now() < deadline, "the server does not end");
            thread::sleep(Duration::from_millis(10));
        }
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }

    /// Kills it and the processes that it has started: these notice in a while only that it is gone, and answer until then.
    pub fn kill_with_children(self) {
        let children = children(self.pid);
        self.end(Signal::KILL);
        for &child in &children {
            // It may have noticed.
            let _ = kill_process(child, Signal::KILL);
        }
        let deadline = Instant::now() + PATIENCE;
        while children.iter().any(|&child| is_alive(child)) {
            assert!(
                Instant::now() < deadline,
                "what the server started does not end"
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn children(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_nonzero();
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let listed = listed
        .split_whitespace()
        .map(|child| child.parse().unwrap());
    listed.filter_map(Pid::from_raw).collect()
}

/// A process that has ended is a zombie until its keeper waits for it.
fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let state = stat.ok().and_then(|stat| {
        let after = stat.rsplit_once(')')?.1;
        after.trim_start().chars().next()
    });
    test_kill_process(pid).is_ok() && !matches!(state, None | Some('Z' | 'X'))
}

/// Runs a program to its end.
pub fn run(program: &Path, arguments: &[&str]) {
    let done = as_nobody(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {said}", program.display());
}

fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C");
    // A signal that is meant for the tests, such as that of an interrupt, must not keep anybody from clearing up.
    command.process_group(0);
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Tries until it goes well.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}
