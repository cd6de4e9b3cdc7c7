//! Memory while 10,000 callers wait, in a process of its own so that nothing else is counted.

use std::future::Future;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Session;
use crate::load::Updates;
use crate::ours;
use crate::peers::by_hand;
use crate::peers::group::{Entry, Group};
use crate::report::Row;
use crate::work::{Failure, Op, Outcome, Rng, Safety};

const WAITING: usize = 10_000;
/// Few records: it is the callers that are weighed.
const KEYS: u64 = 1_000;

/// The tasks themselves, waiting for a semaphore: what no queue can save.
const BARE_TASKS: &str = "tokio-tasks";

/// A system whose writer can be held up.
pub trait Stalls: Updates {
    /// Occupies the writer until `until` is disconnected; returns at once.
    fn stall(&self, until: Receiver<()>) -> Result<(), Failure>;

    /// An update that waits for its place, however many wait before it.
    fn update_in_line(&self, op: Op) -> impl Future<Output = Result<Outcome, Failure>> + Send {
        self.update(op)
    }
}

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("memory") {
        return Ok(());
    }
    let mut systems = Vec::new();
    if ours::PRESENT {
        systems.extend(["lockkeeper", "lockkeeper-message"]);
    }
    systems.push("group");
    systems.retain(|system| session.options.includes(system));
    systems.push(BARE_TASKS);
    let mut rows = Vec::new();
    for system in systems {
        let answer = ask_child(&session.dir, system)?;
        let figure = |key: &str| -> Result<f64, Failure> {
            let kib = answer.get(key).and_then(Value::as_f64);
            kib.ok_or_else(|| format!("memory of {system}: no {key:?} in the answer").into())
        };
        let (before, waiting, peak) = (
            figure("before_kib")?,
            figure("waiting_kib")?,
            figure("peak_kib")?,
        );
        let mut row = Row::new("memory", system, WAITING, peak / 1024.0, "MiB peak");
        row.more = vec![
            ("rss_before_mib", before / 1024.0),
            ("rss_waiting_mib", waiting / 1024.0),
            (
                "bytes_per_caller",
                (waiting - before) * 1024.0 / WAITING as f64,
            ),
        ];
        rows.push(row);
    }
    session.report.show(&rows)
}

fn ask_child(dir: &Path, system: &str) -> Result<Value, Failure> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--memory-of", system, "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("memory of {system}: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The child's part: measures, prints one JSON object.
pub fn weigh(runtime: &Runtime, dir: &Path, system: &str) -> Result<(), Failure> {
    let figures = match system {
        BARE_TASKS => runtime.block_on(weigh_tasks())?,
        "group" => {
            by_hand::fill(dir, KEYS)?;
            runtime.block_on(weigh_system(Group::open(
                dir,
                Safety::Durable,
                Entry::First,
            )?))?
        }
        _ => {
            by_hand::fill(dir, KEYS)?;
            ours::weigh(runtime, dir, system)?
        }
    };
    println!("{figures}");
    Ok(())
}

pub async fn weigh_system<S: Stalls>(system: S) -> Result<Value, Failure> {
    // What is allocated once, on the first updates, is not the callers'.
    let mut rng = Rng::seeded(1);
    for _ in 0..200 {
        let key = rng.below(KEYS);
        system.update_in_line(Op { key, fail: false }).await?;
    }
    let (release, until) = mpsc::channel();
    system.stall(until)?;
    weigh_callers(
        move |caller| {
            let system = system.clone();
            async move {
                let key = caller % KEYS;
                system.update_in_line(Op { key, fail: false }).await?;
                Ok(())
            }
        },
        || drop(release),
    )
    .await
}

async fn weigh_tasks() -> Result<Value, Failure> {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    weigh_callers(
        move |_| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire_owned().await?.forget();
                Ok(())
            }
        },
        move || opened.add_permits(WAITING),
    )
    .await
}

async fn weigh_callers<F>(call: impl Fn(u64) -> F, release: impl FnOnce()) -> Result<Value, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    // Starts the peak anew; where that is not allowed it is the one since the start.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = status_kib("VmRSS:")?;
    let begun = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for caller in 0..WAITING as u64 {
        let (begun, call) = (Arc::clone(&begun), call(caller));
        callers.spawn(async move {
            begun.fetch_add(1, Ordering::Relaxed);
            call.await
        });
    }
    let waiting = settled_rss(&begun).await?;
    if let Some(early) = callers.try_join_next() {
        early??;
        return Err("a caller was answered while the writer was held up".into());
    }
    release();
    while let Some(done) = callers.join_next().await {
        done??;
    }
    Ok(json!({
        "before_kib": before,
        "waiting_kib": waiting,
        "peak_kib": status_kib("VmHWM:")?,
    }))
}

/// The resident set once every caller has begun and nothing has moved for a while.
async fn settled_rss(begun: &AtomicUsize) -> Result<u64, Failure> {
    let give_up = Instant::now() + Duration::from_secs(10);
    let mut last = (0, 0);
    let mut quiet = 0;
    while Instant::now() < give_up {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = (begun.load(Ordering::Relaxed), status_kib("VmRSS:")?);
        quiet = if now == last { quiet + 1 } else { 0 };
        if now.0 == WAITING && quiet == 6 {
            return Ok(now.1);
        }
        last = now;
    }
    Err(format!("{} of {WAITING} callers had begun after 10 s", last.0).into())
}

fn status_kib(field: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .ok_or_else(|| format!("/proc/self/status has no {field}"))?;
    Ok(kib.parse()?)
}
