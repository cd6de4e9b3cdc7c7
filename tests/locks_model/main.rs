//! The core of the lock table against a naive model of it, step by step.
//!
//! The model keeps flat lists, decides by looking at everything, and finds cycles by transitive
//! closure: slow, and short enough to be seen right. After each step every answer, the order of
//! grants on each object, every victim, and the whole state have to agree.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod model;

use std::collections::{BTreeSet, HashMap};
use std::panic::Location;

use lockkeeper::lock_core::{
    Attempt, Denied, Effect, LockerSpec, Moment, Reason, Request, Table, TableConfig, WaitId,
};
use lockkeeper::{Age, LockerId, Mode, Object};
use model::{Event, Held, Model, ModelLocker, conflict};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Begin {
        age_of: Option<usize>,
        low: bool,
    },
    Request {
        locker: usize,
        object: u8,
        mode: Mode,
        wait: Option<Option<u64>>,
    },
    Unlock {
        locker: usize,
        object: u8,
        mode: Mode,
    },
    ReleaseAll(usize),
    End(usize),
    Withdraw(usize),
    Advance(u64),
    Detect,
}

/// The core and the model side by side.
struct Pair {
    table: Table,
    model: Model,
    ids: Vec<LockerId>,
    waits: Vec<WaitId>,
    arrivals: HashMap<WaitId, usize>,
    /// The object of each wait, by arrival.
    objects: Vec<u8>,
    now: u64,
}

fn object(number: u8) -> Object {
    Object::new("o", [number])
}

impl Pair {
    fn new(on_block: bool) -> Self {
        Self {
            table: Table::new(TableConfig {
                detect_on_block: on_block,
                ..TableConfig::default()
            }),
            model: Model {
                on_block,
                ..Model::default()
            },
            ids: Vec::new(),
            waits: Vec::new(),
            arrivals: HashMap::new(),
            objects: Vec::new(),
            now: 0,
        }
    }

    fn pick(&self, at: usize) -> Option<LockerId> {
        (!self.ids.is_empty()).then(|| self.ids[at % self.ids.len()])
    }

    fn run(&mut self, step: &Step) {
        let mut effects = Vec::new();
        self.model.events.clear();
        match *step {
            Step::Begin { age_of, low } => self.begin(age_of, low),
            Step::Request {
                locker,
                object,
                mode,
                wait,
            } => self.request(locker, object, mode, wait, &mut effects),
            Step::Unlock {
                locker,
                object: number,
                mode,
            } => {
                let Some(id) = self.pick(locker) else { return };
                let done = self.table.unlock(id, &object(number), mode, &mut effects);
                let at = self
                    .model
                    .held
                    .iter()
                    .position(|h| (h.locker, h.object, h.mode) == (id.number(), number, mode));
                assert_eq!(done, at.is_some());
                if let Some(at) = at {
                    self.model.held[at].count -= 1;
                    self.model.held.retain(|held| held.count > 0);
                    self.model.settle();
                }
            }
            Step::ReleaseAll(locker) => {
                let Some(id) = self.pick(locker) else { return };
                self.table.release_all(id, &mut effects);
                self.model.held.retain(|held| held.locker != id.number());
                if let Some(locker) = self.model.lockers.get_mut(&id.number()) {
                    locker.aborted = false;
                }
                self.model.settle();
            }
            Step::End(locker) => {
                let Some(id) = self.pick(locker) else { return };
                let number = id.number();
                let ended = self.table.end(id, &mut effects);
                assert_eq!(ended, self.model.lockers.remove(&number).is_some());
                let waits = self
                    .model
                    .waiting
                    .iter()
                    .filter(|wait| wait.locker == number)
                    .map(|w| Event::Ended(w.arrival));
                self.model.events.extend(waits.collect::<Vec<_>>());
                self.model.waiting.retain(|wait| wait.locker != number);
                self.model.promote();
                self.model.held.retain(|held| held.locker != number);
                self.model.settle();
            }
            Step::Withdraw(at) => {
                let Some(&wait) =
                    (!self.waits.is_empty()).then(|| &self.waits[at % self.waits.len()])
                else {
                    return;
                };
                let arrival = self.arrivals[&wait];
                let before = self.model.waiting.len();
                self.model.waiting.retain(|wait| wait.arrival != arrival);
                assert_eq!(
                    self.table.withdraw(wait, &mut effects),
                    self.model.waiting.len() < before
                );
                self.model.settle();
            }
            Step::Advance(by) => {
                self.now += by;
                while self.table.expire(Moment(self.now), 1, &mut effects) {}
                loop {
                    let due = self
                        .model
                        .waiting
                        .iter()
                        .filter(|wait| wait.deadline.is_some_and(|at| at <= self.now));
                    let Some(first) = due.map(|wait| (wait.deadline, wait.arrival)).min() else {
                        break;
                    };
                    self.model
                        .refuse(|wait| wait.arrival == first.1, Event::Timeout);
                    self.model.settle();
                }
            }
            Step::Detect => {
                let report = self.table.detect(&mut effects);
                let before = self
                    .model
                    .lockers
                    .values()
                    .filter(|locker| locker.aborted)
                    .count();
                self.model.break_cycles();
                let after = self
                    .model
                    .lockers
                    .values()
                    .filter(|locker| locker.aborted)
                    .count();
                assert_eq!(report.victims.len(), after - before);
            }
        }
        self.compare(&effects);
    }

