//! What detection on block adds to a request that blocks, with 100 and with 10,000 waiters in the table.
//!
//! It depends on where the request stands in the graph of waits, so there are three cases:
//!
//! - `block-bystander`: nobody waits for whoever asks, so it cannot close a cycle;
//! - `block-wanted`: all the waiters wait for whoever asks, who asks for something whose holder is free;
//! - `block-between`: half of them wait for whoever asks, the other half for what it asks for.

use std::sync::Arc;
use std::time::Duration;

use lockkeeper::{LockConfig, Locker, Locks, Mode, Object};

use crate::Session;
use crate::load::Round;
use crate::ours::roomy;
use crate::report::Row;
use crate::rounds::Rounds;
use crate::waiting::{Holder, Waiter, ask_and_withdraw, locker};
use crate::work::Failure;

const SIZES: [usize; 2] = [100, 10_000];
/// A round ends when it has asked so often, or when so much time has gone.
const TIMES: u32 = 2_000;
const LONG_ENOUGH: Duration = Duration::from_millis(50);

#[derive(Clone, Copy)]
enum Place {
    Bystander,
    Wanted,
    Between,
}

const PLACES: [(&str, Place); 3] = [
    ("block-bystander", Place::Bystander),
    ("block-wanted", Place::Wanted),
    ("block-between", Place::Between),
];

/// A table with its waiters, and the one who asks. The waits go before the locks.
struct Scene {
    _waits: Vec<Waiter>,
    _held: Vec<Holder>,
    asker: Arc<Locker>,
    wanted: Object,
}

impl Scene {
    fn set(place: Place, size: usize, detect_on_block: bool) -> Result<Self, Failure> {
        let locks = Locks::start(LockConfig {
            detect_on_block,
            detect_interval: Duration::ZERO,
            ..roomy()
        });
        let object = |name: &str| Object::new("scene", name);
        let (own, wanted, other) = (object("own"), object("wanted"), object("other"));
        let asker = locker(&locks)?;
        let mut held = vec![
            Holder::take(Arc::clone(&asker), &own, Mode::Write)?,
            Holder::take(locker(&locks)?, &wanted, Mode::Write)?,
            Holder::take(locker(&locks)?, &other, Mode::Write)?,
        ];
        if let Place::Bystander = place {
            // It holds nothing that anybody could want.
            held.remove(0).release()?;
        }
        let mut waits = Vec::with_capacity(size);
        for n in 0..size {
            let object = match place {
                Place::Bystander => &other,
                Place::Wanted => &own,
                Place::Between if n % 2 == 0 => &own,
                Place::Between => &wanted,
            };
            waits.push(Waiter::queue(locker(&locks)?, object, Mode::Write)?);
        }
        Ok(Self {
            _waits: waits,
            _held: held,
            asker,
            wanted,
        })
    }

    fn ask(&self) -> Result<Round, Failure> {
        let (mut took, mut times) = (Duration::ZERO, 0);
        while times < TIMES && took < LONG_ENOUGH {
            took += ask_and_withdraw(&self.asker, &self.wanted, Mode::Write)?;
            times += 1;
        }
        Ok(Round::of(f64::from(times) / took.as_secs_f64()))
    }
}

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("block") {
        return Ok(());
    }
    let mut rows = Vec::new();
    for (bench, place) in PLACES {
        for size in SIZES {
            let scenes = [
                Scene::set(place, size, true)?,
                Scene::set(place, size, false)?,
            ];
            let rounds = Rounds::run(scenes.len(), session.options.rounds, |contender, _| {
                scenes[contender].ask()
            })?;
            let us = |contender| rounds.value(contender).map_or(0.0, |rate| 1e6 / rate);
            let mut row = Row::new(bench, size, us(0), "us");
            row.against = Some(("no detection", us(1)));
            row.ratio = rounds.ratio(1, 0);
            row.more = vec![("detection_us", us(0) - us(1))];
            rows.push(row);
        }
    }
    session.report.show(&rows)
}
