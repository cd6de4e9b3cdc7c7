//! One full pass of the detector over graphs of a thousand to a hundred thousand waiting lockers.
//!
//! What it has to reach is growth: ten times the lockers may take ten times as long, and a little more
//! for the sorting. `ratio` is the growth from a thousand lockers on by that of `n log n`, so 1 is exactly
//! `n log n`.
//!
//! A pass comes once in a second, after others have used the processor's caches, so each begins with
//! cold ones here too. It would also not be growth of the algorithm that a small graph stays in them.

use std::time::{Duration, Instant};

use lockkeeper::{LockConfig, Locks, Mode, Object};

use crate::Session;
use crate::load::Round;
use crate::ours::roomy;
use crate::report::{Row, Target};
use crate::rounds::Rounds;
use crate::waiting::{Holder, Waiter, locker};
use crate::work::Failure;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// Small graphs are walked again until a round has seen so many lockers.
const LOCKERS_A_ROUND: usize = 10_000;
/// More than the caches hold.
const COLD: usize = 64 << 20;
/// The length of a line of the cache.
const LINE: usize = 64;

#[derive(Clone, Copy)]
enum Shape {
    /// Each waits for the next, and the last waits for nobody.
    Chain,
    /// Rings of so many, each of which the pass breaks.
    Rings(usize),
    /// All wait for one object.
    Crowd,
}

const SHAPES: [(&str, Shape); 4] = [
    ("pass-chain", Shape::Chain),
    ("pass-rings-of-2", Shape::Rings(2)),
    ("pass-rings-of-10", Shape::Rings(10)),
    ("pass-one-object", Shape::Crowd),
];

/// A table in which so many lockers wait. The waits go before the locks, and these before the table.
struct Graph {
    waits: Vec<Waiter>,
    _held: Vec<Holder>,
    locks: Locks,
}

impl Graph {
    fn build(shape: Shape, size: usize) -> Result<Self, Failure> {
        let locks = Locks::start(LockConfig {
            detect_on_block: false,
            detect_interval: Duration::ZERO,
            ..roomy()
        });
        let object = |n: usize| Object::new("graph", (n as u64).to_be_bytes());
        let holders = match shape {
            Shape::Chain => size + 1,
            Shape::Rings(_) => size,
            Shape::Crowd => 1,
        };
        let mut held = Vec::with_capacity(holders);
        for n in 0..holders {
            held.push(Holder::take(locker(&locks)?, &object(n), Mode::Write)?);
        }
        let mut waits = Vec::with_capacity(size);
        if let Shape::Crowd = shape {
            for _ in 0..size {
                waits.push(Waiter::queue(locker(&locks)?, &object(0), Mode::Write)?);
            }
        } else {
            for (n, holder) in held.iter().take(size).enumerate() {
                let next = match shape {
                    Shape::Rings(of) => n - n % of + (n + 1) % of,
                    Shape::Chain | Shape::Crowd => n + 1,
                };
                let who = holder.locker.clone();
                waits.push(Waiter::queue(who, &object(next), Mode::Write)?);
            }
        }
        Ok(Self {
            waits,
            _held: held,
            locks,
        })
    }

    /// One pass; answers how long it took.
    fn pass(&self, victims: usize, cold: &mut [u8]) -> Result<Duration, Failure> {
        for byte in cold.iter_mut().step_by(LINE) {
            *byte = byte.wrapping_add(1);
        }
        std::hint::black_box(cold);
        let begun = Instant::now();
        let report = self.locks.detect();
        let took = begun.elapsed();
        match report.victims.len() == victims {
            true => Ok(took),
            false => Err(format!("{} victims, not {victims}", report.victims.len()).into()),
        }
    }
}

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("pass") {
        return Ok(());
    }
    let mut cold = vec![0; COLD];
    for (bench, shape) in SHAPES {
        let rounds = Rounds::run(SIZES.len(), session.options.rounds, |contender, _| {
            one_round(shape, SIZES[contender], &mut cold)
        })?;
        let mut rows = Vec::new();
        for (contender, &size) in SIZES.iter().enumerate() {
            let ns = |contender| rounds.value(contender).map_or(0.0, |rate| 1e9 / rate);
            let mut row = Row::new(bench, size, ns(contender), "ns/waiter");
            row.more = vec![("pass_ms", ns(contender) * size as f64 / 1e6)];
            if contender > 0 {
                let logarithms = (size as f64).ln() / (SIZES[0] as f64).ln();
                row.against = Some(("1,000 waiters", ns(0)));
                // Of what one waiter costs: the lockers themselves cancel out.
                row.ratio = rounds.ratio(0, contender).map(|r| r / logarithms);
                row.target = Target::RatioAtMost(1.0);
            }
            rows.push(row);
        }
        session.report.show(&rows)?;
    }
    Ok(())
}

/// How many waiters the pass takes care of in a second.
fn one_round(shape: Shape, size: usize, cold: &mut [u8]) -> Result<Round, Failure> {
    let passes = LOCKERS_A_ROUND.div_ceil(size);
    let mut took = Duration::ZERO;
    let mut waiters = 0;
    match shape {
        // Each pass leaves no ring behind.
        Shape::Rings(of) => {
            for _ in 0..passes {
                let graph = Graph::build(shape, size)?;
                took += graph.pass(size / of, cold)?;
                waiters += graph.waits.len();
            }
        }
        Shape::Chain | Shape::Crowd => {
            let graph = Graph::build(shape, size)?;
            for _ in 0..passes {
                took += graph.pass(0, cold)?;
                waiters += graph.waits.len();
            }
        }
    }
    Ok(Round::of(waiters as f64 / took.as_secs_f64()))
}
