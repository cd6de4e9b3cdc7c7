//! This program as one of several processes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use lockkeeper::{Leases, store_from_url};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};

use crate::turns::{Taken, Turn};
use crate::work::Failure;

/// What a process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    pub url: String,
    pub name: String,
    /// `lease` or `advisory`.
    pub system: String,
    /// Hold the lease until this process is killed.
    pub keep: bool,
    pub expiration_ms: u64,
    pub run_ms: u64,
    pub hold_us: u64,
}

impl Task {
    pub fn turns(url: &str, name: &str, system: &str, run: Duration, hold: Duration) -> Self {
        Self {
            url: url.to_owned(),
            name: name.to_owned(),
            system: system.to_owned(),
            keep: false,
            expiration_ms: 300_000,
            run_ms: u64::try_from(run.as_millis()).unwrap_or(u64::MAX),
            hold_us: u64::try_from(hold.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// The child's part: says that it is ready, waits for a line, works, and prints its turns.
pub async fn work(task: &str) -> Result<(), Failure> {
    let task: Task = serde_json::from_str(task)?;
    let mut taken = match &*task.system {
        "advisory" => Taken::Advisory(Box::new(PgConnection::connect(&task.url).await?)),
        _ => {
            let store = store_from_url(&task.url)?;
            store.prepare().await?;
            let leases = Leases::start_shared(store, lockkeeper::LeaseConfig::default())?;
            // Connections are made before the start: whoever has his first would run alone until then.
            let own = format!("{}/{}", task.name, std::process::id());
            leases.acquire(own).await?.release().await?;
            let expiration = Duration::from_millis(task.expiration_ms);
            Taken::Lease(Box::new(leases.lease(&*task.name).expiration(expiration)))
        }
    };
    if task.keep
        && let Taken::Lease(lease) = &taken
    {
        let _guard = lease.acquire().await?;
        say("ready")?;
        return std::future::pending().await;
    }
    say("ready")?;
    let mut go = String::new();
    std::io::stdin().read_line(&mut go)?;
    let until = Instant::now() + Duration::from_millis(task.run_ms);
    let turns = taken
        .turns(until, Duration::from_micros(task.hold_us))
        .await?;
    say(&serde_json::to_string(&turns)?)
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// A process that is ready, seen from its parent; killed when it is dropped.
pub struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    pub fn start(task: &Task) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--child", &serde_json::to_string(task)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("a child without output")?;
        let mut worker = Self {
            child,
            input,
            output: BufReader::new(output),
        };
        match &*worker.line()? {
            "ready" => Ok(worker),
            other => Err(format!("a child said {other:?}").into()),
        }
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    pub fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Has `count` processes do the same at the same time.
pub fn together(task: &Task, count: usize) -> Result<Vec<Vec<Turn>>, Failure> {
    let mut workers = Vec::new();
    for _ in 0..count {
        workers.push(Worker::start(task)?);
    }
    for worker in &mut workers {
        let mut input = worker.input.take().ok_or("a child without input")?;
        writeln!(input, "go")?;
    }
    workers
        .iter_mut()
        .map(|worker| Ok(serde_json::from_str(&worker.line()?)?))
        .collect()
}
