//! Memory while 1,000,000 locks are held, each on an object of its own, in a process of its own so that
//! nothing else is counted.

use std::process::{Command, Stdio};

use lockkeeper::{Locks, Mode, Object, Wait};
use serde_json::{Value, json};

use crate::Session;
use crate::by_hand;
use crate::ours::roomy;
use crate::report::{Row, Target};
use crate::waiting::locker;
use crate::work::Failure;

const LOCKERS: u64 = 1_000;
const LOCKS_EACH: u64 = 1_000;
const HELD: usize = (LOCKERS * LOCKS_EACH) as usize;

const OURS: &str = "lockkeeper";
const BY_HAND: &str = "by-hand";

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("memory") {
        return Ok(());
    }
    let (ours, hand) = (ask_child(OURS)?, ask_child(BY_HAND)?);
    // The keys are short enough to be kept in the object itself.
    let object = size_of::<Object>() as f64;
    let mut row = Row::new("memory", HELD, ours - object, "bytes/lock");
    row.against = Some(("by hand", hand - object));
    row.ratio = Some((ours - object) / (hand - object));
    row.target = Target::AtMost(250.0);
    row.more = vec![("object_bytes", object), ("with_object", ours)];
    session.report.show(&[row])
}

/// Bytes for each held lock, its object included.
fn ask_child(system: &str) -> Result<f64, Failure> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--memory-of", system])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("memory of {system}: {}", output.status).into());
    }
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let bytes = answer.get("bytes_each").and_then(Value::as_f64);
    bytes.ok_or_else(|| format!("memory of {system}: {answer}").into())
}

/// The child's part: measures, prints one JSON object.
pub fn weigh(system: &str) -> Result<(), Failure> {
    let object = |n: u64| Object::new("accounts", n.to_be_bytes());
    let bytes = match system {
        OURS => {
            let locks = Locks::start(roomy());
            let mut lockers = Vec::with_capacity(LOCKERS as usize);
            let before = resident()?;
            for n in 0..LOCKERS {
                let locker = locker(&locks)?;
                for key in n * LOCKS_EACH..(n + 1) * LOCKS_EACH {
                    locker.blocking_lock(&object(key), Mode::Write, Wait::No)?;
                }
                lockers.push(locker);
            }
            let after = resident()?;
            let held = locks.stats().locks.now;
            if held != HELD {
                return Err(format!("{held} locks are held, not {HELD}").into());
            }
            after - before
        }
        BY_HAND => {
            let table = by_hand::Table::default();
            let mut owners = Vec::with_capacity(LOCKERS as usize);
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            let before = resident()?;
            runtime.block_on(async {
                for n in 0..LOCKERS {
                    let mut owner = table.owner();
                    for key in n * LOCKS_EACH..(n + 1) * LOCKS_EACH {
                        owner.lock(&object(key), by_hand::Mode::Write).await?;
                    }
                    owners.push(owner);
                }
                Ok::<_, Failure>(())
            })?;
            resident()? - before
        }
        other => return Err(format!("unknown system {other:?}").into()),
    };
    println!("{}", json!({ "bytes_each": bytes / HELD as f64 }));
    Ok(())
}

/// The bytes of this process that are in memory.
fn resident() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .ok_or("/proc/self/status has no VmRSS")?
        .parse()?;
    Ok(kib * 1024.0)
}
