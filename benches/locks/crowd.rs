//! One object that many wait for: what one more request costs, and one release.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lockkeeper::{Locker, Locks, Mode, Object};

use crate::Session;
use crate::load::Round;
use crate::ours::roomy;
use crate::report::{Row, Target};
use crate::rounds::Rounds;
use crate::waiting::{Holder, Waiter, ask_and_withdraw, locker};
use crate::work::Failure;

const FEW: usize = 100;
const MANY: usize = 10_000;
/// Repetitions in a round, a few thousand microseconds in all.
const TIMES: u32 = 2_000;

/// All write, or every other one reads.
const SHAPES: [(&str, &[Mode]); 2] = [
    ("writers", &[Mode::Write]),
    ("mixed", &[Mode::Write, Mode::Read]),
];

/// An object, who holds it, and the line behind.
struct Crowd {
    object: Object,
    modes: &'static [Mode],
    joined: usize,
    holder: Option<Holder>,
    line: VecDeque<Waiter>,
    bystander: Arc<Locker>,
}

impl Crowd {
    fn gather(locks: &Locks, size: usize, modes: &'static [Mode]) -> Result<Self, Failure> {
        let object = Object::new("crowd", "object");
        let mut crowd = Self {
            holder: Some(Holder::take(locker(locks)?, &object, Mode::Write)?),
            object,
            modes,
            joined: 0,
            line: VecDeque::with_capacity(size + 1),
            bystander: locker(locks)?,
        };
        for _ in 0..size {
            crowd.join(locker(locks)?)?;
        }
        Ok(crowd)
    }

    fn join(&mut self, locker: Arc<Locker>) -> Result<(), Failure> {
        let mode = self.modes[self.joined % self.modes.len()];
        self.joined += 1;
        self.line
            .push_back(Waiter::queue(locker, &self.object, mode)?);
        Ok(())
    }

    /// One more asks, and leaves again.
    fn request(&mut self) -> Result<Duration, Failure> {
        ask_and_withdraw(&self.bystander, &self.object, Mode::Write)
    }

    /// Who holds the object gives it to the first in the line, and stands behind the last.
    fn release(&mut self) -> Result<Duration, Failure> {
        let holder = self.holder.take().ok_or("nobody holds the object")?;
        let (locker, took) = holder.release()?;
        let next = self.line.pop_front().ok_or("nobody waits")?;
        self.holder = Some(next.granted()?);
        self.join(locker)?;
        Ok(took)
    }
}

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("crowd") {
        return Ok(());
    }
    let mut rows = Vec::new();
    for (shape, modes) in SHAPES {
        // A table each, and the futures of the waiters before their table.
        let (few_locks, many_locks) = (Locks::start(roomy()), Locks::start(roomy()));
        let mut crowds = [
            Crowd::gather(&many_locks, MANY, modes)?,
            Crowd::gather(&few_locks, FEW, modes)?,
        ];
        for (what, step) in [
            ("request", Crowd::request as fn(&mut Crowd) -> _),
            ("release", Crowd::release),
        ] {
            let rounds = Rounds::run(crowds.len(), session.options.rounds, |contender, _| {
                let mut took = Duration::ZERO;
                for _ in 0..TIMES {
                    took += step(&mut crowds[contender])?;
                }
                Ok(Round::of(f64::from(TIMES) / took.as_secs_f64()))
            })?;
            let ns = |contender| rounds.value(contender).map_or(0.0, |rate| 1e9 / rate);
            let mut row = Row::new(format!("crowd-{what}-{shape}"), MANY, ns(0), "ns");
            row.against = Some(("100 waiters", ns(1)));
            // The cost, and not the rate: those of the few by those of the many.
            row.ratio = rounds.ratio(1, 0);
            row.target = Target::RatioAtMost(2.0);
            rows.push(row);
        }
    }
    session.report.show(&rows)
}
