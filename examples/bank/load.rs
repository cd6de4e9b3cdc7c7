//! Drives the bank over HTTP, as its clients do: opens the accounts, moves money between them over keep-alive
//! connections, and compares the total before and after.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use awc::{Client, Connector};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::options::Options;
use crate::summary::{Shape, Summary, percentile};

/// Cents in an account that the load opens.
const OPENING_BALANCE: u64 = 100_000;

/// Most cents that a transfer moves; enough for some to be refused.
const LARGEST_TRANSFER: u64 = 10_000;

/// How long the load waits for one answer. The service's own deadlines are shorter.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs the whole load against the service at `address`.
///
/// Must run in a `LocalSet` or an actix system: each connection is a local task.
///
/// # Errors
///
/// Where no summary can be given: the service cannot be reached, or an account can neither be opened nor is there.
/// Transfers that fail are counted in the summary.
pub async fn run(options: &Options, address: SocketAddr) -> Result<Summary> {
    let teller = Teller::new(address);
    let at_start: Stats = teller.fetch("/stats").await?;
    seed(options, address).await?;

    let total_before = teller.fetch::<Total>("/total").await?.total;
    let before: Stats = teller.fetch("/stats").await?;
    let begun = Instant::now();
    let tally = transfers(options, address).await;
    let seconds = begun.elapsed().as_secs_f64();
    let after: Stats = teller.fetch("/stats").await?;
    let total_after = teller.fetch::<Total>("/total").await?.total;

    Ok(summarise(
        options,
        [at_start, before, after],
        [total_before, total_after],
        seconds,
        tally,
    ))
}

fn summarise(
    options: &Options,
    [at_start, before, after]: [Stats; 3],
    [total_before, total_after]: [u64; 2],
    seconds: f64,
    tally: Tally,
) -> Summary {
    let mut latencies = tally.latencies;
    latencies.sort_unstable();
    let in_ms = |percent| percentile(&latencies, percent).map(|time| time.as_secs_f64() * 1e3);

    // Saturating, since counters may start anew with the environment.
    let batches = after
        .environment
        .batches
        .saturating_sub(before.environment.batches);
    let bodies = after
        .environment
        .bodies
        .saturating_sub(before.environment.bodies);
    Summary {
        transfers: options.transfers,
        committed: tally.committed,
        refused: tally.refused,
        retries: after
            .transactions
            .retries
            .saturating_sub(before.transactions.retries),
        deadlocks: after.locks.deadlocks.saturating_sub(before.locks.deadlocks),
        batches,
        map_resizes: after
            .environment
            .map_resizes
            .saturating_sub(at_start.environment.map_resizes),
        total_before,
        total_after,
        seconds,
        per_second: if latencies.is_empty() {
            0.0
        } else {
            latencies.len() as f64 / seconds
        },
        p50_ms: in_ms(50),
        p99_ms: in_ms(99),
        shape: Shape {
            interactive: options.interactive,
            accounts: options.accounts,
            connections: options.connections,
            mean_batch: bodies as f64 / batches.max(1) as f64,
            map_before: at_start.environment.map_size,
            map_after: after.environment.map_size,
            failed: tally.failed,
            first_failure: tally.first_failure,
        },
    }
}

/// Opens those of the accounts that are not there yet.
async fn seed(options: &Options, address: SocketAddr) -> Result<()> {
    let next = Rc::new(Cell::new(1));
    let last = options.accounts;
    on_connections(options, address, move |teller| {
        let next = Rc::clone(&next);
        async move {
            while let Some(id) = take(&next, last) {
                let account = json!({ "id": id, "balance": OPENING_BALANCE });
                let (status, body) = teller.post("/accounts", &account).await?;
                if status != StatusCode::CREATED && reason(&body) != Some("duplicate_account") {
                    return Err(format!("opening account {id}: {status}: {body}").into());
                }
            }
            Ok(())
        }
    })
    .await
    .into_iter()
    .collect()
}

/// Makes the transfers, and counts their answers.
async fn transfers(options: &Options, address: SocketAddr) -> Tally {
    let next = Rc::new(Cell::new(1));
    let last = options.transfers;
    let accounts = options.accounts;
    let bar = progress_bar(options);
    let tally = Rc::new(RefCell::new(Tally::default()));
    {
        let (bar, tally) = (bar.clone(), Rc::clone(&tally));
        on_connections(options, address, move |teller| {
            let (next, bar, tally) = (Rc::clone(&next), bar.clone(), Rc::clone(&tally));
            async move {
                let mut random = Random::new();
                while take(&next, last).is_some() {
                    let transfer = random.transfer(accounts);
                    let sent = Instant::now();
                    let answer = teller.post("/transfers", &transfer).await;
                    tally.borrow_mut().count(answer, sent.elapsed());
                    bar.inc(1);
                }
                Ok(())
            }
        })
        .await;
    }
    bar.finish_and_clear();
    tally.take()
}

