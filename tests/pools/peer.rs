//! Other processes: this test binary, run again, runs a pool and says what becomes of it. What its workers do goes to a log that
//! all processes write, which is the outside check: a worker never works with a token when one with a larger one has worked.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockkeeper::{Holder, LeaseName, LeaseStore, LmdbLeases, Pool, Worker};
use parking_lot::Mutex;
use rustix::process::Signal;

use crate::leases::{keeper_on, leases};
use crate::process;
use crate::stop::stop_beside;
use crate::support::{block_on, quick, running};

/// How often a worker works.
const BEAT: Duration = Duration::from_millis(5);

/// How long a worker that does not care is waited for.
const GRACE: Duration = Duration::from_millis(500);

/// How long a worker sleeps while its process is stopped: it is over long before anybody else gets its lease, and so it goes on as
/// soon as its process does.
const REST: Duration = Duration::from_millis(800);

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

    /// Stops it while it has its leases and all its workers sleep, if all `others` can write then; answers how often it had lost
    /// one. Stopped between its look at the lease and what it does then, a worker would do that when it goes on: against that
    /// there is the token.
    pub fn stop_at_rest(&mut self, others: &mut [&mut Self]) -> Option<usize> {
        let rested: u64 = self.ask("rest").parse().unwrap();
        let lost = self.number("lost");
        let in_time = Duration::from_nanos(rested.saturating_sub(now()));
        let get_on = || {
            let mut others = others.iter_mut();
            now() < rested && others.all(|other| other.ask("write") == "written")
        };
        stop_beside(self.pid(), in_time, get_on).then_some(lost)
    }

    pub fn goes_on(&self) {
        self.0.signal(Signal::CONT);
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
    let store = LmdbLeases::open(folder).unwrap();
    let (_own, keeper) = keeper_on(store.clone());
    let log = Arc::new(log(folder));
    let rests = Arc::new(Rests::default());
    let mut pool: Option<Pool> = None;
    process::obey(|order| {
        let words: Vec<_> = order.split(' ').collect();
        let of_pool = || pool.as_ref().unwrap();
        match words[..] {
            ["start", "jobs"] => {
                let builder = quick(&keeper, "import").workers(2).queue(4);
                let (log, rests) = (Arc::clone(&log), Arc::clone(&rests));
                let handler = move |job: lockkeeper::Job<()>| {
                    beat(&log, job.worker());
                    std::thread::sleep(rests.next(job.worker()));
                    Ok::<_, ()>(())
                };
                let jobs = builder.under_lease("import").serve_blocking(handler);
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
                let (log, rests) = (Arc::clone(&log), Arc::clone(&rests));
                let body = move |worker| work(worker, Arc::clone(&log), Arc::clone(&rests));
                pool = Some(builder.start(body).unwrap());
                "started".into()
            }
            ["running"] => running(of_pool()).to_string(),
            ["lost"] => leases(of_pool()).lost.to_string(),
            ["given"] => leases(of_pool()).given_back.to_string(),
            ["state"] => format!("{:?}", leases(of_pool()).state),
            ["rest"] => rests.of_all(of_pool()).to_string(),
            ["write"] => {
                // It takes the writer, and leaves the disk alone.
                let nobody = Holder {
                    id: "nobody".into(),
                    host: "nowhere".into(),
                    pid: 0,
                };
                let nothing = LeaseName::new("nothing").unwrap();
                block_on(store.release(&nothing, &nobody)).unwrap();
                "written".into()
            }
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
async fn work(
    worker: Worker,
    log: Arc<File>,
    rests: Arc<Rests>,
) -> Result<(), lockkeeper::BoxError> {
    loop {
        beat(&log, &worker);
        tokio::time::sleep(rests.next(&worker)).await;
    }
}

/// When the workers sleep for long.
#[derive(Default)]
struct Rests(Mutex<BTreeMap<usize, Option<u64>>>);

impl Rests {
    /// Has each worker that runs sleep once, and answers until when all of them do, which is no later than their lease is held for
    /// sure. If they do not all sleep at one time, that is in the past.
    fn of_all(&self, pool: &Pool) -> u64 {
        let workers = pool.stats().states.len();
        *self.0.lock() = (0..workers).map(|worker| (worker, None)).collect();
        let began = Instant::now();
        while began.elapsed() < REST {
            let asleep: Vec<u64> = self.0.lock().values().copied().flatten().collect();
            if !asleep.is_empty() && asleep.len() == running(pool) {
                return asleep.into_iter().min().unwrap();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.0.lock().clear();
        0
    }

    /// How long a worker sleeps now.
    fn next(&self, worker: &Worker) -> Duration {
        let left = worker.lease().unwrap().remaining();
        match self.0.lock().get_mut(&worker.number()) {
            Some(until @ None) if left > REST => {
                *until = Some(now() + u64::try_from(REST.as_nanos()).unwrap());
                REST
            }
            _ => BEAT,
        }
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
fn beat(mut log: &File, worker: &Worker) {
    let lease = worker.lease().unwrap();
    let (name, token) = (lease.name().as_str(), lease.token().0);
    let line = format!("{} {name} {token} {}\n", now(), std::process::id());
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
