//! etcd for tests: one member or a cluster on loopback, with folders and ports of its own, which ends with its owner.

// Each test binary compiles its own copy, and uses only part of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

#[allow(
    clippy::duplicate_mod,
    reason = "some binaries have servers of both kinds"
)]
#[path = "ports.rs"]
mod ports;

use ports::free_port;

/// How long a server may take to start, and a cluster to have a leader.
const PATIENCE: Duration = Duration::from_secs(60);
/// Runs a server, and ends it when its own input ends: when its owner does, in whatever way.
const KEEPER: &str = r#""$@" >/dev/null 2>"$LOG" & server=$!; echo $server; cat >/dev/null; kill -9 $server 2>/dev/null"#;
/// `nobody`: servers are not run as root.
const NOBODY: u32 = 65_534;

/// A cluster of etcd.
pub struct Etcd {
    members: Vec<Member>,
    folder: TempDir,
    more: Vec<String>,
}

struct Member {
    name: String,
    client: u16,
    peer: u16,
    running: Option<Running>,
}

struct Running {
    keeper: Child,
    pid: Pid,
}

impl Etcd {
    /// Starts a cluster of so many members, and waits until it has a leader.
    pub fn start(members: usize) -> Self {
        Self::start_with(members, &[])
    }

    /// The same with more arguments.
    pub fn start_with(members: usize, more: &[&str]) -> Self {
        // In memory where that can be had: nobody pulls the plug, and the other servers do not wait for the disk either.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.expect("a folder");
        let members = (0..members).map(|index| Member {
            name: format!("m{index}"),
            client: free_port(),
            peer: free_port(),
            running: None,
        });
        let mut cluster = Self {
            members: members.collect(),
            folder,
            more: more.iter().map(ToString::to_string).collect(),
        };
        (0..cluster.members.len()).for_each(|index| cluster.spawn(index));
        cluster.leader();
        cluster
    }

    /// The URL of all members.
    pub fn url(&self, prefix: &str) -> String {
        let members: Vec<_> = (0..self.members.len())
            .map(|index| self.address(index))
            .collect();
        format!("etcd://{}/{prefix}", members.join(","))
    }

    /// Where a member listens for clients.
    pub fn address(&self, index: usize) -> String {
        format!("127.0.0.1:{}", self.members[index].client)
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Which member leads; waits until one does.
    pub fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let running = self.members.iter().enumerate();
            let mut running = running.filter(|(_, member)| member.running.is_some());
            if let Some((leader, _)) = running.find(|(_, member)| member.leads()) {
                return leader;
            }
            assert!(
                Instant::now() < deadline,
                "etcd has no leader: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut running) = self.members[index].running.take() {
            running.end();
        }
    }

    /// Starts a member again, on its old data, and waits until the cluster has a leader.
    pub fn restart(&mut self, index: usize) {
        self.kill(index);
        self.spawn(index);
        self.leader();
    }

    /// `SIGSTOP`; returns when it does nothing any more.
    pub fn pause(&self, index: usize) {
        self.signal(index, Signal::STOP);
        let deadline = Instant::now() + PATIENCE;
        while !self.is_paused(index) {
            assert!(Instant::now() < deadline, "etcd does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Each thread stops when it comes to run, which may take a while on a busy machine.
    fn is_paused(&self, index: usize) -> bool {
        let running = self.members[index].running.as_ref().expect("it runs");
        let threads = format!("/proc/{}/task", running.pid.as_raw_nonzero());
        std::fs::read_dir(threads)
            .expect("its threads")
            .all(|thread| {
                let stat =
                    thread.and_then(|thread| std::fs::read_to_string(thread.path().join("stat")));
                let stat = stat.expect("a thread's state");
                // The name before it may have anything in it.
                let state = stat
                    .rsplit_once(')')
                    .and_then(|(_, rest)| rest.trim_start().chars().next());
                state == Some('T')
            })
    }

    /// `SIGCONT`.
    pub fn resume(&self, index: usize) {
        self.signal(index, Signal::CONT);
    }

    fn signal(&self, index: usize, signal: Signal) {
        let running = self.members[index].running.as_ref();
        kill_process(running.expect("it runs").pid, signal).expect("a signal is sent");
    }

    fn spawn(&mut self, index: usize) {
        let initial: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{}=http://127.0.0.1:{}", member.name, member.peer))
            .collect();
        let member = &mut self.members[index];
        let data = self.folder.path().join(&member.name);
        std::fs::create_dir_all(&data).expect("a data folder");
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0);
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]);
        if is_root {
            for path in [self.folder.path(), &data] {
                chown(path, Some(NOBODY), Some(NOBODY)).expect("a folder is given away");
            }
            let id = NOBODY.to_string();
            keeper.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
        }
        let client = format!("http://127.0.0.1:{}", member.client);
        let peer = format!("http://127.0.0.1:{}", member.peer);
        let token = self.folder.path().display().to_string();
        let mut keeper = keeper
            .args(["etcd", "--name", &member.name, "--data-dir"])
            .arg(&data)
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &initial.join(",")])
            .args(["--initial-cluster-token", &token])
            .args(["--logger", "zap", "--log-level", "warn"])
            .args(&self.more)
            .env(
                "LOG",
                self.folder.path().join(format!("{}.log", member.name)),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("etcd is started");
        let output = keeper.stdout.take().expect("it has an output");
        let mut pid = String::new();
        BufReader::new(output).read_line(&mut pid).expect("its pid");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.expect("etcd is installed");
        member.running = Some(Running { keeper, pid });
    }

    fn log(&self) -> String {
        let logs = self.members.iter().map(|member| {
            let log = self.folder.path().join(format!("{}.log", member.name));
            std::fs::read_to_string(log).unwrap_or_default()
        });
        logs.collect()
    }
}

impl Member {
    fn leads(&self) -> bool {
        let endpoint = format!("127.0.0.1:{}", self.client);
        let asked = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--command-timeout=2s", "--write-out=json", "--endpoints"])
            .args([&*endpoint, "endpoint", "status"])
            .stderr(Stdio::null())
            .output()
            .expect("etcdctl is installed");
        let status: serde_json::Value = match serde_json::from_slice(&asked.stdout) {
            Ok(status) => status,
            Err(_) => return false,
        };
        let status = &status[0]["Status"];
        let leader = &status["leader"];
        leader.as_u64().is_some_and(|id| id != 0) && *leader == status["header"]["member_id"]
    }
}

impl Running {
    fn end(&mut self) {
        // A stopped process is killed as well.
        let _ = kill_process(self.pid, Signal::KILL);
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(running) = &mut member.running {
                running.end();
            }
        }
    }
}