/// Runs one task for each connection, each with a connection of its own, to their ends.
async fn on_connections<F, Work>(options: &Options, address: SocketAddr, work: F) -> Vec<Result<()>>
where
    F: Fn(Teller) -> Work,
    Work: Future<Output = Result<()>> + 'static,
{
    let tasks: Vec<_> = (0..options.connections)
        .map(|_| actix_web::rt::spawn(work(Teller::new(address))))
        .collect();
    let mut results = Vec::with_capacity(tasks.len());
    // Aborted with this future, so that no task goes on when the load is cut short.
    let mut tasks = AbortOnDrop(tasks);
    for task in &mut tasks.0 {
        results.push(task.await.unwrap_or_else(|error| Err(error.into())));
    }
    results
}

struct AbortOnDrop(Vec<actix_web::rt::task::JoinHandle<Result<()>>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// The next number up to `last`, once to each who asks.
fn take(next: &Cell<u64>, last: u64) -> Option<u64> {
    let number = next.get();
    (number <= last).then(|| {
        next.set(number + 1);
        number
    })
}

fn progress_bar(options: &Options) -> ProgressBar {
    let hidden =
        options.json || std::env::var_os("CI").is_some() || !std::io::stderr().is_terminal();
    let target = if hidden {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(options.transfers), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {per_sec}") {
        bar.set_style(style);
    }
    bar
}

/// The answers so far.
#[derive(Default)]
struct Tally {
    committed: u64,
    refused: u64,
    failed: u64,
    first_failure: Option<String>,
    latencies: Vec<Duration>,
}

impl Tally {
    fn count(&mut self, answer: Result<(StatusCode, Value)>, latency: Duration) {
        let failure = match answer {
            Ok((StatusCode::OK, _)) => {
                self.committed += 1;
                self.latencies.push(latency);
                return;
            }
            Ok((_, body)) if reason(&body) == Some("insufficient_funds") => {
                self.refused += 1;
                self.latencies.push(latency);
                return;
            }
            Ok((status, body)) => format!("{status}: {body}"),
            Err(error) => error.to_string(),
        };
        self.failed += 1;
        self.first_failure.get_or_insert(failure);
    }
}

/// The word in a refusal that says why.
fn reason(body: &Value) -> Option<&str> {
    body.get("error")?.as_str()
}

/// A client with one connection, which it keeps.
struct Teller {
    client: Client,
    base: String,
}

impl Teller {
    fn new(address: SocketAddr) -> Self {
        let client = Client::builder()
            .connector(Connector::new().limit(1))
            .timeout(ANSWER_TIMEOUT)
            .finish();
        Self {
            client,
            base: format!("http://{address}"),
        }
    }

    async fn fetch<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.client.get(format!("{}{path}", self.base)).send().await;
        let mut answer = answer.map_err(|error| format!("GET {path}: {error}"))?;
        let body = answer.body().await?;
        if !answer.status().is_success() {
            let body = String::from_utf8_lossy(&body);
            return Err(format!("GET {path}: {}: {body}", answer.status()).into());
        }
        serde_json::from_slice(&body).map_err(|error| format!("GET {path}: {error}").into())
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(StatusCode, Value)> {
        let request = self.client.post(format!("{}{path}", self.base));
        let answer = request.send_json(body).await;
        let mut answer = answer.map_err(|error| format!("POST {path}: {error}"))?;
        let body = answer.body().await?;
        let body = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Ok((answer.status(), body))
    }
}

#[derive(Deserialize)]
struct Total {
    total: u64,
}

/// What the load reads from `/stats`.
#[derive(Deserialize)]
struct Stats {
    environment: EnvironmentStats,
    transactions: TransactionStats,
    locks: LockStats,
}

#[derive(Deserialize)]
struct EnvironmentStats {
    map_size: u64,
    map_resizes: u64,
    batches: u64,
    bodies: u64,
}

#[derive(Deserialize)]
struct TransactionStats {
    retries: u64,
}

#[derive(Deserialize)]
struct LockStats {
    deadlocks: u64,
}

/// Random transfers (splitmix64, seeded by the standard library's hash keys).
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(RandomState::new().hash_one(0))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 1 to `most`, which is not 0.
    fn up_to(&mut self, most: u64) -> u64 {
        1 + self.next() % most
    }

    /// Between two different accounts of those from 1 to `accounts`, of which there are two at least.
    fn transfer(&mut self, accounts: u64) -> Value {
        let from = self.up_to(accounts);
        let to = match self.up_to(accounts - 1) {
            to if to < from => to,
            to => to + 1,
        };
        json!({ "from": from, "to": to, "amount": self.up_to(LARGEST_TRANSFER) })
    }
}
