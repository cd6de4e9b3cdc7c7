//! Other processes: this test binary, run again, obeys one command a line and answers each with one line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{env, process};

use lockkeeper::{LeaseGuard, Leases, Released};
use rustix::process::{Pid, Signal, kill_process};

use crate::ground::{PATIENCE, Pace, block_on};
use crate::{exclusion, ground};

const URL: &str = "LOCKKEEPER_TEST_STORE";
const FOLDER: &str = "LOCKKEEPER_TEST_FOLDER";
const ANSWER: &str = "answer: ";

/// Another process with leases in a store. It is killed when dropped.
pub struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a process.
    pub fn start(url: &str, folder: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["peer::another_process", "--exact", "--nocapture"])
            .arg("--test-threads=1")
            .env(URL, url)
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
        self.tell(order);
        self.answer()
    }

    pub fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    pub fn answer(&mut self) -> String {
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

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// `kill -9`.
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
    let (Ok(url), Some(folder)) = (env::var(URL), env::var_os(FOLDER).map(PathBuf::from)) else {
        return;
    };
    let mut leases = None;
    let mut guard = None;
    for order in std::io::stdin().lines() {
        // Not before the first order: then all begin at once.
        let leases = leases.get_or_insert_with(|| Pace::SHORT.leases(&url));
        let answer = obey(leases, &mut guard, &folder, &order.unwrap());
        let mut out = std::io::stdout().lock();
        writeln!(out, "{ANSWER}{answer}").unwrap();
        out.flush().unwrap();
    }
    // Whatever it holds goes with the process.
    process::exit(0);
}

fn obey(leases: &Leases, guard: &mut Option<LeaseGuard>, folder: &Path, order: &str) -> String {
    match order {
        "contend" => {
            exclusion::contend(leases, folder);
            "contending".into()
        }
        "acquire" => {
            let acquired = block_on(leases.acquire_timeout("job", PATIENCE));
            guard.insert(acquired.unwrap()).token().to_string()
        }
        // For one that may have to wait for a processor, or a connection, before it can give it back.
        "acquire for long" => {
            let lease = leases.lease("job").expiration(Pace::LONG.expiration);
            let acquired = block_on(lease.acquire_timeout(PATIENCE));
            guard.insert(acquired.unwrap()).token().to_string()
        }
        "is held" => guard.as_ref().unwrap().is_held().to_string(),
        "lost" => {
            let guard = guard.as_ref().unwrap();
            let reason = block_on(ground::soon("the loss", guard.lost()));
            assert!(!guard.is_held() && guard.remaining().is_zero());
            let cancellation = guard.cancellation();
            block_on(ground::soon("the end", cancellation.cancelled()));
            reason.word().into()
        }
        "release" => match block_on(guard.take().unwrap().release()).unwrap() {
            Released::WasOurs => "was ours".into(),
            Released::WasLost => "was lost".into(),
        },
        order => panic!("{order}?"),
    }
}
