//! Other processes: the test binary, run again as one test, obeys one order a line and answers each with one line.

// Each test binary compiles its own copy, and uses only part of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{env, process};

use rustix::process::{Pid, Signal, kill_process};

const TOLD: &str = "LOCKKEEPER_TEST_PEER";
const ANSWER: &str = "answer: ";

/// Another process. It is killed when dropped.
pub struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a process that runs the test `name` (as `module::function`), which calls [`told`] and [`obey`].
    pub fn start(name: &str, told: &[&str]) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(TOLD, told.join("\n"))
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

    /// Gives an order and waits for its answer.
    pub fn ask(&mut self, order: &str) -> String {
        self.tell(order);
        self.answer()
    }

    /// Gives an order.
    pub fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// The answer to the oldest order that has none yet.
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

/// What this process was told when it was started as a [`Peer`]; `None` in the test run itself.
pub fn told() -> Option<Vec<String>> {
    let told = env::var(TOLD).ok()?;
    Some(told.split('\n').map(str::to_owned).collect())
}

/// Obeys until there are no more orders, and ends the process: whatever it holds goes with it.
pub fn obey(mut obey: impl FnMut(&str) -> String) -> ! {
    for order in std::io::stdin().lines() {
        let answer = obey(&order.unwrap());
        let mut out = std::io::stdout().lock();
        writeln!(out, "{ANSWER}{answer}").unwrap();
        out.flush().unwrap();
    }
    process::exit(0)
}
