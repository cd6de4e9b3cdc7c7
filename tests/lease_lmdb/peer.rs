//! Other processes: this test binary, run again, obeys one command a line and answers each with one line.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use lockkeeper::{Claimed, Fence, LeaseStore, LmdbLeases, Refreshed, Released, StoreError};
use rustix::process::{Pid, Signal, kill_process};

use crate::crowd;
use crate::leader::Leader;
use crate::opening;
use crate::support::{block_on, extension, holder, name, wish};

const FOLDER: &str = "LOCKKEEPER_TEST_LEASES";
const ANSWER: &str = "answer: ";

/// Another process on a folder. It is killed when dropped.
pub struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a process and has it open the leases.
    pub fn start(folder: &Path) -> Self {
        let mut peer = Self::idle(folder);
        assert_eq!(peer.ask("open"), "open");
        peer
    }

    /// Starts a process that does nothing yet.
    pub fn idle(folder: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["peer::another_process", "--exact", "--nocapture"])
            .arg("--test-threads=1")
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            orders,
            answers,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn ask(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.answers.read_line(&mut line).unwrap();
            assert!(read > 0, "the other process has ended");
            // The harness talks, too, and does not end its line before a test.
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return answer.trim_end().to_owned();
            }
        }
    }

    /// Has it claim a lease; the token, or `None` if somebody holds it.
    pub fn claim(&mut self, lease: &str, id: &str, expiration: Duration) -> Option<Fence> {
        let answer = self.ask(&format!("claim {lease} {id} {}", expiration.as_millis()));
        let token = answer.strip_prefix("ours ")?;
        Some(Fence(token.parse().unwrap()))
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a [`Peer`] runs; in the test run itself it does nothing.
#[test]
fn another_process() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let mut store = None;
    let mut leader = None;
    let mut writer = None;
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let words: Vec<_> = order.split(' ').collect();
        let answer = match words[..] {
            ["lead"] => leader.insert(Leader::new(&folder)).token(),
            ["keep", "the", "writer"] => {
                writer = Some(opening::keep_the_writer(&folder));
                "kept".into()
            }
            ["let", "it", "go"] => {
                drop(writer.take());
                "gone".into()
            }
            ["write", text] => leader.as_ref().unwrap().write(text),
            _ => obey(&mut store, &folder, &words),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{ANSWER}{answer}").unwrap();
        out.flush().unwrap();
    }
    // Whatever it holds goes with the process.
    std::process::exit(0);
}

fn obey(store: &mut Option<LmdbLeases>, folder: &Path, words: &[&str]) -> String {
    if words == ["open"] {
        *store = Some(LmdbLeases::open(folder).unwrap());
        return "open".into();
    }
    let store = store.as_ref().unwrap();
    let millis = |nth: usize| Duration::from_millis(words[nth].parse().unwrap());
    let answer: Result<String, StoreError> = match words[0] {
        "claim" => {
            let claim = wish(words[1], words[2], millis(3));
            block_on(store.claim(&claim)).map(|claimed| match claimed {
                Claimed::Ours { token } => format!("ours {token}"),
                Claimed::Busy(record) => format!("busy {}", record.holder.unwrap().id),
            })
        }
        "refresh" => {
            let token = Fence(words[4].parse().unwrap());
            let lease = extension(words[1], words[2], token, millis(3));
            block_on(store.refresh(&[lease])).map(|outcomes| match &outcomes[..] {
                [Refreshed::Held] => "held".into(),
                [Refreshed::Lost(_)] => "lost".into(),
                other => format!("{other:?}"),
            })
        }
        "release" => {
            let released = block_on(store.release(&name(words[1]), &holder(words[2])));
            released.map(|released| match released {
                Released::WasOurs => "was ours".into(),
                Released::WasLost => "was lost".into(),
            })
        }
        "contend" => {
            crowd::contend(store, folder, millis(1));
            Ok("contending".into())
        }
        "failure" => Ok(crowd::failure().unwrap_or_else(|| "none".into())),
        order => panic!("{order}?"),
    };
    answer.unwrap()
}
