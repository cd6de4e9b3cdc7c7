//! The core of supervision against a naive model that knows the rules and nothing of how they are kept, for random and for all
//! short sequences of events. Restarts do not wait in it, so that what has to run is known at each moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lockkeeper::pool_core::{Effect, End, Gating, RunId, Spec, Supervision, Who};
use lockkeeper::{Backoff, OnSilence, PoolState, Restart, Strategy};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;

use crate::supervision::{SECOND, fails, spec};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// The n-th of the runs that there are, modulo their number, ends.
    Ends(usize),
    Fails(usize),
    Passes(u32),
    Scale(usize),
    Pause,
    Resume,
    Drain,
    Stop,
    Open(usize),
    Close(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Paused,
    Draining,
    Drained,
    Stopping,
    Failing,
    Over(PoolState),
}

/// The core, and what is known of it from outside.
#[derive(Clone)]
struct Watched {
    core: Supervision,
    spec: Spec,
    now: Instant,
    phase: Phase,
    target: usize,
    /// Each run that is neither ended nor abandoned: its worker, and whether it was told to stop.
    live: BTreeMap<RunId, (usize, bool)>,
    done: BTreeSet<usize>,
    shut: BTreeSet<usize>,
    group: Option<usize>,
    restarts: Vec<Instant>,
}

impl Watched {
    fn new(spec: Spec) -> Self {
        let now = Instant::now();
        let shut = match spec.gating {
            Gating::Each => (0..8).collect(),
            _ => BTreeSet::new(),
        };
        let mut new = Self {
            core: Supervision::start(spec.clone(), now),
            target: spec.workers,
            spec,
            now,
            phase: Phase::Running,
            live: BTreeMap::new(),
            done: BTreeSet::new(),
            shut,
            group: None,
            restarts: Vec::new(),
        };
        new.check();
        new
    }

    /// Whether a worker may run, its group aside.
    fn may_run(&self, worker: usize) -> bool {
        matches!(self.phase, Phase::Running | Phase::Draining)
            && worker < self.target
            && !self.shut.contains(&worker)
            && !self.done.contains(&worker)
    }

    fn should_run(&self, worker: usize) -> bool {
        self.may_run(worker) && self.group.is_none_or(|from| worker < from)
    }

    fn one_by_one(&self) -> bool {
        self.spec.strategy != Strategy::OneForOne
    }

