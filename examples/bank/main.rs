//! A bank over HTTP: an actix-web service whose handlers send transactions to a [`lockkeeper::Keeper`].
//!
//! ```text
//! cargo run --release --example bank
//! ```
//!
//! starts it on 127.0.0.1:8080 with an environment of 1 MiB, drives it over HTTP with 20,000 transfers, prints a
//! summary, and goes on serving until Ctrl-C. `-- --interactive` makes the same transfers as interactive transactions;
//! `-- --help` lists the other options.
//!
//! | request                                     | answer                                    |
//! |---------------------------------------------|-------------------------------------------|
//! | `POST /accounts {"id","balance"}`           | 201 and the account                       |
//! | `POST /transfers {"from","to","amount"}`    | 200 and the two balances; takes a `"ref"` |
//! | `GET /accounts/{id}`                        | the account                               |
//! | `GET /accounts/{id}/journal?after=&limit=`  | its transfers, oldest first, by pages     |
//! | `GET /total`                                | all accounts together, at one moment      |
//! | `GET /stats`                                | what the keeper has counted               |
//! | `GET /healthz`                              | 200, or 503 if it cannot serve            |
//!
//! Ids and amounts are whole numbers, amounts in cents. A refusal is `{"error","message"}`: 404 for what is not
//! there, 409 for what the accounts do not allow, 422 for what makes no sense, 503 with `Retry-After` and 504 for bad
//! luck.

mod api;
mod load;
mod model;
mod options;
mod summary;

use std::error::Error;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer};
use clap::Parser;
use lockkeeper::{Growth, Keeper, Termination, termination};
use tempfile::TempDir;

use crate::api::Stopping;
use crate::model::{Bank, Style};
use crate::options::Options;

/// The map of a new environment. Small, so that it grows before one's eyes.
const MAP_SIZE: u64 = 1 << 20;

/// Where growing ends. Nothing is taken from memory or disk before it is used.
const MAX_MAP_SIZE: u64 = 16 << 30;

/// How long requests that have begun may take when the service stops.
const DRAIN_SECONDS: u64 = 10;

/// How long the keeper waits for its last transactions.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

/// The exit status when Ctrl-C cut the load short, as shells have it.
const INTERRUPTED: u8 = 130;

#[actix_web::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::ERROR)
        .init();
    match run(&options).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bank: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Opens the folder, serves it, and closes everything in order.
async fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let signals = termination()?;
    let listener = TcpListener::bind(&options.listen).map_err(|error| {
        format!(
            "cannot listen on {}: {error}; --listen takes another address",
            options.listen
        )
    })?;
    let folder = Folder::new(options.data.as_deref())?;
    let keeper = Keeper::builder()
        .path(folder.path())
        .map_size(MAP_SIZE)
        .max_map_size(MAX_MAP_SIZE)
        .growth(Growth::Doubling)
        .durability(options.durability.into())
        .open()
        .map_err(|error| format!("cannot open {}: {error}", folder.path().display()))?;

    let served = serve(options, &keeper, listener, signals).await;
    let closed = keeper.shutdown(SHUTDOWN_DEADLINE).await;
    drop(keeper);
    let removed = folder.close();

    let code = served?;
    closed?;
    removed?;
    eprintln!("stopped");
    Ok(code)
}

/// Serves, drives the load, and ends the web server.
async fn serve(
    options: &Options,
    keeper: &Keeper,
    listener: TcpListener,
    mut signals: Termination,
) -> Result<ExitCode, Box<dyn Error>> {
    let style = match options.interactive {
        true => Style::Interactive,
        false => Style::Update,
    };
    let bank = Bank::open(keeper.clone(), style).await?;
    let stopping = Stopping::default();
    let address = listener.local_addr()?;
    let app_stopping = stopping.clone();
    let server = HttpServer::new(move || {
        App::new().configure(api::routes(bank.clone(), app_stopping.clone()))
    })
    .disable_signals()
    .shutdown_timeout(DRAIN_SECONDS)
    .listen(listener)?
    .run();
    let handle = server.handle();
    let mut server = actix_web::rt::spawn(server);
    eprintln!("listening on http://{address}");

    let code = tokio::select! {
        code = work(options, address, &mut signals) => code,
        ended = &mut server => {
            ended??;
            return Err("the web server ended by itself".into());
        }
    };

    stopping.raise();
    stop(&handle, &mut signals).await;
    server.await??;
    Ok(code)
}

/// The load, and then waiting for Ctrl-C.
async fn work(options: &Options, address: SocketAddr, signals: &mut Termination) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    if !options.no_load {
        let outcome = tokio::select! {
            outcome = load::run(options, reachable(address)) => outcome,
            _ = &mut *signals => {
                eprintln!("interrupted before the load was done; stopping");
                return ExitCode::from(INTERRUPTED);
            }
        };
        match outcome {
            Ok(summary) => {
                if !summary.is_good() {
                    code = ExitCode::FAILURE;
                }
                if let Err(error) = report(options, &summary) {
                    eprintln!("bank: the summary could not be written: {error}");
                    code = ExitCode::FAILURE;
                }
            }
            Err(error) => {
                eprintln!("bank: the load failed: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    if !options.once {
        if !options.no_load {
            eprintln!("serving http://{address} until Ctrl-C");
        }
        signals.await;
        eprintln!("stopping; Ctrl-C again to cut connections");
    }
    code
}

fn report(options: &Options, summary: &summary::Summary) -> Result<(), Box<dyn Error>> {
    let mut stdout = std::io::stdout().lock();
    if options.json {
        writeln!(stdout, "{}", serde_json::to_string(summary)?)?;
        if let Some(failure) = &summary.shape.first_failure {
            eprintln!(
                "bank: {} transfers failed, first: {failure}",
                summary.shape.failed
            );
        }
    } else {
        writeln!(stdout, "{summary}")?;
    }
    Ok(stdout.flush()?)
}

/// Takes no more connections, and lets the requests that have begun end, unless a second signal comes.
async fn stop(server: &ServerHandle, signals: &mut Termination) {
    let stopped = server.stop(true);
    tokio::select! {
        () = stopped => {}
        _ = signals => server.stop(false).await,
    }
}

/// Where a client of this machine finds what listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Where the environment is.
enum Folder {
    Given(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    fn new(given: Option<&Path>) -> std::io::Result<Self> {
        Ok(match given {
            Some(path) => Self::Given(path.to_owned()),
            None => Self::Temporary(TempDir::with_prefix("bank-")?),
        })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }

    fn close(self) -> std::io::Result<()> {
        match self {
            Self::Given(_) => Ok(()),
            Self::Temporary(folder) => folder.close(),
        }
    }
}