    fn begin(&mut self, age_of: Option<usize>, low: bool) {
        let age: Option<Age> = age_of
            .and_then(|at| self.pick(at))
            .and_then(|id| self.table.age(id));
        let priority = if low { 50 } else { 100 };
        let id = self
            .table
            .begin(LockerSpec::new().age(age).priority(priority))
            .unwrap();
        self.ids.push(id);
        self.model.made += 1;
        assert_eq!(id.number(), self.model.made);
        let age = age.map_or_else(
            || {
                self.model.ages += 1;
                self.model.ages
            },
            Age::number,
        );
        self.model.lockers.insert(
            id.number(),
            ModelLocker {
                age,
                priority,
                aborted: false,
            },
        );
    }

    fn request(
        &mut self,
        locker: usize,
        number: u8,
        mode: Mode,
        wait: Option<Option<u64>>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(id) = self.pick(locker) else { return };
        let wait = wait.map(|within| within.map(|within| self.now + within));
        let object = object(number);
        let request = Request {
            locker: id,
            object: &object,
            mode,
            site: Location::caller(),
        };
        let answer = match wait {
            None => match self.table.try_lock(request, effects) {
                Ok(Attempt::Granted) => Ok(None),
                Ok(Attempt::Blocked) => Err(()),
                Err(Denied::Ended) => Err(()),
                Err(other) => panic!("{other:?}"),
            },
            Some(deadline) => {
                match self
                    .table
                    .request(Moment(self.now), request, deadline.map(Moment), effects)
                {
                    Ok(answer) => Ok(answer),
                    Err(Denied::Ended) => Err(()),
                    Err(other) => panic!("{other:?}"),
                }
            }
        };
        let answer = answer.map(|wait| {
            wait.map(|wait| {
                self.waits.push(wait);
                self.objects.push(number);
                self.arrivals.insert(wait, self.arrivals.len());
                self.arrivals[&wait]
            })
        });
        assert_eq!(answer, self.model.request(id.number(), number, mode, wait));
    }

    fn compare(&self, effects: &[Effect]) {
        let mut events = Vec::new();
        for effect in effects {
            match effect {
                Effect::Granted(wait) => events.push(Event::Granted(self.arrivals[wait])),
                Effect::Refused(wait, reason) => {
                    let at = self.arrivals[wait];
                    events.push(match reason {
                        Reason::Deadlock(conflict) => {
                            assert_is_cycle(conflict);
                            Event::Deadlock(at)
                        }
                        Reason::Timeout(_) => Event::Timeout(at),
                        Reason::Ended => Event::Ended(at),
                        Reason::ShuttingDown => panic!("nobody shut down"),
                    });
                }
                Effect::Ended(_) => {}
            }
        }
        let mut expected = self.model.events.clone();
        for number in 0..4 {
            let granted = |events: &[Event]| -> Vec<Event> {
                let here = |event: &&Event| matches!(event, Event::Granted(at) if self.objects[*at] == number);
                events.iter().filter(here).copied().collect()
            };
            assert_eq!(
                granted(&events),
                granted(&expected),
                "the order of grants on object {number}"
            );
        }
        events.sort();
        expected.sort();
        assert_eq!(events, expected);

        let snapshot = self.table.snapshot();
        let held: Vec<Held> = snapshot
            .held
            .iter()
            .map(|h| Held {
                object: h.object.key()[0],
                locker: h.locker.number(),
                mode: h.mode,
                count: h.count,
            })
            .collect();
        let mut expected = self.model.held.clone();
        expected.sort();
        assert_eq!(held, expected);
        for (at, lock) in held.iter().enumerate() {
            for other in &held[at + 1..] {
                let together = lock.object == other.object && lock.locker != other.locker;
                assert!(
                    !together || !conflict(lock.mode, other.mode),
                    "{lock:?} beside {other:?}"
                );
            }
        }
        let waiting: Vec<_> = snapshot
            .waiting
            .iter()
            .map(|w| (w.object.key()[0], w.locker.number(), w.mode))
            .collect();
        let mut order = self.model.waiting.clone();
        order.sort_by_key(|wait| (wait.object, self.model.place(wait)));
        let expected: Vec<_> = order
            .iter()
            .map(|wait| (wait.object, wait.locker, wait.mode))
            .collect();
        assert_eq!(waiting, expected);

        let stats = self.table.stats();
        let objects: BTreeSet<u8> = held
            .iter()
            .map(|held| held.object)
            .chain(order.iter().map(|wait| wait.object))
            .collect();
        assert_eq!(stats.objects.now, objects.len());
        assert_eq!(stats.locks.now, held.len() + order.len());
        assert_eq!(stats.waiting, order.len());
        assert_eq!(stats.lockers.now, self.model.lockers.len());
        let first = order.iter().filter_map(|wait| wait.deadline).min();
        assert_eq!(self.table.next_deadline(), first.map(Moment));
        if self.model.on_block {
            assert_eq!(self.model.knots(), Vec::<Vec<u64>>::new());
        }
    }
}