    fn nth(&self, n: usize) -> Option<RunId> {
        let runs: Vec<_> = self.live.keys().copied().collect();
        runs.get(n % runs.len().max(1)).copied()
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Ends(n) => self.ends(n, End::Normal),
            Event::Fails(n) => self.ends(n, fails()),
            Event::Passes(tenths) => {
                self.now += tenths * SECOND / 10;
                self.core.tick(self.now);
            }
            Event::Scale(workers) => {
                let scaled = self.core.scale(workers, self.now);
                assert_eq!(scaled.is_ok(), self.is_open());
                if scaled.is_ok() {
                    self.target = workers;
                }
            }
            Event::Pause => {
                let paused = self.core.pause(self.now);
                assert_eq!(paused.is_ok(), self.is_open());
                if paused.is_ok() {
                    self.phase = Phase::Paused;
                }
            }
            Event::Resume => {
                let failed = self.phase == Phase::Over(PoolState::Failed);
                let resumed = self.core.resume(self.now);
                assert_eq!(resumed.is_ok(), self.is_open() || failed);
                if resumed.is_ok() {
                    self.phase = Phase::Running;
                }
                if failed {
                    self.restarts.clear();
                    self.done.clear();
                }
            }
            Event::Drain => {
                self.core.drain(self.now + 1000 * SECOND, self.now);
                if self.is_open() {
                    self.phase = if self.spec.fed {
                        Phase::Draining
                    } else {
                        Phase::Drained
                    };
                }
            }
            Event::Stop => {
                self.core.stop(self.now + 1000 * SECOND, self.now);
                if self.is_open() || matches!(self.phase, Phase::Draining | Phase::Drained) {
                    self.phase = Phase::Stopping;
                }
            }
            Event::Open(worker) => {
                self.core.open_gate(Who::One(worker), self.now);
                if self.spec.gating == Gating::Each && worker < self.core.workers().count() {
                    self.shut.remove(&worker);
                }
            }
            Event::Close(worker) => {
                self.core
                    .close_gate(Who::One(worker), self.now + 1000 * SECOND, self.now);
                if self.spec.gating == Gating::Each {
                    self.shut.insert(worker);
                }
            }
        }
        self.check();
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused)
    }

    fn ends(&mut self, n: usize, end: End) {
        let Some(run) = self.nth(n) else { return };
        let (worker, told) = self.live.remove(&run).unwrap();
        let by_itself = !told && self.should_run(worker);
        self.core.ended(run, end.clone(), self.now);
        if !by_itself {
            return;
        }
        let again = match (self.spec.restart, end) {
            (Restart::Temporary, _) | (Restart::Transient, End::Normal) => false,
            (Restart::Permanent, End::Normal) => self.phase != Phase::Draining,
            (_, End::Failed(_)) => true,
        };
        if !again {
            self.done.insert(worker);
            return;
        }
        self.restarts.push(self.now);
        let oldest = self.now.checked_sub(self.spec.within);
        let recent = self
            .restarts
            .iter()
            .filter(|at| oldest.is_none_or(|oldest| **at >= oldest));
        if recent.count() > self.spec.restarts as usize {
            self.phase = Phase::Failing;
            self.group = None;
            return;
        }
        let from = match self.spec.strategy {
            Strategy::OneForOne => return,
            Strategy::OneForAll => 0,
            Strategy::RestForOne => worker,
        };
        self.group = Some(self.group.map_or(from, |other| other.min(from)));
    }

    fn any_live_from(&self, from: usize) -> bool {
        self.live.values().any(|(worker, _)| *worker >= from)
    }

    fn end_group(&mut self) {
        if let Some(from) = self.group
            && !self.any_live_from(from)
        {
            self.group = None;
            if self.spec.restart != Restart::Temporary {
                self.done.retain(|worker| *worker < from);
            }
        }
    }

    /// Follows what the core has decided, and checks each decision, and that none is missing.
    fn check(&mut self) {
        let mut last_start = None;
        for effect in self.core.take_effects() {
            match effect {
                Effect::Start { worker, run, .. } => {
                    self.end_group();
                    assert!(self.should_run(worker), "{worker} must not run");
                    let twice = self.live.values().any(|(other, _)| *other == worker);
                    assert!(!twice, "{worker} runs already");
                    assert!(last_start < Some(worker), "out of order");
                    last_start = Some(worker);
                    self.live.insert(run, (worker, false));
                }
                Effect::Stop { run } => self.told(run),
                Effect::Abandon { run, .. } => {
                    let (_, told) = self.live.remove(&run).unwrap();
                    assert!(told, "it was not told");
                    if self.phase == Phase::Drained {
                        self.phase = Phase::Stopping;
                    }
                }
                _ => {}
            }
        }
        self.end_group();
        self.complete();
    }

    fn told(&mut self, run: RunId) {
        let worker = self.live[&run].0;
        assert!(!self.should_run(worker), "{worker} should go on");
        if self.one_by_one() && !self.shut.contains(&worker) {
            let others = self.live.values();
            assert!(others.clone().all(|(_, told)| !told), "one after another");
            let last = others.filter(|(other, _)| !self.should_run(*other)).max();
            assert_eq!(
                last.map(|(other, _)| *other),
                Some(worker),
                "the last goes first"
            );
        }
        self.live.get_mut(&run).unwrap().1 = true;
    }

    fn complete(&mut self) {
        for worker in 0..self.target {
            let runs = self.live.values().any(|(other, _)| *other == worker);
            assert!(runs || !self.should_run(worker), "{worker} should run");
        }
        let any_told = self.live.values().any(|(_, told)| *told);
        for (worker, told) in self.live.values() {
            let waits = self.one_by_one() && any_told && !self.shut.contains(worker);
            assert!(
                *told || waits || self.should_run(*worker),
                "{worker} was to be told"
            );
        }
        // Numbers that are gone begin anew when they come again.
        let slots = self.core.workers().count();
        self.done.retain(|worker| *worker < slots);
        if self.spec.gating == Gating::Each {
            self.shut.extend(slots..8);
        }
        let state = self.expected_state();
        assert_eq!(self.core.state(), state);
        if let PoolState::Failed | PoolState::Stopped | PoolState::Drained = state {
            self.phase = Phase::Over(state);
        }
        assert_eq!(self.core.live(Who::All).0, self.live.len());
        if let Some(next) = self.core.next_deadline() {
            assert!(next > self.now, "it would be asked again and again");
        }
    }

    fn expected_state(&self) -> PoolState {
        let live = !self.live.is_empty();
        let all_done = (0..self.target).all(|worker| self.done.contains(&worker));
        let more = self.group.is_some() || (0..self.target).any(|worker| self.may_run(worker));
        match self.phase {
            Phase::Running if self.target > 0 && all_done && !live && self.group.is_none() => {
                PoolState::Finished
            }
            Phase::Running => PoolState::Running,
            Phase::Paused if live => PoolState::Pausing,
            Phase::Paused => PoolState::Paused,
            Phase::Draining if live || more => PoolState::Draining,
            Phase::Drained if live => PoolState::Draining,
            Phase::Draining | Phase::Drained => PoolState::Drained,
            Phase::Stopping if live => PoolState::Stopping,
            Phase::Stopping => PoolState::Stopped,
            Phase::Failing if live => PoolState::Failing,
            Phase::Failing => PoolState::Failed,
            Phase::Over(state) => state,
        }
    }

    /// All who were told end, and nobody fails any more: everything heals, or ends.
    fn heals(mut self) {
        for _ in 0..100 {
            let told = self.live.values().position(|(_, told)| *told);
            let Some(n) = told else { break };
            self.happens(Event::Ends(n));
        }
        assert!(self.live.values().all(|(_, told)| !told));
        let expected = (0..self.target)
            .filter(|worker| self.should_run(*worker))
            .count();
        assert_eq!(self.live.len(), expected);
    }
}

