//! A lock that nobody else wants, and its release, in place: what a lock costs at the least.
//!
//! Each task has an object of its own and a locker for as long as it lives.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockkeeper::{Locks, Object};

use crate::Session;
use crate::by_hand;
use crate::load::{PAIRS_AT_ONCE, Round, Tally, Window, drive};
use crate::ours::roomy;
use crate::report::{Row, Target};
use crate::rounds::Rounds;
use crate::work::Failure;

const TASKS: [usize; 3] = [1, 64, 1_024];
const ROUND: Duration = Duration::from_millis(300);

/// A table whose locks are taken on the caller's thread.
pub trait InPlace {
    type Holder: Holder;

    fn holder(&self) -> Result<Self::Holder, Failure>;
}

/// Who holds a lock of it.
pub trait Holder: Send + Sync + 'static {
    /// Takes the object and gives it back.
    fn pair(&mut self, object: &Object) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl InPlace for by_hand::Table {
    type Holder = by_hand::Owner;

    fn holder(&self) -> Result<by_hand::Owner, Failure> {
        Ok(self.owner())
    }
}

impl Holder for by_hand::Owner {
    async fn pair(&mut self, object: &Object) -> Result<(), Failure> {
        self.lock(object, by_hand::Mode::Write).await?;
        match self.unlock(object, by_hand::Mode::Write) {
            true => Ok(()),
            false => Err("what was locked is not held".into()),
        }
    }
}

/// The objects that callers lock: one each, or `each` of them.
pub fn own_objects(callers: usize, each: usize) -> Arc<Vec<Vec<Object>>> {
    let object = |number: usize| Object::new("accounts", (number as u64).to_be_bytes());
    let of_caller = |caller: usize| (0..each).map(|n| object(caller * each + n)).collect();
    Arc::new((0..callers).map(of_caller).collect())
}

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("uncontended") {
        return Ok(());
    }
    let ours = Locks::start(roomy());
    let hand = by_hand::Table::default();
    let time = session.options.round(ROUND);
    let mut rows = Vec::new();
    for tasks in TASKS {
        let rounds = Rounds::run(2, session.options.rounds, |contender, _| match contender {
            0 => run(session, &ours, tasks, time),
            _ => run(session, &hand, tasks, time),
        })?;
        let mut row = Row::new(
            "uncontended",
            tasks,
            rounds.value(0).unwrap_or(0.0),
            "pairs/s",
        );
        row.against = rounds.value(1).map(|value| ("by hand", value));
        row.ratio = rounds.ratio(0, 1);
        row.target = Target::RatioAtLeast(0.5);
        rows.push(row);
    }
    session.report.show(&rows)
}

fn run<T: InPlace>(
    session: &Session,
    table: &T,
    tasks: usize,
    time: Duration,
) -> Result<Round, Failure> {
    let objects = own_objects(tasks, 1);
    drive(&session.runtime, tasks, time, |task, window| {
        Ok(pairs(table.holder()?, Arc::clone(&objects), task, window))
    })
}

async fn pairs<H: Holder>(
    mut holder: H,
    objects: Arc<Vec<Vec<Object>>>,
    task: usize,
    window: Window,
) -> Result<Tally, Failure> {
    let object = objects
        .get(task)
        .and_then(|own| own.first())
        .ok_or("a task without an object")?;
    let mut tally = Tally::default();
    loop {
        for _ in 0..PAIRS_AT_ONCE {
            holder.pair(object).await?;
        }
        let now = Instant::now();
        if window.is_over(now) {
            return Ok(tally);
        }
        if window.counts(now) {
            tally.done += PAIRS_AT_ONCE;
        }
        tokio::task::yield_now().await;
    }
}
