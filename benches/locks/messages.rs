//! The same by message: 64 callers, one and eight locks in a message.
//!
//! Like is compared with like: a lock is taken by one message and given back by another, and both
//! answers are waited for. `message-1-guard` shows besides what callers gain who let the guard go in
//! place, which an actor around a hash map cannot offer.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::{Addr, System};
use lockkeeper::{LockTable, Object};

use crate::Session;
use crate::bare_actor::{BareActor, Give, GiveMany, Take, TakeMany};
use crate::load::{Round, Tally, Window, drive};
use crate::ours::{Front, ReleaseBy, roomy};
use crate::report::{Row, Target};
use crate::rounds::Rounds;
use crate::uncontended::own_objects;
use crate::work::Failure;

const CALLERS: usize = 64;
const MANY: usize = 8;
const ROUND: Duration = Duration::from_millis(400);

/// A table behind a mailbox.
pub trait ByMessage {
    type Caller: Caller;

    fn caller(&self) -> Result<Self::Caller, Failure>;
}

/// Who sends to it.
pub trait Caller: Send + Sync + 'static {
    /// Takes the object and gives it back.
    fn one(&mut self, object: &Object) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Takes all of the objects in one message, and gives them back in another.
    fn many(&mut self, objects: &[Object]) -> impl Future<Output = Result<(), Failure>> + Send;
}

#[derive(Clone)]
struct Bare {
    actor: Addr<BareActor>,
    owners: Arc<AtomicU64>,
}

struct BareCaller {
    actor: Addr<BareActor>,
    owner: u64,
}

impl ByMessage for Bare {
    type Caller = BareCaller;

    fn caller(&self) -> Result<BareCaller, Failure> {
        Ok(BareCaller {
            actor: self.actor.clone(),
            owner: self.owners.fetch_add(1, Ordering::Relaxed),
        })
    }
}

impl Caller for BareCaller {
    async fn one(&mut self, object: &Object) -> Result<(), Failure> {
        let (owner, object) = (self.owner, object.clone());
        let take = Take {
            owner,
            object: object.clone(),
        };
        let give = Give { owner, object };
        match self.actor.send(take).await? && self.actor.send(give).await? {
            true => Ok(()),
            false => Err("somebody else has the object".into()),
        }
    }

    async fn many(&mut self, objects: &[Object]) -> Result<(), Failure> {
        let take = TakeMany {
            owner: self.owner,
            objects: objects.to_vec(),
        };
        let give = GiveMany {
            owner: self.owner,
            objects: objects.to_vec(),
        };
        match self.actor.send(take).await? && self.actor.send(give).await? {
            true => Ok(()),
            false => Err("somebody else has one of the objects".into()),
        }
    }
}

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    let one = session.options.wants("message-1");
    let many = session.options.wants("message-8");
    if !one && !many {
        return Ok(());
    }
    // Actors want a system to belong to; it need not run, since each has a thread of its own.
    let _system = System::new();
    let (table, locks) = LockTable::start_alone(roomy())?;
    let front = |release| Front {
        table: table.clone(),
        locks: locks.clone(),
        release,
    };
    let (by_message, by_guard) = (front(ReleaseBy::Message), front(ReleaseBy::Guard));
    let bare = Bare {
        actor: BareActor::begin(),
        owners: Arc::default(),
    };
    let time = session.options.round(ROUND);
    let mut rows = Vec::new();
    if one {
        let rounds = Rounds::run(3, session.options.rounds, |contender, _| match contender {
            0 => run(session, &by_message, 1, time),
            1 => run(session, &bare, 1, time),
            _ => run(session, &by_guard, 1, time),
        })?;
        rows.push(row("message-1", &rounds, 0, Target::RatioAtLeast(0.8)));
        rows.push(row("message-1-guard", &rounds, 2, Target::None));
    }
    if many {
        let rounds = Rounds::run(2, session.options.rounds, |contender, _| match contender {
            0 => run(session, &by_message, MANY, time),
            _ => run(session, &bare, MANY, time),
        })?;
        rows.push(row("message-8", &rounds, 0, Target::RatioAtLeast(0.8)));
    }
    session.report.show(&rows)
}

fn row(bench: &str, rounds: &Rounds, contender: usize, target: Target) -> Row {
    let value = rounds.value(contender).unwrap_or(0.0);
    let mut row = Row::new(bench, CALLERS, value, "locks/s");
    row.against = rounds.value(1).map(|value| ("bare actor", value));
    row.ratio = rounds.ratio(contender, 1);
    row.target = target;
    row
}

fn run<T: ByMessage>(
    session: &Session,
    table: &T,
    each: usize,
    time: Duration,
) -> Result<Round, Failure> {
    let objects = own_objects(CALLERS, each);
    drive(&session.runtime, CALLERS, time, |number, window| {
        let objects = Arc::clone(&objects);
        Ok(call(table.caller()?, objects, number, window))
    })
}

async fn call<C: Caller>(
    mut caller: C,
    objects: Arc<Vec<Vec<Object>>>,
    number: usize,
    window: Window,
) -> Result<Tally, Failure> {
    let own = objects.get(number).ok_or("a caller without objects")?;
    let mut tally = Tally::default();
    loop {
        match own.as_slice() {
            [object] => caller.one(object).await?,
            objects => caller.many(objects).await?,
        }
        let now = Instant::now();
        if window.is_over(now) {
            return Ok(tally);
        }
        if window.counts(now) {
            tally.done += own.len() as u64;
        }
    }
}
