//! Other processes: this test binary, run again, runs a pool and says what becomes of it. What its workers do goes to a log that
//! all processes write, which is the outside check: a worker never works with a token when one with a larger one has worked.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lockkeeper::{LmdbLeases, Pool, Worker};
use parking_lot::Mutex;
use rustix::process::Signal;

use crate::gate::Gate;
use crate::leases::{keeper_on, leases};
use crate::process;
use crate::stop::{now, stop_before};
use crate::support::{block_on, quick, running};

/// How often a worker works.
const BEAT: Duration = Duration::from_millis(5);

/// How long a worker that does not care is waited for.
const GRACE: Duration = Duration::from_millis(500);

/// How long workers sleep while their process is stopped: it is over long before anybody else gets their lease, and so they go on
/// as soon as their process does.
const REST: Duration = Duration::from_millis(500);

/// How long they may have to sleep before they are told that their lease was taken away.
const LONG_REST: Duration = Duration::from_secs(5);

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

    /// Stops it while it has its leases, all its workers sleep, and nobody is in the store; answers how often it had lost a lease,
    /// or `None` if that did not come about. Stopped between its look at the lease and what it does then, a worker would do that
    /// when it goes on: against that there is the token.
    pub fn stop_at_rest(&mut self) -> Option<usize> {
        let rested: u64 = self.ask("rest").parse().unwrap();
        let lost = self.number("lost");
        stop_before(self.pid(), rested).then_some(lost)
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
    let gate = Gate::before(Arc::new(LmdbLeases::open(folder).unwrap()));
    let (_own, keeper) = keeper_on(gate.clone());
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
                    let sleep = rests.sleep(job.worker());
                    std::thread::sleep(sleep.span);
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
            ["rest"] => {
                let end = rests.begin(REST, true);
                let rest = gate.shut_until(end) && rests.is_of_all(of_pool(), end);
                if rest { end } else { 0 }.to_string()
            }
            // Between the release in the store and what the holder is told of it, another one may begin.
            ["force", lease] => {
                let end = rests.begin(LONG_REST, false);
                let forced = rests.is_of_all(of_pool(), end) && {
                    let forced = keeper.leases().unwrap().force_release(lease);
                    block_on(forced).unwrap().is_some()
                };
                rests.end();
                forced.to_string()
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
        let sleep = rests.sleep(&worker);
        tokio::time::sleep(sleep.span).await;
    }
}

/// When all workers sleep for long.
#[derive(Default)]
struct Rests {
    wanted: Mutex<Wanted>,
    asleep: AtomicUsize,
}

#[derive(Default)]
struct Wanted {
    until: u64,
    /// Only those do whose lease is held until then for sure.
    held: bool,
}

impl Rests {
    /// From now on each worker sleeps when it comes to it; answers until when.
    fn begin(&self, span: Duration, held: bool) -> u64 {
        let until = now() + nanos(span);
        *self.wanted.lock() = Wanted { until, held };
        until
    }

    fn end(&self) {
        self.wanted.lock().until = 0;
    }

    /// Waits until all workers sleep, if they do before that time.
    fn is_of_all(&self, pool: &Pool, end: u64) -> bool {
        while now() < end {
            let asleep = self.asleep.load(Ordering::SeqCst);
            if asleep > 0 && asleep == running(pool) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    /// A worker is about to sleep.
    fn sleep(self: &Arc<Self>, worker: &Worker) -> Sleep {
        let wanted = self.wanted.lock();
        let left = Duration::from_nanos(wanted.until.saturating_sub(now()));
        let sure = worker.lease().unwrap().remaining() > left || !wanted.held;
        match left > BEAT && sure {
            false => Sleep {
                span: BEAT,
                of: None,
            },
            true => {
                self.asleep.fetch_add(1, Ordering::SeqCst);
                Sleep {
                    span: left,
                    of: Some(Arc::clone(self)),
                }
            }
        }
    }
}

/// How long a worker sleeps. It does as long as this is there.
struct Sleep {
    span: Duration,
    of: Option<Arc<Rests>>,
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(rests) = self.of.take() {
            rests.asleep.fetch_sub(1, Ordering::SeqCst);
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

pub fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap()
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
