//! One of several processes leads. Run it in two terminals:
//!
//! ```text
//! cargo run --example leader
//! ```
//!
//! One leads; the other waits. Kill the one that leads, however rudely: the other takes over within the expiration. Without
//! `--store` the lease is in an LMDB file in the folder for temporary files, with no server; `-- --help` lists the options.

mod options;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lockkeeper::{LeaseConfig, LeaseGuard, Leases, store_from_url};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::options::Options;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    match run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leader: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// Leads, waits, and leads again, until it is told to end.
async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut end = End::new()?;
    let url = options.url();
    let mut config = LeaseConfig::default();
    config.refresh = options.refresh;
    config.expiration = options.expiration;
    config.poll = options.poll;
    let leases = Leases::start_shared(store_from_url(&url)?, config)?;
    // The URL may have a password.
    let kind = url.split(':').next().unwrap_or_default();
    say(&format!("waiting for \"{}\" in {kind}", options.name))?;
    loop {
        let guard = tokio::select! {
            acquired = leases.acquire(options.name.as_str()) => acquired?,
            () = end.come() => break,
        };
        say(&format!("leading with token {}", guard.token()))?;
        let ended = tokio::select! {
            worked = guard.run(lead(&guard)) => {
                match worked {
                    Ok(failed) => failed?,
                    Err(lost) => say(&format!("leading no more: {lost}"))?,
                }
                false
            }
            () = end.come() => true,
        };
        if ended {
            let released = guard.release().await?;
            say(&format!("given back: {released:?}"))?;
            break;
        }
    }
    leases.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// What only one of all processes may do. It is stopped where it stands when the lease is lost.
async fn lead(guard: &LeaseGuard) -> std::io::Result<()> {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let left = humantime::format_duration(Duration::from_secs(guard.remaining().as_secs()));
        say(&format!(
            "still leading; without a refresh for {left} at the most"
        ))?;
    }
}

fn say(what: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}: {what}", std::process::id())?;
    out.flush()
}

/// Ctrl-C and a request to terminate, which mean the same here.
struct End {
    interrupt: Signal,
    terminate: Signal,
}

impl End {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
