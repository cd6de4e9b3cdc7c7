//! Point views: one key, one snapshot, in place on the thread that asks.

use std::future::Future;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::Session;
use crate::load::Round;
use crate::ours;
use crate::peers::by_hand::{self, ByHand};
use crate::report::Row;
use crate::rounds::Rounds;
use crate::work::{self, Failure, Rng, Safety};

/// Views between two looks at the clock.
const STRIDE: u64 = 64;

/// A system that reads one key in a snapshot of its own.
pub trait Views: Send + Sync {
    fn view(&self, key: u64) -> Result<u64, Failure>;

    /// The same from within a task.
    fn view_async(&self, key: u64) -> impl Future<Output = Result<u64, Failure>> + Send;
}

/// What each view does with the record: the page must be touched, the bytes need not be copied.
#[inline]
pub fn look_at(value: Option<&[u8]>) -> Result<u64, Failure> {
    work::counter(value.ok_or("a key is missing")?)
}

/// A [`Views`] behind a name, its type forgotten; the measured loop is compiled for each.
pub trait Viewer {
    fn name(&self) -> &'static str;
    fn run(&self, sight: Sight) -> Result<Round, Failure>;
}

pub struct Named<V>(pub &'static str, pub V);

#[derive(Clone, Copy)]
pub struct Sight {
    from_task: bool,
    threads: usize,
    keys: u64,
    measure: Duration,
    seed: u64,
}

impl<V: Views> Viewer for Named<V> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn run(&self, sight: Sight) -> Result<Round, Failure> {
        let barrier = Barrier::new(sight.threads);
        let rates = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..sight.threads as u64)
                .map(|thread| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let rng = Rng::seeded(sight.seed.wrapping_mul(16).wrapping_add(thread));
                        barrier.wait();
                        if sight.from_task {
                            tokio::runtime::Builder::new_current_thread()
                                .build()?
                                .block_on(look_async(&self.1, rng, sight))
                        } else {
                            look(&self.1, rng, sight)
                        }
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| "a viewing thread panicked")?)
                .collect::<Result<Vec<f64>, Failure>>()
        })?;
        Ok(Round {
            per_second: rates.iter().sum(),
            p50_us: None,
            p99_us: None,
            mean_batch: None,
        })
    }
}

fn look<V: Views>(system: &V, mut rng: Rng, sight: Sight) -> Result<f64, Failure> {
    let mut seen = 0;
    let mut views = 0;
    let start = Instant::now();
    let elapsed = loop {
        for _ in 0..STRIDE {
            seen |= system.view(rng.below(sight.keys))?;
        }
        views += STRIDE;
        let elapsed = start.elapsed();
        if elapsed >= sight.measure {
            break elapsed;
        }
    };
    rate(seen, views, elapsed)
}

async fn look_async<V: Views>(system: &V, mut rng: Rng, sight: Sight) -> Result<f64, Failure> {
    let mut seen = 0;
    let mut views = 0;
    let start = Instant::now();
    let elapsed = loop {
        for _ in 0..STRIDE {
            seen |= system.view_async(rng.below(sight.keys)).await?;
        }
        views += STRIDE;
        let elapsed = start.elapsed();
        if elapsed >= sight.measure {
            break elapsed;
        }
    };
    rate(seen, views, elapsed)
}

/// Checks what was seen too, which keeps the reads from being optimised away.
fn rate(seen: u64, views: u64, elapsed: Duration) -> Result<f64, Failure> {
    if seen != 0 {
        return Err("a record that nobody has changed is not zero".into());
    }
    Ok(views as f64 / elapsed.as_secs_f64())
}

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    let benches = ["view", "view-async"].map(|name| (name, session.options.wants(name)));
    if !benches.iter().any(|&(_, wanted)| wanted) {
        return Ok(());
    }
    let viewers = open(session)?;
    for (name, wanted) in benches {
        for threads in session.options.threads(&[1, 2]) {
            if wanted {
                compare(session, name, threads, &viewers)?;
            }
        }
    }
    Ok(())
}

fn open(session: &Session) -> Result<Vec<Box<dyn Viewer>>, Failure> {
    let mut viewers: Vec<Box<dyn Viewer>> = Vec::new();
    let options = &session.options;
    let prepare = |name: &str| -> Result<_, Failure> {
        let dir = session.dir.join("view").join(name);
        by_hand::fill(&dir, options.view_keys)?;
        Ok(dir)
    };
    if options.includes("lockkeeper") && ours::PRESENT {
        viewers.extend(ours::viewer(Path::new(&prepare("lockkeeper")?))?);
    }
    if options.includes("heed") {
        let system = ByHand::open(&prepare("heed")?, Safety::Durable)?;
        viewers.push(Box::new(Named("heed", system)));
    }
    Ok(viewers)
}

fn compare(
    session: &mut Session,
    bench: &str,
    threads: usize,
    viewers: &[Box<dyn Viewer>],
) -> Result<(), Failure> {
    let options = &session.options;
    // A view takes less than a microsecond, but the caches take a while to fill.
    let measure = options.round(Duration::from_secs(1));
    let rounds = Rounds::run(viewers.len(), options.rounds, |viewer, round| {
        viewers[viewer].run(Sight {
            from_task: bench == "view-async",
            threads,
            keys: options.view_keys,
            measure,
            seed: round,
        })
    })?;
    let heed = viewers.iter().position(|v| v.name() == "heed");
    let mut rows = Vec::new();
    for (at, viewer) in viewers.iter().enumerate() {
        let value = rounds.value(at).unwrap_or(0.0);
        let mut row = Row::new(bench, viewer.name(), threads, value, "views/s");
        row.ratio_to_heed = heed.and_then(|heed| rounds.ratio(at, heed));
        rows.push(row);
    }
    session.report.show(&rows)
}
