//! 64 callers that each lock two objects in random order, with a yield between: deadlocks all the
//! time among 16 objects, and seldom among 1,000.
//!
//! Deadlocks are looked for when a request blocks. A victim gives up what it has and begins again:
//! ours with the same age, when the older ones have ended, as the docs say; by hand after a yield.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{Locks, Object};

use crate::Session;
use crate::by_hand;
use crate::load::{Round, Tally, Window, drive};
use crate::ours::roomy;
use crate::report::{Row, Target};
use crate::rounds::Rounds;
use crate::work::{Failure, Rng};

const CALLERS: usize = 64;
const ROUND: Duration = Duration::from_secs(1);

/// Bench, objects, what the throughput has to reach, and what the slowest caller has to.
const CASES: [(&str, u64, f64, Target); 2] = [
    ("transfer-16", 16, 0.4, Target::AtLeast(0.5)),
    ("transfer-1000", 1_000, 0.5, Target::None),
];

/// A table that two objects can be locked in.
pub trait Transfers: Clone + Send + Sync + 'static {
    /// Locks the one, yields, locks the other, and does the work; answers how many more attempts
    /// than one it took.
    fn transfer<F>(
        &self,
        from: &Object,
        to: &Object,
        work: F,
    ) -> impl Future<Output = Result<u64, Failure>> + Send
    where
        F: FnOnce() -> Result<(), Failure> + Send;
}

impl Transfers for by_hand::Table {
    async fn transfer<F>(&self, from: &Object, to: &Object, work: F) -> Result<u64, Failure>
    where
        F: FnOnce() -> Result<(), Failure> + Send,
    {
        let mut again = 0;
        let mut owner = self.owner();
        loop {
            let attempt = async {
                owner.lock(from, by_hand::Mode::Write).await?;
                tokio::task::yield_now().await;
                owner.lock(to, by_hand::Mode::Write).await
            };
            match attempt.await {
                Ok(()) => {
                    work()?;
                    owner.release_all();
                    return Ok(again);
                }
                Err(by_hand::Deadlock) => {
                    owner.release_all();
                    tokio::task::yield_now().await;
                    again += 1;
                }
            }
        }
    }
}

/// What is locked, and who is at it: a table that lets two in at once is not worth measuring.
struct Accounts {
    objects: Vec<Object>,
    users: Vec<AtomicU64>,
}

const NOBODY: u64 = 0;

impl Accounts {
    fn new(count: u64) -> Self {
        Self {
            objects: (0..count)
                .map(|n| Object::new("accounts", n.to_be_bytes()))
                .collect(),
            users: (0..count).map(|_| AtomicU64::new(NOBODY)).collect(),
        }
    }

    fn use_both(&self, user: u64, accounts: [usize; 2]) -> Result<(), Failure> {
        for account in accounts {
            if self.users[account].swap(user, Ordering::Relaxed) != NOBODY {
                return Err("two callers hold one account".into());
            }
        }
        for account in accounts {
            if self.users[account].swap(NOBODY, Ordering::Relaxed) != user {
                return Err("two callers hold one account".into());
            }
        }
        Ok(())
    }
}

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    for (bench, objects, at_least, slowest_at_least) in CASES {
        if !session.options.wants(bench) {
            continue;
        }
        let ours = Locks::start(roomy());
        let hand = by_hand::Table::default();
        let accounts = Arc::new(Accounts::new(objects));
        let rounds = Rounds::run(
            2,
            session.options.rounds,
            |contender, round| match contender {
                0 => run(session, &ours, &accounts, round),
                _ => run(session, &hand, &accounts, round),
            },
        )?;
        let again = |contender| rounds.median_of(contender, |round| round.again);
        let slowest = |contender| rounds.median_of(contender, |round| round.slowest);

        let value = rounds.value(0).unwrap_or(0.0);
        let mut speed = Row::new(bench, CALLERS, value, "transfers/s");
        speed.against = rounds.value(1).map(|value| ("by hand", value));
        speed.ratio = rounds.ratio(0, 1);
        speed.target = Target::RatioAtLeast(at_least);
        speed.more = vec![
            ("again", again(0).unwrap_or(0.0)),
            ("again_by_hand", again(1).unwrap_or(0.0)),
        ];
        let bench = format!("{bench}-slowest");
        let mut fair = Row::new(bench, CALLERS, slowest(0).unwrap_or(0.0), "x mean");
        fair.against = slowest(1).map(|figure| ("by hand", figure));
        fair.target = slowest_at_least;
        session.report.show(&[speed, fair])?;
    }
    Ok(())
}

fn run<T: Transfers>(
    session: &Session,
    table: &T,
    accounts: &Arc<Accounts>,
    round: u64,
) -> Result<Round, Failure> {
    let time = session.options.round(ROUND);
    drive(&session.runtime, CALLERS, time, |caller, window| {
        let rng = Rng::seeded(round.wrapping_mul(0x1_0000).wrapping_add(caller as u64));
        let user = caller as u64 + 1;
        Ok(call(table.clone(), Arc::clone(accounts), user, rng, window))
    })
}

async fn call<T: Transfers>(
    table: T,
    accounts: Arc<Accounts>,
    user: u64,
    mut rng: Rng,
    window: Window,
) -> Result<Tally, Failure> {
    let count = accounts.objects.len() as u64;
    let mut tally = Tally::default();
    loop {
        let from = rng.below(count);
        let to = (from + 1 + rng.below(count - 1)) % count;
        let pair = [from as usize, to as usize];
        let [from, to] = pair.map(|account| &accounts.objects[account]);
        let again = table
            .transfer(from, to, || accounts.use_both(user, pair))
            .await?;
        let now = Instant::now();
        if window.is_over(now) {
            return Ok(tally);
        }
        if window.counts(now) {
            tally.done += 1;
            tally.again += again;
        }
    }
}
