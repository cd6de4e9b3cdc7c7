//! What the tests of the bank example share: the processes, ended by their own ids whatever happens, and a small
//! HTTP client.

// Each test file compiles its own copy, and uses only part of it.
#![allow(dead_code)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// How long anything may take before a test gives up on it: a load of thousands of commits takes minutes on a slow disk.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// An example's binary, which `cargo test` builds beside the tests.
///
/// # Panics
///
/// If it is not there: `cargo test --test …` alone does not build examples.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("tests are in target/<profile>/deps");
    let binary = profile.join("examples").join(name);
    assert!(
        binary.is_file(),
        "{} is missing: `cargo build --example {name}` makes it",
        binary.display()
    );
    binary
}

/// The bank, not started yet, with what all tests give it.
pub fn bank(arguments: &[&str]) -> Command {
    let mut command = Command::new(example("bank"));
    command
        .args(["--listen", "127.0.0.1:0"])
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// The arguments `--data` and the folder.
pub fn data(folder: &Path) -> [&str; 2] {
    [
        "--data",
        folder.to_str().expect("a temporary path is UTF-8"),
    ]
}

/// Runs a command to its end.
///
/// # Panics
///
/// If it takes longer than [`PATIENCE`].
pub fn run(command: &mut Command) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the example starts");
    let mut child = Guard(child);
    let stdout = drain(child.0.stdout.take());
    let stderr = drain(child.0.stderr.take());
    let status = child.wait();
    Output {
        status,
        stdout: stdout.join().expect("stdout is read"),
        stderr: stderr.join().expect("stderr is read"),
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    let mut pipe = pipe.expect("it is piped");
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("the pipe is readable");
        bytes
    })
}

/// What the audit says about a folder.
///
/// # Panics
///
/// If it finds something wrong.
pub fn audit(folder: &Path) -> Audit {
    let output = run(Command::new(example("bank_audit")).arg(folder));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("the audit prints JSON")
}

#[derive(Debug, serde::Deserialize)]
pub struct Audit {
    pub accounts: u64,
    pub total: u64,
    pub transfers: u64,
    pub refs: Vec<u64>,
}

/// A child that does not outlive the test.
struct Guard(Child);

impl Guard {
    fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("the child is ours") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Nothing can be done about either, and both fail when the child has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bank that serves.
pub struct Bank {
    child: Guard,
    address: SocketAddr,
    lines: mpsc::Receiver<String>,
    stderr: Option<JoinHandle<String>>,
    /// Where a bank that is killed leaves its own temporary folder; dropped after the child.
    temporary: Option<tempfile::TempDir>,
}

impl Bank {
    /// Starts the bank and waits until it listens.
    pub fn start(arguments: &[&str]) -> Self {
        let temporary = tempfile::tempdir().expect("there is room for a folder");
        let mut bank = Self::spawn(bank(arguments).env("TMPDIR", temporary.path()));
        bank.temporary = Some(temporary);
        bank
    }

    /// Starts the bank without a load.
    pub fn serve(folder: &Path) -> Self {
        let [data, folder] = data(folder);
        Self::start(&["--no-load", data, folder])
    }

    /// The same from a command.
    pub fn spawn(command: &mut Command) -> Self {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let mut child = Guard(child);
        let stderr = child.0.stderr.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            for line in BufReader::new(stderr).lines() {
                let line = line.expect("stderr is text");
                text.push_str(&line);
                text.push('\n');
                // The test may have heard enough.
                let _ = sender.send(line);
            }
            text
        });
        let address = line_after(&lines, "listening on http://")
            .parse()
            .expect("the address is whole");
        Self {
            child,
            address,
            lines,
            stderr: Some(reader),
            temporary: None,
        }
    }

    /// Waits until a line of standard error starts so.
    pub fn wait_for(&self, start: &str) {
        line_after(&self.lines, start);
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new keep-alive connection.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address).expect("the bank accepts connections")
    }

    pub fn send_signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.0.id()).expect("a pid fits");
        let pid = Pid::from_raw(pid).expect("a pid is not 0");
        kill_process(pid, signal).expect("the child is ours");
    }

    /// Waits for the end; answers the status and what was written to standard error.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait();
        let stderr = self.stderr.take().expect("it is taken once");
        (status, stderr.join().expect("stderr is read"))
    }

    /// Ctrl-C, and a clean end.
    pub fn interrupt(self) -> String {
        self.send_signal(Signal::INT);
        let (status, stderr) = self.wait();
        assert!(status.success(), "{status}: {stderr}");
        stderr
    }

    /// `kill -9`.
    pub fn kill(self) {
        self.send_signal(Signal::KILL);
        let (status, _) = self.wait();
        assert_eq!(
            status.code(),
            None,
            "it was killed, and did not end by itself"
        );
    }
}