/// Each step of a reported cycle leads to the next, the last to the first, and the victim is asked first.
fn assert_is_cycle(conflict: &lockkeeper::Conflict) {
    assert!(conflict.cycle.len() >= 2, "{conflict}");
    assert_eq!(
        conflict.cycle[0].waiter.locker, conflict.asker.locker,
        "{conflict}"
    );
    for (at, step) in conflict.cycle.iter().enumerate() {
        let next = &conflict.cycle[(at + 1) % conflict.cycle.len()];
        assert_eq!(step.blocker.locker, next.waiter.locker, "{conflict}");
    }
}

fn step() -> impl Strategy<Value = Step> {
    let mode = || prop_oneof![Just(Mode::Read), Just(Mode::Write)];
    let wait = prop_oneof![
        1 => Just(None),
        6 => Just(Some(None)),
        3 => (1..30_u64).prop_map(|within| Some(Some(within))),
    ];
    prop_oneof![
        3 => (proptest::option::of(any::<usize>()), proptest::bool::weighted(0.2))
            .prop_map(|(age_of, low)| Step::Begin { age_of, low }),
        30 => (any::<usize>(), 0..4_u8, mode(), wait)
            .prop_map(|(locker, object, mode, wait)| Step::Request { locker, object, mode, wait }),
        8 => (any::<usize>(), 0..4_u8, mode()).prop_map(|(locker, object, mode)| Step::Unlock { locker, object, mode }),
        3 => any::<usize>().prop_map(Step::ReleaseAll),
        2 => any::<usize>().prop_map(Step::End),
        4 => any::<usize>().prop_map(Step::Withdraw),
        4 => (1..12_u64).prop_map(Step::Advance),
        2 => Just(Step::Detect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_core_agrees_with_the_model(
        on_block in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let mut pair = Pair::new(on_block);
        for _ in 0..4 {
            pair.run(&Step::Begin { age_of: None, low: false });
        }
        for step in &steps {
            pair.run(step);
        }
        // Liveness: when everybody ends, nothing is left.
        for locker in 0..pair.ids.len() {
            pair.run(&Step::End(locker));
        }
        prop_assert_eq!(pair.table.stats().locks.now, 0);
        prop_assert_eq!(pair.table.stats().objects.now, 0);
    }
}

/// All histories of five steps of three lockers on two objects in both modes with detection on block,
/// and of four without, where a full pass of the detector comes after them. The first step is the first locker's on
/// the first object: names make no difference.
#[test]
fn three_lockers_on_two_objects_in_every_order() {
    let mut steps = Vec::new();
    for locker in 0..3 {
        for object in 0..2 {
            for mode in Mode::ALL {
                steps.push(Step::Request {
                    locker,
                    object,
                    mode,
                    wait: Some(None),
                });
            }
        }
        steps.push(Step::ReleaseAll(locker));
    }
    for on_block in [true, false] {
        for first in 0..Mode::COUNT {
            let rest_of_them = if on_block { 4 } else { 3 };
            for history in 0..steps.len().pow(rest_of_them) {
                let mut pair = Pair::new(on_block);
                for _ in 0..3 {
                    pair.run(&Step::Begin {
                        age_of: None,
                        low: false,
                    });
                }
                pair.run(&steps[first]);
                let mut rest = history;
                for _ in 0..rest_of_them {
                    pair.run(&steps[rest % steps.len()]);
                    rest /= steps.len();
                }
                pair.run(&Step::Detect);
            }
        }
    }
}