const STRATEGIES: [Strategy; 3] = [
    Strategy::OneForOne,
    Strategy::OneForAll,
    Strategy::RestForOne,
];
const RESTARTS: [Restart; 3] = [Restart::Permanent, Restart::Transient, Restart::Temporary];

fn any_event() -> impl proptest::strategy::Strategy<Value = Event> {
    prop_oneof![
        6 => (0..5_usize).prop_map(Event::Ends),
        6 => (0..5_usize).prop_map(Event::Fails),
        3 => (0..40_u32).prop_map(Event::Passes),
        2 => (0..5_usize).prop_map(Event::Scale),
        1 => Just(Event::Pause),
        2 => Just(Event::Resume),
        1 => Just(Event::Drain),
        1 => Just(Event::Stop),
        2 => (0..5_usize).prop_map(Event::Open),
        1 => (0..5_usize).prop_map(Event::Close),
    ]
}

fn any_spec() -> impl proptest::strategy::Strategy<Value = Spec> {
    let choices = (
        0..3_usize,
        0..3_usize,
        0..5_usize,
        0..8_u32,
        any::<bool>(),
        any::<bool>(),
    );
    choices.prop_map(|(strategy, restart, workers, restarts, fed, gated)| Spec {
        strategy: STRATEGIES[strategy],
        restart: RESTARTS[restart],
        workers,
        restarts,
        fed,
        gating: if gated { Gating::Each } else { Gating::None },
        ..spec()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_events_goes_as_the_rules_say(
        spec in any_spec(), events in prop::collection::vec(any_event(), 0..40),
    ) {
        let mut watched = Watched::new(spec);
        for event in events {
            watched.happens(event);
        }
        watched.heals();
    }

    #[test]
    fn with_delays_and_heartbeats_nothing_is_due_twice_and_all_heals(
        spec in any_spec(), events in prop::collection::vec(any_event(), 0..40), replace in any::<bool>(),
    ) {
        let on_silence = if replace { OnSilence::Replace } else { OnSilence::Report };
        let spec = Spec {
            backoff: Backoff::new(SECOND / 10, SECOND, 2.0),
            heartbeat: Some((SECOND, on_silence)),
            grace: SECOND,
            gating: Gating::None,
            ..spec
        };
        timed(spec, &events);
    }
}

/// With time as the driver has it: it comes at each deadline.
fn timed(spec: Spec, events: &[Event]) {
    let mut now = Instant::now();
    let mut core = Supervision::start(spec.clone(), now);
    let mut live = BTreeMap::new();
    let mut given_up = BTreeSet::new();
    let mut follow = |core: &mut Supervision, live: &mut BTreeMap<RunId, usize>| {
        for effect in core.take_effects() {
            match effect {
                Effect::Start { worker, run, .. } => {
                    assert!(
                        live.values().all(|other| *other != worker),
                        "{worker} runs already"
                    );
                    live.insert(run, worker);
                }
                Effect::Abandon { run, .. } => {
                    assert!(live.remove(&run).is_some());
                    given_up.insert(run);
                }
                Effect::EndedLate { run, .. } => assert!(given_up.remove(&run)),
                Effect::Restarts { delay, .. } => assert!(delay <= SECOND),
                _ => {}
            }
        }
    };
    let mut until =
        |core: &mut Supervision, live: &mut BTreeMap<RunId, usize>, end: Instant, heard: bool| {
            let mut turns = 0;
            while let Some(next) = core.next_deadline().filter(|next| *next <= end) {
                assert!(next > now || turns == 0, "asked again at the same time");
                now = next.max(now);
                if heard {
                    live.keys().for_each(|run| core.beat(*run, now));
                }
                core.tick(now);
                follow(core, live);
                turns += 1;
                assert!(turns < 2000, "it does not come to rest");
            }
            now = end;
            core.tick(now);
            follow(core, live);
            now
        };
    let mut at = until(&mut core, &mut live, Instant::now(), true);
    for event in events {
        let run = |n: usize, live: &BTreeMap<RunId, usize>| {
            live.keys().nth(n % live.len().max(1)).copied()
        };
        match *event {
            Event::Ends(n) | Event::Fails(n) => {
                let Some(run) = run(n, &live) else { continue };
                live.remove(&run);
                let end = if matches!(event, Event::Ends(_)) {
                    End::Normal
                } else {
                    fails()
                };
                core.ended(run, end, at);
            }
            Event::Passes(tenths) => {
                at = until(
                    &mut core,
                    &mut live,
                    at + tenths * SECOND / 10,
                    tenths % 2 == 0,
                )
            }
            Event::Scale(workers) => drop(core.scale(workers, at)),
            Event::Pause => drop(core.pause(at)),
            Event::Resume => drop(core.resume(at)),
            Event::Drain => core.drain(at + SECOND, at),
            Event::Stop => core.stop(at + SECOND, at),
            Event::Open(_) | Event::Close(_) => {}
        }
        at = until(&mut core, &mut live, at, true);
    }
    // Nobody fails any more, and all are heard; who is told ends at last.
    let end = until(&mut core, &mut live, at + 60 * SECOND, true);
    let expected = match core.state() {
        PoolState::Running | PoolState::Draining => core.target() - core.counts().done,
        _ => 0,
    };
    assert_eq!(live.len(), expected, "{:?} at {end:?}", core.state());
    assert!(!matches!(
        core.state(),
        PoolState::Stopping | PoolState::Failing | PoolState::Pausing | PoolState::Draining
    ));
}

#[test]
fn every_short_sequence_of_events_goes_as_the_rules_say() {
    const EVENTS: [Event; 9] = [
        Event::Ends(0),
        Event::Ends(1),
        Event::Fails(0),
        Event::Fails(1),
        Event::Scale(1),
        Event::Scale(3),
        Event::Pause,
        Event::Resume,
        Event::Drain,
    ];
    fn all(watched: &Watched, left: u32, count: &mut u64) {
        *count += 1;
        if left == 0 {
            watched.clone().heals();
            return;
        }
        for event in EVENTS {
            let mut next = watched.clone();
            next.happens(event);
            all(&next, left - 1, count);
        }
    }
    let mut count = 0;
    for strategy in STRATEGIES {
        for restart in RESTARTS {
            for fed in [false, true] {
                let spec = Spec {
                    strategy,
                    restart,
                    fed,
                    workers: 2,
                    restarts: 1,
                    within: Duration::from_secs(1),
                    ..spec()
                };
                all(&Watched::new(spec), 4, &mut count);
            }
        }
    }
    assert!(count > 100_000, "{count}");
}
