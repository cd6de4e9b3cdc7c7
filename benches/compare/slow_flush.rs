//! Runs this program again under a library that makes every flush slower.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Session;
use crate::work::Failure;

/// How the library learns the delay; see `slowflush.c`.
const DELAY_VARIABLE: &str = "SLOWFLUSH_NS";

/// Measures durable updates in a child whose flushes are slow. The child adds its lines to the
/// table and to the JSON file.
pub fn measure(session: &Session) -> Result<(), Failure> {
    let options = &session.options;
    if !options.wants(&options.flush_bench()) {
        return Ok(());
    }
    let library = build(&session.dir)?;
    let mut child = Command::new(std::env::current_exe()?);
    child
        .args(options.for_child())
        .arg("--under-slow-flush")
        .arg("--dir")
        .arg(&session.dir)
        .env("LD_PRELOAD", library)
        .env(DELAY_VARIABLE, options.delay().as_nanos().to_string())
        .stdin(Stdio::null());
    let status = child.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{}: {status}", options.flush_bench()).into())
    }
}

fn build(dir: &Path) -> Result<PathBuf, Failure> {
    let library = dir.join("libslowflush.so");
    let mut compiler = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-x", "c", "-", "-o"])
        .arg(&library)
        .arg("-ldl")
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cc, which has to build the slow flush library: {e}"))?;
    if let Some(mut input) = compiler.stdin.take() {
        input.write_all(include_bytes!("slowflush.c"))?;
    }
    let status = compiler.wait()?;
    if status.success() {
        Ok(library)
    } else {
        Err(format!("cc could not build the slow flush library: {status}").into())
    }
}

/// The child's first act: a library that is not in effect would make the figures lies.
pub fn check(dir: &Path, delay: Duration) -> Result<(), Failure> {
    let path = dir.join("flush-check");
    let file = File::create(&path)?;
    let synced = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DSYNC)
        .open(&path)?;
    let took = [
        ("fdatasync", time(|| file.sync_data())?),
        ("fsync", time(|| file.sync_all())?),
        ("a write with O_DSYNC", time(|| (&synced).write_all(b"x"))?),
    ];
    for (what, took) in took {
        if took < delay {
            return Err(format!("{what} took {took:?}: the flush delay is not in effect").into());
        }
    }
    let plain = time(|| (&file).write_all(b"x"))?;
    if plain >= delay {
        return Err(format!("a plain write took {plain:?}: it must not be delayed").into());
    }
    Ok(std::fs::remove_file(path)?)
}

/// The median time of a small write and `fdatasync`, which bounds every durable figure.
pub fn flush_time(dir: &Path) -> Result<Duration, Failure> {
    let path = dir.join("flush-time");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..101 {
        times.push(time(|| {
            file.write_all(&[0; 4096])?;
            file.sync_data()
        })?);
    }
    std::fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn time(act: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<Duration> {
    let start = Instant::now();
    act()?;
    Ok(start.elapsed())
}