/// What follows `start` in the first line that begins with it.
fn line_after(lines: &mpsc::Receiver<String>, start: &str) -> String {
    loop {
        let line = lines
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("the bank does not say {start:?}"));
        if let Some(rest) = line.strip_prefix(start) {
            return rest.to_owned();
        }
    }
}

/// An HTTP/1.1 connection that is kept.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

/// An answer: the body is `null` if there was none.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The word in a refusal.
    pub fn error(&self) -> Option<&str> {
        self.body.get("error")?.as_str()
    }
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    pub fn try_request(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: bank\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer");
        let status = self
            .line()?
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(malformed)?;
        let mut headers = Vec::new();
        let mut length = 0;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (key, value) = line.split_once(':').ok_or_else(malformed)?;
            if key.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(|_| malformed())?;
            }
            headers.push((key.to_owned(), value.trim().to_owned()));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body)?
        };
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.try_request("GET", path, b"")
            .expect("the bank answers")
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string())
    }

    pub fn post_text(&mut self, path: &str, body: &str) -> Answer {
        self.try_request("POST", path, body.as_bytes())
            .expect("the bank answers")
    }

    /// Opens accounts that must not be there yet.
    pub fn open_accounts(&mut self, ids: impl IntoIterator<Item = u64>, balance: u64) {
        for id in ids {
            let answer = self.post("/accounts", &json!({ "id": id, "balance": balance }));
            assert_eq!(answer.status, 201, "{answer:?}");
        }
    }

    /// A transfer with a reference, which may meet the end of the service.
    pub fn try_transfer(
        &mut self,
        from: u64,
        to: u64,
        amount: u64,
        reference: u64,
    ) -> io::Result<Answer> {
        let body = json!({ "from": from, "to": to, "amount": amount, "ref": reference });
        self.try_request("POST", "/transfers", body.to_string().as_bytes())
    }
}

/// Clients that move money for as long as they are answered.
pub struct Clients {
    threads: Vec<JoinHandle<Vec<Answer>>>,
    answered: mpsc::Receiver<u64>,
}

impl Clients {
    /// `count` clients that transfer between the accounts 1 to `accounts`, on a connection each. `references` gives
    /// out the references.
    pub fn start(bank: &Bank, count: u64, accounts: u64, references: &Arc<AtomicU64>) -> Self {
        let (sender, answered) = mpsc::channel();
        let threads = (0..count)
            .map(|_| {
                let mut connection = bank.connect();
                let sender = sender.clone();
                let references = Arc::clone(references);
                std::thread::spawn(move || {
                    let mut others = Vec::new();
                    loop {
                        let reference = references.fetch_add(1, Ordering::Relaxed);
                        // A walk over all pairs, in both directions, so that clients meet on the accounts.
                        let from = 1 + reference % accounts;
                        let step = 1 + (reference / accounts) % (accounts - 1);
                        let to = 1 + (from - 1 + step) % accounts;
                        let amount = 1 + reference % 97;
                        match connection.try_transfer(from, to, amount, reference) {
                            Ok(answer) if answer.status == 200 => {
                                // The test may have heard enough.
                                let _ = sender.send(reference);
                            }
                            Ok(answer) if answer.error() == Some("insufficient_funds") => {}
                            Ok(answer) => others.push(answer),
                            Err(_) => return others,
                        }
                    }
                })
            })
            .collect();
        Self { threads, answered }
    }

    /// Waits for the next so many transfers to be answered 200; answers their references.
    pub fn next(&self, count: usize) -> Vec<u64> {
        (0..count)
            .map(|_| {
                self.answered
                    .recv_timeout(PATIENCE)
                    .expect("transfers are answered")
            })
            .collect()
    }

    /// Waits until the clients have met the end of the service. Answers the references of the other transfers that
    /// were answered 200.
    ///
    /// # Panics
    ///
    /// If any transfer was answered otherwise than made, or refused for want of money.
    pub fn finish(self) -> Vec<u64> {
        for thread in self.threads {
            let others = thread.join().expect("a client ends");
            assert!(others.is_empty(), "{others:?}");
        }
        self.answered.iter().collect()
    }
}
