//! Other processes: this test binary, run again, runs a pool and says what becomes of it. What its workers do goes to a log that
//! all processes write, which is the outside check: a worker never works with a token when one with a larger one has worked.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockkeeper::{LmdbLeases, Pool, Worker};
use rustix::process::Signal;

use crate::leases::{keeper_on, leases};
use crate::process;
use crate::support::{block_on, quick, running};

/// How often a worker works.
const BEAT: Duration = Duration::from_millis(5);

/// How long a worker that does not care is waited for.
const GRACE: Duration = Duration::from_millis(500);

/// Another process with a pool. It is killed when dropped.
pub struct Peer(process::Peer);

impl Peer {
    /// Starts a process; `pool` is `whole`, the number of partitions, or `jobs`, which are done on threads.
    pub fn start(folder: &Path, pool: &str) -> Self {
        let folder = folder.to_str().unwrap();
        let mut peer = process::Peer::start("peer::another_process", &[folder]);
        assert_eq!(peer.ask(&format!("start {pool}")), "started");
        Self(peer)
    }

    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    pub fn ask(&mut self, order: &str) -> String {
        self.0.ask(order)
    }

    pub fn number(&mut self, order: &str) -> usize {
        self.ask(order).parse().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }

    pub fn kill(self) {
        self.0.kill();
    }
}

/// What a [`Peer`] runs; in the test run itself it does nothing.
#[test]
fn another_process() {
    let Some(told) = process::told() else {
        return;
    };
    let folder = Path::new(&told[0]);
    let (_own, keeper) = keeper_on(LmdbLeases::open(folder).unwrap());
    let log = Arc::new(log(folder));
    let mut pool: Option<Pool> = None;
    process::obey(|order| {
        let words: Vec<_> = order.split(' ').collect();
        let of_pool = || pool.as_ref().unwrap();
        match words[..] {
            ["start", "jobs"] => {
                let builder = quick(&keeper, "import").workers(2).queue(4);
                let log = Arc::clone(&log);
                let jobs =
                    builder
                        .under_lease("import")
                        .serve_blocking(move |job: lockkeeper::Job<()>| {
                            let lease = job.worker().lease().unwrap();
                            beat(&log, lease.name().as_str(), lease.token().0);
                            std::thread::sleep(BEAT);
                            Ok::<_, ()>(())
                        });
                let jobs = jobs.unwrap();
                pool = Some(jobs.pool().clone());
                // There is always something to do.
                std::thread::spawn(move || while jobs.submit_and_forget(()).blocking().is_ok() {});
                "started".into()
            }
            ["start", kind] => {
                let builder = quick(&keeper, "import").grace(GRACE);
                let builder = match kind.parse() {
                    Ok(partitions) => builder.workers(partitions).partitioned("import"),
                    Err(_) => builder.workers(2).under_lease("import"),
                };
                let log = Arc::clone(&log);
                pool = Some(
                    builder
                        .start(move |worker| work(worker, Arc::clone(&log)))
                        .unwrap(),
                );
                "started".into()
            }
            ["running"] => running(of_pool()).to_string(),
            ["lost"] => leases(of_pool()).lost.to_string(),
            ["given"] => leases(of_pool()).given_back.to_string(),
            ["state"] => format!("{:?}", leases(of_pool()).state),
            ["force", lease] => {
                let forced = keeper.leases().unwrap().force_release(lease);
                format!("{}", block_on(forced).unwrap().is_some())
            }
            ["stop"] => format!(
                "{:?}",
                block_on(of_pool().stop(crate::support::LONG)).is_ok()
            ),
            _ => panic!("{order}?"),
        }
    })
}

/// A worker that does not care that it is told to stop.
async fn work(worker: Worker, log: Arc<File>) -> Result<(), lockkeeper::BoxError> {
    let lease = worker.lease().unwrap();
    loop {
        beat(&log, lease.name().as_str(), lease.token().0);
        tokio::time::sleep(BEAT).await;
    }
}

fn log(folder: &Path) -> File {
    let mut options = OpenOptions::new();
    options
        .append(true)
        .create(true)
        .open(folder.join("log"))
        .unwrap()
}

/// One line in one write: what was done, when, and under which lease.
fn beat(mut log: &File, lease: &str, token: u64) {
    let line = format!("{} {lease} {token} {}\n", now(), std::process::id());
    log.write_all(line.as_bytes()).unwrap();
}

/// A clock that all processes of the machine share.
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// What was done.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    pub at: u64,
    pub token: u64,
    pub pid: u32,
}

/// What was done under each lease, in order of time; checks that nobody worked when his successor had begun.
pub fn checked(folder: &Path) -> BTreeMap<String, Vec<Beat>> {
    let text = std::fs::read_to_string(folder.join("log")).unwrap();
    let mut all: BTreeMap<String, Vec<Beat>> = BTreeMap::new();
    // The last line may be half-written.
    for line in text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let words: Vec<_> = line.split_whitespace().collect();
        let [at, lease, token, pid] = words[..] else {
            panic!("{line}")
        };
        let beat = Beat {
            at: at.parse().unwrap(),
            token: token.parse().unwrap(),
            pid: pid.parse().unwrap(),
        };
        all.entry(lease.to_owned()).or_default().push(beat);
    }
    for (lease, beats) in &mut all {
        beats.sort_by_key(|beat| beat.at);
        for pair in beats.windows(2) {
            assert!(pair[0].token <= pair[1].token, "{lease}: {pair:?}");
            let same = pair[0].token == pair[1].token;
            assert!(!same || pair[0].pid == pair[1].pid, "{lease}: {pair:?}");
        }
    }
    all
}
